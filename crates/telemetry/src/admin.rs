use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::{Health, Metrics, Shutdown};

/// How many scrapes and probes are answered at once, and how long one may take from connect to its last byte.
const CONNECTIONS: usize = 32;
const CONNECTION_TIME: Duration = Duration::from_secs(60);
const HEADER_TIME: Duration = Duration::from_secs(5);

/// Answers `/healthz`, `/readyz` and `/metrics` until the shutdown is requested.
///
/// `/healthz` is 200 while the process runs; `/readyz` is 503 with a line per unmet condition, and while draining.
///
/// # Errors
///
/// When the listener itself breaks; the trouble of a single connection ends that connection.
pub async fn serve_admin(
    listener: TcpListener,
    metrics: Metrics,
    health: Health,
    shutdown: Shutdown,
) -> io::Result<()> {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return Ok(()) };
        let stream = tokio::select! {
            () = shutdown.requested() => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // A connection that broke before it was accepted, or too many files open: neither is the listener's end.
                Err(error) => {
                    tracing::warn!(%error, "could not accept an admin connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let (metrics, health, shutdown) = (metrics.clone(), health.clone(), shutdown.clone());
        tokio::spawn(async move {
            let _slot = slot;
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = answer(request.method(), request.uri().path(), &metrics, &health, &shutdown);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIME)
                .serve_connection(TokioIo::new(stream), service);
            // Probes and scrapers go away when they like; there is nobody to tell.
            let _ended = tokio::time::timeout(CONNECTION_TIME, connection).await;
        });
    }
}

fn answer(
    method: &Method,
    path: &str,
    metrics: &Metrics,
    health: &Health,
    shutdown: &Shutdown,
) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n".to_owned());
    }
    match path {
        "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => ready(health, shutdown),
        "/metrics" => match metrics.encode() {
            Ok(body) => openmetrics(body),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written as text\n".to_owned()),
        },
        _ => text(StatusCode::NOT_FOUND, "known here: /healthz, /readyz, /metrics\n".to_owned()),
    }
}

fn ready(health: &Health, shutdown: &Shutdown) -> Response<Full<Bytes>> {
    if shutdown.is_requested() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned());
    }
    let unmet = health.unmet();
    if unmet.is_empty() {
        return text(StatusCode::OK, "ready\n".to_owned());
    }
    let lines = unmet.into_iter().map(|(name, reason)| format!("{name}: {reason}\n")).collect();
    text(StatusCode::SERVICE_UNAVAILABLE, lines)
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    with_type(status, "text/plain; charset=utf-8", body)
}

fn openmetrics(body: String) -> Response<Full<Bytes>> {
    with_type(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", body)
}

fn with_type(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn ask(address: std::net::SocketAddr, request: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("{request}\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn probes_and_scrapes_are_answered_until_shutdown() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (health, shutdown) = (Health::new(), Shutdown::new(Duration::from_secs(1)));
        let store = health.condition("store");
        let server = tokio::spawn(serve_admin(listener, Metrics::new(), health, shutdown.clone()));

        assert!(ask(address, "GET /healthz HTTP/1.1").await.starts_with("HTTP/1.1 200"));
        let unready = ask(address, "GET /readyz HTTP/1.1").await;
        assert!(unready.starts_with("HTTP/1.1 503") && unready.ends_with("store: not started\n"), "{unready}");
        store.met();
        assert!(ask(address, "GET /readyz HTTP/1.1").await.starts_with("HTTP/1.1 200"));
        assert!(ask(address, "GET /metrics HTTP/1.1").await.contains("process_resident_memory_bytes"));
        assert!(ask(address, "POST /metrics HTTP/1.1").await.starts_with("HTTP/1.1 405"));
        assert!(ask(address, "GET /env HTTP/1.1").await.starts_with("HTTP/1.1 404"));

        shutdown.request();
        server.await.unwrap().unwrap();
    }

    #[test]
    fn a_stopping_process_is_not_ready() {
        let shutdown = Shutdown::new(Duration::from_secs(1));
        shutdown.request();
        let answer = answer(&Method::GET, "/readyz", &Metrics::new(), &Health::new(), &shutdown);
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
