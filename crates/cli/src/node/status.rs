use std::io::Write;
use std::net::IpAddr;

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tailcfg::UserId;

use super::Session;
use super::prefs::Prefs;
use super::settings::Switch;
use super::state::{PeerStatus, State, Status};
use crate::tabbed::Tabbed;
use crate::{Failure, Output, moment};

/// Shows this machine and its peers: address, name, owner, system, and what goes on between the two.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Print JSON
    #[arg(long, default_value_t = false, switch())]
    json: bool,
    /// Show only the peers with traffic
    #[arg(long, default_value_t = false, switch())]
    active: bool,
    /// Show peers
    #[arg(long, default_value_t = true, switch())]
    peers: bool,
    /// Show this machine
    #[arg(long = "self", default_value_t = true, switch())]
    own: bool,
    /// Show headings over the columns
    #[arg(long, default_value_t = false, switch())]
    header: bool,
    /// Serve the status as a web page (the stock command's; not offered)
    #[arg(long, default_value_t = false, switch(), hide = true)]
    web: bool,
}

pub(super) async fn run<W: Write>(
    arguments: Arguments,
    session: &Session,
    output: &mut Output<W>,
) -> Result<(), Failure> {
    if arguments.web {
        return Err(Failure::usage("there is no web page of the status: leave --web out"));
    }
    output.prefer_json(arguments.json);
    let path = if arguments.peers { "status" } else { "status?peers=false" };
    let api = session.api().await?;
    let mut answer: Value = api.get(path).await?;
    let status: Status = serde_json::from_value(answer.clone())
        .map_err(|error| Failure::failed(format!("the daemon's status can't be used: {error}")))?;
    if output.is_json() {
        arguments.narrow(&mut answer);
        output.print(&answer, |_| String::new())?;
        return Ok(());
    }
    let Some(obstacle) = status.obstacle(session.network()) else {
        output.print(&answer, |_| arguments.table(&status, Timestamp::now(), session.program()))?;
        return Ok(());
    };
    // Without a state, what is wrong is all there is to tell; our daemon says why a login does not get on, where the stock
    // one says the obstacle twice.
    let tells = status.state() == Some(State::Unknown) || (!session.is_stock() && status.version.ends_with("-towline"));
    let health = if tells { health(&status) } else { String::new() };
    let between = if health.is_empty() { "" } else { "\n" };
    let rest = if session.is_stock() {
        obstacle
    } else {
        let prefs = Prefs::load(&api).await?;
        standing(&status, &obstacle, prefs.text("ControlURL"), session.program())
    };
    output.print(&answer, |_| format!("{health}{between}{rest}"))?;
    Err(Failure::told())
}

/// How a node stands that is not in its tailnet, and what brings it there.
fn standing(status: &Status, obstacle: &str, server: &str, program: &str) -> String {
    match status.state() {
        // The stock daemon has its maker's server where nobody chose one.
        Some(State::NeedsLogin) if !status.have_node_key && status.auth_url.is_empty() && server.is_empty() => format!(
            "This machine is in no tailnet: `{program} up --login-server=https://control.example.com` joins one."
        ),
        Some(State::NeedsLogin) if !status.auth_url.is_empty() => obstacle.to_owned(),
        _ => format!("{obstacle} {}.", status.next_step(program)),
    }
}

impl Arguments {
    /// Leaves out of the JSON what the flags leave out.
    fn narrow(&self, answer: &mut Value) {
        if self.active
            && let Some(peers) = answer.get_mut("Peer").and_then(Value::as_object_mut)
        {
            peers.retain(|_, peer| peer.get("Active").and_then(Value::as_bool).unwrap_or_default());
        }
        if !self.own
            && let Some(own) = answer.get_mut("Self")
        {
            *own = Value::Null;
        }
    }

    fn table(&self, status: &Status, now: Timestamp, program: &str) -> String {
        let mut table = Tabbed::default();
        if self.header {
            table.line(["IP", "Hostname", "Owner", "OS", "Status"].map(str::to_owned));
            table.line(["--", "--------", "-----", "--", "------"].map(str::to_owned));
        }
        if let Some(own) = status.own.as_ref().filter(|_| self.own) {
            table.line(row(own, status, now));
        }
        let mut has_places = false;
        if self.peers {
            for peer in status.peers_by_name() {
                // Peers of others that this node is shared with only matter when they talk to it.
                if peer.sharee_node {
                    continue;
                }
                if is_rented(peer) && peer.exit_node_option && !peer.exit_node {
                    has_places = true;
                    continue;
                }
                if !self.active || peer.active {
                    table.line(row(peer, status, now));
                }
            }
        }
        if has_places {
            table.line([]);
            table.line([format!(
                "# To see the full list of exit nodes, including location-based exit nodes, run `{program} exit-node list`"
            )]);
        }
        match health(status).as_str() {
            "" => table.to_string(),
            health => format!("{table}\n{health}"),
        }
    }
}

/// What is wrong with the node.
fn health(status: &Status) -> String {
    if status.health.is_empty() {
        return String::new();
    }
    let problems: String = status.health.iter().map(|problem| format!("#     - {problem}\n")).collect();
    format!("# Health check:\n{problems}")
}

/// Whether a node is one of the hundreds that a provider of exit nodes lends to a tailnet.
fn is_rented(peer: &PeerStatus) -> bool {
    peer.dns_name.trim_end_matches('.').ends_with(".mullvad.ts.net")
}

fn row(peer: &PeerStatus, status: &Status, now: Timestamp) -> [String; 5] {
    let address = peer.addresses.first().map(IpAddr::to_string).unwrap_or_default();
    [address, peer.shown_name(&status.suffix), owner(peer, status), peer.os.clone(), activity(peer, now)]
}

