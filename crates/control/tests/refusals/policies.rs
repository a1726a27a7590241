//! Policies that do not do what their author means.

use http::{Method, StatusCode};
use serde_json::json;

use crate::machine::Machine;
use crate::server::{ADMIN, Server};

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
