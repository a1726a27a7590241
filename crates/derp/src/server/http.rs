//! HTTP on a relay's TLS port: the way into DERP, and what clients probe.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use listen::Place;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_rustls::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::serve::{Newcomer, serve_client};
use super::shared::Shared;
use crate::wire::{Socket, Wire};

/// The longest head of a request.
const MOST_HEAD: usize = 16 << 10;

/// How long a connection that never becomes DERP may stay open.
const MOST_TIME: Duration = Duration::from_secs(60);

/// The longest challenge that a captive-portal check may carry.
const MOST_CHALLENGE: usize = 64;

const CHALLENGE: HeaderName = HeaderName::from_static("x-tailscale-challenge");
const CHALLENGE_RESPONSE: HeaderName = HeaderName::from_static("x-tailscale-response");
const DERP_VERSION: HeaderName = HeaderName::from_static("derp-version");
const DERP_PUBLIC_KEY: HeaderName = HeaderName::from_static("derp-public-key");
const IDEAL_NODE: HeaderName = HeaderName::from_static("ideal-node");

type Stream = Prefixed<TlsStream<Socket>>;

/// Serves a TLS connection: DERP at once when the client starts fast, HTTP otherwise.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    mut stream: TlsStream<Socket>,
    newcomer: Newcomer,
) -> anyhow::Result<()> {
    let head = tokio::time::timeout_at(newcomer.deadline, read_head(&mut stream)).await??;
    if let Some(length) = fast_start(&head) {
        let rest = head.slice(length..);
        tokio::spawn(serve_client(shared, Wire::Tls(Box::new(stream)), rest, newcomer));
        return Ok(());
    }
    serve_http(shared, Prefixed { prefix: head, inner: stream }, newcomer).await
}

/// Reads until the end of a request's head, or as much as a head may have.
async fn read_head(stream: &mut TlsStream<Socket>) -> std::io::Result<Bytes> {
    let mut head = BytesMut::with_capacity(1024);
    while head.len() < MOST_HEAD && !head.windows(4).any(|window| window == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    Ok(head.freeze())
}

/// The length of the head, if it asks for DERP without waiting for an HTTP response.
///
/// Only the exact request of such clients is looked for; whatever else it is, hyper judges it.
fn fast_start(head: &[u8]) -> Option<usize> {
    let length = head.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let mut lines = std::str::from_utf8(&head[..length]).ok()?.split("\r\n");
    (lines.next()? == "GET /derp HTTP/1.1").then_some(())?;
    let (mut fast, mut derp) = (false, false);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        fast |= name.eq_ignore_ascii_case("Derp-Fast-Start") && value.trim() == "1";
        derp |= name.eq_ignore_ascii_case("Upgrade") && value.trim().eq_ignore_ascii_case("derp");
    }
    (fast && derp).then_some(length)
}

async fn serve_http(shared: Arc<Shared>, stream: Stream, newcomer: Newcomer) -> anyhow::Result<()> {
    let newcomer = Arc::new(Mutex::new(Some(newcomer)));
    let service = service_fn(move |request: Request<Incoming>| {
        let response = answer(&shared, request, &newcomer);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(10))
        .max_buf_size(MOST_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::time::timeout(MOST_TIME, connection).await??;
    Ok(())
}

fn answer(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    newcomer: &Mutex<Option<Newcomer>>,
) -> Response<Full<Bytes>> {
    match request.uri().path() {
        "/derp" => enter(shared, request, newcomer),
        path => page(path, &request, &shared.bootstrap_dns.answer(request.uri().query())),
    }
}

/// Turns the connection into DERP, if it asks for that.
fn enter(
    shared: &Arc<Shared>,
    mut request: Request<Incoming>,
    newcomer: &Mutex<Option<Newcomer>>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    let kind = match upgrade_kind(&request) {
        Ok(kind) => kind,
        Err(status) => {
            *response.status_mut() = status;
            response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("DERP"));
            *response.body_mut() = Full::from("DERP needs a connection upgrade\n");
            return response;
        }
    };
    let Some(mut newcomer) = newcomer.lock().unwrap_or_else(PoisonError::into_inner).take() else {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    };
    newcomer.is_ideal = request.headers().get(&IDEAL_NODE).is_none_or(HeaderValue::is_empty);
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    kind.answer(shared, response.headers_mut());
    let shared = shared.clone();
    let is_websocket = matches!(kind, UpgradeKind::WebSocket { .. });
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(&mut request).await else { return };
        let Ok(parts) = upgraded.downcast::<TokioIo<Stream>>() else { return };
        let Prefixed { prefix, inner } = parts.io.into_inner();
        // hyper has taken the head from the prefix; what it read beyond comes before what it left there.
        let rest = Bytes::from([parts.read_buf, prefix].concat());
        if is_websocket {
            let stream = websocket(inner, rest.to_vec()).await;
            serve_client(shared, Wire::WebSocket(Box::new(stream)), Bytes::new(), newcomer).await;
        } else {
            serve_client(shared, Wire::Tls(Box::new(inner)), rest, newcomer).await;
        }
    });
    response
}

