use std::io::Write;
use std::net::IpAddr;

use clap::Subcommand;
use serde_json::json;

use super::prefs::{Changes, Prefs};
use super::state::{PeerStatus, Status};
use super::{Session, status};
use crate::{Failure, Output, Table};

/// What can be asked about exit nodes.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the nodes that offer to carry traffic to the internet
    List,
}

pub(super) async fn run<W: Write>(command: Command, session: &Session, output: &mut Output<W>) -> Result<(), Failure> {
    let Command::List = command;
    let status: Status = session.api().await?.get("status").await?;
    status.require_running(session)?;
    let offering: Vec<&PeerStatus> = status.peers_by_name().into_iter().filter(|peer| peer.exit_node_option).collect();
    if offering.is_empty() {
        return none(session, output);
    }
    let mut table = Table::new(["IP", "HOSTNAME", "COUNTRY", "CITY", "STATUS"]);
    let mut answer = Vec::new();
    for peer in offering {
        let place = peer.location.as_ref();
        let (country, city) = (place.map(|it| it.country.clone()), place.map(|it| it.city.clone()));
        let state = match (peer.exit_node, peer.online) {
            (true, _) => "selected".to_owned(),
            (false, true) => String::new(),
            (false, false) => format!("offline{}", status::last_seen(peer, jiff::Timestamp::now())),
        };
        let address = peer.addresses.first().map(IpAddr::to_string).unwrap_or_default();
        let name = peer.dns_name.trim_end_matches('.').to_owned();
        answer.push(json!({
            "ip": address, "hostname": name, "country": country, "city": city, "selected": peer.exit_node,
            "online": peer.online,
        }));
        table.row([address, name, country.unwrap_or_default(), city.unwrap_or_default(), state]);
    }
    output.print(&answer, |_| format!("{table}\n# To use an exit node: towline set --exit-node=NODE"))?;
    Ok(())
}

/// Says that no node offers: an answer as good as any, but for the stock command, to which it is a failure.
fn none<W: Write>(session: &Session, output: &mut Output<W>) -> Result<(), Failure> {
    if session.is_stock() && !output.is_json() {
        return Err(Failure::failed("no exit nodes found"));
    }
    let text = "No exit nodes. A node offers to be one with `towline set --advertise-exit-node`, and an admin approves it \
                with `towline routes`.";
    Ok(output.print(&Vec::<serde_json::Value>::new(), |_| text.to_owned())?)
}

/// The changes that make `wanted` the exit node: an address, a name, `auto:any`, or nothing.
pub(super) fn changes(wanted: &str, status: &Status) -> Result<Changes, Failure> {
    let (id, address, auto) = match (wanted, wanted.parse::<IpAddr>()) {
        ("", _) => (String::new(), String::new(), ""),
        (_, Ok(address)) => {
            check_address(address, status)?;
            (String::new(), address.to_string(), "")
        }
        _ if wanted.starts_with("auto:") => match wanted {
            "auto:any" => (String::new(), String::new(), "any"),
            _ => return Err(Failure::usage(format!("{wanted:?} is no way to choose an exit node; there is auto:any"))),
        },
        _ => (by_name(wanted, status)?.id.clone(), String::new(), ""),
    };
    let mut changes = Changes::new();
    changes.insert("ExitNodeID".to_owned(), id.into());
    changes.insert("ExitNodeIP".to_owned(), address.into());
    changes.insert("AutoExitNode".to_owned(), auto.into());
    Ok(changes)
}

fn check_address(address: IpAddr, status: &Status) -> Result<(), Failure> {
    if status.addresses.contains(&address) {
        return Err(Failure::usage(format!(
            "cannot use {address} as an exit node as it is a local IP address to this machine; did you mean --advertise-exit-node?"
        )));
    }
    if !status.is_up() {
        // Nobody can tell yet; the daemon takes the address for when it is there.
        return Ok(());
    }
    match status.at(address) {
        None => Err(Failure::usage(format!(
            "no node of the tailnet has the address {address}: `towline exit-node list` shows those that can be used"
        ))),
        Some(peer) => offering(peer, &address.to_string()).map(drop),
    }
}

