//! The stock command and ours, under its name, shown the same made-up daemon: they must say the same.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Said, run, stock, towline};

/// Answers each path below `/localapi/v0/` with a value, until the process ends.
struct MadeUpDaemon {
    folder: TempDir,
    socket: PathBuf,
    ours: PathBuf,
}

impl MadeUpDaemon {
    fn start(answers: BTreeMap<&'static str, Value>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("sock");
        let ours = folder.path().join("tailscale");
        std::os::unix::fs::symlink(towline(), &ours).unwrap();
        let listener = UnixListener::bind(&socket).unwrap();
        let answers = Arc::new(answers);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let answers = answers.clone();
                std::thread::spawn(move || answer(stream, &answers));
            }
        });
        Self { folder, socket, ours }
    }

    fn both(&self, line: &str) -> (Said, Said) {
        let said = |program| {
            let arguments = ["--socket", self.socket.to_str().unwrap()].into_iter().chain(line.split_whitespace());
            run(program, arguments, self.folder.path())
        };
        (said(&self.ours), said(&stock("tailscale")))
    }

    #[track_caller]
    fn same(&self, line: &str) {
        let (ours, stocks) = self.both(line);
        assert_eq!((&ours.out, ours.code), (&stocks.out, stocks.code), "{line}\nours: {ours:?}\nstock: {stocks:?}");
    }
}

