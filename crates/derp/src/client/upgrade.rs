//! The little HTTP that a client needs: one request, and the head of one response.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest head of a response.
const MOST_HEAD: usize = 16 << 10;

/// A response's status, and what came after its head.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) rest: Bytes,
}

/// Sends a request and reads the head of its response.
pub(super) async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    request: &[u8],
) -> io::Result<Response> {
    stream.write_all(request).await?;
    stream.flush().await?;
    let mut received = BytesMut::with_capacity(1024);
    loop {
        if stream.read_buf(&mut received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = received.split_to(end + 4);
            let status =
                status(&head).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is no HTTP"))?;
            return Ok(Response { status, rest: received.freeze() });
        }
        if received.len() > MOST_HEAD {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer's head is longer than 16 KiB"));
        }
    }
}

fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    words.next()?.starts_with("HTTP/1.").then_some(())?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answered(answer: &[u8]) -> io::Result<Response> {
        let (mut near, mut far) = tokio::io::duplex(1 << 20);
        far.write_all(answer).await.unwrap();
        drop(far.shutdown().await);
        exchange(&mut near, b"GET / HTTP/1.1\r\n\r\n").await
    }

    #[tokio::test]
    async fn what_follows_the_head_is_kept() {
        let response = answered(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\n\r\n\x01rest").await.unwrap();
        assert_eq!((response.status, &response.rest[..]), (101, &b"\x01rest"[..]));
    }

    #[tokio::test]
    async fn an_answer_without_end_or_sense_is_refused() {
        assert!(answered(b"SSH-2.0-OpenSSH\r\n\r\n").await.is_err());
        assert!(answered(b"HTTP/1.1 200 OK\r\n").await.is_err());
        let endless = [b"HTTP/1.1 200 OK\r\n", vec![b'x'; 100_000].as_slice()].concat();
        assert!(answered(&endless).await.unwrap_err().to_string().contains("16 KiB"));
    }
}
