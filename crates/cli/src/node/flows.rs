use std::io::Write;

use clap::Args;
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use tailcfg::go::nullable;

use super::settings::parse_bool;
use super::state::Status;
use super::{LocalApi, LocalApiError, Session};
use crate::{Failure, Output, Table};

/// Where our daemon tells its flows.
const PATH: &str = "/towline/v0/flows";

/// Shows what flows through this node.
///
/// Mesh flows are connections inside the tunnels: who, whom, port, bytes. Physical flows are what carries them: UDP to a
/// peer's endpoint, or HTTPS to a relay or the coordination server.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Only flows of this peer, by name
    #[arg(long, value_name = "NAME")]
    peer: Option<String>,
    /// Print JSON
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_bool, default_value_t = false, value_name = "BOOL")]
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
    #[serde(deserialize_with = "nullable")]
    initiator: String,
    #[serde(deserialize_with = "nullable")]
    sent: Volume,
    #[serde(deserialize_with = "nullable")]
    received: Volume,
    #[serde(deserialize_with = "nullable")]
    refused: Volume,
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
    output.print(&answer, |_| flows.text())?;
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
    fn text(&self) -> String {
        let mut physical = Table::new(["PEER", "BY", "TO", "SENT", "RECEIVED"]);
        let mut mesh = Table::new(["PEER", "PROTO", "LOCAL", "", "REMOTE", "SENT", "RECEIVED", "REFUSED"]);
        for flow in &self.flows {
            let [sent, received] = [flow.sent, flow.received].map(|volume| bytes(volume.bytes));
            if flow.kind != "mesh" {
                physical.row([flow.peer(), flow.protocol(), flow.remote.clone(), sent, received]);
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
        format!("Physical flows, which carry the tunnels:\n{physical}\nMesh flows, inside the tunnels:\n{mesh}")
    }
}

impl Flow {
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
                "remote": "203.0.113.20:41641", "sent": {"packets": 9, "bytes": 2_500_000}, "received": {"packets": 1, "bytes": 1}},
        ]}))
        .unwrap();
        let text = flows.text();
        assert!(text.contains("nodekey:01234567  udp  203.0.113.20:41641  2.5 MB  1 B"), "{text}");
        assert!(text.contains("alpha  tcp    10.0.0.5:80  <-  100.64.0.1:4000  1.5 kB  90 B"), "{text}");
    }
}
