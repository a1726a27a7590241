//! Which rules concern a user or an address, as `POST /acl/preview` tells it.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::machine::Machine;
use crate::server::{ADMIN, Server};

const POLICY: &str = r#"{
    "tagOwners": {"tag:server": [], "tag:router": []},
    "postures": {
        "posture:new": ["node:os == 'linux'", "node:tsVersion >= '1.60'"],
        "posture:mac": ["node:os == 'macos'"],
        "posture:unused": ["node:os IS SET"],
    },
    "grants": [
        {"src": ["autogroup:owner"], "dst": ["tag:server"], "ip": ["tcp:22", "udp:53"], "srcPosture": ["posture:new", "posture:mac"]},
        {"src": ["tag:server"], "dst": ["*"], "ip": ["*"]},
        {"src": ["autogroup:member"], "dst": ["10.0.0.0/8"], "ip": ["tcp:5432"], "via": ["tag:router"]},
        {"src": ["admin@example.com"], "dst": ["tag:server"], "app": {"example.com/cap/files": [{}]}},
    ],
    "acls": [
        {"action": "accept", "src": ["other@example.com"], "dst": ["tag:server:22"]},
    ],
    "autoApprovers": {"routes": {"10.7.0.0/16": ["tag:router"]}},
}"#;

/// A server with that policy, a device of its owner's, one with a tag, and a router.
async fn with_policy() -> Server {
    let server = Server::start().await;
    let (status, answer) = server.ask(Method::POST, "/tailnet/-/acl", POLICY).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    for (name, create) in [("laptop", json!({})), ("server", json!({"tags": ["tag:server"]}))] {
        let (_, key) = server.make_key(create, None).await;
        assert_eq!(Machine::new().register(server.address, name, &key).await.error, "");
    }
    let (_, key) = server.make_key(json!({"tags": ["tag:router"]}), None).await;
    assert_eq!(Machine::new().register_router(server.address, "router", &key, &["10.7.0.0/16"]).await.error, "");
    server
}

async fn preview(server: &Server, query: &str, draft: &str) -> (StatusCode, Value) {
    server.ask(Method::POST, &format!("/tailnet/-/acl/preview?{query}"), draft.to_owned()).await
}

