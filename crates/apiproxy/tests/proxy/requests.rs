//! Whatever a client sends arrives with exactly one identity, the decided one, or not at all.

use std::time::Duration;

use apiproxy::{CAPABILITY, Identity, Limits};
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use proptest::prelude::*;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::world::{World, alice, status};

#[tokio::test]
async fn a_request_arrives_as_its_sender_over_both_versions_of_http() {
    let world = World::new().await;
    let answer = world.get("/api/v1/pods?limit=5").await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(answer.ends_with("answer"), "{answer}");

    let stream = world.connect(&["h2"]).await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let trailers: HeaderMap = [("impersonate-user".parse().unwrap(), "root".parse().unwrap())].into_iter().collect();
    let frames = [Frame::data(Bytes::from("body")), Frame::trailers(trailers)].map(Ok::<_, std::convert::Infallible>);
    let request = Request::post("https://x/api/v1/pods").body(StreamBody::new(futures_util::stream::iter(frames)));
    let response = sender.send_request(request.unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "body");

    let arrived = world.server.arrived();
    assert_eq!(arrived.len(), 2);
    assert!(arrived.iter().all(|request| request.is_alice()), "{arrived:?}");
    assert_eq!(arrived[0].target, "/api/v1/pods?limit=5");
    assert_eq!(arrived[1].body, "body");
    world.stop().await;
}

#[tokio::test]
async fn a_client_that_asks_nothing_is_hung_up_on_whatever_it_speaks() {
    let world = World::with(Limits { head_time: Duration::from_secs(2), ..Limits::default() }).await;
    let clients = [("http/1.1", ""), ("http/1.1", "P"), ("h2", ""), ("h2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")];
    let proxy = &world;
    let silent = clients.map(|(protocol, said)| async move {
        let mut stream = proxy.connect(&[protocol]).await;
        stream.write_all(said.as_bytes()).await.unwrap();
        let closed = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut Vec::new())).await;
        assert!(closed.is_ok(), "{protocol} with {said:?} is not hung up on");
    });
    futures_util::future::join_all(silent).await;
    world.stop().await;
}

#[tokio::test]
async fn who_is_nobody_or_too_much_is_refused_with_the_reason() {
    let world = World::new().await;
    let with = |rule| Identity { capabilities: [(CAPABILITY.to_owned(), vec![rule])].into(), ..alice(&[]) };
    for (identity, says) in [
        (None, "no node of the tailnet has the address 127.0.0.1"),
        (Some(with(json!({"impersonate": {"groups": "a"}}))), "can't be understood"),
        (Some(alice(&["a", "system:masters"])), "apiServerProxy.groups"),
        (Some(Identity { login: "system:admin".into(), ..alice(&[]) }), "begins with"),
        (Some(Identity { login: String::new(), ..alice(&[]) }), "no user"),
        (Some(with(json!({"enforceRecorder": true, "enableEvents": true}))), "enforces recording"),
    ] {
        world.everybody.become_now(identity);
        let answer = world.get("/api/v1/pods").await;
        assert_eq!(status(&answer), 403, "{answer}");
        assert!(answer.contains(says) && answer.contains("\"kind\":\"Status\""), "{answer}");
    }
    assert!(world.server.arrived().is_empty());
    world.stop().await;
}

#[tokio::test]
async fn impersonation_of_ones_own_is_refused_in_every_spelling() {
    let world = World::new().await;
    for name in
        ["Impersonate-User", "IMPERSONATE-GROUP", "impersonate-uid", "Impersonate-Extra-Scopes", "Impersonate_User"]
    {
        let request = format!("GET /api HTTP/1.1\r\nHost: x\r\n{name}: root\r\nConnection: close, {name}\r\n\r\n");
        let answer = world.raw(request.as_bytes()).await;
        assert_eq!(status(&answer), 403, "{answer}");
        assert!(answer.contains("leave out --as"), "{answer}");
    }
    assert!(world.server.arrived().is_empty());
    world.stop().await;
}

