//! Policies that do not do what their author means.

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::machine::Machine;
use crate::server::{ADMIN, POLICY, Server};

#[tokio::test]
async fn a_policy_that_does_not_parse_or_names_what_is_not_there_is_refused_by_line_and_the_old_one_stays() {
    let server = Server::start().await;
    let before = server.policy().await;
    for (text, says) in [
        ("{\n  \"grants\": [,]\n}", "line 2"),
        (
            "{\n  \"grants\": [{\"src\": [\"group:ghosts\"], \"dst\": [\"*\"], \"ip\": [\"*\"]}]\n}",
            "line 2, column 23: src=group not found: \"group:ghosts\"",
        ),
        (
            "{\n\n  \"grants\": [{\"src\": [\"tag:ghost\"], \"dst\": [\"*\"], \"ip\": [\"*\"]}]\n}",
            "line 3, column 23: src=tag not found: \"tag:ghost\"",
        ),
        ("{\n  \"gants\": []\n}", "gants"),
        ("nonsense", "line 1"),
    ] {
        let (status, answer) = server.ask(Method::POST, "/tailnet/-/acl", text).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{text}");
        let message = answer["message"].as_str().unwrap();
        assert!(message.contains(says), "{text}: {message}");
        let (status, verdict) = server.ask(Method::POST, "/tailnet/-/acl/validate", text).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(verdict["message"].as_str().unwrap(), message, "checking says what setting says");
    }
    assert_eq!(server.policy().await, before);
}

#[tokio::test]
async fn tests_that_are_tried_stand_in_for_a_policys_own_and_faults_are_told_by_their_own_lines() {
    let server = Server::start().await;
    let own = POLICY.replacen(
        '{',
        r#"{"Tests": [{"src": "admin@example.com", "accept": ["tag:server:22"]}],
            "SSHTests": [{"src": "admin@example.com", "dst": ["tag:server"], "deny": ["root"]}],"#,
        1,
    );
    assert_eq!(server.ask(Method::POST, "/tailnet/-/acl", own).await.0, StatusCode::OK);
    let validate = "/tailnet/-/acl/validate";
    let tests = "[ // one\n  {\"src\": \"nobody@example.com\", \"accept\": [\"tag:server:22\"]}, ]";
    let (status, verdict) = server.ask(Method::POST, validate, tests).await;
    assert_eq!((status, verdict["message"].as_str()), (StatusCode::OK, Some("test(s) failed")), "{verdict}");
    let users: Vec<_> = verdict["data"].as_array().unwrap().iter().map(|test| test["user"].clone()).collect();
    assert_eq!(users, ["nobody@example.com"], "its own are not tried beside them");
    let (_, verdict) = server.ask(Method::POST, validate, "[]").await;
    assert!(!verdict["message"].as_str().unwrap_or_default().contains("failed"), "{verdict}");
    let (status, answer) = server.ask(Method::POST, validate, "[\n  {\"srcs\": \"x\"},\n]").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let message = answer["message"].as_str().unwrap();
    assert!(message.starts_with("the tests can't be read: line 2, column 4: "), "{message}");
}

#[tokio::test]
async fn what_setting_a_policy_answers_is_the_policy_that_was_set() {
    let server = Server::start().await;
    let (text, path) = (format!("// mine\n{POLICY}"), "/tailnet/-/acl");
    let (status, headers, _) = server.ask_with(Method::POST, path, &[], text.clone()).await;
    assert_eq!(status, StatusCode::OK);
    let (_, in_force, _) = server.ask_with(Method::GET, path, &[], "").await;
    assert_eq!(headers["etag"], in_force["etag"]);
    let (_, _, json) = server.ask_with(Method::POST, path, &[("accept", "application/json")], text).await;
    assert!(json["grants"].is_array(), "{json}");
}

#[tokio::test]
async fn a_policy_is_set_only_over_the_one_that_its_author_has_seen() {
    let server = Server::start().await;
    let path = "/tailnet/-/acl";
    let (status, headers, _) = server.ask_with(Method::GET, path, &[], "").await;
    assert_eq!(status, StatusCode::OK);
    let seen = headers["etag"].to_str().unwrap().to_owned();
    let one = POLICY.replace("group:dev", "group:one");
    let (status, headers, answer) = server.ask_with(Method::POST, path, &[("if-match", &seen)], one).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let now = headers["etag"].to_str().unwrap().to_owned();
    assert_ne!(now, seen);
    let before = server.policy().await;
    for stale in [seen.as_str(), "\"ts-default\"", "\"never-was\""] {
        let two = POLICY.replace("group:dev", "group:two");
        let (status, _, answer) = server.ask_with(Method::POST, path, &[("if-match", stale)], two).await;
        assert_eq!(status, StatusCode::PRECONDITION_FAILED, "{stale}: {answer}");
        assert_eq!(answer["message"], "precondition failed, invalid old hash", "{stale}");
    }
    assert_eq!(server.policy().await, before);
    let two = POLICY.replace("group:dev", "group:two");
    let (status, _, answer) = server.ask_with(Method::POST, path, &[("if-match", &now)], two).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
}

