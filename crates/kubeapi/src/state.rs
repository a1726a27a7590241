use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::ByteString;
use serde::Deserialize;

mod routes;
mod target;

pub use routes::{OfferedRoutes, RouteStanding};
pub use target::{MissingTarget, TargetProblem};

/// What a proxy said about itself in its state Secret.
///
/// A proxy may write what it likes there, so every value is bounded and one that does not parse counts as absent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProxyState {
    /// The stable id of its device, as soon as it is registered.
    pub device_id: Option<String>,
    /// Its whole name in the tailnet, without a dot at the end.
    pub device_fqdn: Option<String>,
    /// Its addresses in the tailnet.
    pub device_ips: Vec<IpAddr>,
    /// Who wrote this.
    pub pod: Option<PodIdentity>,
    /// Whether it wants another auth key.
    pub reissue: Option<Reissue>,
    /// Why its target is not there, of an egress.
    pub missing_target: Option<MissingTarget>,
    /// What becomes of the routes that it offers, of a Connector; a stock proxy does not say it.
    pub routes: Option<OfferedRoutes>,
}

/// The pod that wrote a state, and what it can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodIdentity {
    /// The pod's UID.
    pub uid: String,
    /// The capability version of the client in it.
    pub capability_version: Option<u32>,
}

/// A proxy can't log in with what it was given.
#[derive(Clone, PartialEq, Eq)]
pub enum Reissue {
    /// It has no key.
    NoKey,
    /// This key does not work.
    Failed(String),
}

impl std::fmt::Debug for Reissue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoKey => f.write_str("NoKey"),
            Self::Failed(_) => f.write_str("Failed(…)"),
        }
    }
}

/// Keys of the state Secret's data.
pub mod keys {
    /// The device's stable id.
    pub const DEVICE_ID: &str = "device_id";
    /// The device's whole name.
    pub const DEVICE_FQDN: &str = "device_fqdn";
    /// The device's addresses, a JSON list.
    pub const DEVICE_IPS: &str = "device_ips";
    /// The UID of the pod that wrote them.
    pub const POD_UID: &str = "pod_uid";
    /// The capability version of that pod's client.
    pub const CAPABILITY_VERSION: &str = "tailscale_capver";
    /// The auth key that does not work.
    pub const REISSUE_AUTH_KEY: &str = "reissue_authkey";
    /// Ours: why the target of an egress is not there.
    pub const MISSING_TARGET: &str = "towline_missing_target";
    /// Ours: what becomes of the routes that a Connector's proxy offers.
    pub const ROUTES: &str = "towline_routes";
    /// The name of the key with the profile in use.
    pub const CURRENT_PROFILE: &str = "_current-profile";
    /// What stands in [`REISSUE_AUTH_KEY`] when there is no key.
    pub const NO_AUTH_KEY: &str = "no-authkey";
}

/// The longest of each value that is believed.
const MAX_ID: usize = 64;
const MAX_FQDN: usize = 255;
const MAX_IPS: usize = 16;
const MAX_KEY: usize = 512;

