use engine::NatKind;
use http::StatusCode;
use serde_json::{Value, json};

use super::flows;
use super::reply::{Refusal, Reply, json_reply, text_reply};
use super::routes::Asked;
use crate::snapshot::Snapshot;

/// What this daemon serves and the stock one does not, below `/towline/v0/`.
pub(super) async fn route(asked: &mut Asked, path: &str) -> Result<Reply, Refusal> {
    match (path, asked.method.as_str()) {
        ("flows", "GET") => flows::all(asked).await,
        ("netcheck", "POST" | "GET") => netcheck(asked).await,
        _ => Err(Refusal::new(StatusCode::NOT_FOUND, "this daemon does not serve that")),
    }
}

pub(super) fn engine(snapshot: &Snapshot) -> Result<&engine::Engine, Refusal> {
    let stopped = || Refusal::new(StatusCode::CONFLICT, "the node is not connected: run `towline up` first");
    snapshot.engine.as_ref().ok_or_else(stopped)
}

pub(super) fn gone(error: engine::Stopped) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}

pub(super) fn region_code(region: u16, snapshot: &Snapshot) -> String {
    let known = snapshot.mesh.netmap().and_then(|netmap| netmap.relays().region(tailcfg::RegionId(region)));
    known.map_or_else(|| region.to_string(), |region| region.region_code.clone())
}

/// Measures the network around the node now.
async fn netcheck(asked: &Asked) -> Result<Reply, Refusal> {
    let snapshot = asked.snapshot();
    let Some(found) = engine(&snapshot)?.netcheck().await.map_err(gone)? else {
        return Err(Refusal::new(StatusCode::GATEWAY_TIMEOUT, "the network could not be measured: no relay answered"));
    };
    let report = &found.report;
    let latency: serde_json::Map<String, Value> = report
        .latency
        .iter()
        .map(|(region, time)| (region_code(region.get(), &snapshot), json!(time.as_secs_f64())))
        .collect();
    json_reply(&json!({
        "udp": report.udp,
        "ipv4": report.global_v4,
        "ipv6": report.global_v6,
        "mappingVaries": report.mapping_varies,
        "nat": match found.nat {
            NatKind::None => "none",
            NatKind::Easy => "easy",
            NatKind::Hard => "hard",
            NatKind::Unknown => "unknown",
        },
        "home": report.home.map(|region| region_code(region.get(), &snapshot)),
        "latency": latency,
        "netInfo": found.net_info,
    }))
}

/// A warning when routes are offered and the machine does not forward.
pub(super) fn forwarding_warning(asked: &Asked) -> String {
    let snapshot = asked.snapshot();
    let offers = !snapshot.mesh.preferences().advertise_routes.is_empty();
    let found = snapshot.health.iter().find(|text| text.contains("forward"));
    found.filter(|_| offers && snapshot.tun).cloned().unwrap_or_default()
}

/// Counters in the text form of Prometheus.
pub(super) async fn metrics(asked: &Asked) -> Result<Reply, Refusal> {
    let snapshot = asked.snapshot();
    let status = snapshot.status(true).await;
    let peers: Vec<_> = status.peer.iter().flat_map(|peers| peers.values()).collect();
    let mut text = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, value: u64| {
        text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"));
    };
    metric(
        "towline_node_running",
        "gauge",
        "Whether the node is connected.",
        u64::from(snapshot.state == mesh::BackendState::Running),
    );
    metric("towline_node_peers", "gauge", "Peers in the map.", peers.len() as u64);
    metric(
        "towline_node_peers_active",
        "gauge",
        "Peers with traffic lately.",
        peers.iter().filter(|peer| peer.active).count() as u64,
    );
    metric(
        "towline_node_received_bytes",
        "counter",
        "Bytes received from peers.",
        peers.iter().map(|peer| peer.rx_bytes).sum(),
    );
    metric("towline_node_sent_bytes", "counter", "Bytes sent to peers.", peers.iter().map(|peer| peer.tx_bytes).sum());
    metric("towline_node_health_warnings", "gauge", "Warnings that the user should know.", status.health.len() as u64);
    Ok(text_reply(text))
}