#[tokio::test]
async fn a_policy_that_cuts_its_author_off_is_warned_of_and_set_by_programs_without_asking() {
    let server = Server::start().await;
    let (_, key) = server.make_key(json!({"reusable": true}), None).await;
    let (_, tagged) = server.make_key(json!({"tags": ["tag:server"]}), None).await;
    assert_eq!(Machine::new().register(server.address, "laptop", &key).await.error, "");
    assert_eq!(Machine::new().register(server.address, "server", &tagged).await.error, "");

    let lockout = r#"{"tagOwners": {"tag:server": [], "tag:k8s-operator": []}, "grants": []}"#;
    let (status, verdict) = server.ask(Method::POST, "/tailnet/-/acl/validate", lockout).await;
    assert_eq!((status, verdict["message"].as_str()), (StatusCode::OK, Some("warning(s) found")));
    let warned = &verdict["data"][0];
    assert_eq!(warned["user"], ADMIN);
    let warning = warned["warnings"][0].as_str().unwrap();
    assert!(
        warning.starts_with("this policy cuts admin@example.com off: none of their devices could reach"),
        "{warning}"
    );
    // Programs that set policies can't be asked back, and the API that they are written for has no such question.
    let (status, answer) = server.ask(Method::POST, "/tailnet/-/acl", lockout).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
}

#[tokio::test]
async fn an_edit_of_one_rule_sends_one_chunk_to_those_whom_it_concerns_and_nothing_to_others() {
    let policy = |port: u16| {
        format!(
            r#"{{"tagOwners": {{"tag:server": [], "tag:k8s-operator": []}}, "grants": [
                {{"src": ["autogroup:admin"], "dst": ["tag:server"], "ip": ["tcp:{port}"]}},
                {{"src": ["tag:server"], "dst": ["tag:k8s-operator"], "ip": ["tcp:443"]}},
                {{"src": ["tag:k8s-operator"], "dst": ["tag:server"], "ip": ["udp:53"]}}]}}"#
        )
    };
    let server = Server::start().await;
    assert_eq!(server.ask(Method::POST, "/tailnet/-/acl", policy(22)).await.0, StatusCode::OK);
    let mut streams = Vec::new();
    for (name, tags) in
        [("server", json!(["tag:server"])), ("operator", json!(["tag:k8s-operator"])), ("laptop", json!([]))]
    {
        let (_, key) = server.make_key(json!({"tags": tags}), None).await;
        let machine = Machine::new();
        assert_eq!(machine.register(server.address, name, &key).await.error, "");
        streams.push((machine.call(server.address).await.stream(&machine).await, name));
    }
    // The message with this has all that came before it: everybody has come to know everybody else.
    let mark = json!({"magicDNS": false}).to_string();
    assert_eq!(server.ask(Method::POST, "/tailnet/-/dns/preferences", mark).await.0, StatusCode::OK);
    for (stream, _) in &mut streams {
        loop {
            let told = stream.next().await;
            if told["DNSConfig"].is_object() && told["DNSConfig"]["Proxied"].is_null() {
                break;
            }
        }
    }
    assert_eq!(server.ask(Method::POST, "/tailnet/-/acl", policy(23)).await.0, StatusCode::OK);
    let told = streams[0].0.next().await;
    let chunks = told["PacketFilters"].as_object().unwrap();
    assert_eq!(chunks.len(), 2, "one goes and one comes: {told}");
    assert_eq!(chunks.values().filter(|rules| rules.is_null()).count(), 1);
    assert!(told["PeersChanged"].is_null() && told["PeersRemoved"].is_null() && told["Node"].is_null(), "{told}");

    let mark = json!({"magicDNS": true}).to_string();
    assert_eq!(server.ask(Method::POST, "/tailnet/-/dns/preferences", mark).await.0, StatusCode::OK);
    for (stream, name) in &mut streams[1..] {
        let told = stream.next().await;
        assert_eq!(told["DNSConfig"]["Proxied"], true, "{name} was told something before: {told}");
        assert!(told["PacketFilters"].is_null() && told["PeersChanged"].is_null(), "{name}: {told}");
    }
}

