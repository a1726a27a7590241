use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use engine::PingKind;
use http::Method;
use serde_json::json;
use tailcfg::{PingRequest, PingResponse};

use crate::VERSION;
use crate::control::Client;
use crate::snapshot::Snapshot;

/// How many URLs are remembered, so that none is answered twice.
const REMEMBERED: usize = 64;
/// How many pings may be under way at once; more are not answered.
const AT_ONCE: usize = 16;
/// How long one may take.
const TIME: Duration = Duration::from_secs(10);

/// Answers what the coordination server asks of a node: to show that it is there, to ping a peer, to run a request.
#[derive(Debug)]
pub(crate) struct Pinger {
    answered: VecDeque<String>,
    under_way: Arc<tokio::sync::Semaphore>,
}

impl Default for Pinger {
    fn default() -> Self {
        Self { answered: VecDeque::new(), under_way: Arc::new(tokio::sync::Semaphore::new(AT_ONCE)) }
    }
}

impl Pinger {
    /// Answers a request in a task of its own.
    pub(crate) fn handle(&mut self, request: PingRequest, client: Arc<Client>, snapshot: Arc<Snapshot>) {
        if request.url.is_empty() || self.answered.contains(&request.url) {
            return;
        }
        if self.answered.len() == REMEMBERED {
            self.answered.pop_front();
        }
        self.answered.push_back(request.url.clone());
        let Ok(permit) = self.under_way.clone().try_acquire_owned() else {
            tracing::debug!("too many pings of the coordination server at once");
            return;
        };
        tokio::spawn(async move {
            let answered = tokio::time::timeout(TIME, answer(&request, &client, &snapshot)).await;
            match answered {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "answering a ping of the coordination server failed"),
                Err(_) => tracing::debug!("answering a ping of the coordination server took too long"),
            }
            drop(permit);
        });
    }
}

async fn answer(
    request: &PingRequest,
    client: &Client,
    snapshot: &Snapshot,
) -> Result<(), crate::control::ClientError> {
    if request.types.is_empty() {
        return client.answer(Method::HEAD, &request.url, Vec::new()).await;
    }
    for kind in request.types.split(',') {
        if kind == "c2n" {
            let body = run(&request.payload, snapshot);
            client.answer(Method::POST, &request.url, body).await?;
            continue;
        }
        let Some(address) = request.ip else { continue };
        let response = ping(kind, address, snapshot).await;
        let body = serde_json::to_vec(&response).unwrap_or_default();
        client.answer(Method::POST, &request.url, body).await?;
    }
    Ok(())
}

/// Pings the peer that an address belongs to or is routed through, and says what came of it.
pub(crate) async fn ping(kind: &str, address: IpAddr, snapshot: &Snapshot) -> PingResponse {
    let mut response = PingResponse { kind: kind.to_owned(), ip: address.to_string(), ..PingResponse::default() };
    if snapshot.addresses().contains(&address) {
        response.is_local_ip = true;
        response.err = format!("{address} is this node's own address");
        return response;
    }
    let kind = match kind {
        "disco" => PingKind::Disco,
        "TSMP" => PingKind::Tsmp,
        "ICMP" => PingKind::Icmp,
        other => {
            response.err = format!("this node has no pings of the kind {other:?}; use disco, TSMP or ICMP");
            return response;
        }
    };
    let Some(engine) = &snapshot.engine else {
        response.err = "this node is not connected".to_owned();
        return response;
    };
    let view = snapshot.mesh.view();
    let key = view.as_ref().and_then(|view| view.routes.lookup(address)).copied();
    let netmap = snapshot.mesh.netmap();
    let Some((key, peer)) = key.and_then(|key| Some((key, netmap?.peer_by_key(&key)?))) else {
        response.err = "no matching peer".to_owned();
        return response;
    };
    response.node_ip = peer.addresses.first().map(|prefix| prefix.addr().to_string()).unwrap_or_default();
    response.node_name = snapshot.mesh.short_name(peer);
    match engine.ping(key, kind).await {
        Ok(pong) => {
            response.latency_seconds = pong.latency.as_secs_f64();
            response.peer_api_port = pong.peer_api_port.unwrap_or_default();
            // Pings through the tunnel do not tell a path to who asked for one.
            match pong.via.filter(|_| kind == PingKind::Disco) {
                Some(engine::Via::Direct(endpoint)) => response.endpoint = endpoint.to_string(),
                Some(engine::Via::Relay(region)) => {
                    response.derp_region_id = tailcfg::RegionId(region.get());
                    response.derp_region_code = netmap
                        .and_then(|netmap| netmap.relays().region(response.derp_region_id))
                        .map(|region| region.region_code.clone())
                        .unwrap_or_default();
                }
                None => {}
            }
        }
        Err(error) => response.err = error.to_string(),
    }
    response
}

/// Runs a request that the server sent as text, and gives the answer as text.
fn run(payload: &[u8], snapshot: &Snapshot) -> Vec<u8> {
    let text = String::from_utf8_lossy(&payload[..payload.len().min(8 << 10)]);
    let mut words = text.lines().next().unwrap_or_default().split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let (status, body) = match (method, path) {
        ("GET" | "POST", "/echo") => {
            ("200 OK", text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
        }
        ("GET", "/debug/health") => ("200 OK", json!({"health": snapshot.health, "version": VERSION}).to_string()),
        ("GET", "/debug/prefs") => ("200 OK", serde_json::to_string(snapshot.mesh.preferences()).unwrap_or_default()),
        ("POST", "/logtail/flush") => ("204 No Content", String::new()),
        ("GET", "/vip-services") => ("200 OK", json!({"VIPServices": [], "ServicesHash": ""}).to_string()),
        _ => ("404 Not Found", format!("{method} {path} is not known to this node\n")),
    };
    format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}
