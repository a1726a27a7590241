use std::io::Write;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};
use tailcfg::go::nullable;
use tokio::time::{Instant, sleep_until};

use super::local_api::query_value;
use super::settings::Switch;
use super::state::Status;
use super::{LocalApiError, Session, duration, lookup};
use crate::output::note;
use crate::{Failure, Output};

/// How daemons, ours and the stock one, say that an address is nobody's.
const NO_PEER: &str = "no matching peer";
/// Between the starts of two pings.
const INTERVAL: Duration = Duration::from_secs(1);

/// Pings a peer through the tailnet and shows which way each answer came.
///
/// Ends after 10 pings, or once one came directly. Exit codes: 0 when it did, or when any way was asked for; 1 otherwise.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The peer's name or address, or an address that it routes to
    target: String,
    /// How many pings to send; 0 for no end
    #[arg(short = 'c', long = "c", value_name = "COUNT", default_value_t = 10)]
    count: u32,
    /// End once an answer came directly
    #[arg(long, default_value_t = true, switch())]
    until_direct: bool,
    /// How long to wait for each answer
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration::parse)]
    timeout: Duration,
    /// Ping through the tunnel, answered by the peer's daemon
    #[arg(long, default_value_t = false, switch(), conflicts_with_all = ["icmp", "peerapi"])]
    tsmp: bool,
    /// Ping through the tunnel with ICMP, answered by the peer's system
    #[arg(long, default_value_t = false, switch(), conflicts_with = "peerapi")]
    icmp: bool,
    /// Ask the peer's daemon by HTTP
    #[arg(long, default_value_t = false, switch())]
    peerapi: bool,
    /// The size of the ping's message, 0 for the least; neither for --tsmp, --icmp nor --peerapi
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    size: u32,
    /// Tell what the name stands for
    #[arg(short, long, default_value_t = false, switch())]
    verbose: bool,
}

/// How a ping travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Disco,
    Tsmp,
    Icmp,
    PeerApi,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Disco => "disco",
            Self::Tsmp => "TSMP",
            Self::Icmp => "ICMP",
            Self::PeerApi => "peerapi",
        }
    }
}

/// What the daemon says of one ping.
#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct PingResult {
    #[serde(rename = "IP", deserialize_with = "nullable")]
    ip: String,
    #[serde(rename = "NodeIP", deserialize_with = "nullable")]
    node_ip: String,
    #[serde(deserialize_with = "nullable")]
    node_name: String,
    #[serde(deserialize_with = "nullable")]
    err: String,
    #[serde(deserialize_with = "nullable")]
    latency_seconds: f64,
    #[serde(deserialize_with = "nullable")]
    endpoint: String,
    #[serde(deserialize_with = "nullable")]
    peer_relay: String,
    #[serde(rename = "DERPRegionID", deserialize_with = "nullable")]
    derp_region_id: i64,
    #[serde(rename = "DERPRegionCode", deserialize_with = "nullable")]
    derp_region_code: String,
    #[serde(rename = "PeerAPIPort", deserialize_with = "nullable")]
    peer_api_port: u16,
    #[serde(rename = "PeerAPIURL", deserialize_with = "nullable")]
    peer_api_url: String,
    #[serde(rename = "IsLocalIP", deserialize_with = "nullable")]
    is_local_ip: bool,
}

pub(super) async fn run<W: Write>(
    arguments: Arguments,
    session: &Session,
    output: &mut Output<W>,
) -> Result<(), Failure> {
    let api = session.api().await?;
    let status: Status = api.get("status").await?;
    status.require_running(session)?;
    let target = lookup::target(&arguments.target, &status, session).await?;
    if target.is_own {
        let answer = json!({"IP": target.address, "IsLocalIP": true});
        let whose = if session.is_stock() { "local Tailscale IP" } else { "this machine's own address" };
        output.line(&answer, |_| format!("{} is {whose}", target.address))?;
        return Ok(());
    }
    if arguments.verbose && target.address.to_string() != arguments.target {
        note(&format!("lookup {:?} => {:?}", arguments.target, target.address.to_string()));
    }
    let (kind, address) = (arguments.kind(), target.address.to_string());
    let path = format!("ping?ip={}&size={}&type={}", query_value(&address), arguments.size, query_value(kind.name()));
    let mut any = false;
    let mut sent = 0;
    loop {
        let next = Instant::now() + INTERVAL;
        sent += 1;
        // Ours is the shorter wait; the daemon's own end makes no difference to the user.
        let asked = tokio::time::timeout(arguments.timeout, api.post::<Value>(&path, None, arguments.timeout * 2));
        match asked.await {
            Err(_) => lost(&address, output)?,
            Ok(Err(LocalApiError::TimedOut { .. })) => lost(&address, output)?,
            Ok(Err(error)) => return Err(error.into()),
            Ok(Ok(answer)) => {
                let result = PingResult::deserialize(&answer)
                    .map_err(|error| Failure::failed(format!("the daemon's answer can't be used: {error}")))?;
                match arguments.show(kind, &result, &answer, output)? {
                    Shown::Enough => return Ok(()),
                    Shown::Pong => any = true,
                }
            }
        }
        if sent == arguments.count {
            return arguments.end(any, kind);
        }
        sleep_until(next).await;
    }
}

