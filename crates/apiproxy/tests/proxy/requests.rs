//! A request arrives as its sender, or is refused with the reason.

use apiproxy::{CAPABILITY, Identity};
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;

use crate::people::alice;
use crate::world::{World, status};

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
async fn an_api_server_that_is_away_is_named() {
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
    world.stop().await;
}
