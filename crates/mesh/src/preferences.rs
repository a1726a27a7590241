use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tailcfg::{StableNodeId, go};

/// What the user wants of the node, with the field names of the LocalAPI's JSON (`ipn.Prefs`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Preferences {
    /// The coordination server.
    #[serde(rename = "ControlURL")]
    pub control_url: String,
    /// Whether routes to subnets that peers serve are used (`--accept-routes`).
    pub route_all: bool,
    /// The exit node in use, by its stable id.
    #[serde(rename = "ExitNodeID")]
    pub exit_node_id: StableNodeId,
    /// The exit node in use, by address, until the map says who that is.
    #[serde(rename = "ExitNodeIP", with = "go::optional_text")]
    pub exit_node_ip: Option<IpAddr>,
    /// Which exit node is chosen by itself; unused.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub auto_exit_node: String,
    /// The exit node before it was turned off for a while.
    pub internal_exit_node_prior: StableNodeId,
    /// Whether machines on the local network are reached directly while an exit node is in use.
    #[serde(rename = "ExitNodeAllowLANAccess")]
    pub exit_node_allow_lan_access: bool,
    /// Whether the tailnet's name settings are used (`--accept-dns`).
    #[serde(rename = "CorpDNS")]
    pub corp_dns: bool,
    /// Whether the node runs the SSH server.
    #[serde(rename = "RunSSH")]
    pub run_ssh: bool,
    /// Whether the node serves its settings to the tailnet by web.
    pub run_web_client: bool,
    /// Whether the node is to be connected.
    pub want_running: bool,
    /// Whether the user logged out.
    pub logged_out: bool,
    /// Whether only answers are let in.
    pub shields_up: bool,
    /// The tags to ask for.
    #[serde(deserialize_with = "go::nullable")]
    pub advertise_tags: Vec<String>,
    /// The name to ask for; the machine's when empty.
    pub hostname: String,
    /// Of another platform.
    #[serde(rename = "NotepadURLs")]
    pub notepad_urls: bool,
    /// Of another platform.
    #[serde(skip_serializing_if = "is_false")]
    pub force_daemon: bool,
    /// The subnets to offer; both default routes for an exit node.
    #[serde(deserialize_with = "go::nullable")]
    pub advertise_routes: Vec<IpNet>,
    /// The services to host.
    #[serde(deserialize_with = "go::nullable")]
    pub advertise_services: Vec<String>,
    /// Whether settings are kept in step with the server; unused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync: Option<bool>,
    /// Whether packets to offered subnets keep their source address.
    #[serde(rename = "NoSNAT")]
    pub no_snat: bool,
    /// Whether forwarded packets to the tailnet may open connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_stateful_filtering: Option<bool>,
    /// Whether the firewall is managed: 0 not, 2 wholly. 1, rules that nothing jumps to, is refused.
    pub netfilter_mode: i64,
    /// The user besides root who may change settings.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub operator_user: String,
    /// A name for these settings.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub profile_name: String,
    /// Whether to look for updates, and to install them.
    pub auto_update: AutoUpdate,
    /// Whether the node is an app connector.
    pub app_connector: AppConnector,
    /// Whether facts about the machine may be asked for.
    pub posture_checking: bool,
    /// Which kind of firewall to drive.
    pub netfilter_kind: String,
    /// Folders to share; unused.
    #[serde(deserialize_with = "go::nullable")]
    pub drive_shares: Vec<Value>,
    /// Of clients before; always true.
    #[serde(deserialize_with = "always_true")]
    pub allow_single_hosts: bool,
}

/// Whether the client looks for updates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AutoUpdate {
    /// Whether to look.
    pub check: bool,
    /// Whether to install what is found.
    pub apply: Option<bool>,
}

/// Whether the node is an app connector.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AppConnector {
    /// Whether it is.
    pub advertise: bool,
}

/// Why preferences can't be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PreferenceError {
    /// The text has another shape than preferences have.
    #[error("these preferences can't be read: {0}")]
    Shape(String),
    /// A preference of a name that nobody knows.
    #[error("there is no preference {0}")]
    Unknown(String),
    /// A preference that is known, and that this node does nothing for yet.
    #[error("{name} can't be turned on: {why}")]
    Unsupported {
        /// The preference.
        name: &'static str,
        /// What is missing.
        why: &'static str,
    },
    /// An offered route that can't be one.
    #[error("{route} can't be offered: {why}")]
    Route {
        /// The route.
        route: IpNet,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A tag that is not one.
    #[error("{0:?} is not a tag: it starts with \"tag:\", then a letter, then letters, digits and dashes")]
    Tag(String),
    /// A name that a machine can't have.
    #[error(
        "{0:?} is not a host name: up to 63 letters, digits and dashes, beginning and ending with none of the latter"
    )]
    Hostname(String),
    /// The node would be its own exit node.
    #[error("a node can't use an exit node and offer to be one at the same time")]
    ExitBothWays,
}

