//! Upgraded connections: what exec, attach, cp and port-forward use.

use std::time::Duration;

use apiproxy::Limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::world::{World, alice, status};

async fn ask(world: &World, path: &str, protocol: &str) -> (TlsStream<TcpStream>, String) {
    let mut stream = world.connect(&["http/1.1"]).await;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\nSec-WebSocket-Key: x\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(tokio::time::timeout(Duration::from_secs(10), stream.read_u8()).await.unwrap().unwrap());
    }
    (stream, String::from_utf8(answer).unwrap())
}

async fn echoes(stream: &mut TlsStream<TcpStream>, bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    let mut back = vec![0; bytes.len()];
    tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(back, bytes);
}

#[tokio::test]
async fn spdy_and_websocket_sessions_carry_bytes_as_they_are() {
    let world = World::new().await;
    for protocol in ["SPDY/3.1", "websocket"] {
        let (mut stream, answer) = ask(&world, "/api/v1/namespaces/default/pods/x/exec?command=sh", protocol).await;
        assert_eq!(status(&answer), 101, "{answer}");
        let lower = answer.to_ascii_lowercase();
        assert!(lower.contains(&format!("upgrade: {}", protocol.to_ascii_lowercase())), "{answer}");
        for length in [1, 100, 100_000] {
            echoes(&mut stream, &(0..length).map(|n| n as u8).collect::<Vec<_>>()).await;
        }
    }
    let arrived = world.server.arrived();
    assert_eq!(arrived.len(), 2);
    for request in &arrived {
        assert!(request.is_alice(), "{request:?}");
        assert_eq!(request.headers["x-stream-protocol-version"], "v4.channel.k8s.io");
        assert_eq!(request.target, "/api/v1/namespaces/default/pods/x/exec?command=sh");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_session_is_cut_when_the_grant_goes() {
    let world = World::new().await;
    let (mut stream, answer) = ask(&world, "/api/v1/namespaces/default/pods/x/exec", "SPDY/3.1").await;
    assert_eq!(status(&answer), 101, "{answer}");
    echoes(&mut stream, b"still allowed").await;
    world.everybody.become_now(Some(alice(&[])));
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok() && rest.is_empty());
    world.stop().await;
}

#[tokio::test]
async fn an_upgrade_that_the_api_server_does_not_make_is_no_tunnel() {
    let world = World::new().await;
    for (path, code) in [("/refused/exec", 403), ("/redirect/exec", 302), ("/other/exec", 502)] {
        world.server.forget();
        let behind = "GET /behind HTTP/1.1\r\nHost: x\r\n\r\n";
        let answer = world
            .raw(
                format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n{behind}")
                    .as_bytes(),
            )
            .await;
        assert_eq!(status(&answer), code, "{answer}");
        assert_eq!(world.server.arrived().len(), 1, "what came behind it was sent on");
    }
    world.stop().await;
}

#[tokio::test]
async fn an_upgrade_that_is_refused_here_closes_the_connection() {
    let world = World::new().await;
    world.everybody.become_now(None);
    let behind = "GET /behind HTTP/1.1\r\nHost: x\r\n\r\n";
    for upgrade in ["SPDY/3.1", "h2c"] {
        let answer = world
            .raw(
                format!("POST /exec HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\n{behind}")
                    .as_bytes(),
            )
            .await;
        assert_eq!((status(&answer), answer.matches("HTTP/1.1").count()), (403, 1), "{answer}");
        world.everybody.become_now(Some(alice(&["a", "b"])));
        let answer = world
            .raw(
                format!("POST /exec HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n{behind}")
                    .as_bytes(),
            )
            .await;
        assert_eq!((status(&answer), answer.matches("HTTP/1.1").count()), (400, 1), "{answer}");
        world.everybody.become_now(None);
    }
    assert!(world.server.arrived().is_empty());
    world.stop().await;
}

#[tokio::test]
async fn enforced_recording_lets_no_session_through() {
    let world = World::new().await;
    let mut identity = alice(&["a"]);
    identity.capabilities.insert(
        apiproxy::CAPABILITY.into(),
        vec![serde_json::json!({"impersonate": {"groups": ["a"]}, "enforceRecorder": true})],
    );
    world.everybody.become_now(Some(identity));
    for path in ["/api/v1/namespaces/d/pods/x/exec", "/api/v1/namespaces/d/pods/x/%65xec", "/api/v1/nodes/n/proxy/run"]
    {
        let answer = world.get(path).await;
        assert_eq!(status(&answer), 403, "{path}: {answer}");
        assert!(answer.contains("enforces recording"), "{answer}");
    }
    assert_eq!(status(&world.get("/api/v1/pods").await), 200);
    assert_eq!(world.server.arrived().len(), 1);
    world.stop().await;
}

#[tokio::test]
async fn one_caller_has_a_bounded_number_of_sessions() {
    let world = World::with(Limits { upgrades_per_caller: 2, ..Limits::default() }).await;
    let (_first, answer) = ask(&world, "/exec", "SPDY/3.1").await;
    assert_eq!(status(&answer), 101);
    let (second, answer) = ask(&world, "/exec", "SPDY/3.1").await;
    assert_eq!(status(&answer), 101);
    let (_third, answer) = ask(&world, "/exec", "SPDY/3.1").await;
    assert_eq!(status(&answer), 429, "{answer}");
    drop(second);
    let freed = async {
        while status(&ask(&world, "/exec", "SPDY/3.1").await.1) != 101 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), freed).await.unwrap();
    world.stop().await;
}
