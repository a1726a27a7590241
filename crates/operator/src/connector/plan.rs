use serde_json::{Value, json};

use kubeapi::name;

use super::{Observed, Wanted};
use crate::proxy::Proxy;
use crate::settings::Settings;

/// What to do for a Connector.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// Whether everything that was ever made for it must go.
    pub tear_down: bool,
    /// What to change in the Connector itself.
    pub patch: Option<Value>,
    /// Replicas to bring to what they should be, in this order.
    pub proxies: Vec<Proxy>,
    /// Replicas to leave as they are for now: another one is not ready again after its own change.
    pub held: Vec<u32>,
    /// Replicas that are not asked for any more.
    pub removed: Vec<u32>,
}

/// Plans for what is wanted. A Connector that can't be keeps what runs as it was; one that goes loses all of it.
pub fn plan(observed: &Observed, wanted: &Wanted, settings: &Settings) -> Plan {
    match wanted {
        Wanted::Nothing => Plan { tear_down: has_finalizer(observed), ..Plan::default() },
        Wanted::Never(_) => Plan::default(),
        Wanted::Later(_) => Plan { patch: finalizer_patch(observed), ..Plan::default() },
        Wanted::Proxies(proxies) => {
            let (proxies, held) = one_at_a_time(observed, proxies, settings);
            let asked = proxies.len() + held.len();
            let exists = |replica: &usize| {
                observed
                    .proxies
                    .get(*replica)
                    .is_some_and(|proxy| proxy.config.is_some() || proxy.stateful_set.is_some())
            };
            let removed = (asked..observed.proxies.len())
                .filter(exists)
                .filter_map(|replica| u32::try_from(replica).ok())
                .collect();
            Plan { tear_down: false, patch: finalizer_patch(observed), proxies, held, removed }
        }
    }
}

/// Splits replicas into those that may change now and those that wait: of running replicas whose pod would be another, one
/// changes, and only while the others are ready.
fn one_at_a_time(observed: &Observed, proxies: &[Proxy], settings: &Settings) -> (Vec<Proxy>, Vec<u32>) {
    let (mut now, mut held) = (Vec::new(), Vec::new());
    let changes = |proxy: &Proxy| would_restart(observed, proxy, settings);
    let mut room = proxies.iter().all(|proxy| {
        let there = observed.proxies.get(proxy.replica as usize);
        changes(proxy) || there.is_none_or(|there| there.stateful_set.is_none() || there.pod_is_ready())
    });
    for proxy in proxies {
        if !changes(proxy) {
            now.push(proxy.clone());
        } else if room {
            room = false;
            now.push(proxy.clone());
        } else {
            held.push(proxy.replica);
        }
    }
    (now, held)
}

/// Whether there is a pod and it would be replaced.
fn would_restart(observed: &Observed, proxy: &Proxy, settings: &Settings) -> bool {
    let there = observed.proxies.get(proxy.replica as usize);
    there.is_some_and(|there| proxy.would_restart(there, settings))
}

fn has_finalizer(observed: &Observed) -> bool {
    observed.connector.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == name::FINALIZER)
}

/// The finalizer stands before anything is made in the tailnet.
fn finalizer_patch(observed: &Observed) -> Option<Value> {
    if has_finalizer(observed) {
        return None;
    }
    let metadata = &observed.connector.metadata;
    let finalizers: Vec<&str> =
        metadata.finalizers.iter().flatten().map(String::as_str).chain([name::FINALIZER]).collect();
    Some(json!({"metadata": {"finalizers": finalizers, "resourceVersion": metadata.resource_version}}))
}
