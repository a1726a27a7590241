//! What the API tells of the policy: why something is allowed, and what was in force before.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::machine::Machine;
use crate::server::{ADMIN, POLICY, Server};

async fn with_devices() -> Server {
    let server = Server::start().await;
    let (_, own) = server.make_key(json!({}), None).await;
    let (_, tagged) = server.make_key(json!({"tags": ["tag:server"]}), None).await;
    assert_eq!(Machine::new().register(server.address, "laptop", &own).await.error, "");
    assert_eq!(Machine::new().register(server.address, "server", &tagged).await.error, "");
    server
}

#[tokio::test]
async fn why_says_which_line_allows_and_what_the_nearest_lacks() {
    let server = with_devices().await;
    let (status, answer) = server.ask(Method::GET, "/tailnet/-/acl/why?src=laptop&dst=server:22", "").await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let found = &answer["answers"][0];
    assert_eq!((&found["allowed"], &found["allowedBy"][0]["line"]), (&json!(true), &json!(4)), "{answer}");
    let (_, answer) = server.ask(Method::GET, "/tailnet/-/acl/why?src=server&dst=laptop:22", "").await;
    let found = &answer["answers"][0];
    assert_eq!((&found["allowed"], &found["allowedBy"]), (&json!(false), &json!([])), "{answer}");
    assert!(found["nearest"][0]["lacks"][0].as_str().is_some_and(|lacks| !lacks.is_empty()), "{answer}");
    for query in [
        "src=laptop&dst=server",
        "src=laptop&route=10.0.0.0%2F8",
        "src=laptop&attribute=funnel",
        "src=admin%40example.com&tag=tag:server",
    ] {
        let (status, answer) = server.ask(Method::GET, &format!("/tailnet/-/acl/why?{query}"), "").await;
        assert_eq!(status, StatusCode::OK, "{query}: {answer}");
        assert!(answer["answers"][0]["summary"].as_str().is_some(), "{query}: {answer}");
    }
}

#[tokio::test]
async fn why_answers_about_logins_capabilities_services_and_exit_nodes_too() {
    let server = with_devices().await;
    let policy = r#"{
        "tagOwners": {"tag:server": [], "tag:k8s-operator": []},
        "grants": [
            {"src": ["autogroup:owner"], "dst": ["tag:server"], "app": {"example.com/cap/files": [{"read": true}]}},
        ],
        "ssh": [
            {"action": "accept", "src": ["autogroup:owner"], "dst": ["tag:server"], "users": ["ubuntu"]},
        ],
        "autoApprovers": {
            "exitNode": ["tag:server"],
            "services": {"svc:web": ["tag:server"]},
        },
    }"#;
    let (status, answer) = server.ask(Method::POST, "/tailnet/-/acl", policy).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    for (query, allowed, line) in [
        ("src=laptop&dst=server&ssh=ubuntu", true, 7),
        ("src=laptop&dst=server&ssh=root", false, 7),
        ("src=laptop&dst=server&app=example.com%2Fcap%2Ffiles", true, 4),
        ("src=laptop&dst=server&app=example.com%2Fcap%2Fother", false, 4),
        ("src=server&service=svc%3Aweb", true, 11),
        ("src=laptop&service=svc%3Aweb", false, 11),
        ("src=server&route=exit-node", true, 10),
        ("src=laptop&route=exit-node", false, 10),
    ] {
        let (status, answer) = server.ask(Method::GET, &format!("/tailnet/-/acl/why?{query}"), "").await;
        assert_eq!(status, StatusCode::OK, "{query}: {answer}");
        let found = &answer["answers"][0];
        let cited = if allowed { &found["allowedBy"][0]["line"] } else { &found["nearest"][0]["line"] };
        assert_eq!((&found["allowed"], cited), (&json!(allowed), &json!(line)), "{query}: {answer}");
    }
}