#[tokio::test]
async fn what_two_parsers_could_read_differently_makes_no_second_request() {
    let world = World::new().await;
    let behind = "GET /smuggled HTTP/1.1\r\nHost: x\r\nImpersonate-User: root\r\n\r\n";
    let length = behind.len();
    for request in [
        format!(
            "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n{behind}"
        ),
        format!("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: {length}\r\n\r\n{behind}"),
        format!("POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{behind}"),
        format!("POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{behind}"),
        format!("GET /a HTTP/1.1\r\nHost: x\r\nX-A: b\r\n Impersonate-User: root\r\nConnection: close\r\n\r\n{behind}"),
        format!("GET /a HTTP/1.1\r\nHost: x\r\nImpersonate-User : root\r\nConnection: close\r\n\r\n{behind}"),
        format!("GET /a HTTP/1.1\r\nHost: x\r\nX: a\0b\r\nConnection: close\r\n\r\n{behind}"),
        format!("GET /a  HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n{behind}"),
        format!("GET * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n{behind}"),
        format!("CONNECT other:443 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n{behind}"),
    ] {
        let answer = world.raw(request.as_bytes()).await;
        for request in world.server.arrived() {
            assert!(request.is_alice() && request.target == "/a", "{request:?} after {answer}");
        }
        assert!(world.server.arrived().len() <= 1);
        world.server.forget();
    }
    let answer = world.raw(b"GET https://elsewhere:1/api HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert_eq!(status(&answer), 200);
    assert_eq!(world.server.arrived()[0].target, "/api", "the client's host is not looked at");
    world.stop().await;
}

#[tokio::test]
async fn too_large_a_head_is_refused() {
    let world = World::new().await;
    let many: String = (0..101).map(|number| format!("X-{number}: y\r\n")).collect();
    let answer = world.raw(format!("GET /api HTTP/1.1\r\nHost: x\r\n{many}\r\n").as_bytes()).await;
    assert_eq!(status(&answer), 431, "{answer}");
    let long = "y".repeat(70 << 10);
    let answer = world.raw(format!("GET /api HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n").as_bytes()).await;
    assert_eq!(status(&answer), 431, "{answer}");
    assert!(world.server.arrived().is_empty());
    world.stop().await;
}

#[tokio::test]
async fn an_api_server_that_is_away_is_named_and_a_new_token_is_used() {
    let world = World::new().await;
    assert_eq!(status(&world.get("/api").await), 200);
    world.stop_upstream();
    let answer = loop {
        let answer = world.get("/api").await;
        if status(&answer) != 200 {
            break answer;
        }
    };
    assert_eq!(status(&answer), 503, "{answer}");
    assert!(answer.contains("API server can't be reached") && answer.contains("ServiceUnavailable"), "{answer}");
    assert!(!answer.contains("ours"), "{answer}");
    std::fs::remove_file(&world.token).unwrap();
    world.stop().await;
}

fn hostile_header() -> impl Strategy<Value = (String, String)> {
    let name = prop_oneof![
        6 => "(?i)(impersonate|x-remote|x-forwarded|authorization|proxy-authorization|forwarded|x-real-ip)[-_]?(user|group|uid|for|extra-a)?",
        2 => Just("Connection".to_owned()),
        1 => "(?i)(te|keep-alive|proxy-connection|trailer|cookie|accept)",
        2 => "[a-zA-Z][a-zA-Z0-9_-]{0,10}",
    ];
    let value = prop_oneof![
        "(?i)(impersonate-user|impersonate-group|authorization|x-forwarded-for|close)(, ?(impersonate-user|authorization))?",
        "[ -~]{0,16}",
    ];
    (name, value).prop_filter("the framing has tests of its own", |(name, _)| {
        !["content-length", "transfer-encoding", "upgrade", "expect"].contains(&name.to_ascii_lowercase().as_str())
    })
}

/// More than the sixty inputs that the threat model asks for, each with up to a dozen hostile headers.
#[test]
fn generated_requests_arrive_with_exactly_one_identity_or_not_at_all() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let world = runtime.block_on(World::new());
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 150,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let headers = proptest::collection::vec(hostile_header(), 0..12);
    runner
        .run(&headers, |headers| {
            world.server.forget();
            let mut request = String::from("GET /api/v1/pods HTTP/1.1\r\nHost: x\r\n");
            for (name, value) in &headers {
                request.push_str(&format!("{name}: {value}\r\n"));
            }
            request.push_str("Connection: close\r\n\r\n");
            let answer = runtime.block_on(world.raw(request.as_bytes()));
            let arrived = world.server.arrived();
            prop_assert!(arrived.iter().all(|request| request.is_alice()), "{arrived:?}");
            let claims =
                headers.iter().any(|(name, _)| name.to_ascii_lowercase().replace('_', "-").starts_with("impersonate"));
            match status(&answer) {
                200 => prop_assert!(arrived.len() == 1 && !claims, "{answer}"),
                code => prop_assert!(arrived.is_empty() && (code == 403 && claims || code == 400), "{answer}"),
            }
            Ok(())
        })
        .unwrap();
    runtime.block_on(world.stop());
}