#[tokio::test]
async fn a_preview_for_a_user_has_their_rules_with_line_router_and_postures() {
    let server = with_policy().await;
    let (status, told) = preview(&server, "type=user&previewFor=admin%40example.com", "").await;
    assert_eq!(status, StatusCode::OK, "{told}");
    let expected = json!({
        "matches": [
            {
                "users": ["autogroup:owner"],
                "ports": ["tag:server:tcp:22", "tag:server:udp:53"],
                "lineNumber": 9,
                "postures": ["posture:new", "posture:mac"],
            },
            {
                "users": ["autogroup:member"],
                "ports": ["10.0.0.0/8:tcp:5432"],
                "lineNumber": 11,
                "via": ["tag:router"],
                "postures": [],
            },
            {"users": [ADMIN], "ports": ["tag:server"], "lineNumber": 12, "postures": []},
        ],
        "type": "user",
        "previewFor": ADMIN,
        "postures": {
            "posture:new": ["node:os == 'linux'", "node:tsVersion >= '1.60'"],
            "posture:mac": ["node:os == 'macos'"],
        },
    });
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_preview_for_an_address_has_the_rules_that_lead_to_its_port() {
    let server = with_policy().await;
    let (_, list) = server.ask(Method::GET, "/tailnet/-/devices", "").await;
    let tagged =
        list["devices"].as_array().unwrap().iter().find(|device| device["hostname"] == "server").unwrap().clone();
    let [v4, v6] = [0, 1].map(|at| tagged["addresses"][at].as_str().unwrap().to_owned());
    for (asked, lines) in [
        (format!("{v4}:22"), json!([9, 10, 15])),
        (format!("%5B{v6}%5D:22"), json!([9, 10, 15])),
        (format!("{v4}:53"), json!([9, 10])),
        (format!("{v4}:54"), json!([10])),
        // No router leads to the other networks of the rule with a router.
        ("10.7.0.1:5432".to_owned(), json!([10, 11])),
        ("10.8.0.1:5432".to_owned(), json!([10])),
        ("192.0.2.1:5432".to_owned(), json!([10])),
    ] {
        let (status, told) = preview(&server, &format!("type=ipport&previewFor={asked}"), "").await;
        assert_eq!(status, StatusCode::OK, "{asked}: {told}");
        assert_eq!(told["type"], "ipport", "{asked}");
        let found: Value = told["matches"].as_array().unwrap().iter().map(|rule| rule["lineNumber"].clone()).collect();
        assert_eq!(found, lines, "{asked}: {told}");
        let has_postures = lines[0] == 9;
        assert_eq!(told["postures"].is_object(), has_postures, "{asked}: {told}");
    }
}

#[tokio::test]
async fn a_draft_in_the_body_is_previewed_in_place_of_the_policy_in_force() {
    let server = with_policy().await;
    let before = server.policy().await;
    let draft = "{\n  // a draft\n  \"grants\": [{\"src\": [\"*\"], \"dst\": [\"*\"], \"ip\": [\"443\"]}],\n}";
    let (status, told) = preview(&server, "type=user&previewFor=admin%40example.com", draft).await;
    assert_eq!(status, StatusCode::OK, "{told}");
    let rule = json!({"users": ["*"], "ports": ["*:443"], "lineNumber": 3, "postures": []});
    assert_eq!(told["matches"], json!([rule]), "{told}");
    let (status, told) = preview(&server, "type=user&previewFor=admin%40example.com", "{\n  \"gants\": []\n}").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{told}");
    assert!(told["message"].as_str().unwrap().starts_with("line 2, column 3: "), "{told}");
    assert_eq!(server.policy().await, before);
}

#[tokio::test]
async fn a_preview_for_nobody_or_for_what_is_no_address_is_refused_with_what_to_write() {
    let server = with_policy().await;
    let [unknown, bad] = [StatusCode::NOT_FOUND, StatusCode::BAD_REQUEST];
    let address = "previewFor must be an address and a port, like \"100.64.0.1:443\"";
    for (query, refused, says) in [
        ("type=user&previewFor=nobody%40example.com", unknown, "there is no user of this name in this tailnet"),
        ("type=user&previewFor=100.64.0.1:22", unknown, "there is no user of this name in this tailnet"),
        ("type=ipport&previewFor=100.64.0.1", bad, address),
        ("type=ipport&previewFor=server:22", bad, address),
        ("type=ipport&previewFor=100.64.0.1:99999", bad, address),
        ("type=ipport&previewFor=admin%40example.com", bad, address),
        ("type=group&previewFor=group:dev", bad, "type is \"user\" or \"ipport\""),
        ("type=user&previewFor=", bad, "previewFor names a user, or address:port"),
        ("type=user", bad, "previewFor names a user, or address:port"),
    ] {
        let (status, told) = preview(&server, query, "").await;
        assert_eq!((status, told["message"].as_str()), (refused, Some(says)), "{query}");
    }
}

#[tokio::test]
async fn a_preview_that_would_list_too_much_is_refused_with_how_much() {
    let server = with_policy().await;
    let list = |texts: Vec<String>| json!(texts).to_string();
    let networks = list((0..100).map(|at| format!("10.0.{at}.0/24")).collect());
    // Every other port: neighbours would be one range.
    let ports = list((1..=1000).map(|at| (at * 2).to_string()).collect());
    let grant = format!(
        r#"{{"src": ["*"], "dst": {networks}, "ip": {ports}, "via": ["tag:router"], "srcPosture": ["posture:mac"]}}"#
    );
    let draft = |grants: &[&str]| {
        let grants = grants.join(",");
        format!(
            r#"{{"tagOwners": {{"tag:router": []}}, "postures": {{"posture:mac": ["node:os == 'macos'"]}},
                "grants": [{grants}]}}"#
        )
    };
    let (status, told) = preview(&server, "type=user&previewFor=admin%40example.com", &draft(&[&grant])).await;
    assert_eq!((status, told["matches"][0]["ports"].as_array().map(Vec::len)), (StatusCode::OK, Some(100)));
    let two = draft(&[&grant, &grant]);
    let (status, told) = preview(&server, "type=user&previewFor=admin%40example.com", &two).await;
    let says = "2 rules concern admin@example.com, with 200006 names and ports: more than the 200000 that are listed";
    assert_eq!((status, told["message"].as_str()), (StatusCode::BAD_REQUEST, Some(says)));
}
