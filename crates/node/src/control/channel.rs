use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use crypto::control::{ClientHandshake, MAX_ERROR_TEXT, RESPONSE_SIZE, Transport};
use crypto::{MachinePrivate, MachinePublic, SystemEntropy};
use dial::CertificateFault;
use http_body_util::Full;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tailcfg::{CapabilityVersion, EarlyPayload, ServerKeys};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::ControlUrl;
use super::client::ClientError;
use super::dial::{Dialer, Stream};
use super::noise_stream::NoiseStream;

/// The longest head of an HTTP answer that is read.
const MAX_HEAD: usize = 16 << 10;
/// The longest answer to `GET /key`.
const MAX_KEY: usize = 64 << 10;
/// The first byte of a refusal in place of a handshake's answer.
const REFUSAL: u8 = 3;
/// How much of a map the server may send before it is read, so that a first map comes in few round trips.
const WINDOW: u32 = 4 << 20;

/// An open channel to the server: HTTP/2 inside Noise inside TLS.
pub(super) type Channel = SendRequest<Full<Bytes>>;

/// Asks for the server's key.
pub(super) async fn server_key(dialer: &Dialer, url: &ControlUrl) -> Result<MachinePublic, ClientError> {
    let mut stream = dialer.connect(url).await.map_err(|source| unreachable(url, source))?;
    let version = CapabilityVersion::OURS;
    let request = format!(
        "GET /key?v={version} HTTP/1.1\r\nHost: {}\r\nUser-Agent: towline\r\nConnection: close\r\n\r\n",
        url.authority()
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let (head, mut body) = read_head(&mut stream).await?;
    // Some servers end TLS without a farewell; what came before it is whole by its JSON.
    let mut rest = stream.take((MAX_KEY + 1) as u64);
    if let Err(error) = rest.read_to_end(&mut body).await
        && error.kind() != io::ErrorKind::UnexpectedEof
    {
        return Err(error.into());
    }
    if head.status != 200 {
        return Err(ClientError::NoControl { url: url.to_string(), status: head.status });
    }
    if body.len() > MAX_KEY {
        return Err(ClientError::Answer("its key is longer than a key".to_owned()));
    }
    let body = if head.chunked { unchunk(&body)? } else { body };
    let keys: ServerKeys = tailcfg::json::read(&body, tailcfg::json::Limits::ANSWER)
        .map_err(|error| ClientError::Answer(format!("the answer to /key: {error}")))?;
    if keys.public_key.is_zero() {
        return Err(ClientError::Answer("the server is too old: it has no Noise key".to_owned()));
    }
    Ok(keys.public_key)
}

/// Opens a channel: upgrade, handshake, HTTP/2.
pub(super) async fn open(
    dialer: &Dialer,
    url: &ControlUrl,
    machine: &MachinePrivate,
    server: &MachinePublic,
) -> Result<Channel, ClientError> {
    let stream = dialer.connect(url).await.map_err(|source| unreachable(url, source))?;
    let (stream, transport, rest) = upgrade(stream, url, machine, server).await?;
    let mut stream = NoiseStream::new(Rest { rest, stream }, transport);
    skip_early_payload(&mut stream).await?;
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_header_list_size(16 << 10)
        .handshake(TokioIo::new(stream))
        .await?;
    tokio::spawn(async move {
        // Whoever waits for an answer is told by that; the connection ends with its last sender.
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the control connection ended");
        }
    });
    Ok(sender)
}

async fn upgrade(
    mut stream: Stream,
    url: &ControlUrl,
    machine: &MachinePrivate,
    server: &MachinePublic,
) -> Result<(Stream, Transport, Vec<u8>), ClientError> {
    let version = u16::try_from(CapabilityVersion::OURS.0).unwrap_or(u16::MAX);
    let (handshake, initiation) = ClientHandshake::start(machine, server, version, &mut SystemEntropy)?;
    let request = format!(
        "POST /ts2021 HTTP/1.1\r\nHost: {}\r\nUser-Agent: towline\r\nUpgrade: tailscale-control-protocol\r\n\
         Connection: upgrade\r\nX-Tailscale-Handshake: {}\r\nContent-Length: 0\r\n\r\n",
        url.authority(),
        STANDARD.encode(initiation),
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let (head, mut rest) = read_head(&mut stream).await?;
    if head.status != 101 {
        return Err(ClientError::NoUpgrade { url: url.to_string(), status: head.status });
    }
    if !head.upgrade.eq_ignore_ascii_case("tailscale-control-protocol") {
        return Err(ClientError::Answer(format!("it switched to {:?}, which was not asked for", head.upgrade)));
    }
    let mut response = [0; RESPONSE_SIZE];
    read_through(&mut stream, &mut rest, &mut response[..3]).await?;
    if response[0] == REFUSAL {
        let length = usize::from(u16::from_be_bytes([response[1], response[2]])).min(MAX_ERROR_TEXT);
        let mut text = vec![0; length];
        read_through(&mut stream, &mut rest, &mut text).await?;
        return Err(ClientError::Answer(String::from_utf8_lossy(&text).into_owned()));
    }
    read_through(&mut stream, &mut rest, &mut response[3..]).await?;
    let transport = handshake.finish(&response)?;
    Ok((stream, transport, rest))
}

/// Reads what the server says before HTTP/2, which this client has no use for, or puts HTTP/2's first bytes back.
async fn skip_early_payload<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut NoiseStream<S>) -> Result<(), ClientError> {
    let mut head = [0; EarlyPayload::HEAD];
    stream.read_exact(&mut head).await?;
    match EarlyPayload::length(&head).map_err(|error| ClientError::Answer(error.to_string()))? {
        Some(length) => {
            let mut payload = vec![0; length];
            stream.read_exact(&mut payload).await?;
        }
        None => stream.put_back(&head),
    }
    Ok(())
}

