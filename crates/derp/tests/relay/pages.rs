//! What the relay answers to who is no DERP client: browsers, probes, captive-portal checks, STUN.

use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use packet::derp::{Frame, FrameDecoder, FrameKind, Limits};
use packet::stun;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::attacks::RawClient;
use crate::support::*;

async fn ask(relay: &TestRelay, request: &str) -> String {
    let mut stream = RawClient::tls(relay).await;
    stream.write_all(format!("{request}\r\nHost: {HOST}\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // Some servers end TLS without a goodbye; what came before counts.
    let _ended = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn the_pages_of_a_relay_are_there() {
    let relay = TestRelay::start();
    assert!(ask(&relay, "GET /derp HTTP/1.1").await.starts_with("HTTP/1.1 426"));
    for probe in ["/derp/probe", "/derp/latency-check"] {
        let answer = ask(&relay, &format!("HEAD {probe} HTTP/1.1")).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("access-control-allow-origin: *"), "{answer}");
    }
    let answer = ask(&relay, "GET /generate_204 HTTP/1.1\r\nX-Tailscale-Challenge: ts_1").await;
    assert!(answer.starts_with("HTTP/1.1 204") && answer.contains("x-tailscale-response: response ts_1"), "{answer}");
    let answer = ask(&relay, "GET /bootstrap-dns?q=control.test HTTP/1.1").await;
    assert!(answer.ends_with(r#"{"control.test":["203.0.113.10"]}"#), "{answer}");
    assert!(ask(&relay, "GET /robots.txt HTTP/1.1").await.ends_with("User-agent: *\nDisallow: /\n"));
    assert!(ask(&relay, "GET / HTTP/1.1").await.contains("Towline"));
    assert!(ask(&relay, "GET /metrics HTTP/1.1").await.starts_with("HTTP/1.1 404"));
    assert!(ask(&relay, "POST / HTTP/1.1\r\nContent-Length: 0").await.starts_with("HTTP/1.1 405"));
}

#[tokio::test]
async fn the_plain_port_answers_portal_checks_only() {
    let relay = TestRelay::start();
    assert!(http_get(relay.http, "/generate_204").await.starts_with("HTTP/1.1 204"));
    assert!(http_get(relay.http, "/derp").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn health_and_metrics_have_a_listener_of_their_own() {
    let relay = TestRelay::start();
    assert!(http_get(relay.admin, "/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(http_get(relay.admin, "/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(http_get(relay.admin, "/metrics").await.contains("towline_relay_clients 0"));
}

#[tokio::test]
async fn a_client_that_waits_for_http_is_answered_with_101_and_the_key() {
    let relay = TestRelay::start();
    let mut stream = RawClient::tls(&relay).await;
    let request = format!("GET /derp HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.starts_with("http/1.1 101") && head.contains("upgrade: derp\r\n"), "{head}");
    assert!(head.contains("derp-version: 2\r\n"), "{head}");
    assert!(head.contains(&format!("derp-public-key: {}\r\n", relay.key.to_hex())), "{head}");
    let mut client = RawClient::over(stream);
    client.expect_server_key(relay.key).await;
    client.introduce(&relay, &new_key()).await;
    client.expect(FrameKind::SERVER_INFO).await;
}

#[tokio::test]
async fn a_client_over_a_websocket_is_a_client() {
    let relay = TestRelay::start();
    let mut request = format!("wss://{HOST}/derp").into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", "derp".parse().unwrap());
    let stream = RawClient::tls(&relay).await;
    let (mut socket, response) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "derp");

    let mut decoder = FrameDecoder::new(Limits::RELAY);
    let mut next = async |socket: &mut tokio_tungstenite::WebSocketStream<_>| loop {
        let message = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
        let Message::Binary(mut bytes) = message else { continue };
        if let Some(frame) = decoder.next(&mut bytes).unwrap() {
            assert!(bytes.is_empty(), "the relay writes one frame at a time here");
            return frame;
        }
    };
    assert_eq!(next(&mut socket).await.kind, FrameKind::SERVER_KEY);
    let key = new_key();
    // Boundaries of messages mean nothing: the info comes in two.
    let info = RawClient::client_info(&relay, &key, "{}");
    let (first, second) = info.split_at(20);
    socket.send(Message::Binary(Bytes::copy_from_slice(first))).await.unwrap();
    socket.send(Message::Binary(Bytes::copy_from_slice(second))).await.unwrap();
    assert_eq!(next(&mut socket).await.kind, FrameKind::SERVER_INFO);

    let mut other = relay.newcomer().await;
    let packet = Frame::SendPacket { destination: other.key(), packet: b"from a browser" }.to_vec();
    socket.send(Message::Binary(packet.into())).await.unwrap();
    assert_eq!(await_packet(&mut other).await, (key.public(), Bytes::from_static(b"from a browser")));
    send(&mut other, &key.public(), "to a browser").await;
    let frame = next(&mut socket).await;
    assert_eq!(&frame.body[32..], b"to a browser");
}

async fn stun_socket(relay: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(relay).await.unwrap();
    socket
}

#[tokio::test]
async fn a_node_learns_its_address_by_stun() {
    let relay = TestRelay::start();
    let socket = stun_socket(relay.stun).await;
    let transaction = stun::TransactionId([9; 12]);
    socket.send(&stun::request(transaction)).await.unwrap();
    let mut answer = [0; 200];
    let length = tokio::time::timeout(PATIENCE, socket.recv(&mut answer)).await.unwrap().unwrap();
    assert_eq!(stun::parse_response(&answer[..length]), Ok((transaction, socket.local_addr().unwrap())));
}

#[tokio::test]
async fn drp_09_a_request_that_is_not_a_nodes_gets_no_answer() {
    let relay = TestRelay::start();
    let socket = stun_socket(relay.stun).await;
    let transaction = stun::TransactionId([9; 12]);
    let good = stun::request(transaction);
    let mut generic = good[..20].to_vec();
    generic[3] = 0;
    let mut unsigned = good;
    unsigned[39] ^= 1;
    let mut padded = good.to_vec();
    padded.resize(60_000, 0);
    for bad in [generic, unsigned.to_vec(), padded, b"x".to_vec()] {
        socket.send(&bad).await.unwrap();
    }
    relay.await_metric("towline_relay_stun_requests_total{result=\"Malformed\"}", |count| count == 4.0).await;
    // The first answer there is, is the good request's.
    socket.send(&good).await.unwrap();
    let mut answer = [0; 200];
    let length = tokio::time::timeout(PATIENCE, socket.recv(&mut answer)).await.unwrap().unwrap();
    assert_eq!(stun::parse_response(&answer[..length]).unwrap().0, transaction);
    assert_eq!(relay.metric("towline_relay_stun_requests_total{result=\"Answered\"}").await, 1.0);
}
