//! Programs and people who ask for more than they have.

use http::{Method, StatusCode};
use serde_json::{Value, json};

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

/// Makes an API token by another credential; answers what was answered.
async fn make_token(server: &Server, by: &str, scopes: &[&str]) -> (StatusCode, Value) {
    let wanted = json!({"keyType": "api", "scopes": scopes, "description": "a token"}).to_string();
    server.ask_as(by, Method::POST, "/tailnet/-/keys", wanted).await
}

fn key_path(key: &Value) -> String {
    format!("/tailnet/-/keys/{}", key["id"].as_str().unwrap())
}

#[tokio::test]
async fn a_person_of_any_role_makes_lists_and_revokes_api_tokens_of_their_own_with_what_the_role_has() {
    let server = Server::start().await;
    for role in ["owner", "admin", "it-admin", "network-admin", "billing-admin", "auditor"] {
        let login = format!("the-{role}@example.com");
        let user = server.make_user(&login, role).await;
        let signed_in = server.log_in_as(&login).await;
        let (status, made) = make_token(&server, &signed_in, &[]).await;
        assert_eq!((status, made["userId"].as_str()), (StatusCode::OK, Some(user.as_str())), "{role}: {made}");
        let scopes: Vec<&str> =
            made["scopes"].as_array().unwrap().iter().map(|scope| scope.as_str().unwrap()).collect();
        let mut whole = tailnet::Role::ALL.iter().find(|known| known.name() == role).unwrap().scopes().to_vec();
        whole.sort_unstable();
        assert_eq!(scopes, whole, "{role}");
        let token = made["key"].as_str().unwrap();

        let (_, list) = server.ask_as(token, Method::GET, "/tailnet/-/keys", "").await;
        let own: Vec<&Value> = list["keys"].as_array().unwrap().iter().collect();
        assert!(own.len() == 2 && own.iter().all(|key| key["userId"] == user.as_str()), "{role}: {list}");
        let (status, shown) = server.ask_as(token, Method::GET, &key_path(&made), "").await;
        assert_eq!((status, &shown["id"]), (StatusCode::OK, &made["id"]), "{role}: {shown}");
        let (status, second) = make_token(&server, token, &["users:read"]).await;
        assert_eq!((status, &second["scopes"]), (StatusCode::OK, &json!(["users:read"])), "{role}: {second}");
        for gone in [&second, &made] {
            let (status, answer) = server.ask_as(token, Method::DELETE, &key_path(gone), "").await;
            assert_eq!(status, StatusCode::OK, "{role}: {answer}");
            let ended = server.ask_as(gone["key"].as_str().unwrap(), Method::GET, "/tailnet/-/users", "").await;
            assert_eq!(ended.0, StatusCode::UNAUTHORIZED, "{role}: {}", ended.1);
        }
    }
}

#[tokio::test]
async fn whose_role_has_nothing_to_do_with_keys_gets_at_no_key_but_their_own_tokens() {
    let server = Server::start().await;
    let (_, theirs) = server.ask(Method::POST, "/tailnet/-/keys", json!({"keyType": "api"}).to_string()).await;
    let (auth, _) = server.make_key(json!({}), None).await;
    let auth = json!({"id": auth});
    let (status, client) =
        server.ask(Method::POST, "/tailnet/-/keys", json!({"keyType": "client", "scopes": ["dns"]}).to_string()).await;
    assert_eq!(status, StatusCode::OK, "{client}");
    for role in ["it-admin", "network-admin", "billing-admin", "auditor"] {
        let login = format!("{role}@example.com");
        let user = server.make_user(&login, role).await;
        let token = server.log_in_as(&login).await;
        let looks = role != "billing-admin";
        let (status, own) = server.ask_as(&token, Method::GET, "/tailnet/-/keys", "").await;
        let own: Vec<_> = own["keys"].as_array().unwrap().iter().map(|key| key["userId"].as_str()).collect();
        assert_eq!((status, own), (StatusCode::OK, vec![Some(user.as_str())]), "{role}");
        let (status, everybodys) = server.ask_as(&token, Method::GET, "/tailnet/-/keys?all=true", "").await;
        assert_eq!(status, if looks { StatusCode::OK } else { StatusCode::FORBIDDEN }, "{role}: {everybodys}");
        for key in [&theirs, &auth, &client] {
            let status = server.ask_as(&token, Method::GET, &key_path(key), "").await.0;
            assert_eq!(status, if looks { StatusCode::OK } else { StatusCode::FORBIDDEN }, "{role}: {key}");
            let may = role == "it-admin" && key == &auth;
            if !may {
                let (status, answer) = server.ask_as(&token, Method::DELETE, &key_path(key), "").await;
                assert_eq!(status, StatusCode::FORBIDDEN, "{role}: {key}: {answer}");
            }
        }
        let (status, answer) = server.ask_as(&token, Method::DELETE, "/tailnet/-/keys/kNOBODYS", "").await;
        let unknown = if role == "it-admin" { StatusCode::NOT_FOUND } else { StatusCode::FORBIDDEN };
        assert_eq!(status, unknown, "{role}: {answer}");
        for wanted in [json!({"keyType": "client", "scopes": ["users:read"]}), json!({"keyType": "auth"})] {
            let (status, answer) = server.ask_as(&token, Method::POST, "/tailnet/-/keys", wanted.to_string()).await;
            if role == "it-admin" && wanted["keyType"] == "auth" {
                assert_eq!(status, StatusCode::OK, "{answer}");
            } else {
                let says = answer["message"].as_str().unwrap_or_default();
                assert!(
                    status == StatusCode::FORBIDDEN && says.starts_with("this needs the scope"),
                    "{role}: {answer}"
                );
            }
        }
        for beyond in ["all", "oauth_keys", "api_access_tokens"] {
            let (status, answer) = make_token(&server, &token, &[beyond]).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{role}: {beyond}: {answer}");
        }
    }
    let kept = server.keys().await;
    for key in [&theirs, &auth, &client] {
        assert_ne!(kept[key["id"].as_str().unwrap()]["invalid"], true, "{key}");
    }
}