/// What matters of an HTTP answer's head.
struct Head {
    status: u16,
    upgrade: String,
    chunked: bool,
}

/// Reads an HTTP/1.1 answer's head, and gives what came behind it.
async fn read_head(stream: &mut Stream) -> Result<(Head, Vec<u8>), ClientError> {
    let mut buffer = Vec::new();
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = buffer.split_off(end + 4);
            return parse_head(&buffer).map(|head| (head, rest));
        }
        if buffer.len() > MAX_HEAD {
            return Err(ClientError::Answer("the head of its answer is too long".to_owned()));
        }
        let mut piece = [0; 2048];
        match stream.read(&mut piece).await? {
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            count => buffer.extend_from_slice(&piece[..count]),
        }
    }
}

fn parse_head(bytes: &[u8]) -> Result<Head, ClientError> {
    let wrong = || ClientError::Answer("it does not speak HTTP/1.1".to_owned());
    let text = std::str::from_utf8(bytes).map_err(|_| wrong())?;
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first.strip_prefix("HTTP/1.1 ").or_else(|| first.strip_prefix("HTTP/1.0 ")).ok_or_else(wrong)?;
    let status = status.split(' ').next().and_then(|status| status.parse().ok()).ok_or_else(wrong)?;
    let headers: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(':')).collect();
    let header = |wanted: &str| {
        let found = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    Ok(Head {
        status,
        upgrade: header("upgrade"),
        chunked: header("transfer-encoding").eq_ignore_ascii_case("chunked"),
    })
}

fn unchunk(mut bytes: &[u8]) -> Result<Vec<u8>, ClientError> {
    let wrong = || ClientError::Answer("its answer to /key is cut".to_owned());
    let mut out = Vec::new();
    loop {
        let end = bytes.windows(2).position(|window| window == b"\r\n").ok_or_else(wrong)?;
        let size = std::str::from_utf8(&bytes[..end]).ok().and_then(|text| text.split(';').next());
        let size = size.and_then(|text| usize::from_str_radix(text.trim(), 16).ok()).ok_or_else(wrong)?;
        bytes = &bytes[end + 2..];
        if size == 0 {
            return Ok(out);
        }
        out.extend_from_slice(bytes.get(..size).ok_or_else(wrong)?);
        bytes = bytes.get(size.saturating_add(2)..).ok_or_else(wrong)?;
    }
}

/// Fills a buffer with what was read ahead, then from the stream.
async fn read_through(stream: &mut Stream, ahead: &mut Vec<u8>, out: &mut [u8]) -> io::Result<()> {
    let count = ahead.len().min(out.len());
    out[..count].copy_from_slice(&ahead[..count]);
    ahead.drain(..count);
    stream.read_exact(&mut out[count..]).await.map(drop)
}

fn unreachable(url: &ControlUrl, source: io::Error) -> ClientError {
    let fault = CertificateFault::find(&source);
    let source = fault.map_or(source, |fault| io::Error::new(io::ErrorKind::InvalidData, fault.to_string()));
    ClientError::Unreachable { url: url.to_string(), source }
}

/// A stream of which some bytes were read ahead.
struct Rest {
    rest: Vec<u8>,
    stream: Stream,
}

impl AsyncRead for Rest {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        out: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            return std::pin::Pin::new(&mut this.stream).poll_read(context, out);
        }
        let count = this.rest.len().min(out.remaining());
        out.put_slice(&this.rest[..count]);
        this.rest.drain(..count);
        std::task::Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rest {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        std::pin::Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_status_and_upgrade() {
        let head =
            parse_head(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: tailscale-control-protocol\r\n\r\n").unwrap();
        assert_eq!((head.status, head.upgrade.as_str()), (101, "tailscale-control-protocol"));
        assert!(parse_head(b"SSH-2.0-x\r\n\r\n").is_err());
    }

    #[test]
    fn chunks_are_joined_and_cut_ones_refused() {
        assert_eq!(unchunk(b"3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n").unwrap(), b"abcde");
        for bad in [&b"3\r\nab"[..], b"zz\r\n", b"", b"ffffffffffffffff\r\nabc"] {
            assert!(unchunk(bad).is_err());
        }
    }
}
