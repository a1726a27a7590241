use std::net::IpAddr;

use kubeapi::{MissingTarget, OfferedRoutes, state_keys as keys};
use node::{CAPABILITY_VERSION, Snapshot, StateChange};

use crate::secret::SecretStore;

/// What a proxy says about itself in its state Secret, as [`kubeapi::contract`] asks for.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    store: SecretStore,
    pod_uid: String,
}

/// A node as the operator wants to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) addresses: Vec<IpAddr>,
}

impl Account {
    pub(crate) fn new(store: SecretStore, pod_uid: &str) -> Self {
        Self { store, pod_uid: pod_uid.to_owned() }
    }

    /// Takes back what an earlier pod said, but for the device: the operator would else believe it of this one.
    pub(crate) fn begin(&self) -> Result<(), node::StoreError> {
        let removed = [
            keys::DEVICE_FQDN,
            keys::DEVICE_IPS,
            keys::CAPABILITY_VERSION,
            keys::REISSUE_AUTH_KEY,
            keys::MISSING_TARGET,
            keys::ROUTES,
        ];
        let mut change = nothing(removed);
        change.insert(keys::POD_UID.to_owned(), Some(self.pod_uid.clone().into_bytes()));
        self.store.put(&change)
    }

    /// Tells who the node is, now that it is in.
    pub(crate) fn logged_in(&self, device: &Device) -> Result<(), node::StoreError> {
        // A list of addresses always has a JSON form.
        let addresses = serde_json::to_vec(&device.addresses).unwrap_or_default();
        let version = CAPABILITY_VERSION.to_string();
        let mut change = nothing([keys::REISSUE_AUTH_KEY]);
        change.extend([
            (keys::DEVICE_ID.to_owned(), Some(device.id.clone().into_bytes())),
            (keys::DEVICE_FQDN.to_owned(), Some(device.name.clone().into_bytes())),
            (keys::DEVICE_IPS.to_owned(), Some(addresses)),
            (keys::CAPABILITY_VERSION.to_owned(), Some(version.into_bytes())),
            (keys::POD_UID.to_owned(), Some(self.pod_uid.clone().into_bytes())),
        ]);
        self.store.put(&change)
    }

    /// Tells why the target is not there, or that it is.
    pub(crate) fn misses(&self, target: Option<&MissingTarget>) -> Result<(), node::StoreError> {
        let value = target.map(|target| target.write(&self.pod_uid));
        self.store.put(&[(keys::MISSING_TARGET.to_owned(), value)].into())
    }

    /// Tells what becomes of the routes that the node offers; nothing where it offers none.
    pub(crate) fn offers(&self, routes: Option<&OfferedRoutes>) -> Result<(), node::StoreError> {
        let value = routes.map(|routes| routes.write(&self.pod_uid));
        self.store.put(&[(keys::ROUTES.to_owned(), value)].into())
    }

    /// Asks for another key in place of the one that does not work, if there is one. With `forget` the node's own keys
    /// go first: they are of no use any more.
    pub(crate) fn wants_key(&self, failed: Option<&str>, forget: bool) -> Result<(), node::StoreError> {
        let mut change = nothing([keys::DEVICE_FQDN, keys::DEVICE_IPS]);
        if forget {
            self.forget(&mut change);
        }
        let reason = failed.unwrap_or(keys::NO_AUTH_KEY);
        change.insert(keys::REISSUE_AUTH_KEY.to_owned(), Some(reason.as_bytes().to_vec()));
        self.store.put(&change)
    }
}

impl Account {
    /// The device that this was last.
    pub(crate) fn device(&self) -> Option<String> {
        self.store.value(keys::DEVICE_ID).and_then(|id| String::from_utf8(id).ok())
    }

    /// Forgets who the node was, where it gets another key by itself.
    pub(crate) fn forgets(&self) -> Result<(), node::StoreError> {
        let mut change = nothing([keys::DEVICE_FQDN, keys::DEVICE_IPS]);
        self.forget(&mut change);
        self.store.put(&change)
    }

    /// The device, and the node's own keys.
    fn forget(&self, change: &mut StateChange) {
        change.insert(keys::DEVICE_ID.to_owned(), None);
        let own = |name: &String| name.starts_with('_') || name.starts_with("profile-");
        change.extend(self.store.names().into_iter().filter(own).map(|name| (name, None)));
    }
}

impl Device {
    /// The node that a snapshot shows, once its coordination server has told it who it is.
    pub(crate) fn of(snapshot: &Snapshot) -> Option<Self> {
        let node = snapshot.mesh.netmap()?.node();
        let addresses = snapshot.addresses();
        let name = node.name.trim_end_matches('.').to_owned();
        let id = node.stable_id.0.clone();
        (!id.is_empty() && !addresses.is_empty()).then_some(Self { id, name, addresses })
    }
}

fn nothing<const N: usize>(names: [&str; N]) -> StateChange {
    names.into_iter().map(|name| (name.to_owned(), None)).collect()
}

