//! Programs and people who ask for more than they have.

use http::{Method, StatusCode};
use serde_json::json;

use crate::server::{ADMIN, PASSWORD, Server};

fn new_user(role: &str) -> String {
    json!({"loginName": format!("{role}@example.com"), "role": role, "password": PASSWORD}).to_string()
}

#[tokio::test]
async fn a_program_that_may_make_users_makes_none_that_may_do_more() {
    let server = Server::start().await;
    let (_, granted) = server.grant(&server.make_client(&["users"]).await).await;
    let token = granted["access_token"].as_str().unwrap();
    for role in ["owner", "admin", "it-admin", "network-admin", "billing-admin", "auditor"] {
        let (status, answer) = server.ask_as(token, Method::POST, "/tailnet/-/users", new_user(role)).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{role}: {answer}");
    }
    let (status, answer) = server.ask_as(token, Method::POST, "/tailnet/-/users", new_user("member")).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
}

#[tokio::test]
async fn a_credential_with_less_than_its_holder_has_is_no_way_to_more() {
    let server = Server::start().await;
    let (_, list) = server.ask(Method::GET, "/tailnet/-/users", "").await;
    let owner = list["users"][0]["id"].as_str().unwrap().to_owned();
    let member = server.make_user("member@example.com", "member").await;
    let wanted = json!({"keyType": "api", "scopes": ["users"]}).to_string();
    let (status, key) = server.ask(Method::POST, "/tailnet/-/keys", wanted).await;
    assert_eq!(status, StatusCode::OK, "{key}");
    let token = key["key"].as_str().unwrap();
    let password = json!({"password": "a password of somebody else's"}).to_string();
    for (path, body) in [
        (format!("/users/{owner}/password"), password.clone()),
        (format!("/users/{member}/role"), json!({"role": "admin"}).to_string()),
        (format!("/users/{owner}/suspend"), String::new()),
        ("/tailnet/-/users".to_owned(), new_user("network-admin")),
    ] {
        let (status, answer) = server.ask_as(token, Method::POST, &path, body).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}: {answer}");
        assert!(answer["message"].as_str().unwrap().starts_with("this credential has fewer scopes than a user who is"));
    }
    let (status, answer) = server.ask_as(token, Method::POST, &format!("/users/{member}/password"), password).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
}

#[tokio::test]
async fn a_program_that_asks_for_tokens_without_end_is_told_when_to_ask_again_and_keeps_nobody_out() {
    let server = Server::start().await;
    let (busy, other) = (server.make_client(&["dns"]).await, server.make_client(&["dns"]).await);
    let mut refused = None;
    for _ in 0..70 {
        let (status, answer) = server.grant(&busy).await;
        if status != StatusCode::OK {
            refused = Some((status, answer));
            break;
        }
    }
    let (status, answer) = refused.expect("it is refused at some time");
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{answer}");
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("asks for access tokens too often") && message.contains("ask again in"), "{message}");
    let wrong = format!("{busy}x");
    assert_eq!(server.grant(&wrong).await.0, StatusCode::UNAUTHORIZED, "who has not the secret is told nothing of it");
    assert_eq!(server.grant(&other).await.0, StatusCode::OK);
    server.log_in_as(ADMIN).await;
}

#[tokio::test]
async fn a_setting_that_would_change_nothing_is_not_turned_on() {
    let server = Server::start().await;
    for name in [
        "aclsExternallyManagedOn",
        "devicesAutoUpdatesOn",
        "networkFlowLoggingOn",
        "regionalRoutingOn",
        "postureIdentityCollectionOn",
    ] {
        let both = json!({name: true, "devicesKeyDurationDays": 30}).to_string();
        let (status, answer) = server.ask(Method::PATCH, "/tailnet/-/settings", both).await;
        assert_eq!(status, StatusCode::NOT_IMPLEMENTED, "{name}: {answer}");
        let message = answer["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("{name} is not served by this server yet")), "{message}");
        let (status, settings) =
            server.ask(Method::PATCH, "/tailnet/-/settings", json!({name: false}).to_string()).await;
        assert_eq!((status, &settings[name]), (StatusCode::OK, &json!(false)), "{settings}");
        assert_eq!(settings["devicesKeyDurationDays"], 180, "nothing was changed with it");
    }
    let external = |role: &str| json!({"usersRoleAllowedToJoinExternalTailnets": role}).to_string();
    for (role, expected) in
        [("none", StatusCode::OK), ("admin", StatusCode::NOT_IMPLEMENTED), ("member", StatusCode::NOT_IMPLEMENTED)]
    {
        assert_eq!(server.ask(Method::PATCH, "/tailnet/-/settings", external(role)).await.0, expected, "{role}");
    }
}

#[tokio::test]
async fn each_setting_is_changed_by_whom_it_is_entrusted_to() {
    let server = Server::start().await;
    server.make_user("network@example.com", "network-admin").await;
    let token = server.log_in_as("network@example.com").await;
    for (set, expected) in [
        (json!({"aclsExternalLink": "https://git.example.com"}), StatusCode::OK),
        (json!({"regionalRoutingOn": false}), StatusCode::OK),
        (json!({"networkFlowLoggingOn": false}), StatusCode::OK),
        (json!({"regionalRoutingOn": true}), StatusCode::NOT_IMPLEMENTED),
        (json!({"httpsEnabled": true}), StatusCode::FORBIDDEN),
        (json!({"postureIdentityCollectionOn": false}), StatusCode::FORBIDDEN),
    ] {
        let (status, answer) = server.ask_as(&token, Method::PATCH, "/tailnet/-/settings", set.to_string()).await;
        assert_eq!(status, expected, "{set}: {answer}");
    }
    let (_, settings) = server.ask(Method::GET, "/tailnet/-/settings", "").await;
    assert_eq!(settings["aclsExternalLink"], "https://git.example.com");
}

#[tokio::test]
async fn a_user_whom_a_program_makes_waits_where_users_need_approval() {
    let server = Server::start().await;
    let on = json!({"usersApprovalOn": true}).to_string();
    assert_eq!(server.ask(Method::PATCH, "/tailnet/-/settings", on).await.0, StatusCode::OK);
    let (_, granted) = server.grant(&server.make_client(&["users"]).await).await;
    let token = granted["access_token"].as_str().unwrap();
    let (status, user) = server.ask_as(token, Method::POST, "/tailnet/-/users", new_user("member")).await;
    assert_eq!((status, &user["status"]), (StatusCode::OK, &json!("needs-approval")), "{user}");
    let approve = format!("/users/{}/approve", user["id"].as_str().unwrap());
    assert_eq!(server.ask_as(token, Method::POST, &approve, "").await.0, StatusCode::FORBIDDEN);
    assert_eq!(server.ask(Method::POST, &approve, "").await.0, StatusCode::OK);
    let path = format!("/users/{}", user["id"].as_str().unwrap());
    assert_eq!(server.ask(Method::GET, &path, "").await.1["status"], "active");
}