async fn websocket(stream: TlsStream<Socket>, rest: Vec<u8>) -> WebSocketStream<TlsStream<Socket>> {
    let most = 2 * packet::derp::MAX_PACKET_LEN;
    let config = WebSocketConfig::default()
        .read_buffer_size(4 << 10)
        .write_buffer_size(0)
        .max_write_buffer_size(4 * most)
        .max_message_size(Some(most))
        .max_frame_size(Some(most));
    WebSocketStream::from_partially_read(stream, rest, Role::Server, Some(config)).await
}

/// What a request for `/derp` wants to become.
#[derive(Debug, PartialEq, Eq)]
enum UpgradeKind {
    Derp,
    WebSocket { accept: String },
}

impl UpgradeKind {
    fn answer(&self, shared: &Shared, headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        match self {
            Self::Derp => {
                headers.insert(header::UPGRADE, HeaderValue::from_static("DERP"));
                headers.insert(DERP_VERSION, HeaderValue::from(crate::info::VERSION));
                if let Ok(key) = HeaderValue::from_str(&shared.public.to_hex()) {
                    headers.insert(DERP_PUBLIC_KEY, key);
                }
            }
            Self::WebSocket { accept } => {
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("derp"));
                if let Ok(accept) = HeaderValue::from_str(accept) {
                    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
                }
            }
        }
    }
}

fn upgrade_kind<B>(request: &Request<B>) -> Result<UpgradeKind, StatusCode> {
    let headers = request.headers();
    let upgrade = headers.get(header::UPGRADE).ok_or(StatusCode::UPGRADE_REQUIRED)?;
    if request.method() != Method::GET || !has_token(headers, &header::CONNECTION, "upgrade") {
        return Err(StatusCode::BAD_REQUEST);
    }
    if upgrade.as_bytes().eq_ignore_ascii_case(b"derp") {
        return Ok(UpgradeKind::Derp);
    }
    if !upgrade.as_bytes().eq_ignore_ascii_case(b"websocket") {
        return Err(StatusCode::UPGRADE_REQUIRED);
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).ok_or(StatusCode::BAD_REQUEST)?;
    let version = headers.get(header::SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
    if !version || !has_token(headers, &header::SEC_WEBSOCKET_PROTOCOL, "derp") {
        return Err(StatusCode::BAD_REQUEST);
    }
    Ok(UpgradeKind::WebSocket { accept: derive_accept_key(key.as_bytes()) })
}

/// Whether a header that is a list of tokens has one.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// Everything that is not DERP.
fn page<B>(path: &str, request: &Request<B>, bootstrap_dns: &str) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", "only GET and HEAD are answered\n");
    }
    match path {
        "/derp/probe" | "/derp/latency-check" => {
            let mut response = Response::new(Full::default());
            response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            response
        }
        "/generate_204" => generate_204(request.headers()),
        "/bootstrap-dns" => {
            let mut response = text(StatusCode::OK, "application/json", bootstrap_dns);
            // Clients retry at once when they find the connection closed, and this is asked for once in a while.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        }
        "/robots.txt" => text(StatusCode::OK, "text/plain; charset=utf-8", "User-agent: *\nDisallow: /\n"),
        "/" => text(StatusCode::OK, "text/html; charset=utf-8", HOME),
        _ => text(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "there is nothing here\n"),
    }
}

const HOME: &str = "<!doctype html><html lang=\"en\"><title>Towline relay</title>\
<p>This is a <b>Towline</b> relay. It passes encrypted packets between devices that can't reach each other directly.</html>\n";

/// The answer to a captive-portal check: nothing, and the challenge repeated, so that no portal can be taken for it.
pub(crate) fn generate_204(headers: &HeaderMap) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, max-age=0"));
    let challenge = headers.get(&CHALLENGE).and_then(|value| value.to_str().ok()).filter(|text| is_challenge(text));
    if let Some(Ok(answer)) = challenge.map(|text| HeaderValue::from_str(&format!("response {text}"))) {
        response.headers_mut().insert(CHALLENGE_RESPONSE, answer);
    }
    response
}

fn is_challenge(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
    (1..=MOST_CHALLENGE).contains(&text.len()) && text.bytes().all(allowed)
}

