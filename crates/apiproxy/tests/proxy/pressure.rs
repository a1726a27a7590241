//! Whoever does not read stops whoever writes: nothing on the way holds more than its bound.

use std::convert::Infallible;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;

use crate::recording::{BLOCK, FLOOD};
use crate::world::{PATIENCE, World, head_of, status};

/// What two connections with their proxy may hold between a writer and somebody who does not read: their windows, their
/// buffers and what the kernel has of four sockets. Less than a sixteenth of what is written when nobody stops the writer.
const HELD: usize = 1 << 20;

/// What they hold at least by the time that nothing moves any more: a writer that stops before is slow and not stopped.
const FILLED: usize = 128 << 10;

/// How long the runtime waits for something to move, and how often in a row, before nothing moves. Every part of these tests
/// is a task of this one thread: a busy machine makes each turn longer, and leaves none out.
const TURN: std::time::Duration = std::time::Duration::from_millis(50);
const TURNS: usize = 20;

/// Waits until a writer stops, and gives what it has written by then.
async fn stops(mut written: watch::Receiver<usize>) -> usize {
    let filled = written.wait_for(|written| *written >= FILLED);
    tokio::time::timeout(PATIENCE, filled).await.expect("what is on the way is taken up to its bound").unwrap();
    let mut still = 0;
    while still < TURNS {
        match tokio::time::timeout(TURN, written.changed()).await {
            Ok(Ok(())) => still = 0,
            // One that has written all is gone, and has not been stopped.
            Ok(Err(_gone)) => break,
            Err(_nothing) => still += 1,
        }
    }
    *written.borrow()
}

async fn reaches_all(mut counted: watch::Receiver<usize>) {
    let all = counted.wait_for(|count| *count == FLOOD);
    tokio::time::timeout(PATIENCE, all).await.unwrap().unwrap();
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

async fn http2(world: &World) -> SendRequest<Body> {
    let stream = TokioIo::new(world.connect(&["h2"]).await);
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let window = BLOCK as u32;
    builder.initial_stream_window_size(window).initial_connection_window_size(window).max_send_buf_size(BLOCK);
    let (sender, connection) = builder.handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// A body of [`FLOOD`] bytes, and how many of them were taken.
fn flood() -> (Body, watch::Receiver<usize>) {
    let (taken, count) = watch::channel(0);
    let blocks = std::iter::repeat_n(Bytes::from(vec![b'.'; BLOCK]), FLOOD / BLOCK).map(move |block| {
        taken.send_modify(|taken| *taken += block.len());
        Ok(Frame::data(block))
    });
    (StreamBody::new(futures_util::stream::iter(blocks)).boxed_unsync(), count)
}

#[tokio::test]
async fn an_answer_over_http1_waits_for_its_reader() {
    let world = World::new().await;
    let mut stream = world.ask("/flood").await;
    let written = stops(world.server.flooded()).await;
    assert!(written < HELD, "{written} bytes are on their way to somebody who does not read");

    assert_eq!(status(&head_of(&mut stream).await), 200);
    let (mut read, mut buffer) = (0, vec![0; BLOCK]);
    while read < FLOOD {
        let length = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.unwrap().unwrap();
        read += buffer[..length].iter().filter(|byte| **byte == b'.').count();
    }
    reaches_all(world.server.flooded()).await;
    world.stop().await;
}

#[tokio::test]
async fn an_answer_over_http2_waits_for_its_reader() {
    let world = World::new().await;
    let mut sender = http2(&world).await;
    let request = Request::get("https://x/flood").body(Empty::new().boxed_unsync()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let written = stops(world.server.flooded()).await;
    assert!(written < HELD, "{written} bytes are on their way to somebody who does not read");
    assert_eq!(collected(answer.into_body()).await, FLOOD);
    world.stop().await;
}

async fn collected(body: Incoming) -> usize {
    tokio::time::timeout(PATIENCE, body.collect()).await.unwrap().unwrap().to_bytes().len()
}

#[tokio::test]
async fn a_request_over_http1_waits_for_the_api_server() {
    let world = World::new().await;
    let mut stream = world.connect(&["http/1.1"]).await;
    let (sent, count) = watch::channel(0);
    let writing = tokio::spawn(async move {
        let head = format!("POST /deaf HTTP/1.1\r\nHost: x\r\nContent-Length: {FLOOD}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let block = vec![b'.'; BLOCK];
        for _ in 0..FLOOD / BLOCK {
            stream.write_all(&block).await.unwrap();
            sent.send_modify(|sent| *sent += BLOCK);
        }
        stream.flush().await.unwrap();
        head_of(&mut stream).await
    });
    let written = stops(count).await;
    assert!(written < HELD, "{written} bytes are on their way to an API server that does not read");
    world.server.listen();
    reaches_all(world.server.heard()).await;
    assert_eq!(status(&writing.await.unwrap()), 200);
    world.stop().await;
}

#[tokio::test]
async fn a_request_over_http2_waits_for_the_api_server() {
    let world = World::new().await;
    let mut sender = http2(&world).await;
    let (body, count) = flood();
    let answer = tokio::spawn(sender.send_request(Request::post("https://x/deaf").body(body).unwrap()));
    let written = stops(count).await;
    assert!(written < HELD, "{written} bytes are on their way to an API server that does not read");
    world.server.listen();
    reaches_all(world.server.heard()).await;
    assert_eq!(answer.await.unwrap().unwrap().status(), 200);
    world.stop().await;
}

#[tokio::test]
async fn a_session_waits_for_its_client() {
    let world = World::new().await;
    let (mut stream, answer) = world.ask_session("/flood/exec", "websocket").await;
    assert_eq!(status(&answer), 101, "{answer}");
    let written = stops(world.server.flooded()).await;
    assert!(written < HELD, "{written} bytes are on their way to somebody who does not read");
    let mut all = vec![0; FLOOD];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut all)).await.unwrap().unwrap();
    world.stop().await;
}

#[tokio::test]
async fn a_session_waits_for_the_api_server() {
    let world = World::new().await;
    let (mut stream, answer) = world.ask_session("/deaf/exec", "SPDY/3.1").await;
    assert_eq!(status(&answer), 101, "{answer}");
    let (sent, count) = watch::channel(0);
    let writing = tokio::spawn(async move {
        let block = vec![b'.'; BLOCK];
        for _ in 0..FLOOD / BLOCK {
            stream.write_all(&block).await.unwrap();
            sent.send_modify(|sent| *sent += BLOCK);
        }
        stream.flush().await.unwrap();
        stream
    });
    let written = stops(count).await;
    assert!(written < HELD, "{written} bytes are on their way to an API server that does not read");
    world.server.listen();
    reaches_all(world.server.heard()).await;
    drop(writing.await.unwrap());
    world.stop().await;
}
