//! More than anybody may send: refused early, by a message where there is somebody to read it.

use bytes::Bytes;
use crypto::control::MAX_RECORD;
use http::{Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::machine::Machine;
use crate::server::Server;

/// What a request of a machine, and one of a program, may have.
const LIMIT: usize = 1 << 20;

/// More than the server's memory may grow by, whatever is sent: a fifth of what the tests below send in all.
const GROWTH_KIB: u64 = 48 << 10;

/// The most memory that this process ever had, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn a_record_larger_than_the_protocols_ends_the_channel_by_its_header() {
    let server = Server::start().await;
    let (mut stream, _) = Machine::new().shake_hands(server.address).await;
    // Type 4 is a record; its length says more than any record has, and nothing of it has to come.
    let mut header = vec![4];
    header.extend_from_slice(&u16::MAX.to_be_bytes());
    assert!(usize::from(u16::MAX) > MAX_RECORD);
    stream.write_all(&header).await.unwrap();
    let mut rest = Vec::new();
    // The end of the connection, however the system reports it; what came before is the server's greeting.
    let _ = stream.read_to_end(&mut rest).await;
    assert!(rest.len() < 4096, "{} bytes", rest.len());
    let (status, _) = server.ask(Method::GET, "/tailnet/-/devices", "").await;
    assert_eq!(status, StatusCode::OK, "everybody else is served");
}

#[tokio::test]
async fn a_first_message_that_is_none_is_told_why() {
    let server = Server::start().await;
    for (upgrade, handshake, says) in [
        ("websockets", "AAAA", "the request asks for no upgrade to tailscale-control-protocol"),
        ("tailscale-control-protocol", "AAAA", "the header X-Tailscale-Handshake must hold 101 bytes in base64"),
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = format!(
            "POST /ts2021 HTTP/1.1\r\nHost: c\r\nUpgrade: {upgrade}\r\nConnection: upgrade, close\r\n\
             X-Tailscale-Handshake: {handshake}\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains(says), "{answer}");
    }
}

#[tokio::test]
async fn bodies_and_json_beyond_their_limits_are_refused_in_bounded_memory() {
    let server = Server::start().await;
    let machine = Machine::new();
    let mut line = machine.call(server.address).await;
    // All that is sent is one piece of memory, so what grows is the server's.
    let zeros = Bytes::from(vec![b' '; 32 << 20]);
    let bombs: [(Bytes, &str); 3] = [
        (Bytes::from("[".repeat(LIMIT - 1)), "nests deeper than 64 levels"),
        (Bytes::from(format!("[{}0]", "0,".repeat(LIMIT / 2 - 8))), "has more than 32768 entries"),
        (Bytes::from(format!("{{\"Version\": \"{}\"}}", "x".repeat(LIMIT - 64))), "longer than 65536 bytes"),
    ];
    let before = peak();
    for path in ["/machine/register", "/machine/map", "/machine/audit-log", tailcfg::request::CERTIFICATE_PATH] {
        // The server answers and stops to read; a client that goes on sending may see only that.
        if let Ok((status, answer)) = line.send(Method::POST, path, zeros.clone()).await {
            assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{path}");
            assert_eq!(answer, "the request is longer than the 1048576 bytes that are read");
        }
        for (bomb, says) in &bombs {
            let (status, answer) = line.ask(path, bomb.clone()).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{path}");
            assert!(answer.as_str().unwrap().contains(says), "{path}: {answer}");
        }
    }
    // The kernel counts by and by: what it tells later may be a few pages less.
    let grown = peak().saturating_sub(before);
    assert!(grown < GROWTH_KIB, "the server's memory grew by {grown} KiB");
    let (status, answer) = line.ask("/machine/register", "{}").await;
    assert_eq!(status, StatusCode::OK, "the channel lives on: {answer}");
}

#[tokio::test]
async fn devices_that_wait_for_somebody_to_let_them_in_take_little_memory() {
    /// Less than half of what the requests below come to in memory.
    const MOST_KIB: u64 = 192 << 10;
    let server = Server::start().await;
    // Nearly as much as is taken, and in memory almost a hundred times as much.
    let hostinfo = format!("{{\"Hostname\":\"x\",\"Rest\":[{}0]}}", "{\"\":0},".repeat(9000));
    let before = peak();
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let machine = Machine::new();
        let mut line = machine.call(server.address).await;
        let request = |followup: &str| {
            let key = json!(machine.node.public());
            format!("{{\"Version\":130,\"NodeKey\":{key},\"Followup\":\"{followup}\",\"Hostinfo\":{hostinfo}}}")
        };
        let (status, answer) = line.ask("/machine/register", request("")).await;
        assert_eq!((status, answer["Error"].as_str()), (StatusCode::OK, Some("")), "{answer}");
        let again = request(answer["AuthURL"].as_str().unwrap());
        waiting.spawn(async move { line.ask("/machine/register", again).await });
    }
    let grown = peak().saturating_sub(before);
    assert!(grown < MOST_KIB, "the server's memory grew by {grown} KiB");
    assert!(waiting.try_join_next().is_none(), "nobody has let them in");
}

#[tokio::test]
async fn a_body_that_announces_too_much_is_refused_before_it_comes() {
    let server = Server::start().await;
    for (path, says) in [
        ("/api/v2/oauth/token", "the body is larger than 1048576 bytes"),
        ("/verify", "a question is at most 4096 bytes"),
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: c\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", 1_u64 << 40);
        stream.write_all(head.as_bytes()).await.unwrap();
        // A little more than the smaller limit; the terabyte that was announced never has to come.
        let _ = stream.write_all(&[b'x'; 8192]).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains(says), "{path}: {answer}");
    }
}