/// Whose node it is: the login name up to its `@`, of the one who shares it when it is another's. A node with tags is its
/// own user on itself, with its full name for a login; here it says what its peers say of it.
fn owner(peer: &PeerStatus, status: &Status) -> String {
    if !peer.tags.is_empty() && peer.sharer == UserId::default() {
        return "tagged-devices".to_owned();
    }
    let id = if peer.sharer == UserId::default() { peer.user_id } else { peer.sharer };
    if id == UserId::default() {
        return "-".to_owned();
    }
    match status.user.get(&id.to_string()) {
        None => format!("userid:{id}"),
        Some(profile) => match profile.login_name.split_once('@') {
            Some((name, _)) => format!("{name}@"),
            None => profile.login_name.clone(),
        },
    }
}

/// What goes on between this machine and a peer.
fn activity(peer: &PeerStatus, now: Timestamp) -> String {
    let traffic = peer.tx_bytes != 0 || peer.rx_bytes != 0;
    let offline = if peer.online { String::new() } else { format!("offline{}", last_seen(peer, now)) };
    let mut text = match (peer.active, peer.exit_node, peer.exit_node_option) {
        (true, exit, option) => active(peer, exit, option),
        (false, true, _) => "idle; exit node".to_owned(),
        (false, false, true) => "idle; offers exit node".to_owned(),
        (false, false, false) if traffic => "idle".to_owned(),
        (false, false, false) if peer.online => return "-".to_owned(),
        (false, false, false) => return offline,
    };
    if !peer.online {
        text.push_str(&format!("; {offline}"));
    }
    if traffic {
        text.push_str(&format!(", tx {} rx {}", peer.tx_bytes, peer.rx_bytes));
    }
    text
}

fn active(peer: &PeerStatus, exit: bool, option: bool) -> String {
    let role = match (exit, option) {
        (true, _) => "exit node; ",
        (false, true) => "offers exit node; ",
        _ => "",
    };
    let way = match (peer.cur_addr.as_str(), peer.peer_relay.as_str(), peer.relay.as_str()) {
        ("", "", "") => String::new(),
        ("", "", relay) => format!("relay {relay:?}"),
        ("", relay, _) => format!("peer-relay {relay}"),
        (address, _, _) => format!("direct {address}"),
    };
    format!("active; {role}{way}")
}

/// `, last seen 5m ago`, in the largest unit that is full once; nothing when it is not known.
pub(super) fn last_seen(peer: &PeerStatus, now: Timestamp) -> String {
    let Some(seen) = peer.last_seen.get() else { return String::new() };
    // A peer that was seen within the minute is not told to the second.
    let told = seen.min(now.saturating_sub(SignedDuration::from_mins(1)).unwrap_or(now));
    format!(", last seen {}", moment::ago(told, now))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn peer(value: Value) -> PeerStatus {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_last_word_is_told_in_its_largest_unit() {
        let now: Timestamp = "2026-01-10T00:00:00Z".parse().unwrap();
        for (seen, text) in [
            ("2026-01-09T23:59:55Z", ", last seen 1m ago"),
            ("2026-01-09T23:00:30Z", ", last seen 59m ago"),
            ("2026-01-09T00:00:01Z", ", last seen 23h ago"),
            ("2026-01-07T00:00:00Z", ", last seen 3d ago"),
            ("2026-01-11T00:00:00Z", ", last seen 1m ago"),
            ("0001-01-01T00:00:00Z", ""),
        ] {
            assert_eq!(last_seen(&peer(json!({ "LastSeen": seen })), now), text);
        }
    }

    #[test]
    fn a_machine_that_is_in_no_tailnet_is_told_what_to_type() {
        let told = |status: Value, server: &str| {
            let status: Status = serde_json::from_value(status).unwrap();
            standing(&status, &status.obstacle("Towline").unwrap(), server, "towline")
        };
        let out = json!({"BackendState": "NeedsLogin"});
        assert!(told(out.clone(), "").contains("towline up --login-server="));
        assert_eq!(told(out, "https://c"), "Logged out. `towline up` logs in.");
        let asked = json!({"BackendState": "NeedsLogin", "AuthURL": "https://c/a/1"});
        assert_eq!(told(asked, ""), "Logged out.\nLog in at: https://c/a/1");
        let stopped = json!({"BackendState": "Stopped", "HaveNodeKey": true});
        assert_eq!(told(stopped, "https://c"), "Towline is stopped. `towline up` brings the network back.");
    }

    #[test]
    fn a_tagged_node_shows_of_itself_what_its_peers_show_of_it() {
        let login = "home-web.taila31de.ts.net";
        let status: Status = serde_json::from_value(json!({
            "BackendState": "Running", "MagicDNSSuffix": "taila31de.ts.net",
            "Self": {"DNSName": format!("{login}."), "TailscaleIPs": ["100.64.0.7"], "UserID": 7, "OS": "linux", "Online": true, "Tags": ["tag:k8s"]},
            "User": {"7": {"ID": 7, "LoginName": login}},
        }))
        .unwrap();
        let own = row(status.own.as_ref().unwrap(), &status, Timestamp::UNIX_EPOCH);
        assert_eq!(own, ["100.64.0.7", "home-web", "tagged-devices", "linux", "-"].map(str::to_owned));
    }

    #[test]
    fn json_holds_what_the_table_shows() {
        let arguments = Arguments { json: true, active: true, peers: true, own: false, header: false, web: false };
        let mut answer = json!({"Self": {}, "Peer": {"a": {"Active": true}, "b": {"Active": false}}});
        arguments.narrow(&mut answer);
        assert_eq!(answer, json!({"Self": null, "Peer": {"a": {"Active": true}}}));
    }
}
