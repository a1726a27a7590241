//! Streams flow as they come, and end with the grant that they began with.

use std::time::Duration;

use apiproxy::Limits;
use bytes::Bytes;
use hyper::body::Frame;
use tokio::io::AsyncReadExt as _;

use crate::people::alice;
use crate::world::{World, rest, status};

async fn read_until(stream: &mut (impl tokio::io::AsyncRead + Unpin), wanted: &str) -> String {
    let (mut seen, mut buffer) = (String::new(), [0; 4096]);
    while !seen.contains(wanted) {
        let length = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut buffer)).await.unwrap().unwrap();
        assert_ne!(length, 0, "it ended with {seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    seen
}

#[tokio::test]
async fn a_watch_is_passed_on_line_by_line() {
    let world = World::new().await;
    let lines = world.server.next_watch();
    let mut stream = world.ask("/watch").await;
    for line in ["ADDED\n", "MODIFIED\n", "DELETED\n"] {
        // The next line is only written when this one has been seen: a buffer anywhere would end in the time-out.
        lines.send(Ok(Frame::data(Bytes::from(line)))).unwrap();
        read_until(&mut stream, line).await;
    }
    drop(lines);
    read_until(&mut stream, "0\r\n\r\n").await;
    world.stop().await;
}

async fn is_cut(world: &World, revoke: impl FnOnce(&World)) {
    let lines = world.server.next_watch();
    let mut stream = world.ask("/watch").await;
    lines.send(Ok(Frame::data(Bytes::from("ADDED\n")))).unwrap();
    read_until(&mut stream, "ADDED\n").await;
    revoke(world);
    assert!(!rest(&mut stream).await.ends_with("0\r\n\r\n"), "a cut must not look like an end");
    // The proxy has let go of the API server as well.
    tokio::time::timeout(Duration::from_secs(10), lines.closed()).await.unwrap();
}

#[tokio::test]
async fn a_watch_is_cut_when_the_grant_goes() {
    let world = World::new().await;
    is_cut(&world, |world| world.everybody.become_now(Some(alice(&["a"])))).await;
    world.everybody.become_now(Some(alice(&["a", "b"])));
    is_cut(&world, |world| world.everybody.become_now(None)).await;
    assert_eq!(status(&world.get("/api").await), 403);
    world.stop().await;
}

#[tokio::test]
async fn a_watch_is_cut_at_the_next_look_when_nobody_told_of_the_change() {
    let world = World::with(Limits { recheck: Duration::from_millis(100), ..Limits::default() }).await;
    is_cut(&world, |world| world.everybody.become_silently(None)).await;
    world.stop().await;
}

#[tokio::test]
async fn a_change_that_takes_nothing_away_cuts_nothing() {
    let world = World::new().await;
    let lines = world.server.next_watch();
    let mut stream = world.ask("/watch").await;
    for line in ["ADDED\n", "MODIFIED\n"] {
        lines.send(Ok(Frame::data(Bytes::from(line)))).unwrap();
        read_until(&mut stream, line).await;
        world.everybody.become_now(Some(alice(&["b", "a"])));
    }
    world.stop().await;
}