impl Default for Preferences {
    fn default() -> Self {
        Self {
            control_url: String::new(),
            route_all: false,
            exit_node_id: StableNodeId::default(),
            exit_node_ip: None,
            auto_exit_node: String::new(),
            internal_exit_node_prior: StableNodeId::default(),
            exit_node_allow_lan_access: false,
            corp_dns: true,
            run_ssh: false,
            run_web_client: false,
            want_running: false,
            logged_out: false,
            shields_up: false,
            advertise_tags: Vec::new(),
            hostname: String::new(),
            notepad_urls: false,
            force_daemon: false,
            advertise_routes: Vec::new(),
            advertise_services: Vec::new(),
            sync: None,
            no_snat: false,
            no_stateful_filtering: None,
            netfilter_mode: 2,
            operator_user: String::new(),
            profile_name: String::new(),
            auto_update: AutoUpdate::default(),
            app_connector: AppConnector::default(),
            posture_checking: false,
            netfilter_kind: String::new(),
            drive_shares: Vec::new(),
            allow_single_hosts: true,
        }
    }
}

impl Preferences {
    /// These preferences with the changes of a `MaskedPrefs`: each field `X` of it counts when `XSet` is true.
    ///
    /// # Errors
    /// A text of another shape, an unknown preference, or one that [`Self::check`] refuses.
    pub fn patched(&self, masked: &Value) -> Result<Self, PreferenceError> {
        let shape = |error: serde_json::Error| PreferenceError::Shape(error.to_string());
        let Value::Object(masked) = masked else {
            return Err(PreferenceError::Shape("a JSON object was expected".to_owned()));
        };
        let mut fields = object(serde_json::to_value(self).map_err(shape)?);
        for (name, set) in masked {
            let Some(name) = name.strip_suffix("Set") else { continue };
            match set {
                Value::Bool(true) => {
                    if !KNOWN.contains(&name) {
                        return Err(PreferenceError::Unknown(name.to_owned()));
                    }
                    fields.insert(name.to_owned(), masked.get(name).cloned().unwrap_or(Value::Null));
                }
                Value::Object(parts) => patch_parts(&mut fields, name, parts, masked.get(name)),
                _ => {}
            }
        }
        // What was set without a value takes Go's zero value, which is what an absent field reads as.
        fields.retain(|_, value| !value.is_null());
        let zero = object(serde_json::to_value(Self::zero()).map_err(shape)?);
        for (name, value) in zero {
            fields.entry(name).or_insert(value);
        }
        let patched: Self = serde_json::from_value(Value::Object(fields)).map_err(shape)?;
        patched.check()?;
        Ok(patched)
    }

    /// Reads a whole `Prefs`; what is absent is Go's zero value.
    ///
    /// # Errors
    /// A text of another shape, or preferences that [`Self::check`] refuses.
    pub fn read(value: Value) -> Result<Self, PreferenceError> {
        let shape = |error: serde_json::Error| PreferenceError::Shape(error.to_string());
        let mut fields = object(serde_json::to_value(Self::zero()).map_err(shape)?);
        let Value::Object(given) = value else {
            return Err(PreferenceError::Shape("a JSON object was expected".to_owned()));
        };
        fields.extend(given.into_iter().filter(|(_, value)| !value.is_null()));
        let read: Self = serde_json::from_value(Value::Object(fields)).map_err(shape)?;
        read.check()?;
        Ok(read)
    }

    /// Whether the node offers to be an exit node.
    pub fn advertises_exit_node(&self) -> bool {
        self.advertise_routes.iter().any(|route| route.prefix_len() == 0)
    }

    /// Whether an exit node is to be used.
    pub fn wants_exit_node(&self) -> bool {
        !self.exit_node_id.0.is_empty() || self.exit_node_ip.is_some()
    }

