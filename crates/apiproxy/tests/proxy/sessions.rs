//! Upgraded connections: what exec, attach, cp and port-forward use.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::people::alice;
use crate::world::{PATIENCE, World, rest, status};

async fn echoes(stream: &mut TlsStream<TcpStream>, bytes: &[u8]) {
    let (mut from, mut to) = tokio::io::split(stream);
    let mut back = vec![0; bytes.len()];
    let write = async {
        to.write_all(bytes).await?;
        to.flush().await
    };
    // At once: nothing on the way holds all of it.
    let both = futures_util::future::try_join(write, from.read_exact(&mut back));
    tokio::time::timeout(PATIENCE, both).await.unwrap().unwrap();
    assert_eq!(back, bytes);
}

#[tokio::test]
async fn spdy_and_websocket_sessions_carry_bytes_as_they_are() {
    let world = World::new().await;
    for protocol in ["SPDY/3.1", "websocket"] {
        let (mut stream, answer) =
            world.ask_session("/api/v1/namespaces/default/pods/x/exec?command=sh", protocol).await;
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
    let (mut stream, answer) = world.ask_session("/api/v1/namespaces/default/pods/x/exec", "SPDY/3.1").await;
    assert_eq!(status(&answer), 101, "{answer}");
    echoes(&mut stream, b"still allowed").await;
    world.everybody.become_now(Some(alice(&[])));
    assert_eq!(rest(&mut stream).await, "");
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
    let behind = "GET /behind HTTP/1.1\r\nHost: x\r\n\r\n";
    for (identity, upgrade, code) in [
        (None, "SPDY/3.1", 403),
        (None, "h2c", 403),
        (Some(alice(&["a", "b"])), "h2c", 400),
        (Some(alice(&["a", "b"])), "websocket, h2c", 400),
    ] {
        world.everybody.become_now(identity);
        let request =
            format!("POST /exec HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\n{behind}");
        let answer = world.raw(request.as_bytes()).await;
        assert_eq!((status(&answer), answer.matches("HTTP/1.1").count()), (code, 1), "{answer}");
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
