//! Pings that a program asks of a device: who may answer them, and what is told where nobody does.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::machine::{Line, Machine, Messages};
use crate::server::Server;

/// A server with two devices, of which the first one is asked.
struct Scene {
    server: Server,
    asked: Machine,
    other: Machine,
    /// The path to ask at.
    path: String,
}

impl Scene {
    async fn new() -> Self {
        let server = Server::start().await;
        let (asked, other) = (Machine::new(), Machine::new());
        let (_, key) = server.make_key(json!({"reusable": true}), None).await;
        assert_eq!(asked.register(server.address, "asked", &key).await.error, "");
        let (_, list) = server.ask(Method::GET, "/tailnet/-/devices", "").await;
        let path = format!("/device/{}/ping", list["devices"][0]["nodeId"].as_str().unwrap());
        assert_eq!(other.register(server.address, "other", &key).await.error, "");
        Self { server, asked, other, path }
    }

    /// Opens the map stream of the device that is asked.
    async fn stream(&self) -> Messages {
        self.asked.call(self.server.address).await.stream(&self.asked).await
    }

    async fn ask(&self, what: Value) -> Value {
        let (status, answer) = self.server.ask(Method::POST, &self.path, what.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer
    }

    /// A connection of a machine's, to answer by.
    async fn line(&self, machine: &Machine) -> Line {
        machine.call(self.server.address).await
    }
}

async fn answer(line: &mut Line, method: Method, path: &str, body: &str) -> (StatusCode, Value) {
    line.send(method, path, body.to_owned()).await.unwrap()
}

/// Waits for a ping; answers what it asks for, and the path for the answer.
async fn request(stream: &mut Messages) -> (Value, String) {
    loop {
        let mut message = stream.next().await;
        let request = message["PingRequest"].take();
        if let Some(url) = request["URL"].as_str() {
            assert_eq!(request["URLIsNoise"], true, "{request}");
            let path = url.strip_prefix("http://control.test").unwrap().to_owned();
            return (request, path);
        }
    }
}

#[tokio::test]
async fn a_ping_is_answered_by_the_machine_that_was_asked_and_by_no_other() {
    let scene = Scene::new().await;
    let mut stream = scene.stream().await;
    let (mut own, mut others) = (scene.line(&scene.asked).await, scene.line(&scene.other).await);
    let answering = async {
        let (asked, path) = request(&mut stream).await;
        assert_eq!((&asked["Types"], &asked["IP"]), (&Value::Null, &Value::Null), "{asked}");
        assert_eq!(answer(&mut others, Method::HEAD, &path, "").await.0, StatusCode::NOT_FOUND);
        let (status, said) = answer(&mut others, Method::POST, &path, "{}").await;
        assert_eq!((status, said.as_str()), (StatusCode::NOT_FOUND, Some("nobody waits for this answer")));
        let (status, said) = answer(&mut own, Method::GET, &path, "").await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(said, "a ping is answered by HEAD or POST");
        assert_eq!(answer(&mut own, Method::HEAD, &path, "").await.0, StatusCode::OK);
        assert_eq!(answer(&mut own, Method::HEAD, &path, "").await.0, StatusCode::NOT_FOUND, "only once");
    };
    let (told, ()) = tokio::join!(scene.ask(json!({})), answering);
    assert_eq!((&told["answered"], &told["error"]), (&json!(true), &Value::Null), "{told}");
    assert!(told["answeredAfterMs"].as_f64().is_some_and(|took| took > 0.0), "{told}");
    assert_eq!(told["peerLatencyMs"], Value::Null, "no peer was asked for: {told}");
}

#[tokio::test]
async fn what_a_device_found_of_its_peer_is_told_and_so_is_what_went_wrong() {
    let scene = Scene::new().await;
    let (mut stream, mut own) = (scene.stream().await, scene.line(&scene.asked).await);
    for (found, latency, endpoint, error) in [
        (
            json!({"Type": "disco", "IP": "100.64.0.2", "LatencySeconds": 0.025, "Endpoint": "192.0.2.1:41641"}),
            json!(25.0),
            json!("192.0.2.1:41641"),
            Value::Null,
        ),
        (json!({"Type": "disco", "Err": "no matching peer"}), Value::Null, Value::Null, json!("no matching peer")),
    ] {
        let answering = async {
            let (asked, path) = request(&mut stream).await;
            assert_eq!((&asked["Types"], &asked["IP"]), (&json!("disco"), &json!("100.64.0.2")), "{asked}");
            assert_eq!(answer(&mut own, Method::POST, &path, &found.to_string()).await.0, StatusCode::OK);
        };
        let (told, ()) = tokio::join!(scene.ask(json!({"address": "100.64.0.2"})), answering);
        assert_eq!(told["answered"], true, "{told}");
        assert_eq!(
            (&told["peerLatencyMs"], &told["endpoint"], &told["error"]),
            (&latency, &endpoint, &error),
            "{told}"
        );
    }
}

#[tokio::test]
async fn a_device_that_is_away_or_silent_is_told_as_such() {
    let scene = Scene::new().await;
    let told = scene.ask(json!({})).await;
    assert_eq!((&told["answered"], &told["error"]), (&json!(false), &json!("the device is not connected")), "{told}");

    let mut stream = scene.stream().await;
    let (told, (_, path)) = tokio::join!(scene.ask(json!({})), request(&mut stream));
    assert_eq!(
        (&told["answered"], &told["error"]),
        (&json!(false), &json!("the device did not answer in time")),
        "{told}"
    );
    let (status, said) = answer(&mut scene.line(&scene.asked).await, Method::POST, &path, "{}").await;
    assert_eq!(
        (status, said.as_str()),
        (StatusCode::NOT_FOUND, Some("nobody waits for this answer")),
        "it is too late"
    );
}