#[tokio::test]
async fn a_question_that_can_not_be_meant_is_refused_with_what_to_write() {
    let server = with_devices().await;
    for (query, says) in [
        ("", "src names a device"),
        ("src=laptop", "dst names a destination"),
        ("src=nobody&dst=server:22", "name a device, a user, a tag, a group or an address"),
        ("src=laptop&dst=server:0x", "write NAME:PORT"),
        ("src=laptop&dst=server:99999", "write NAME:PORT"),
        ("src=laptop&dst=server:22&proto=carrier-pigeon", "carrier-pigeon"),
        ("src=laptop&route=10.0.0.0%2F99", "is no prefix"),
        ("src=laptop&tag=tag:9x", "tag"),
    ] {
        let (status, answer) = server.ask(Method::GET, &format!("/tailnet/-/acl/why?{query}"), "").await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}: {answer}");
        let message = answer["message"].as_str().unwrap();
        assert!(message.contains(says), "{query}: {message}");
    }
    // More than the head of a request may hold never gets so far.
    let long = "a".repeat(8000);
    let (status, answer) = server.ask(Method::GET, &format!("/tailnet/-/acl/why?src={long}&dst=server:22"), "").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
    assert!(answer.to_string().len() < 10_000);
    let (status, _) = server.ask(Method::GET, "/tailnet/other.example/acl/why?src=laptop&dst=server:22", "").await;
    assert_eq!(status, StatusCode::NOT_FOUND, "another tailnet's policy is not asked");
}

#[tokio::test]
async fn the_history_has_who_when_and_why_and_each_text_by_its_version() {
    let server = Server::start().await;
    let changed = POLICY.replace("\"group:dev\"", "\"group:ops\"");
    let reason = [("towline-reason", "the group is called ops now")];
    let (status, _, answer) = server.ask_with(Method::POST, "/tailnet/-/acl", &reason, changed.clone()).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let (status, history) = server.ask(Method::GET, "/tailnet/-/acl/history", "").await;
    assert_eq!(status, StatusCode::OK, "{history}");
    let versions = history["versions"].as_array().unwrap();
    assert_eq!(versions.iter().map(|version| version["version"].as_u64().unwrap()).collect::<Vec<_>>(), [2, 1]);
    assert!(versions.iter().all(|version| version["who"] == ADMIN && version["when"].is_string()), "{history}");
    assert_eq!(versions[0]["why"], "the group is called ops now", "{history}");
    assert!(versions[1]["why"].as_str().unwrap_or_default().is_empty(), "{history}");
    assert!(
        versions.iter().all(|version| version["policy"].as_str().unwrap_or_default().is_empty()),
        "texts are asked for singly"
    );
    let (_, one) = server.ask(Method::GET, "/tailnet/-/acl/history?version=1", "").await;
    assert_eq!(one["versions"][0]["policy"], POLICY);
    let (_, two) = server.ask(Method::GET, "/tailnet/-/acl/history?version=2", "").await;
    assert_eq!((&two["versions"][0]["policy"], &two["versions"][0]["why"]), (&json!(changed), &versions[0]["why"]));
    let (_, none) = server.ask(Method::GET, "/tailnet/-/acl/history?version=99", "").await;
    assert_eq!(none["versions"], json!([]));
    for bad in ["version=x", "version=-1", "version=99999999999999999999"] {
        let (status, answer) = server.ask(Method::GET, &format!("/tailnet/-/acl/history?{bad}"), "").await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{bad}: {answer}");
    }
}

#[tokio::test]
async fn who_may_not_read_the_policy_is_told_neither() {
    let server = with_devices().await;
    let member = json!({"loginName": "member@example.com", "role": "member", "password": "a member's long password"});
    let (status, answer) = server.ask(Method::POST, "/tailnet/-/users", member.to_string()).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let client = json!({"keyType": "client", "scopes": ["devices:core:read"], "description": "reads devices"});
    let (status, client) = server.ask(Method::POST, "/tailnet/-/keys", client.to_string()).await;
    assert_eq!(status, StatusCode::OK, "{client}");
    let form = format!("grant_type=client_credentials&client_secret={}", client["key"].as_str().unwrap());
    let (status, token) = server.form("/api/v2/oauth/token", form).await;
    assert_eq!(status, StatusCode::OK, "{token}");
    let token = token["access_token"].as_str().unwrap();
    for path in ["/tailnet/-/acl/why?src=laptop&dst=server:22", "/tailnet/-/acl/history"] {
        let (status, answer) = server.ask_as(token, Method::GET, path, "").await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}: {answer}");
        let (status, _) = server.ask_as("nonsense", Method::GET, path, "").await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(server.get(&format!("/api/v2{path}")).await.0, StatusCode::UNAUTHORIZED, "{path}");
    }
    // A member has no right to the API at all.
    let form = "grant_type=password&username=member%40example.com&password=a+member%27s+long+password".to_owned();
    let (status, refused) = server.form("/api/v2/oauth/token", form).await;
    assert_eq!((status, &refused["access_token"]), (StatusCode::FORBIDDEN, &Value::Null), "{refused}");
}