#[tokio::test]
async fn a_credential_that_may_do_less_than_its_user_makes_no_token_and_ends_none_but_itself() {
    let server = Server::start().await;
    server.make_user("network@example.com", "network-admin").await;
    let signed_in = server.log_in_as("network@example.com").await;
    let narrow = ["dns", "policy_file", "devices:routes", "services", "networking_settings", "logs:network"];
    let (_, limited) = make_token(&server, &signed_in, &narrow).await;
    let (_, sibling) = make_token(&server, &signed_in, &[]).await;
    let (_, granted) = server.grant(&server.make_client(&["dns"]).await).await;
    let program = granted["access_token"].as_str().unwrap();
    for token in [limited["key"].as_str().unwrap(), program] {
        for scopes in [&[][..], &["dns"], &["all:read"]] {
            let (status, answer) = make_token(&server, token, scopes).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{scopes:?}: {answer}");
            assert!(answer["message"].as_str().unwrap().starts_with(r#"this needs the scope "api_access_tokens""#));
        }
        assert_eq!(server.ask_as(token, Method::GET, "/tailnet/-/keys", "").await.0, StatusCode::FORBIDDEN);
        for method in [Method::GET, Method::DELETE] {
            let (status, answer) = server.ask_as(token, method, &key_path(&sibling), "").await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{answer}");
        }
    }
    // One that may make tokens makes none that may do more than itself.
    let (_, maker) = server
        .ask(
            Method::POST,
            "/tailnet/-/keys",
            json!({"keyType": "api", "scopes": ["dns", "api_access_tokens"]}).to_string(),
        )
        .await;
    let maker = maker["key"].as_str().unwrap();
    let (status, made) = make_token(&server, maker, &[]).await;
    assert_eq!((status, &made["scopes"]), (StatusCode::OK, &json!(["api_access_tokens", "dns"])), "{made}");
    for beyond in ["all", "users:read"] {
        assert_eq!(make_token(&server, maker, &[beyond]).await.0, StatusCode::FORBIDDEN, "{beyond}");
    }
    let (text, path) = (limited["key"].as_str().unwrap(), key_path(&limited));
    let (status, answer) = server.ask_as(text, Method::DELETE, &path, "").await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(server.ask_as(text, Method::DELETE, &path, "").await.0, StatusCode::UNAUTHORIZED);
    let (status, answer) = server.ask_as(sibling["key"].as_str().unwrap(), Method::GET, "/tailnet/-/keys", "").await;
    assert_eq!(status, StatusCode::OK, "the other one works: {answer}");
}

#[tokio::test]
async fn a_token_made_before_its_users_role_changed_does_what_both_allow_and_can_always_be_ended() {
    let server = Server::start().await;
    let user = server.make_user("person@example.com", "it-admin").await;
    let signed_in = server.log_in_as("person@example.com").await;
    let (_, made) = make_token(&server, &signed_in, &[]).await;
    let (token, path) = (made["key"].as_str().unwrap(), key_path(&made));
    let set_role = async |role: &str| {
        let body = json!({"role": role}).to_string();
        let (status, answer) = server.ask(Method::POST, &format!("/users/{user}/role"), body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
    };
    let make_auth_key = async || server.ask_as(token, Method::POST, "/tailnet/-/keys", "{}").await;
    let (status, auth_key) = make_auth_key().await;
    assert_eq!(status, StatusCode::OK, "{auth_key}");

    set_role("auditor").await;
    assert_eq!(make_auth_key().await.0, StatusCode::FORBIDDEN);
    let (status, answer) = server.ask_as(token, Method::DELETE, &key_path(&auth_key), "").await;
    assert_eq!(status, StatusCode::FORBIDDEN, "an auth key takes the scope, whoever made it: {answer}");
    assert_eq!(make_token(&server, token, &["auth_keys"]).await.0, StatusCode::FORBIDDEN);
    let (status, lower) = make_token(&server, token, &[]).await;
    assert_eq!((status, &lower["scopes"]), (StatusCode::OK, &json!(["all:read"])), "{lower}");

    set_role("member").await;
    for token in [token, lower["key"].as_str().unwrap()] {
        assert_eq!(make_token(&server, token, &[]).await.0, StatusCode::FORBIDDEN);
        assert_eq!(server.ask_as(token, Method::GET, "/tailnet/-/keys", "").await.0, StatusCode::FORBIDDEN);
        assert_eq!(server.ask_as(token, Method::GET, "/tailnet/-/devices", "").await.0, StatusCode::FORBIDDEN);
    }
    let lower_path = key_path(&lower);
    assert_eq!(server.ask_as(token, Method::DELETE, &lower_path, "").await.0, StatusCode::FORBIDDEN);
    let (status, answer) = server.ask_as(lower["key"].as_str().unwrap(), Method::DELETE, &lower_path, "").await;
    assert_eq!(status, StatusCode::OK, "{answer}");

    // A token does no more by a role that was raised: that takes a new login.
    set_role("admin").await;
    assert_eq!(make_token(&server, token, &[]).await.0, StatusCode::FORBIDDEN);
    assert_eq!(server.ask_as(token, Method::DELETE, &path, "").await.0, StatusCode::OK);
}
