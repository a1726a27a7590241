use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::server::ResolvesServerCert;
use telemetry::Shutdown;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::abrupt::Abrupt;
use crate::gate::Pass;
use crate::grant::Client;
use crate::leash::Leash;
use crate::memory::{CLIENT_WINDOW, SEND_BUFFER};
use crate::proxy::Proxy;
use crate::uses::Uses;
use crate::{AdmittedStream, Limits};

/// What every connection of an entrance needs.
#[derive(Clone)]
pub(crate) struct Reception {
    proxy: Arc<Proxy>,
    tls: TlsAcceptor,
    limits: Limits,
    shutdown: Shutdown,
}

impl Reception {
    pub(crate) fn new(
        proxy: Arc<Proxy>,
        certificates: Arc<dyn ResolvesServerCert>,
        limits: Limits,
        shutdown: Shutdown,
    ) -> anyhow::Result<Self> {
        Ok(Self { proxy, tls: acceptor(certificates)?, limits, shutdown })
    }

    /// Serves one connection to its end.
    pub(crate) async fn serve(self, stream: impl AdmittedStream, pass: Pass) {
        let source = pass.source();
        let Some(stream) = self.secured(stream, &pass).await else { return };
        let leash = Leash::new(self.proxy.identify.clone(), self.proxy.allowed.clone(), source, self.limits.recheck);
        let (pass, uses, asked) = (Arc::new(pass), Uses::default(), Notify::new());
        let service = service_fn(|request| {
            asked.notify_one();
            let client = Client { pass: pass.clone(), leash: leash.clone(), _use: uses.begin() };
            let answer = self.proxy.clone().answer(request, client);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let builder = builder(self.limits);
        let mut connection = std::pin::pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = silence(&asked, self.limits.head_time) => return tracing::debug!(%source, "no request in time"),
            () = self.goodbye(&uses) => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = self.proxy.stop.cancelled() => Ok(()),
                    // A client that does not say goodbye in return.
                    () = uses.idle(self.limits.head_time) => Ok(()),
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%source, %error, "a connection broke");
        }
    }

    /// Ends when the connection is to end: because the proxy does, or because nothing happens on it.
    async fn goodbye(&self, uses: &Uses) {
        tokio::select! {
            () = self.shutdown.requested() => {}
            () = uses.idle(self.limits.idle_time) => {}
        }
    }

    async fn secured<S: AdmittedStream>(&self, stream: S, pass: &Pass) -> Option<TlsStream<Abrupt<S>>> {
        let source = pass.source();
        match tokio::time::timeout(self.limits.head_time, self.tls.accept(Abrupt::new(stream))).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => tracing::debug!(%source, %error, "no TLS"),
            Err(_late) => tracing::debug!(%source, "no TLS in time"),
        }
        None
    }
}

/// Ends when nothing was asked in time.
///
/// The first bytes choose the version of HTTP, and whatever waits for them has no limit of its own.
async fn silence(asked: &Notify, head_time: Duration) {
    if tokio::time::timeout(head_time, asked.notified()).await.is_ok() {
        std::future::pending::<()>().await;
    }
}

fn acceptor(certificates: Arc<dyn ResolvesServerCert>) -> anyhow::Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("choosing the versions of TLS")?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(tls)))
}

fn builder(limits: Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_headers(limits.headers)
        .max_buf_size(limits.header_bytes as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(limits.header_bytes)
        .max_concurrent_streams(limits.streams_per_connection)
        .max_pending_accept_reset_streams(64)
        .max_local_error_reset_streams(256)
        .initial_stream_window_size(CLIENT_WINDOW)
        .initial_connection_window_size(CLIENT_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}