/// What a client asks; nothing when it hangs up.
fn read_head(stream: &mut UnixStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

fn answer(mut stream: UnixStream, answers: &BTreeMap<&'static str, Value>) {
    let Some(head) = read_head(&mut stream) else { return };
    let path = head.split_whitespace().nth(1).unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default().trim_start_matches("/localapi/v0/");
    let body = answers.get(path).map_or_else(|| "{}".to_owned(), Value::to_string);
    let response = format!(
        "HTTP/1.1 200 OK\r\nTailscale-Version: 1.104.2\r\nTailscale-Cap: 148\r\nContent-Type: application/json\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.write_all(response.as_bytes());
}

fn node(name: &str, at: usize, more: Value) -> Value {
    let mut node = json!({
        "ID": format!("n{at}"), "PublicKey": format!("nodekey:{at:064x}"), "HostName": name,
        "DNSName": format!("{name}.tail.example.net."), "OS": "linux", "UserID": 2,
        "TailscaleIPs": [format!("100.64.1.{at}"), format!("fd7a:115c:a1e0::{at:x}")], "Relay": "near", "Online": true,
        "InNetworkMap": true,
    });
    node.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    node
}

/// Peers in every state that a table can show.
fn status() -> Value {
    let ago =
        |seconds| (Timestamp::now() - SignedDuration::from_secs(seconds)).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let peers = [
        ("zeta", json!({})),
        ("exit-idle", json!({"ExitNode": true})),
        ("exit-offer", json!({"ExitNodeOption": true})),
        ("traffic", json!({"RxBytes": 5})),
        ("off", json!({"Online": false})),
        ("off-seconds", json!({"Online": false, "LastSeen": ago(5)})),
        ("off-minutes", json!({"Online": false, "LastSeen": ago(59 * 60 + 10)})),
        ("off-hours", json!({"Online": false, "LastSeen": ago(23 * 3600 + 60)})),
        ("off-days", json!({"Online": false, "LastSeen": ago(400 * 86400 + 60)})),
        ("off-exit", json!({"Online": false, "ExitNode": true, "LastSeen": ago(7260)})),
        ("off-traffic", json!({"Online": false, "TxBytes": 1, "LastSeen": ago(7260)})),
        ("act-relay", json!({"Active": true})),
        ("act-direct", json!({"Active": true, "CurAddr": "192.0.2.1:5", "TxBytes": 7, "RxBytes": 8})),
        ("act-none", json!({"Active": true, "Relay": ""})),
        ("act-peer-relay", json!({"Active": true, "PeerRelay": "192.0.2.1:5:vni:7"})),
        ("act-exit", json!({"Active": true, "ExitNode": true, "ExitNodeOption": true})),
        ("act-offers", json!({"Active": true, "ExitNodeOption": true, "CurAddr": "192.0.2.1:5"})),
        ("act-off", json!({"Active": true, "Online": false, "LastSeen": ago(7260)})),
        ("sharee", json!({"ShareeNode": true})),
        ("nameless", json!({"DNSName": "", "HostName": "We ird \"Host"})),
        ("nobodys", json!({"UserID": 0})),
        ("unknowns", json!({"UserID": 77})),
        ("shared", json!({"AltSharerUserID": 3})),
        ("passkeys", json!({"UserID": 4})),
        ("addressless", json!({"TailscaleIPs": null})),
        ("foreign", json!({"DNSName": "foreign.other.ts.net."})),
        ("placed", json!({"ExitNodeOption": true, "Location": {"Country": "Sweden", "City": "Malmo"}})),
        ("rented", json!({"ExitNodeOption": true, "Active": true, "DNSName": "rented.mullvad.ts.net."})),
        ("rented-in-use", json!({"ExitNode": true, "DNSName": "rented-in-use.mullvad.ts.net."})),
    ];
    let peers: BTreeMap<String, Value> = peers
        .into_iter()
        .enumerate()
        .map(|(at, (name, more))| (format!("nodekey:{at:064x}"), node(name, at, more)))
        .collect();
    json!({
        "Version": "1.104.2", "BackendState": "Running", "HaveNodeKey": true, "AuthURL": "",
        "TailscaleIPs": ["100.64.0.1", "fd7a:115c:a1e0::6440:1"],
        "Self": node("alpha", 200, json!({"TailscaleIPs": ["100.64.0.1", "fd7a:115c:a1e0::6440:1"]})),
        "MagicDNSSuffix": "tail.example.net",
        "CurrentTailnet": {"Name": "tail.example.net", "MagicDNSSuffix": "tail.example.net", "MagicDNSEnabled": true},
        "Health": ["one thing is wrong", "and another"],
        "Peer": peers,
        "User": {
            "2": {"ID": 2, "LoginName": "admin@example.com"}, "3": {"ID": 3, "LoginName": "sharer@example.org"},
            "4": {"ID": 4, "LoginName": "passkey"},
        },
    })
}

#[test]
fn the_table_of_peers_is_the_stock_commands() {
    let daemon = MadeUpDaemon::start(BTreeMap::from([("status", status())]));
    for line in
        ["status", "status -header", "status --active", "status --self=false --peers=F", "status -active -self=0"]
    {
        daemon.same(line);
    }
    let (ours, stocks) = daemon.both("status -json");
    let (ours, stocks) = (ours.json(), stocks.json());
    assert_eq!(ours["Peer"].as_object().unwrap().len(), stocks["Peer"].as_object().unwrap().len());
    assert_eq!(ours["Self"]["DNSName"], stocks["Self"]["DNSName"]);
}

#[test]
fn every_state_is_told_in_the_stock_commands_words_and_exit_code() {
    for state in ["NoState", "InUseOtherUser", "NeedsLogin", "NeedsMachineAuth", "Stopped", "Starting"] {
        let mut status = status();
        status["BackendState"] = state.into();
        daemon_says(&status);
    }
    let mut status = status();
    status["BackendState"] = "NeedsLogin".into();
    status["AuthURL"] = "https://control.example.com/a/1".into();
    daemon_says(&status);
}

#[track_caller]
fn daemon_says(status: &Value) {
    let daemon = MadeUpDaemon::start(BTreeMap::from([("status", status.clone())]));
    daemon.same("status");
    daemon.same("ip");
}

#[test]
fn addresses_and_owners_are_the_stock_commands() {
    let whois = json!({
        "Node": {"ID": 4, "StableID": "nX", "Name": "x.tail.example.net.", "User": 2, "Addresses": ["100.64.0.9/32", "fd7a::9/128"]},
        "UserProfile": {"ID": 2, "LoginName": "a@b", "DisplayName": "A"},
        "CapMap": {"tailscale.com/cap/kubernetes": [{"impersonate": {"groups": ["g1"]}}, {"x": 1}]},
    });
    let mut tagged = whois.clone();
    tagged["Node"]["Tags"] = json!(["tag:a", "tag:b"]);
    tagged["CapMap"] = json!({"bare": null});
    for whois in [whois, tagged] {
        let daemon = MadeUpDaemon::start(BTreeMap::from([("status", status()), ("whois", whois)]));
        daemon.same("whois 100.64.0.9");
        let (ours, stocks) = daemon.both("whois -json 100.64.0.9");
        let (ours, stocks) = (ours.json(), stocks.json());
        assert_eq!((&ours["CapMap"], &ours["UserProfile"]["ID"]), (&stocks["CapMap"], &stocks["UserProfile"]["ID"]));
        for line in ["ip", "ip -4", "ip -6", "ip -1", "ip -4 -6", "ip -4 traffic", "ip 100.64.1.0", "ip 100.99.0.1"] {
            daemon.same(line);
        }
    }
}

#[test]
fn a_pong_reads_as_the_stock_commands_by_every_way() {
    let base = json!({"IP": "100.64.1.3", "NodeIP": "100.64.1.3", "NodeName": "traffic", "LatencySeconds": 0.0124});
    for (more, line) in [
        (json!({"Endpoint": "203.0.113.20:41641"}), "ping traffic"),
        (json!({"DERPRegionID": 900, "DERPRegionCode": "near"}), "ping -c 1 traffic"),
        (json!({"DERPRegionID": 900, "DERPRegionCode": "near"}), "ping -c 1 -until-direct=false traffic"),
        (json!({"PeerRelay": "192.0.2.1:7:vni:3"}), "ping -c 1 traffic"),
        (json!({"PeerAPIPort": 46590}), "ping -tsmp traffic"),
        (json!({"LatencySeconds": 1.5}), "ping --icmp traffic"),
        (json!({"PeerAPIURL": "http://100.64.1.3:46590", "LatencySeconds": 61.0}), "ping --peerapi traffic"),
        (json!({"Err": "no matching peer"}), "ping -c 1 100.64.99.9"),
        (json!({"Err": "100.64.0.1 is local Tailscale IP", "IsLocalIP": true}), "ping -c 1 100.64.77.7"),
    ] {
        let mut result = base.clone();
        result.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let daemon = MadeUpDaemon::start(BTreeMap::from([("status", status()), ("ping", result)]));
        daemon.same(line);
    }
}

#[test]
fn accounts_are_listed_as_the_stock_command_lists_them() {
    let profile = |id: &str, name: &str| {
        json!({
            "ID": id, "Name": name, "Key": format!("profile-{id}"), "UserProfile": {"ID": 2, "LoginName": name},
            "NetworkProfile": {"MagicDNSName": "t.net", "DomainName": "t.net", "DisplayName": "t.net"},
        })
    };
    let profiles = json!([profile("51bd", "a@example.com"), profile("a0dc", "longer@example.com")]);
    let answers =
        BTreeMap::from([("profiles/", profiles), ("profiles/current", profile("a0dc", "longer@example.com"))]);
    let daemon = MadeUpDaemon::start(answers);
    daemon.same("switch -list");
    let (ours, stocks) = daemon.both("switch --list --json");
    assert_eq!(ours.json(), stocks.json());
}

#[test]
fn a_peer_can_not_steer_the_terminal() {
    let mut status = status();
    status["Self"]["DNSName"] = "a\u{1b}[2J\u{202e}b.tail.example.net.".into();
    let daemon = MadeUpDaemon::start(BTreeMap::from([("status", status)]));
    for line in ["status", "status --json"] {
        let (ours, _) = daemon.both(line);
        assert!(!ours.well().contains(['\u{1b}', '\u{202e}']), "{line}");
    }
}

/// Runs our command against a daemon that sends these bytes and hangs up.
fn against(bytes: &'static [u8], line: &str) -> Said {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("sock");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            if read_head(&mut stream).is_some() {
                let _ = stream.write_all(bytes);
            }
        }
    });
    let arguments = ["--socket", socket.to_str().unwrap()].into_iter().chain(line.split_whitespace());
    run(towline(), arguments, folder.path())
}

#[test]
fn a_daemon_that_talks_nonsense_ends_the_command_with_a_cause() {
    for (bytes, code, cause) in [
        (&b""[..], 4, "the daemon ended the connection during GET status"),
        (b"220 mail.example.com ESMTP\r\n", 4, "the daemon ended the connection during GET status"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", 4, "the daemon ended the connection during GET status"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 1, "the daemon's answer to GET status can't be used"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{\"Peer\":[5]}", 1, "status can't be used"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", 3, "sudo towline set --operator=$USER"),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 16\r\n\r\n{\"error\":\"full\"}", 3, "towline: full"),
    ] {
        let said = against(bytes, "status");
        assert!(said.code == code && said.err.contains(cause), "{}: {said:?}", String::from_utf8_lossy(bytes));
    }
}