fn text(status: StatusCode, kind: &'static str, body: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_owned()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Serves plain HTTP on one connection: captive-portal checks, and a word to whoever expects more.
pub(crate) async fn serve_plain(tcp: tokio::net::TcpStream, _source: SocketAddr, _place: Place) -> anyhow::Result<()> {
    let service = service_fn(|request: Request<Incoming>| {
        let response = match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/generate_204") => generate_204(request.headers()),
            (&Method::GET | &Method::HEAD, "/robots.txt") => page("/robots.txt", &request, ""),
            _ => text(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "the relay itself is reached by https\n"),
        };
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(10))
        .max_buf_size(MOST_HEAD)
        .serve_connection(TokioIo::new(tcp), service);
    tokio::time::timeout(MOST_TIME, connection).await??;
    Ok(())
}

/// A stream of which the start was read already.
#[derive(Debug)]
struct Prefixed<S> {
    prefix: Bytes,
    inner: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, out);
        }
        let now = self.prefix.len().min(out.remaining());
        out.put_slice(&self.prefix[..now]);
        self.prefix.advance(now);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// The deadline of a connection that starts now.
pub(crate) fn deadline(shared: &Shared) -> Instant {
    Instant::now() + shared.limits.unproven_time
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: &str = "GET /derp HTTP/1.1\r\nHost: derp.example\r\nUpgrade: DERP\r\nConnection: Upgrade\r\nDerp-Fast-Start: 1\r\n\r\n";

    #[test]
    fn a_fast_start_is_told_from_everything_else() {
        let with_frames = format!("{FAST}\x02frames");
        assert_eq!(fast_start(with_frames.as_bytes()), Some(FAST.len()));
        for other in [
            FAST.replace("Derp-Fast-Start: 1", "Derp-Fast-Start: 0"),
            FAST.replace("Upgrade: DERP", "Upgrade: websocket"),
            FAST.replace("GET /derp ", "POST /derp "),
            FAST.replace("GET /derp ", "GET /derp/probe "),
            FAST.trim_end().to_owned(),
            String::new(),
        ] {
            assert_eq!(fast_start(other.as_bytes()), None, "{other}");
        }
    }

    fn upgrade(headers: &[(&str, &str)]) -> Result<UpgradeKind, StatusCode> {
        let mut request = Request::builder().uri("/derp");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        upgrade_kind(&request.body(()).unwrap())
    }

    #[test]
    fn derp_without_an_upgrade_is_answered_with_426() {
        assert_eq!(upgrade(&[]), Err(StatusCode::UPGRADE_REQUIRED));
        assert_eq!(upgrade(&[("upgrade", "h2c"), ("connection", "upgrade")]), Err(StatusCode::UPGRADE_REQUIRED));
        assert_eq!(upgrade(&[("upgrade", "derp"), ("connection", "keep-alive, Upgrade")]), Ok(UpgradeKind::Derp));
    }

    #[test]
    fn drp_10_a_websocket_upgrade_without_sense_is_refused() {
        let good = [
            ("upgrade", "websocket"),
            ("connection", "Upgrade"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "other, derp"),
        ];
        // The key and its answer are RFC 6455's example.
        let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned();
        assert_eq!(upgrade(&good), Ok(UpgradeKind::WebSocket { accept }));
        for without in 1..good.len() {
            let mut headers = good.to_vec();
            headers.remove(without);
            assert_eq!(upgrade(&headers), Err(StatusCode::BAD_REQUEST), "{:?}", good[without]);
        }
    }

    #[test]
    fn a_challenge_is_repeated_only_when_it_is_harmless() {
        let answer = |challenge: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CHALLENGE, HeaderValue::from_str(challenge).unwrap());
            let response = generate_204(&headers);
            assert_eq!(response.status(), StatusCode::NO_CONTENT);
            response.headers().get(&CHALLENGE_RESPONSE).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(answer("ts_1.2-3:4"), Some("response ts_1.2-3:4".to_owned()));
        assert_eq!(answer(&"x".repeat(64)), Some(format!("response {}", "x".repeat(64))));
        for bad in ["", &"x".repeat(65), "<script>", "a b"] {
            assert_eq!(answer(bad), None, "{bad}");
        }
    }

    #[test]
    fn probes_may_come_from_any_web_page() {
        let request = Request::builder().uri("/derp/probe").body(()).unwrap();
        let response = page("/derp/probe", &request, "");
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        let request = Request::builder().method(Method::POST).uri("/derp/probe").body(()).unwrap();
        assert_eq!(page("/derp/probe", &request, "").status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(page("/secret", &Request::new(()), "").status(), StatusCode::NOT_FOUND);
    }
}