    /// Refuses what can't be wanted.
    ///
    /// # Errors
    /// The first preference that this node can't honour, with the reason.
    pub fn check(&self) -> Result<(), PreferenceError> {
        let unsupported = [
            (
                self.run_ssh,
                "RunSSH",
                "this node has no SSH server of its own; run sshd and reach it through the tailnet",
            ),
            (self.run_web_client, "RunWebClient", "this node serves no settings by web; use the command line"),
            (self.app_connector.advertise, "AppConnector", "this node is no app connector; offer the routes by hand"),
            (!self.drive_shares.is_empty(), "DriveShares", "this node shares no folders"),
            (!self.auto_exit_node.is_empty(), "AutoExitNode", "choose the exit node by name"),
            (self.auto_update.apply == Some(true), "AutoUpdate", "this node is updated by whoever installed it"),
            (
                !matches!(self.netfilter_mode, 0 | 2),
                "NetfilterMode",
                "this node's firewall rules are a table of their own, which is in force (on) or is not there (off)",
            ),
        ];
        if let Some((_, name, why)) = unsupported.into_iter().find(|(wanted, ..)| *wanted) {
            return Err(PreferenceError::Unsupported { name, why });
        }
        if self.advertises_exit_node() && self.wants_exit_node() {
            return Err(PreferenceError::ExitBothWays);
        }
        self.advertise_routes.iter().try_for_each(check_route)?;
        self.advertise_tags.iter().try_for_each(|tag| check_tag(tag))?;
        check_hostname(&self.hostname)
    }

    /// Go's zero value, which is not what a new node has.
    fn zero() -> Self {
        Self { corp_dns: false, netfilter_mode: 0, ..Self::default() }
    }
}

/// The names of all preferences, also of those that are absent from the JSON when they are zero.
const KNOWN: [&str; 37] = [
    "ControlURL",
    "RouteAll",
    "ExitNodeID",
    "ExitNodeIP",
    "AutoExitNode",
    "InternalExitNodePrior",
    "ExitNodeAllowLANAccess",
    "CorpDNS",
    "RunSSH",
    "RunWebClient",
    "WantRunning",
    "LoggedOut",
    "ShieldsUp",
    "AdvertiseTags",
    "Hostname",
    "NotepadURLs",
    "ForceDaemon",
    "Egg",
    "AdvertiseRoutes",
    "AdvertiseServices",
    "Sync",
    "NoSNAT",
    "NoStatefulFiltering",
    "NetfilterMode",
    "OperatorUser",
    "ProfileName",
    "AutoUpdate",
    "AppConnector",
    "PostureChecking",
    "NetfilterKind",
    "DriveShares",
    "AllowSingleHosts",
    "RelayServerPort",
    "RelayServerStaticEndpoints",
    "RemoteConfig",
    "Config",
    "PeerRelay",
];

