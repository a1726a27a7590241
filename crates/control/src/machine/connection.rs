use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crypto::control::Accepted;
use crypto::{ChallengePrivate, MachinePrivate, SystemEntropy};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tailcfg::{CapabilityVersion, EarlyPayload};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::upgrade::Initiation;
use super::{Caller, Coordinator, requests};
use crate::noise::NoiseStream;

/// What one connection may take of the server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionLimits {
    /// How long the upgrade and handshake may take.
    pub handshake: Duration,
    /// Requests at once on one connection: a map stream, a held registration, and some.
    pub streams: u32,
    /// Bytes of a request's headers.
    pub headers: u32,
    /// Time without an answer to an HTTP/2 ping before the connection counts as dead.
    pub silence: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self { handshake: Duration::from_secs(10), streams: 64, headers: 16 << 10, silence: Duration::from_secs(40) }
    }
}

/// The oldest version whose clients read an early payload.
const EARLY_PAYLOAD_SINCE: CapabilityVersion = CapabilityVersion(49);

/// One Noise channel after its handshake: who calls, and what is still to be sent to open it.
#[derive(Debug)]
pub(crate) struct Connection {
    caller: Caller,
    accepted: Accepted,
}

impl Connection {
    /// Checks a client's first message against the server's key.
    pub(crate) fn accept(
        machine: &MachinePrivate,
        initiation: &Initiation,
        source: std::net::SocketAddr,
    ) -> Result<Self, crypto::control::HandshakeError> {
        let accepted = crypto::control::accept(machine, &initiation.0, &mut SystemEntropy)?;
        let caller = Caller { machine: accepted.client, version: CapabilityVersion(accepted.version.into()), source };
        Ok(Self { caller, accepted })
    }

    /// Serves the upgraded stream until the client leaves, a limit is broken or `stop` is asked for.
    pub(crate) async fn serve<C: Coordinator, S>(
        self,
        mut stream: S,
        coordinator: Arc<C>,
        limits: ConnectionLimits,
        stop: CancellationToken,
    ) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { caller, accepted } = self;
        let opened = tokio::time::timeout(limits.handshake, async {
            stream.write_all(&accepted.response).await?;
            let mut channel = NoiseStream::new(stream, accepted.transport);
            if caller.version >= EARLY_PAYLOAD_SINCE {
                let challenge = ChallengePrivate::generate(&mut SystemEntropy).public();
                channel.write_all(&EarlyPayload { node_key_challenge: challenge }.encode()).await?;
                channel.flush().await?;
            }
            Ok::<_, io::Error>(channel)
        });
        let channel = opened.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;

        let service = service_fn(|request| {
            let coordinator = coordinator.clone();
            async move { Ok::<_, Infallible>(requests::answer(coordinator, caller, request).await) }
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(limits.headers)
            .initial_stream_window_size(256 << 10)
            .initial_connection_window_size(1 << 20)
            .max_send_buf_size(256 << 10)
            .keep_alive_interval(limits.silence)
            .keep_alive_timeout(limits.silence / 2)
            .serve_connection(TokioIo::new(channel), service);
        tokio::pin!(connection);
        let served = tokio::select! {
            served = &mut connection => served,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        served.map_err(io::Error::other)
    }
}
