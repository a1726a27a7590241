//! What relays are answered that ask whom to admit.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::machine::Machine;
use crate::server::Server;

/// A device that is in, and its number.
async fn join(server: &Server, name: &str) -> (Machine, String) {
    let (_, key) = server.make_key(json!({}), None).await;
    let machine = Machine::new();
    assert_eq!(machine.register(server.address, name, &key).await.error, "");
    let (_, list) = server.ask(Method::GET, "/tailnet/-/devices", "").await;
    let device = list["devices"].as_array().unwrap().iter().find(|device| device["hostname"] == name).unwrap();
    (machine, device["nodeId"].as_str().unwrap().to_owned())
}

async fn change(server: &Server, method: Method, path: String, body: Value) {
    let (status, answer) = server.ask(method, &path, body.to_string()).await;
    assert_eq!(status, StatusCode::OK, "{path}: {answer}");
}

fn token(server: &Server) -> String {
    std::fs::read_to_string(server.data().join("relay.token")).unwrap()
}

#[tokio::test]
async fn a_relay_that_asks_about_one_client_is_told_whether_it_is_a_device_that_takes_part() {
    let server = Server::start().await;
    let (laptop, id) = join(&server, "laptop").await;
    let is_let_in = async |server: &Server, machine: &Machine| {
        let question = json!({"NodePublic": machine.node.public(), "Source": "192.0.2.1"}).to_string();
        let (status, answer) = server.ask_whether_to_admit(question).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer["Allow"].as_bool().unwrap()
    };
    assert!(is_let_in(&server, &laptop).await);
    assert!(!is_let_in(&server, &Machine::new()).await, "nobody's key");
    for (is_authorized, expected) in [(false, false), (true, true)] {
        change(&server, Method::POST, format!("/device/{id}/authorized"), json!({"authorized": is_authorized})).await;
        assert_eq!(is_let_in(&server, &laptop).await, expected);
    }
    let server = server.restart().await;
    assert!(is_let_in(&server, &laptop).await);
    change(&server, Method::POST, format!("/device/{id}/expire"), Value::Null).await;
    assert!(!is_let_in(&server, &laptop).await, "its key has ended");
    let (phone, id) = join(&server, "phone").await;
    assert!(is_let_in(&server, &phone).await);
    change(&server, Method::DELETE, format!("/device/{id}"), Value::Null).await;
    assert!(!is_let_in(&server, &phone).await, "it was removed");
    for question in ["", "{}", r#"{"NodePublic": "nodekey:00"}"#] {
        let (status, answer) = server.ask_whether_to_admit(question.to_owned()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{question}: {answer}");
        assert!(answer.as_str().unwrap().starts_with("the question can't be read: "), "{answer}");
    }
}

#[tokio::test]
async fn a_relay_with_the_relays_token_is_told_the_devices_that_take_part_as_soon_as_they_change() {
    let server = Server::start().await;
    let relays = token(&server);
    for wrong in ["", "wrong", server.token(), &relays[1..]] {
        let (status, answer) = server.ask_whom_to_admit(wrong, "").await;
        assert_eq!((status, answer.as_str()), (StatusCode::UNAUTHORIZED, Some("this needs the relays' token\n")));
    }
    // What a relay that knows a version is told; one that changes nothing is waited for in vain.
    let since = async |server: &Server, known: &Value, wait: u64| {
        server.ask_whom_to_admit(&relays, &format!("?since={known}&wait={wait}")).await
    };
    let keys = |machines: &[&Machine]| {
        let mut keys: Vec<_> = machines.iter().map(|machine| machine.node.public()).collect();
        keys.sort_unstable();
        json!(keys)
    };
    let (status, none) = server.ask_whom_to_admit(&relays, "").await;
    assert_eq!((status, &none["nodes"]), (StatusCode::OK, &json!([])), "{none}");
    assert_eq!(since(&server, &none["version"], 0).await.0, StatusCode::NO_CONTENT);

    let ((status, first), (laptop, id)) = tokio::join!(since(&server, &none["version"], 50), join(&server, "laptop"));
    assert_eq!((status, &first["nodes"]), (StatusCode::OK, &keys(&[&laptop])), "{first}");
    let (phone, _) = join(&server, "phone").await;
    let (status, both) = since(&server, &first["version"], 50).await;
    assert_eq!((status, &both["nodes"]), (StatusCode::OK, &keys(&[&laptop, &phone])), "{both}");
    change(&server, Method::POST, format!("/device/{id}/name"), json!({"name": "desk"})).await;
    assert_eq!(since(&server, &both["version"], 0).await.0, StatusCode::NO_CONTENT, "a name is nothing to relays");

    let keep_out = change(&server, Method::POST, format!("/device/{id}/authorized"), json!({"authorized": false}));
    let ((status, one), ()) = tokio::join!(since(&server, &both["version"], 50), keep_out);
    assert_eq!((status, &one["nodes"]), (StatusCode::OK, &keys(&[&phone])), "{one}");

    // Another run counts anew: whoever knows a version of before is told what holds now.
    let server = server.restart().await;
    for known in [&none, &first, &both, &one] {
        let (status, now) = since(&server, &known["version"], 0).await;
        assert_eq!((status, &now["nodes"]), (StatusCode::OK, &one["nodes"]), "{now}");
    }
}