/// Whether to go on after an answer.
enum Shown {
    Enough,
    Pong,
}

impl Arguments {
    fn kind(&self) -> Kind {
        match (self.tsmp, self.icmp, self.peerapi) {
            (true, ..) => Kind::Tsmp,
            (_, true, _) => Kind::Icmp,
            (.., true) => Kind::PeerApi,
            _ => Kind::Disco,
        }
    }

    fn show<W: Write>(
        &self,
        kind: Kind,
        result: &PingResult,
        answer: &Value,
        output: &mut Output<W>,
    ) -> Result<Shown, Failure> {
        if !result.err.is_empty() {
            if result.is_local_ip {
                output.line(answer, |_| result.err.clone())?;
                return Ok(Shown::Enough);
            }
            return Err(Failure::failed(explained(result)));
        }
        output.line(answer, |_| result.line(kind))?;
        // One answer through the tunnel tells all that there is to tell.
        let enough = kind != Kind::Disco || (self.until_direct && !result.endpoint.is_empty());
        Ok(if enough { Shown::Enough } else { Shown::Pong })
    }

    fn end(&self, any: bool, kind: Kind) -> Result<(), Failure> {
        match any {
            false => Err(Failure::failed("no reply")),
            true if self.until_direct && kind == Kind::Disco => {
                Err(Failure::failed("direct connection not established"))
            }
            true => Ok(()),
        }
    }
}

fn lost<W: Write>(address: &str, output: &mut Output<W>) -> Result<(), Failure> {
    let answer = json!({"IP": address, "Err": "timed out"});
    Ok(output.line(&answer, |_| format!("ping {address:?} timed out"))?)
}

/// What went wrong, with the next step where the daemon's words have none.
fn explained(result: &PingResult) -> String {
    if result.err != NO_PEER {
        return result.err.clone();
    }
    format!(
        "no node of the tailnet has the address {} or serves a network with it: `towline status` shows all nodes. To \
         addresses of the internet packets go through an exit node, once `towline set --exit-node=NODE` chose one",
        result.ip
    )
}

impl PingResult {
    /// An answer in the stock command's words, which scripts read.
    fn line(&self, kind: Kind) -> String {
        let latency = duration::milliseconds(Duration::try_from_secs_f64(self.latency_seconds).unwrap_or_default());
        if kind == Kind::PeerApi {
            return format!("hit peerapi of {} ({}) at {} in {latency}", self.ip, self.node_name, self.peer_api_url);
        }
        let port = if self.peer_api_port == 0 { String::new() } else { format!(", {}", self.peer_api_port) };
        format!("pong from {} ({}{port}) via {} in {latency}", self.node_name, self.node_ip, self.via(kind))
    }

    fn via(&self, kind: Kind) -> String {
        if kind != Kind::Disco {
            return kind.name().to_owned();
        }
        if !self.endpoint.is_empty() {
            self.endpoint.clone()
        } else if !self.peer_relay.is_empty() {
            format!("peer-relay({})", self.peer_relay)
        } else if self.derp_region_id != 0 {
            format!("DERP({})", self.derp_region_code)
        } else {
            kind.name().to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(value: Value) -> PingResult {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn each_way_is_named_as_scripts_expect() {
        let base = json!({"IP": "100.64.0.2", "NodeIP": "100.64.0.2", "NodeName": "beta", "LatencySeconds": 0.0124});
        let line = |more: Value, kind| {
            let mut value = base.clone();
            value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            result(value).line(kind)
        };
        let direct = line(json!({"Endpoint": "203.0.113.20:41641"}), Kind::Disco);
        assert_eq!(direct, "pong from beta (100.64.0.2) via 203.0.113.20:41641 in 12ms");
        let relayed = line(json!({"DERPRegionID": 900, "DERPRegionCode": "near"}), Kind::Disco);
        assert_eq!(relayed, "pong from beta (100.64.0.2) via DERP(near) in 12ms");
        let peer = line(json!({"PeerRelay": "192.0.2.1:7:vni:3"}), Kind::Disco);
        assert_eq!(peer, "pong from beta (100.64.0.2) via peer-relay(192.0.2.1:7:vni:3) in 12ms");
        let tsmp = line(json!({"PeerAPIPort": 46590}), Kind::Tsmp);
        assert_eq!(tsmp, "pong from beta (100.64.0.2, 46590) via TSMP in 12ms");
    }

    #[test]
    fn an_address_that_is_nobodys_is_told_with_the_next_step() {
        let told = explained(&result(json!({"IP": "8.8.8.8", "Err": "no matching peer"})));
        assert!(told.contains("8.8.8.8") && told.contains("towline set --exit-node=NODE"), "{told}");
        assert_eq!(explained(&result(json!({"Err": "timed out"}))), "timed out");
    }

    #[test]
    fn a_latency_that_is_none_does_not_break_the_line() {
        assert!(result(json!({"LatencySeconds": -1.0})).line(Kind::Disco).ends_with("in 0s"));
    }
}