#[tokio::test]
async fn a_policy_of_a_short_text_and_a_large_meaning_is_refused_and_the_server_goes_on() {
    let list =
        |texts: &mut dyn Iterator<Item = String>| texts.map(|text| format!("\"{text}\"")).collect::<Vec<_>>().join(",");
    let address = |at: usize| format!("10.{}.{}.{}", at >> 16, at >> 8 & 255, at & 255);
    // A chain of sets, each in the next; the set at its end named ten thousand times; and a product of ports and networks.
    let chain =
        (0..20_000).map(|at| format!("\"ipset:n{at:05}\": [\"ipset:n{:05}\"]", at + 1)).collect::<Vec<_>>().join(",");
    let chain = format!("{{\"ipsets\": {{{chain}, \"ipset:n20000\": []}}, \"grants\": []}}");
    let members = list(&mut (0..10_000).map(|at| address(at * 2)));
    let copies = list(&mut (0..10_000).map(|_| "ipset:a".to_owned()));
    let copies = format!("{{\"ipsets\": {{\"ipset:a\": [{members}], \"ipset:b\": [{copies}]}}, \"grants\": []}}");
    let ports = list(&mut (1..10_000).map(|port| port.to_string()));
    let product = format!("{{\"grants\": [{{\"src\": [\"*\"], \"dst\": [{members}], \"ip\": [{ports}]}}]}}");
    let server = Server::start().await;
    for (text, says) in [(chain, "warning(s) found"), (copies, "ranges in all"), (product, "the most of one rule")] {
        let (status, verdict) = server.ask(Method::POST, "/tailnet/-/acl/validate", text).await;
        let message = verdict["message"].as_str().unwrap_or_default();
        assert!(status == StatusCode::OK && message.contains(says), "{message}");
    }
    assert_eq!(server.ask(Method::GET, "/tailnet/-/devices", "").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_check_tells_of_logins_tags_and_settings() {
    let server = Server::start().await;
    let more = r#""tagOwners": {"tag:server": ["group:dev"], "tag:k8s-operator": []}, "disableIPv4": true,
        "ssh": [{"action": "check", "src": ["group:dev"], "dst": ["tag:server"], "users": ["root"]}],"#;
    let tags = r#""tagOwners": {"tag:server": ["autogroup:admin"], "tag:k8s-operator": []},"#;
    let changed = POLICY.replace(tags, more);
    let (status, verdict) = server.ask(Method::POST, "/tailnet/-/acl/validate", changed).await;
    assert_eq!(status, StatusCode::OK, "{verdict}");
    let opens = json!([
        {"source": ADMIN, "destination": "tag:server", "what": "ssh root (check)"},
        {"source": "group:dev", "destination": "tag:server", "what": "may give the tag"},
    ]);
    assert_eq!(verdict["difference"]["opens"], opens, "{verdict}");
    assert_eq!(verdict["difference"]["changes"], json!(["disableIPv4: on instead of off"]), "{verdict}");
}

#[tokio::test]
async fn a_policy_may_be_larger_than_other_bodies() {
    let server = Server::start().await;
    let large = format!("{POLICY}// {}", "x".repeat(3 << 20));
    assert_eq!(server.ask(Method::POST, "/tailnet/-/acl", large).await.0, StatusCode::OK);
    let too_large = format!("{POLICY}// {}", "x".repeat(9 << 20));
    let answer = server.ask(Method::POST, "/tailnet/-/acl/validate", too_large).await;
    assert_eq!(
        (answer.0, answer.1["message"].as_str()),
        (StatusCode::PAYLOAD_TOO_LARGE, Some("the body is larger than 8388608 bytes"))
    );
}

/// Begins to send a large policy; answers once the server wants to have it.
async fn begin_large(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST /api/v2/tailnet/-/acl/validate HTTP/1.1\r\nHost: control.test\r\nAuthorization: Bearer {}\r\n\
         Content-Length: 2097152\r\nExpect: 100-continue\r\n\r\n",
        server.token()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 25];
    stream.read_exact(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 100 "), "{}", String::from_utf8_lossy(&answer));
    stream
}

#[tokio::test]
async fn whoever_sends_large_policies_slowly_keeps_out_their_own_large_ones_only() {
    let server = Server::start().await;
    let slow = [begin_large(&server).await, begin_large(&server).await];
    let validate = "/tailnet/-/acl/validate";
    let large = Bytes::from(format!("{POLICY}// {}", "x".repeat(2 << 20)));
    let (status, headers, answer) = server.ask_with(Method::POST, validate, &[], large.clone()).await;
    let message = "too many large policies of this tailnet are being read; try again in 5 seconds";
    assert_eq!((status, answer["message"].as_str()), (StatusCode::TOO_MANY_REQUESTS, Some(message)));
    assert_eq!(headers["retry-after"], "5");
    assert_eq!(server.ask(Method::POST, validate, POLICY).await.0, StatusCode::OK, "a small one needs no such place");
    drop(slow);
    let freed = async {
        while server.ask(Method::POST, validate, large.clone()).await.0 != StatusCode::OK {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), freed).await.unwrap();
}