#[cfg(test)]
mod tests {
    use kubeapi::{RouteStanding, TargetProblem};

    use super::*;
    use crate::fake_api_server::{kept, present, serve};

    /// All that the Secret holds.
    fn all(api: &crate::fake_api_server::Handle) -> Vec<(String, String)> {
        let names: Vec<String> = api.lock().unwrap().data.keys().cloned().collect();
        names.into_iter().map(|name| (name.clone(), kept(api, &name).unwrap())).collect()
    }

    fn texts(data: &[(&str, &str)]) -> Vec<(String, String)> {
        data.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// The names are spelled out: operators of others read them too.
    #[tokio::test]
    async fn a_proxy_tells_of_itself_by_the_keys_that_stock_operators_read_and_by_no_others() {
        let (api, client) = serve(present()).await;
        let store = SecretStore::open(client, "tailscale", "p-0", |_| {}).await;
        let account = Account::new(store.clone(), "pod-1");
        account.begin().unwrap();
        store.settled().await;
        assert_eq!(all(&api), texts(&[("pod_uid", "pod-1")]));

        let addresses = vec!["100.64.0.7".parse().unwrap(), "fd7a:115c:a1e0::7".parse().unwrap()];
        let name = "home-web.taila31de.ts.net".to_owned();
        account.logged_in(&Device { id: "nAbc11CNTRL".to_owned(), name, addresses }).unwrap();
        store.settled().await;
        let version = CAPABILITY_VERSION.to_string();
        let device = texts(&[
            ("device_fqdn", "home-web.taila31de.ts.net"),
            ("device_id", "nAbc11CNTRL"),
            ("device_ips", r#"["100.64.0.7","fd7a:115c:a1e0::7"]"#),
            ("pod_uid", "pod-1"),
            ("tailscale_capver", &version),
        ]);
        assert_eq!(all(&api), device);

        // It is out, and wants to come in as who it was; then as somebody else.
        account.wants_key(Some("tskey-auth-1"), false).unwrap();
        store.settled().await;
        let wants = |key: &str| ("reissue_authkey".to_owned(), key.to_owned());
        let told = |name: &str| device.iter().find(|(key, _)| key == name).cloned().unwrap();
        let left = vec![told("device_id"), told("pod_uid"), wants("tskey-auth-1"), told("tailscale_capver")];
        assert_eq!(all(&api), left);
        account.wants_key(None, true).unwrap();
        store.settled().await;
        assert_eq!(all(&api), [told("pod_uid"), wants("no-authkey"), told("tailscale_capver")]);

        Account::new(store.clone(), "pod-2").begin().unwrap();
        store.settled().await;
        assert_eq!(all(&api), texts(&[("pod_uid", "pod-2")]));
    }

    #[tokio::test]
    async fn a_missing_target_is_told_as_this_pods_word_and_taken_back() {
        let (api, client) = serve(present()).await;
        let store = SecretStore::open(client, "tailscale", "p-0", |_| {}).await;
        let account = Account::new(store.clone(), "pod-1");
        let missing = MissingTarget { target: "100.64.0.9".to_owned(), problem: TargetProblem::Unknown };
        account.misses(Some(&missing)).unwrap();
        store.settled().await;
        assert_eq!(
            kept(&api, keys::MISSING_TARGET).as_deref(),
            Some(r#"{"pod":"pod-1","target":"100.64.0.9","problem":"unknown"}"#)
        );
        account.misses(None).unwrap();
        store.settled().await;
        assert_eq!(kept(&api, keys::MISSING_TARGET), None);
    }

    #[tokio::test]
    async fn what_becomes_of_the_routes_is_told_as_this_pods_word() {
        let (api, client) = serve(present()).await;
        let store = SecretStore::open(client, "tailscale", "p-0", |_| {}).await;
        let account = Account::new(store.clone(), "pod-1");
        let offered = OfferedRoutes([("10.0.0.0/16".parse().unwrap(), RouteStanding::NotApproved)].into());
        account.offers(Some(&offered)).unwrap();
        store.settled().await;
        assert_eq!(
            kept(&api, keys::ROUTES).as_deref(),
            Some(r#"{"pod":"pod-1","routes":{"10.0.0.0/16":"not-approved"}}"#)
        );
        account.offers(None).unwrap();
        store.settled().await;
        assert_eq!(kept(&api, keys::ROUTES), None);
    }

    #[tokio::test]
    async fn what_an_earlier_pod_said_of_target_and_routes_goes_when_the_next_begins() {
        let mut server = present();
        for key in [keys::MISSING_TARGET, keys::ROUTES] {
            server.data.insert(key.to_owned(), "e30=".to_owned());
        }
        let (api, client) = serve(server).await;
        let store = SecretStore::open(client, "tailscale", "p-0", |_| {}).await;
        Account::new(store.clone(), "pod-2").begin().unwrap();
        store.settled().await;
        assert_eq!((kept(&api, keys::MISSING_TARGET), kept(&api, keys::ROUTES)), (None, None));
    }
}