/// The part of a profile that says which device this is.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Profile {
    config: ProfileConfig,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ProfileConfig {
    #[serde(rename = "NodeID")]
    node_id: String,
    #[serde(rename = "UserProfile")]
    user_profile: UserProfile,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct UserProfile {
    login_name: String,
}

impl ProxyState {
    /// Reads the data of a state Secret.
    pub fn read(data: &BTreeMap<String, ByteString>) -> Self {
        let text = |key: &str, longest: usize| {
            let bytes = &data.get(key)?.0;
            let text = std::str::from_utf8(bytes).ok()?.trim();
            (!text.is_empty() && text.len() <= longest).then(|| text.to_owned())
        };
        let profile = Self::profile(data);
        let device_id = text(keys::DEVICE_ID, MAX_ID).or_else(|| Some(profile.as_ref()?.config.node_id.clone()));
        let fqdn = text(keys::DEVICE_FQDN, MAX_FQDN).or_else(|| {
            Some(profile.as_ref()?.config.user_profile.login_name.clone()).filter(|name| name.contains('.'))
        });
        let ips = data.get(keys::DEVICE_IPS).and_then(|bytes| serde_json::from_slice::<Vec<IpAddr>>(&bytes.0).ok());
        let pod = text(keys::POD_UID, MAX_ID).map(|uid| PodIdentity {
            uid,
            capability_version: text(keys::CAPABILITY_VERSION, MAX_ID).and_then(|version| version.parse().ok()),
        });
        let reissue = text(keys::REISSUE_AUTH_KEY, MAX_KEY).map(|key| match key.as_str() {
            keys::NO_AUTH_KEY => Reissue::NoKey,
            _ => Reissue::Failed(key),
        });
        let writer = pod.as_ref().map(|pod| pod.uid.as_str());
        let missing_target = data.get(keys::MISSING_TARGET).and_then(|bytes| MissingTarget::read(&bytes.0, writer?));
        let routes = data.get(keys::ROUTES).and_then(|bytes| OfferedRoutes::read(&bytes.0, writer?));
        Self {
            device_id: device_id.filter(|id| is_id(id)),
            device_fqdn: fqdn.map(|name| name.trim_end_matches('.').to_owned()).filter(|name| is_name(name)),
            device_ips: ips.filter(|ips| ips.len() <= MAX_IPS).unwrap_or_default(),
            pod,
            reissue,
            missing_target,
            routes,
        }
    }

    /// Whether the proxy is a device of the tailnet with an address.
    pub fn is_logged_in(&self) -> bool {
        self.device_id.is_some() && self.device_fqdn.is_some() && !self.device_ips.is_empty() && self.reissue.is_none()
    }

    fn profile(data: &BTreeMap<String, ByteString>) -> Option<Profile> {
        let name = std::str::from_utf8(&data.get(keys::CURRENT_PROFILE)?.0).ok()?;
        serde_json::from_slice(&data.get(name)?.0).ok()
    }
}

/// Ids go into paths of requests, so only what ids are made of is believed.
fn is_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Names go into status fields that others resolve.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn data(pairs: &[(&str, &str)]) -> BTreeMap<String, ByteString> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec()))).collect()
    }

    #[test]
    fn what_a_stock_proxy_writes_is_read() {
        let state = ProxyState::read(&data(&[
            ("device_id", "nAbc123CNTRL"),
            ("device_fqdn", "home-web.taila31de.ts.net."),
            ("device_ips", r#"["100.64.0.7","fd7a:115c:a1e0::7"]"#),
            ("pod_uid", "1-2"),
            ("tailscale_capver", "131"),
        ]));
        assert!(state.is_logged_in());
        assert_eq!(state.device_fqdn.as_deref(), Some("home-web.taila31de.ts.net"));
        assert_eq!(state.pod, Some(PodIdentity { uid: "1-2".to_owned(), capability_version: Some(131) }));
    }

    #[test]
    fn the_device_is_found_in_the_profile_when_nothing_else_names_it() {
        let profile =
            r#"{"Config":{"NodeID":"nXyz","UserProfile":{"LoginName":"a.b.ts.net"}},"AdvertiseServices":null}"#;
        let state = ProxyState::read(&data(&[("_current-profile", "profile-1a2b"), ("profile-1a2b", profile)]));
        assert_eq!(state.device_id.as_deref(), Some("nXyz"));
        assert_eq!(state.device_fqdn.as_deref(), Some("a.b.ts.net"));
        assert!(!state.is_logged_in());
    }

    #[test]
    fn a_key_that_failed_means_not_logged_in_and_is_not_shown() {
        let state = ProxyState::read(&data(&[("reissue_authkey", "tskey-auth-secret")]));
        assert_eq!(state.reissue, Some(Reissue::Failed("tskey-auth-secret".to_owned())));
        assert!(!format!("{state:?}").contains("secret"));
        assert_eq!(ProxyState::read(&data(&[("reissue_authkey", "no-authkey")])).reissue, Some(Reissue::NoKey));
    }

    #[test]
    fn an_id_that_would_change_a_path_is_not_believed() {
        for id in ["../../tailnet/-/keys", "a/b", "a%2fb", "a b", "", &"a".repeat(65)] {
            assert_eq!(ProxyState::read(&data(&[("device_id", id)])).device_id, None, "{id}");
        }
    }

    proptest! {
        #[test]
        fn any_state_is_read(
            pairs in proptest::collection::btree_map(
                proptest::sample::select(vec![
                    "device_id", "device_fqdn", "device_ips", "pod_uid", "reissue_authkey", "towline_missing_target",
                    "towline_routes", "_current-profile", "p",
                ]),
                proptest::collection::vec(any::<u8>(), 0..80),
                0..7,
            )
        ) {
            let data = pairs.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value))).collect();
            ProxyState::read(&data);
        }
    }
}
