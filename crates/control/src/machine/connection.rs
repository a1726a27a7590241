use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crypto::control::Accepted;
use crypto::{ChallengePrivate, MachinePrivate, MachinePublic, SystemEntropy};
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
    /// How long a machine may stay that has no device and asks for none: any key opens a channel.
    pub unknown: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            streams: 64,
            headers: 16 << 10,
            silence: Duration::from_secs(40),
            unknown: Duration::from_secs(5 * 60),
        }
    }
}

impl ConnectionLimits {
    /// HTTP/2 within these limits.
    fn http2(&self) -> http2::Builder<TokioExecutor> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.streams)
            .max_header_list_size(self.headers)
            .initial_stream_window_size(256 << 10)
            .initial_connection_window_size(1 << 20)
            .max_send_buf_size(256 << 10)
            .keep_alive_interval(self.silence)
            .keep_alive_timeout(self.silence / 2);
        builder
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
        stream: S,
        coordinator: Arc<C>,
        limits: ConnectionLimits,
        stop: CancellationToken,
    ) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let caller = self.caller;
        let opened = tokio::time::timeout(limits.handshake, self.open(stream));
        let channel = opened.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;

        let service = service_fn(|request| {
            let coordinator = coordinator.clone();
            async move { Ok::<_, Infallible>(requests::answer(coordinator, caller, request).await) }
        });
        let connection = limits.http2().serve_connection(TokioIo::new(channel), service);
        tokio::pin!(connection);
        let served = tokio::select! {
            served = &mut connection => served,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            () = is_unknown(&*coordinator, &caller.machine, limits.unknown) => {
                tracing::debug!("a machine without a device keeps its connection no longer");
                connection.as_mut().graceful_shutdown();
                // What it still has under way may end, and nothing more.
                let ended = tokio::time::timeout(limits.silence, connection).await;
                ended.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
            }
        };
        served.map_err(io::Error::other)
    }

    /// Answers the handshake, and tells clients that read it what to prove their node key against.
    async fn open<S: AsyncRead + AsyncWrite + Unpin>(self, mut stream: S) -> io::Result<NoiseStream<S>> {
        let Self { caller, accepted } = self;
        stream.write_all(&accepted.response).await?;
        let mut channel = NoiseStream::new(stream, accepted.transport);
        if caller.version >= EARLY_PAYLOAD_SINCE {
            let challenge = ChallengePrivate::generate(&mut SystemEntropy).public();
            channel.write_all(&EarlyPayload { node_key_challenge: challenge }.encode()).await?;
            channel.flush().await?;
        }
        Ok(channel)
    }
}

/// Waits until a machine is found to be nobody's, looking every so often.
async fn is_unknown<C: Coordinator>(coordinator: &C, machine: &MachinePublic, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        if !coordinator.knows(machine) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use crypto::control::{ClientHandshake, RESPONSE_SIZE};
    use http_body_util::Full;
    use hyper::client::conn::http2::SendRequest;
    use tokio::io::{AsyncReadExt, DuplexStream};

    use super::*;
    use crate::machine::Nobody;

    /// A machine's HTTP/2 in its channel: what it sends requests by, and the connection, which answers pings while polled.
    async fn call(coordinator: Nobody) -> (SendRequest<Full<Bytes>>, impl Future<Output = hyper::Result<()>>) {
        let [key, machine] = [0; 2].map(|_| MachinePrivate::generate(&mut SystemEntropy));
        let (handshake, initiation) = ClientHandshake::start(&machine, &key.public(), 130, &mut SystemEntropy).unwrap();
        let source = "192.0.2.1:1".parse().unwrap();
        let connection = Connection::accept(&key, &Initiation(initiation), source).unwrap();
        let (mut near, far) = tokio::io::duplex(64 << 10);
        let (limits, stop) = (ConnectionLimits::default(), CancellationToken::new());
        tokio::spawn(connection.serve(far, Arc::new(coordinator), limits, stop));
        let mut response = [0; RESPONSE_SIZE];
        near.read_exact(&mut response).await.unwrap();
        let mut channel: NoiseStream<DuplexStream> = NoiseStream::new(near, handshake.finish(&response).unwrap());
        let mut head = [0; EarlyPayload::HEAD];
        channel.read_exact(&mut head).await.unwrap();
        channel.read_exact(&mut vec![0; EarlyPayload::length(&head).unwrap().unwrap()]).await.unwrap();
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(channel)).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_without_a_device_is_sent_away_after_some_minutes() {
        let (_sender, connection) = call(Nobody { knows: false }).await;
        let begun = tokio::time::Instant::now();
        let ended = tokio::time::timeout(Duration::from_secs(3600), connection).await;
        assert!(ended.is_ok(), "it answers pings, and is not kept for that");
        assert!((240..420).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_with_a_device_stays_as_long_as_it_likes() {
        let (_sender, connection) = call(Nobody { knows: true }).await;
        assert!(tokio::time::timeout(Duration::from_secs(3600), connection).await.is_err());
    }
}
