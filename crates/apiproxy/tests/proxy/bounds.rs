//! How much there may be at once, and who is told when it is more.

use std::convert::Infallible;
use std::time::Duration;

use apiproxy::{Identity, Limits};
use bytes::Bytes;
use hyper::body::Frame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::client::TlsStream;

use crate::http2::{self, Outcome};
use crate::people::alice;
use crate::world::{PATIENCE, World, status};

/// HTTP/2's word for a stream beyond the bound, which may be tried again (RFC 9113, section 7).
const REFUSED_STREAM: u32 = 7;

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

fn bob() -> Identity {
    Identity { login: "bob@example.com".into(), ..alice(&["a"]) }
}

/// A watch that is under way, for as long as its parts live.
async fn watching(world: &World) -> (mpsc::UnboundedSender<Result<Frame<Bytes>, Infallible>>, TlsStream<TcpStream>) {
    let lines = world.server.next_watch();
    let mut stream = world.ask("/watch").await;
    lines.send(Ok(Frame::data(Bytes::from("ADDED\n")))).unwrap();
    while stream.read_u8().await.unwrap() != b'D' {}
    (lines, stream)
}

/// Tries until there is a place again.
async fn is_let_in(world: &World) {
    let trying = async {
        loop {
            if let Ok(mut stream) = world.try_connect(&["http/1.1"]).await
                && stream.write_all(b"GET /api HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.is_ok()
                && status(&crate::world::head_of(&mut stream).await) == 200
            {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, trying).await.unwrap();
}

#[tokio::test]
async fn one_device_has_a_bounded_number_of_connections() {
    let world = World::with(limits(|limits| limits.connections_per_device = 2)).await;
    let (first, _second) = (world.connect(&["h2"]).await, world.connect(&["http/1.1"]).await);
    assert!(world.try_connect(&["http/1.1"]).await.is_err());
    drop(first);
    is_let_in(&world).await;
    world.stop().await;
}

/// The next thing that comes on a connection that says nothing itself.
async fn hung_up(stream: &mut TcpStream) -> std::io::ErrorKind {
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut [0])).await.unwrap();
    read.map(|length| panic!("{length} bytes and no reset")).unwrap_err().kind()
}

#[tokio::test]
async fn whoever_finds_no_place_or_speaks_no_tls_is_reset_and_keeps_none() {
    let world = World::with(limits(|limits| {
        limits.connections_per_device = 1;
        limits.head_time = Duration::from_secs(2);
    }))
    .await;
    let mut silent = TcpStream::connect(world.address).await.unwrap();
    world.counts("apiproxy_connections", 1).await;
    let mut turned_away = TcpStream::connect(world.address).await.unwrap();
    assert_eq!(hung_up(&mut turned_away).await, std::io::ErrorKind::ConnectionReset);
    assert_eq!(hung_up(&mut silent).await, std::io::ErrorKind::ConnectionReset);
    is_let_in(&world).await;
    world.stop().await;
}

#[tokio::test]
async fn the_addresses_of_a_device_share_its_places() {
    let world = World::with(limits(|limits| limits.connections_per_device = 1)).await;
    world.everybody.become_device([100, 64, 0, 7].into());
    let _first = world.connect(&["h2"]).await;
    assert!(world.try_connect_from([127, 0, 0, 2].into(), &["h2"]).await.is_err(), "it comes from another address");
    world.everybody.become_device([100, 64, 0, 8].into());
    assert!(world.try_connect(&["h2"]).await.is_ok(), "another device comes from the same address");
    world.stop().await;
}

#[tokio::test]
async fn a_connection_on_which_nothing_happens_is_closed() {
    let world = World::with(limits(|limits| limits.idle_time = Duration::from_secs(5))).await;
    let watch = watching(&world).await;
    let fields = [(":method", "GET"), (":scheme", "https"), (":authority", "x"), (":path", "/api")];
    let fields = fields.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
    let mut stream = world.connect(&["h2"]).await;
    stream.write_all(&[http2::preface(), http2::head(1, &fields, true, false)].concat()).await.unwrap();
    crate::world::rest(&mut stream).await;
    world.counts("apiproxy_connections", 1).await;
    // What is under way, however silent, is something.
    watch.0.send(Ok(Frame::data(Bytes::from("MODIFIED\n")))).unwrap();
    let mut stream = watch.1;
    while stream.read_u8().await.unwrap() != b'M' {}
    world.stop().await;
}

#[tokio::test]
async fn a_session_keeps_the_place_of_its_connection() {
    let world = World::with(limits(|limits| limits.connections_per_device = 1)).await;
    let (session, answer) = world.ask_session("/exec", "SPDY/3.1").await;
    assert_eq!(status(&answer), 101, "{answer}");
    assert!(world.try_connect(&["http/1.1"]).await.is_err());
    drop(session);
    is_let_in(&world).await;
    world.stop().await;
}

#[tokio::test]
async fn one_connection_has_a_bounded_number_of_streams() {
    let world = World::with(limits(|limits| limits.streams_per_connection = 2)).await;
    let mut stream = world.connect(&["h2"]).await;
    let fields = [(":method", "GET"), (":scheme", "https"), (":authority", "x"), (":path", "/silent")];
    let fields = fields.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
    let heads = [1, 3, 5].map(|number| http2::head(number, &fields, true, false));
    stream.write_all(&[http2::preface(), heads.concat()].concat()).await.unwrap();
    assert_eq!(http2::outcome(&mut stream, 5).await, Outcome::Reset(REFUSED_STREAM));
    world.server.arrives(2).await;
    world.stop().await;
}

#[tokio::test]
async fn one_caller_has_a_bounded_number_of_requests() {
    let world = World::with(limits(|limits| limits.requests_per_caller = 1)).await;
    let watch = watching(&world).await;
    let answer = world.get("/api").await;
    assert_eq!(status(&answer), 429, "{answer}");
    assert!(answer.contains("you have 1 requests open") && answer.contains("retry-after"), "{answer}");
    world.everybody.become_silently(Some(bob()));
    assert_eq!(status(&world.get("/api").await), 200, "another caller has places of its own");
    world.everybody.become_silently(Some(alice(&["a", "b"])));
    drop(watch);
    is_let_in(&world).await;
    world.stop().await;
}

#[tokio::test]
async fn all_callers_together_have_a_bounded_number_of_requests() {
    let world = World::with(limits(|limits| limits.requests = 1)).await;
    let watch = watching(&world).await;
    world.everybody.become_silently(Some(bob()));
    let answer = world.get("/api").await;
    assert_eq!(status(&answer), 503, "{answer}");
    assert!(answer.contains("this proxy has 1 requests open") && answer.contains("retry-after"), "{answer}");
    drop(watch);
    is_let_in(&world).await;
    world.stop().await;
}

#[tokio::test]
async fn callers_are_bounded_and_an_idle_one_makes_room() {
    let world = World::with(limits(|limits| limits.callers = 1)).await;
    let watch = watching(&world).await;
    world.everybody.become_silently(Some(bob()));
    let answer = world.get("/api").await;
    assert!(status(&answer) == 503 && answer.contains("1 callers"), "{answer}");
    drop(watch);
    is_let_in(&world).await;
    world.stop().await;
}

#[tokio::test]
async fn one_caller_has_a_bounded_number_of_sessions() {
    let world = World::with(limits(|limits| limits.sessions_per_caller = 2)).await;
    sessions_are_two(&world, 429).await;
    world.stop().await;
}

#[tokio::test]
async fn all_callers_together_have_a_bounded_number_of_sessions() {
    let world = World::with(limits(|limits| limits.sessions = 2)).await;
    sessions_are_two(&world, 503).await;
    world.stop().await;
}

async fn sessions_are_two(world: &World, code: u16) {
    let (_first, answer) = world.ask_session("/exec", "SPDY/3.1").await;
    assert_eq!(status(&answer), 101, "{answer}");
    let (second, answer) = world.ask_session("/exec", "websocket").await;
    assert_eq!(status(&answer), 101, "{answer}");
    assert_eq!(status(&world.ask_session("/exec", "SPDY/3.1").await.1), code);
    drop(second);
    let freed = async { while status(&world.ask_session("/exec", "SPDY/3.1").await.1) != 101 {} };
    tokio::time::timeout(PATIENCE, freed).await.unwrap();
}

#[tokio::test]
async fn connections_to_the_api_server_are_bounded() {
    let narrow = |limits: &mut Limits| {
        (limits.upstream_connections, limits.connect_time) = (1, Duration::from_millis(300));
    };
    let world = World::with(limits(narrow)).await;
    // On a busy machine connecting may take longer than the little time that there is for it here.
    let session = async {
        loop {
            let (session, answer) = world.ask_session("/exec", "SPDY/3.1").await;
            match status(&answer) {
                101 => return session,
                code => assert_eq!(code, 503, "{answer}"),
            }
        }
    };
    let session = tokio::time::timeout(PATIENCE, session).await.unwrap();
    let answer = world.get("/api").await;
    assert!(status(&answer) == 503 && answer.contains("too many connections to it"), "{answer}");
    drop(session);
    is_let_in(&world).await;
    world.stop().await;
}

#[tokio::test]
async fn too_large_a_head_is_refused() {
    let world = World::new().await;
    let many: String = (0..101).map(|number| format!("X-{number}: y\r\n")).collect();
    let answer = world.raw(format!("GET /api HTTP/1.1\r\nHost: x\r\n{many}\r\n").as_bytes()).await;
    assert_eq!(status(&answer), 431, "{answer}");
    let long = "y".repeat(Limits::default().header_bytes as usize);
    let answer = world.raw(format!("GET /api HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n").as_bytes()).await;
    assert_eq!(status(&answer), 431, "{answer}");
    assert!(world.server.arrived().is_empty());
    world.stop().await;
}

#[tokio::test]
async fn a_client_that_asks_nothing_is_hung_up_on_whatever_it_speaks() {
    let world = World::with(limits(|limits| limits.head_time = Duration::from_secs(2))).await;
    let preface = http2::preface();
    let clients: [(&str, &[u8]); 4] = [("http/1.1", b""), ("http/1.1", b"P"), ("h2", b""), ("h2", &preface[..24])];
    let proxy = &world;
    let silent = clients.map(|(protocol, said)| async move {
        // A handshake that a busy machine does not end in time is hung up on too, and is not what is meant here.
        let mut stream = loop {
            if let Ok(mut stream) = proxy.try_connect(&[protocol]).await
                && stream.write_all(said).await.is_ok()
            {
                break stream;
            }
        };
        crate::world::rest(&mut stream).await;
    });
    tokio::time::timeout(2 * PATIENCE, futures_util::future::join_all(silent)).await.unwrap();
    world.stop().await;
}
