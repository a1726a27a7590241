//! What the proxy counts.

use bytes::Bytes;
use hyper::body::Frame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::people::alice;
use crate::world::{World, rest, status};

const CUT: &str = "apiproxy_cut_total";
const UNDER_WAY: &str = "apiproxy_requests_under_way";
const REVOKED: &str = "apiproxy_refused_total{reason=\"revoked\"}";

#[tokio::test]
async fn a_watch_that_is_cut_is_counted() {
    let world = World::new().await;
    let lines = world.server.next_watch();
    let mut stream = world.ask("/watch").await;
    lines.send(Ok(Frame::data(Bytes::from("ADDED\n")))).unwrap();
    while stream.read_u8().await.unwrap() != b'D' {}
    assert_eq!((world.metric(UNDER_WAY).await, world.metric(CUT).await), (1, 0));
    world.everybody.become_now(None);
    rest(&mut stream).await;
    world.counts(CUT, 1).await;
    world.counts(UNDER_WAY, 0).await;
    world.stop().await;
}

#[tokio::test]
async fn a_session_that_is_cut_is_counted() {
    let world = World::new().await;
    for (cut, protocol) in [(1, "SPDY/3.1"), (2, "websocket")] {
        let (mut stream, answer) = world.ask_session("/exec", protocol).await;
        assert_eq!(status(&answer), 101, "{answer}");
        world.counts("apiproxy_upgraded", 1).await;
        world.everybody.become_now(None);
        rest(&mut stream).await;
        world.counts(CUT, cut).await;
        world.counts("apiproxy_upgraded", 0).await;
        world.everybody.become_now(Some(alice(&["a", "b"])));
    }
    world.stop().await;
}

#[tokio::test]
async fn what_is_cut_before_the_api_server_has_answered_is_counted() {
    let world = World::new().await;
    for (count, upgrade) in [(1, ""), (2, "Connection: Upgrade\r\nUpgrade: websocket\r\n")] {
        let mut stream = world.connect(&["http/1.1"]).await;
        let request = format!("GET /silent HTTP/1.1\r\nHost: x\r\n{upgrade}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        world.server.arrives(count).await;
        world.everybody.become_now(None);
        let answer = crate::world::head_of(&mut stream).await;
        assert_eq!(status(&answer), 403, "{answer}");
        let count = count as u64;
        assert_eq!((world.metric(CUT).await, world.metric(REVOKED).await), (count, count));
        world.everybody.become_now(Some(alice(&["a", "b"])));
    }
    world.stop().await;
}

#[tokio::test]
async fn what_ends_by_itself_is_not_counted_as_cut() {
    let world = World::new().await;
    assert_eq!(status(&world.get("/api").await), 200);
    let (stream, answer) = world.ask_session("/exec", "SPDY/3.1").await;
    assert_eq!(status(&answer), 101, "{answer}");
    world.counts("apiproxy_connections", 1).await;
    drop(stream);
    world.counts("apiproxy_upgraded", 0).await;
    world.counts("apiproxy_connections", 0).await;
    assert_eq!(world.metric(CUT).await, 0);
    assert_eq!(world.metric("apiproxy_requests_total{code=\"200\"}").await, 1);
    world.stop().await;
}
