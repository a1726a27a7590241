//! Who stands behind the addresses of these tests.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use apiproxy::{CAPABILITY, Identify, IdentifyError, Identity};
use futures_util::future::BoxFuture;
use serde_json::json;
use tokio::sync::watch;

/// Says of everybody that they are one identity, which a test can change.
pub(crate) struct Everybody {
    identity: Mutex<Option<Identity>>,
    device: Mutex<Option<IpAddr>>,
    changed: watch::Sender<u64>,
}

impl Everybody {
    pub(crate) fn new(identity: Option<Identity>) -> Arc<Self> {
        Arc::new(Self { identity: Mutex::new(identity), device: Mutex::default(), changed: watch::Sender::new(0) })
    }

    /// Changes who everybody is, without telling.
    pub(crate) fn become_silently(&self, identity: Option<Identity>) {
        *self.identity.lock().unwrap() = identity;
    }

    /// Says of all addresses from now on that they are one device, which this one stands for.
    pub(crate) fn become_device(&self, device: IpAddr) {
        *self.device.lock().unwrap() = Some(device);
    }

    pub(crate) fn become_now(&self, identity: Option<Identity>) {
        self.become_silently(identity);
        self.changed.send_modify(|version| *version += 1);
    }
}

impl Identify for Everybody {
    fn whois(&self, source: SocketAddr) -> BoxFuture<'_, Result<Identity, IdentifyError>> {
        let identity = self.identity.lock().unwrap().clone();
        Box::pin(async move { identity.ok_or(IdentifyError::Unknown(source.ip())) })
    }

    fn device(&self, source: IpAddr) -> IpAddr {
        self.device.lock().unwrap().unwrap_or(source)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

pub(crate) fn alice(groups: &[&str]) -> Identity {
    let rules = vec![json!({"impersonate": {"groups": groups}})];
    Identity {
        login: "alice@example.com".into(),
        node: "laptop.taila31de.ts.net.".into(),
        tags: Vec::new(),
        capabilities: BTreeMap::from([(CAPABILITY.to_owned(), rules)]),
    }
}