fn by_name<'a>(wanted: &str, status: &'a Status) -> Result<&'a PeerStatus, Failure> {
    let named = status.named(wanted);
    if named.is_some() && named == status.own.as_ref() {
        return Err(Failure::usage(format!(
            "cannot use {wanted} as an exit node as it is this machine; did you mean --advertise-exit-node?"
        )));
    }
    let peer = named.ok_or_else(|| {
        Failure::usage(format!(
            "no node of the tailnet is called {wanted:?}: `towline exit-node list` shows those that can be used, by name \
             and address"
        ))
    })?;
    offering(peer, wanted)
}

fn offering<'a>(peer: &'a PeerStatus, wanted: &str) -> Result<&'a PeerStatus, Failure> {
    if peer.exit_node_option {
        return Ok(peer);
    }
    Err(Failure::usage(format!(
        "the node {wanted:?} does not offer to be an exit node, or no admin has approved that yet: `towline exit-node list` \
         shows those that can be used; the node offers with `towline set --advertise-exit-node`"
    )))
}

/// The exit node in force as `--exit-node` would name it.
pub(super) fn current(prefs: &Prefs, status: &Status) -> String {
    match (prefs.text("AutoExitNode"), prefs.text("ExitNodeIP"), prefs.text("ExitNodeID")) {
        ("", "", id) => {
            let node = status.peer.values().find(|peer| !id.is_empty() && peer.id == id);
            node.and_then(|node| node.addresses.first()).map_or_else(|| id.to_owned(), IpAddr::to_string)
        }
        ("", address, _) => address.to_owned(),
        (auto, _, _) => format!("auto:{auto}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        let status = json!({
            "BackendState": "Running", "MagicDNSSuffix": "t.net", "TailscaleIPs": ["100.64.0.1"],
            "Self": {"DNSName": "me.t.net.", "TailscaleIPs": ["100.64.0.1"]},
            "Peer": {
                "a": {"ID": "nA", "DNSName": "exit.t.net.", "TailscaleIPs": ["100.64.0.2"], "ExitNodeOption": true},
                "b": {"ID": "nB", "DNSName": "plain.t.net.", "TailscaleIPs": ["100.64.0.3"]},
            },
        });
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn a_name_becomes_the_nodes_id_and_an_address_stays() {
        let node = |wanted| serde_json::to_value(changes(wanted, &status()).unwrap()).unwrap();
        assert_eq!(node("exit"), json!({"ExitNodeID": "nA", "ExitNodeIP": "", "AutoExitNode": ""}));
        assert_eq!(node("100.64.0.2"), json!({"ExitNodeID": "", "ExitNodeIP": "100.64.0.2", "AutoExitNode": ""}));
        assert_eq!(node("auto:any"), json!({"ExitNodeID": "", "ExitNodeIP": "", "AutoExitNode": "any"}));
        assert_eq!(node(""), json!({"ExitNodeID": "", "ExitNodeIP": "", "AutoExitNode": ""}));
    }

    #[test]
    fn a_node_that_offers_nothing_is_refused() {
        for (wanted, message) in [
            ("nosuch", "no node of the tailnet is called \"nosuch\": `towline exit-node list` shows"),
            ("plain", "the node \"plain\" does not offer to be an exit node"),
            ("100.64.0.9", "no node of the tailnet has the address 100.64.0.9: `towline exit-node list` shows"),
            ("me", "did you mean --advertise-exit-node?"),
            ("100.64.0.1", "did you mean --advertise-exit-node?"),
            ("auto:fast", "there is auto:any"),
        ] {
            let failure = changes(wanted, &status()).unwrap_err().to_string();
            assert!(failure.contains(message), "{failure}");
        }
    }

    #[test]
    fn the_exit_node_in_force_is_named_by_address() {
        let prefs = |value| serde_json::from_value::<Prefs>(value).unwrap();
        assert_eq!(current(&prefs(json!({"ExitNodeID": "nA"})), &status()), "100.64.0.2");
        assert_eq!(current(&prefs(json!({"ExitNodeID": "gone"})), &status()), "gone");
        assert_eq!(current(&prefs(json!({"AutoExitNode": "any"})), &status()), "auto:any");
    }
}
