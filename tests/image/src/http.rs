//! As much of an HTTP/1.1 client as a push needs: one request on a connection of its own.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::Blob;

/// A registry that hashes a large layer before it answers takes seconds, never minutes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest head of an answer, in bytes.
const LARGEST_HEAD: u64 = 64 * 1024;
/// As much of an answer's body as a message quotes, in bytes.
const QUOTED: u64 = 4 * 1024;

/// One request.
pub(crate) struct Request<'a> {
    pub(crate) method: &'static str,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) media_type: &'static str,
    pub(crate) body: Option<&'a Blob>,
}

/// What the other side answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) location: Option<String>,
    /// The start of the body, for messages.
    pub(crate) text: String,
}

/// Sends `request` on `stream` and reads the answer; the connection is not used again.
pub(crate) fn exchange(mut stream: TcpStream, host: &str, request: &Request<'_>) -> Result<Answer> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    send(&mut stream, host, request).with_context(|| format!("sending {} {}", request.method, request.path))?;
    receive(stream, request.method == "HEAD").with_context(|| format!("answer to {} {}", request.method, request.path))
}

fn send(stream: &mut TcpStream, host: &str, request: &Request<'_>) -> Result<()> {
    let size = request.body.map_or(0, Blob::size);
    let Request { method, path, media_type, body } = request;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: {media_type}\r\n\
         Content-Length: {size}\r\n\r\n"
    )?;
    if let Some(blob) = body {
        let sent = io::copy(&mut blob.open()?.take(size), stream)?;
        if sent != size {
            bail!("the blob {} has {sent} bytes in place of {size}", blob.digest());
        }
    }
    stream.flush()?;
    Ok(())
}

fn receive(stream: impl Read, without_body: bool) -> Result<Answer> {
    let mut head = BufReader::new(stream).take(LARGEST_HEAD);
    let mut line = || -> Result<String> {
        let mut line = String::new();
        head.read_line(&mut line)?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => bail!("its head ends early or has more than {LARGEST_HEAD} bytes"),
        }
    };
    let first = line()?;
    let status = match first.split(' ').nth(1).map(str::parse) {
        Some(Ok(status)) if first.starts_with("HTTP/1.") => status,
        _ => bail!("it starts with {first:?}, which is no HTTP/1.1 status line"),
    };
    let mut location = None;
    loop {
        let line = line()?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("location")
        {
            location = Some(value.trim().to_owned());
        }
    }
    let mut body = Vec::new();
    if !without_body {
        head.set_limit(QUOTED);
        // The status decides; a body that cannot be read whole only shortens a message.
        let _ = head.read_to_end(&mut body);
    }
    Ok(Answer { status, location, text: String::from_utf8_lossy(&body).trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_location_is_found_whatever_its_case() {
        let answer = receive(&b"HTTP/1.1 202 Accepted\r\nlocation: /v2/x\r\n\r\nbody"[..], false).unwrap();
        assert_eq!((answer.status, answer.location.as_deref(), answer.text.as_str()), (202, Some("/v2/x"), "body"));
    }

    #[test]
    fn something_else_than_http_is_named() {
        let message = receive(&b"SSH-2.0-OpenSSH\r\n"[..], false).err().unwrap().to_string();
        assert!(message.contains("SSH-2.0"), "{message}");
    }

    #[test]
    fn an_endless_head_is_cut_off() {
        assert!(receive(io::repeat(b'x'), false).err().unwrap().to_string().contains("65536"));
    }
}