/// Takes single fields of a preference that is an object (`AutoUpdateSet` is one of booleans).
fn patch_parts(fields: &mut Map<String, Value>, name: &str, parts: &Map<String, Value>, given: Option<&Value>) {
    let Some(Value::Object(known)) = fields.get_mut(name) else { return };
    for part in parts.iter().filter(|(_, set)| **set == Value::Bool(true)).filter_map(|(n, _)| n.strip_suffix("Set")) {
        let value = given.and_then(|given| given.get(part)).cloned();
        match value {
            Some(value) => drop(known.insert(part.to_owned(), value)),
            None => drop(known.remove(part)),
        }
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn check_route(route: &IpNet) -> Result<(), PreferenceError> {
    let refuse = |why| Err(PreferenceError::Route { route: *route, why });
    if route.trunc() != *route {
        return refuse("it has host bits set");
    }
    if route.prefix_len() == 0 {
        return Ok(());
    }
    let address = route.network();
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    match () {
        () if address.is_loopback() => refuse("loopback addresses mean another machine everywhere"),
        () if address.is_multicast() => refuse("it is a multicast range"),
        () if link_local => refuse("link-local addresses mean something on one link only"),
        () if crate::local::is_mesh_address(address) => refuse("it lies within the tailnet's own addresses"),
        () => Ok(()),
    }
}

fn check_tag(tag: &str) -> Result<(), PreferenceError> {
    let name = tag.strip_prefix("tag:").unwrap_or_default();
    let starts = name.starts_with(|first: char| first.is_ascii_alphabetic());
    if starts && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-') {
        return Ok(());
    }
    Err(PreferenceError::Tag(tag.to_owned()))
}

fn check_hostname(name: &str) -> Result<(), PreferenceError> {
    let letters = name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-' || letter == '.');
    if name.len() <= 63 && letters && !name.starts_with(['-', '.']) && !name.ends_with(['-', '.']) {
        return Ok(());
    }
    Err(PreferenceError::Hostname(name.to_owned()))
}

fn is_false(value: &bool) -> bool {
    !value
}

fn always_true<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer).map(|_| true)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_patch_changes_what_its_mask_names_and_nothing_else() {
        let before = Preferences { hostname: "old".to_owned(), ..Preferences::default() };
        let patch = json!({"RouteAll": true, "RouteAllSet": true, "Hostname": "ignored", "ShieldsUpSet": false});
        let after = before.patched(&patch).unwrap();
        assert_eq!(after, Preferences { route_all: true, ..before });
    }

    #[test]
    fn a_masked_field_without_a_value_becomes_zero() {
        let before = Preferences { hostname: "old".to_owned(), ..Preferences::default() };
        let after = before.patched(&json!({"HostnameSet": true, "CorpDNSSet": true})).unwrap();
        assert_eq!((after.hostname.as_str(), after.corp_dns, after.netfilter_mode), ("", false, 2));
    }

    #[test]
    fn parts_of_a_preference_have_masks_of_their_own() {
        let patch = json!({"AutoUpdate": {"Check": true, "Apply": true}, "AutoUpdateSet": {"CheckSet": true}});
        let after = Preferences::default().patched(&patch).unwrap();
        assert_eq!(after.auto_update, AutoUpdate { check: true, apply: None });
    }

    #[test]
    fn preferences_that_nobody_honours_are_refused_by_name() {
        let set = |patch: Value| Preferences::default().patched(&patch).unwrap_err().to_string();
        assert!(set(json!({"RunSSH": true, "RunSSHSet": true})).starts_with("RunSSH can't be turned on"));
        assert_eq!(set(json!({"FutureSet": true})), "there is no preference Future");
        let both = json!({"AdvertiseRoutes": ["0.0.0.0/0"], "AdvertiseRoutesSet": true,
            "ExitNodeIP": "100.64.0.1", "ExitNodeIPSet": true});
        assert!(set(both).contains("at the same time"));
    }

    #[test]
    fn a_route_that_cannot_be_offered_is_refused_with_its_reason() {
        for (route, why) in [
            ("10.0.0.1/8", "host bits"),
            ("127.0.0.0/8", "loopback"),
            ("169.254.0.0/16", "link-local"),
            ("224.0.0.0/4", "multicast"),
            ("100.64.0.0/16", "tailnet's own"),
        ] {
            let preferences = Preferences { advertise_routes: vec![route.parse().unwrap()], ..Preferences::default() };
            assert!(preferences.check().unwrap_err().to_string().contains(why), "{route}");
        }
        let fine = ["0.0.0.0/0", "::/0", "10.0.0.0/8"].map(|route| route.parse().unwrap()).to_vec();
        assert_eq!(Preferences { advertise_routes: fine, ..Preferences::default() }.check(), Ok(()));
    }

    #[test]
    fn a_firewall_that_is_half_there_is_refused() {
        for (mode, taken) in [(0, true), (1, false), (2, true), (3, false)] {
            let preferences = Preferences { netfilter_mode: mode, ..Preferences::default() };
            assert_eq!(preferences.check().is_ok(), taken, "{mode}");
        }
    }

    #[test]
    fn names_and_tags_are_checked() {
        for name in ["-a", "a-", "a b", &"a".repeat(64), "ä"] {
            assert!(Preferences { hostname: name.to_owned(), ..Preferences::default() }.check().is_err(), "{name}");
        }
        for tag in ["server", "tag:", "tag:1a", "tag:a b"] {
            let preferences = Preferences { advertise_tags: vec![tag.to_owned()], ..Preferences::default() };
            assert!(preferences.check().is_err(), "{tag}");
        }
    }

    #[test]
    fn the_json_has_gos_names_and_zero_values() {
        let json = serde_json::to_value(Preferences::default()).unwrap();
        for name in ["ControlURL", "ExitNodeIP", "CorpDNS", "RunSSH", "NoSNAT", "NotepadURLs", "AdvertiseRoutes"] {
            assert!(json.get(name).is_some(), "{name} is missing");
        }
        assert_eq!(serde_json::from_value::<Preferences>(json).unwrap(), Preferences::default());
        let nulls = json!({"AdvertiseRoutes": null, "AdvertiseTags": null, "Config": {"NodeID": ""}});
        assert_eq!(Preferences::read(nulls).unwrap().netfilter_mode, 0);
    }
}
