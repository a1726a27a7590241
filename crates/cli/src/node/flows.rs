use std::io::Write;

use clap::Args;
use http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use tailcfg::Time;
use tailcfg::go::nullable;

use super::settings::Switch;
use super::state::Status;
use super::{LocalApi, LocalApiError, Session};
use crate::{Failure, Output, Table};

/// Where our daemon tells its flows.
const PATH: &str = "/towline/v0/flows";

/// Shows what flows through this node.
///
/// Mesh flows are connections inside the tunnels: who, whom, port, bytes. Physical flows are what leaves this machine:
/// tunnels by UDP to a peer's endpoint or through a relay (derp), and HTTPS to the relays and the coordination server.
/// What goes through a relay counts for its peer and, with the relay's own framing and TLS, for the HTTPS to the relay.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Only flows of this peer, by name
    #[arg(long, value_name = "NAME")]
    peer: Option<String>,
    /// Print JSON
    #[arg(long, default_value_t = false, switch())]
    json: bool,
}

/// What the daemon tells; what this command does not know is still there in JSON.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Flows {
    #[serde(deserialize_with = "nullable")]
    flows: Vec<Flow>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Flow {
    /// `mesh` or `physical`.
    #[serde(deserialize_with = "nullable")]
    kind: String,
    /// Whom a physical flow leads to: `peer`, `control` or `relay`.
    #[serde(deserialize_with = "nullable")]
    service: String,
    /// The peer's short name; empty for one that has left.
    #[serde(deserialize_with = "nullable")]
    peer: String,
    #[serde(rename = "nodeKey", deserialize_with = "nullable")]
    node_key: String,
    /// The IP protocol's number, or the name of what carries a tunnel.
    protocol: Value,
    #[serde(deserialize_with = "nullable")]
    local: String,
    #[serde(deserialize_with = "nullable")]
    remote: String,
    /// The host name of a server.
    #[serde(deserialize_with = "nullable")]
    name: String,
    /// The region of a relay.
    #[serde(deserialize_with = "nullable")]
    region: String,
    /// The connections to a server that are open now, the oldest first.
    #[serde(deserialize_with = "nullable")]
    open: Vec<OpenConnection>,
    /// When its first packet was seen.
    first: Time,
    #[serde(deserialize_with = "nullable")]
    initiator: String,
    #[serde(deserialize_with = "nullable")]
    sent: Volume,
    #[serde(deserialize_with = "nullable")]
    received: Volume,
    #[serde(deserialize_with = "nullable")]
    refused: Volume,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OpenConnection {
    since: Time,
}

#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(default)]
struct Volume {
    packets: u64,
    bytes: u64,
}

pub(super) async fn run<W: Write>(
    arguments: Arguments,
    session: &Session,
    output: &mut Output<W>,
) -> Result<(), Failure> {
    output.prefer_json(arguments.json);
    let api = session.api().await?;
    let mut answer = ask(&api).await?;
    if let Some(wanted) = &arguments.peer {
        let status: Status = api.get("status").await?;
        let peer = status.named(wanted);
        let key = status.peer.iter().find(|(_, found)| Some(*found) == peer).map(|(key, _)| key.as_str());
        let key = key.ok_or_else(|| {
            Failure::failed(format!("there is no peer {wanted:?}; `{} status` shows all", session.program()))
        })?;
        if let Some(flows) = answer.get_mut("flows").and_then(Value::as_array_mut) {
            flows.retain(|flow| flow.get("nodeKey").and_then(Value::as_str) == Some(key));
        }
    }
    let flows = Flows::deserialize(&answer)
        .map_err(|error| Failure::failed(format!("the daemon's answer can't be used: {error}")))?;
    output.print(&answer, |_| flows.text(Timestamp::now()))?;
    Ok(())
}

async fn ask(api: &LocalApi) -> Result<Value, Failure> {
    match api.get(PATH).await {
        Err(LocalApiError::Refused { status: StatusCode::NOT_FOUND, .. } | LocalApiError::Unknown { .. }) => {
            Err(Failure::refused(format!(
                "the daemon at {} tells no flows: only towline's own does (`towline node`), the stock tailscaled does not",
                api.socket().display()
            )))
        }
        answer => Ok(answer?),
    }
}

impl Flows {
    fn text(&self, now: Timestamp) -> String {
        let mut physical = Table::new(["WITH", "BY", "TO", "SENT", "RECEIVED", "SINCE"]);
        let mut mesh = Table::new(["PEER", "PROTO", "LOCAL", "", "REMOTE", "SENT", "RECEIVED", "REFUSED"]);
        for flow in &self.flows {
            let [sent, received] = [flow.sent, flow.received].map(|volume| bytes(volume.bytes));
            if flow.kind != "mesh" {
                physical.row([flow.with(), flow.protocol(), flow.to(), sent, received, flow.since(now)]);
                continue;
            }
            let arrow = if flow.initiator == "remote" { "<-" } else { "->" };
            let refused = match flow.refused.packets {
                0 => String::new(),
                packets => format!("{packets} packets"),
            };
            let (local, remote) = (flow.local.clone(), flow.remote.clone());
            mesh.row([flow.peer(), flow.protocol(), local, arrow.to_owned(), remote, sent, received, refused]);
        }
        if physical.is_empty() && mesh.is_empty() {
            return "Nothing flows.".to_owned();
        }
        format!("Physical flows, out of this machine:\n{physical}\nMesh flows, inside the tunnels:\n{mesh}")
    }
}

impl Flow {
    /// Whom a physical flow leads to.
    fn with(&self) -> String {
        match self.service.as_str() {
            "control" => "coordination server".to_owned(),
            "relay" => format!("relay {}", self.region).trim_end().to_owned(),
            _ => self.peer(),
        }
    }

    /// Where a physical flow leads to; a server by the name that it was looked up by, too.
    fn to(&self) -> String {
        let is_address = self.remote.starts_with(&self.name);
        match self.name.is_empty() || is_address {
            true => self.remote.clone(),
            false => format!("{} ({})", self.remote, self.name),
        }
    }

    /// For how long it has been there, or a connection to the server has been open.
    fn since(&self, now: Timestamp) -> String {
        let is_server = matches!(self.service.as_str(), "control" | "relay");
        match (is_server, self.open.first()) {
            (true, None) => "closed".to_owned(),
            (_, Some(oldest)) => age(&oldest.since, now),
            (false, None) => age(&self.first, now),
        }
    }

    fn peer(&self) -> String {
        if self.peer.is_empty() { self.node_key.chars().take(16).collect() } else { self.peer.clone() }
    }

    fn protocol(&self) -> String {
        match &self.protocol {
            Value::String(name) => name.clone(),
            number => number.as_u64().and_then(|number| u8::try_from(number).ok()).map(protocol).unwrap_or_default(),
        }
    }
}

/// `40s`, `12m`, `5h` or `3d`: a span in the largest unit that is full once.
fn age(since: &Time, now: Timestamp) -> String {
    let Some(since) = since.get() else { return String::new() };
    match now.duration_since(since).as_secs().max(0) {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3_600 => format!("{}m", seconds / 60),
        seconds @ 3_600..86_400 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

fn protocol(number: u8) -> String {
    match number {
        0 => "other".to_owned(),
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmp6".to_owned(),
        132 => "sctp".to_owned(),
        number => number.to_string(),
    }
}

fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut scaled = count as f64;
    let mut unit = 0;
    while scaled >= 1000.0 && unit + 1 < UNITS.len() {
        scaled /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{scaled:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_kinds_of_flow_are_shown_with_names() {
        let flows = Flows::deserialize(json!({"flows": [
            {"kind": "mesh", "peer": "alpha", "nodeKey": "nodekey:a", "protocol": 6, "local": "10.0.0.5:80",
                "remote": "100.64.0.1:4000", "initiator": "remote", "sent": {"packets": 2, "bytes": 1500},
                "received": {"packets": 1, "bytes": 90}, "refused": {"packets": 0, "bytes": 0}},
            {"kind": "physical", "peer": "", "nodeKey": "nodekey:0123456789", "protocol": "udp",
                "remote": "203.0.113.20:41641", "sent": {"packets": 9, "bytes": 2_500_000}, "received": {"packets": 1, "bytes": 1},
                "first": "2026-01-10T00:00:00Z"},
        ]}))
        .unwrap();
        let text = flows.text(now());
        assert!(text.contains("nodekey:01234567  udp  203.0.113.20:41641  2.5 MB  1 B       2h"), "{text}");
        assert!(text.contains("alpha  tcp    10.0.0.5:80  <-  100.64.0.1:4000  1.5 kB  90 B"), "{text}");
    }
    #[test]
    fn connections_to_servers_are_shown_with_name_and_age_or_as_closed() {
        let flows = Flows::deserialize(json!({"flows": [
            {"kind": "physical", "service": "control", "protocol": "https", "name": "control.example",
                "remote": "203.0.113.10:443", "sent": {"bytes": 1200}, "received": {"bytes": 34000},
                "open": [{"local": "10.0.0.5:4001", "since": "2026-01-10T02:24:00Z"}], "first": "2026-01-10T00:00:00Z"},
            {"kind": "physical", "service": "relay", "region": "near", "protocol": "https", "name": "198.51.100.7",
                "remote": "198.51.100.7:443", "sent": {"bytes": 7}, "received": {"bytes": 8}, "open": []},
        ]}))
        .unwrap();
        let text = flows.text(now());
        let control = "coordination server  https  203.0.113.10:443 (control.example)  1.2 kB  34.0 kB   6m";
        assert!(text.contains(control), "{text}");
        assert!(text.contains("relay near           https  198.51.100.7:443"), "{text}");
        assert!(text.contains("7 B     8 B       closed"), "{text}");
    }

    fn now() -> Timestamp {
        "2026-01-10T02:30:00Z".parse().unwrap()
    }
}
