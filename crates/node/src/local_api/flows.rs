use dial::Account;
use engine::{Flow, Initiator, MeshFlow, PhysicalFlow, Via, Volume};
use filter::Refusal as Reason;
use serde_json::{Value, json};

use super::own::{engine, gone, region_code};
use super::reply::{Refusal, Reply, json_reply};
use super::routes::Asked;
use crate::snapshot::{Snapshot, wall};

/// A server that this node is connected to.
#[derive(Clone, Copy)]
enum Service {
    Control,
    Relay,
}

/// All flows: who spoke with whom since the data plane started, what carried it, and since the daemon started what went
/// to the coordination server and the relays.
pub(super) async fn all(asked: &Asked) -> Result<Reply, Refusal> {
    let snapshot = asked.snapshot();
    let flows = engine(&snapshot)?.flows().await.map_err(gone)?;
    let ledgers = &snapshot.ledgers;
    let servers = [(Service::Control, &ledgers.control), (Service::Relay, &ledgers.relays)];
    let mut all: Vec<Value> = Vec::new();
    for (service, ledger) in servers {
        all.extend(ledger.accounts().iter().map(|account| connections(service, account, &snapshot)));
    }
    all.extend(flows.iter().map(|flow| match flow {
        Flow::Mesh(flow) => mesh(flow, &snapshot),
        Flow::Physical(flow) => tunnel(flow, &snapshot),
    }));
    json_reply(&json!({"flows": all}))
}

fn mesh(flow: &MeshFlow, snapshot: &Snapshot) -> Value {
    json!({
        "kind": "mesh",
        "peer": name(&flow.peer, snapshot),
        "nodeKey": flow.peer,
        "protocol": flow.protocol,
        "local": flow.local,
        "remote": flow.remote,
        "initiator": match flow.initiator {
            Initiator::Local => "local",
            Initiator::Remote => "remote",
        },
        "sent": volume(&flow.sent),
        "received": volume(&flow.received),
        "refused": volume(&flow.refused.volume),
        "reason": flow.refused.reason.map(reason),
        "first": wall(Some(flow.first)),
        "last": wall(Some(flow.last)),
    })
}

fn tunnel(flow: &PhysicalFlow, snapshot: &Snapshot) -> Value {
    let (protocol, remote) = match flow.via {
        Via::Direct(endpoint) => ("udp", endpoint.to_string()),
        Via::Relay(region) => ("derp", region_code(region.get(), snapshot)),
    };
    json!({
        "kind": "physical",
        "service": "peer",
        "peer": name(&flow.peer, snapshot),
        "nodeKey": flow.peer,
        "protocol": protocol,
        "remote": remote,
        "sent": volume(&flow.sent),
        "received": volume(&flow.received),
        "first": wall(Some(flow.first)),
        "last": wall(Some(flow.last)),
    })
}

fn connections(service: Service, account: &Account, snapshot: &Snapshot) -> Value {
    let remote = account.remote.as_ref();
    let open = account.open.iter().map(|one| json!({"local": one.local, "since": wall(Some(one.since))}));
    let mut shown = json!({
        "kind": "physical",
        "service": match service {
            Service::Control => "control",
            Service::Relay => "relay",
        },
        "protocol": if remote.is_none_or(|remote| remote.tls) { "https" } else { "http" },
        "name": remote.map_or("", |remote| remote.name.as_str()),
        "remote": remote.map(|remote| remote.address.to_string()).unwrap_or_default(),
        "sent": {"bytes": account.sent},
        "received": {"bytes": account.received},
        "open": open.collect::<Vec<_>>(),
        "first": wall(Some(account.first)),
        "last": wall(Some(account.last)),
    });
    if matches!(service, Service::Relay) {
        shown["region"] = remote.map(|remote| region_of(&remote.name, snapshot)).unwrap_or_default().into();
    }
    shown
}

/// The code of the region that a relay stands in; empty when the map does not name it any more.
fn region_of(host: &str, snapshot: &Snapshot) -> String {
    let regions = snapshot.mesh.netmap().and_then(|netmap| netmap.relays().regions.as_ref());
    let mut all = regions.into_iter().flat_map(|regions| regions.values());
    let found = all.find(|region| region.nodes.iter().any(|node| node.host_name == host));
    found.map(|region| region.region_code.clone()).unwrap_or_default()
}

fn name(key: &crypto::NodePublic, snapshot: &Snapshot) -> String {
    let peer = snapshot.mesh.netmap().and_then(|netmap| netmap.peer_by_key(key));
    peer.map(|peer| snapshot.mesh.short_name(peer)).unwrap_or_default()
}

fn volume(volume: &Volume) -> Value {
    json!({"packets": volume.packets, "bytes": volume.bytes})
}

/// Why the filter refused a packet, in a word for programs.
fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Unreadable => "unreadable",
        Reason::MixedFamilies => "mixed-families",
        Reason::Multicast => "multicast",
        Reason::LinkLocal => "link-local",
        Reason::NotLocal => "not-local",
        Reason::ShieldsUp => "shields-up",
        Reason::Jailed => "jailed",
        Reason::NoRule => "no-rule",
    }
}
