use std::sync::Arc;
use std::time::Instant;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;

use crate::Impersonated;
use crate::callers::Place;
use crate::leash::Leash;
use crate::metrics::ProxyMetrics;

/// How much one direction of a session may hold.
const BUFFER: usize = 32 << 10;

/// A session of exec, attach, cp or port-forward: bytes in both directions, none of them looked at.
pub(crate) struct Tunnel {
    pub(crate) client: OnUpgrade,
    pub(crate) server: OnUpgrade,
    pub(crate) leash: Leash,
    pub(crate) held: Arc<Impersonated>,
    pub(crate) place: Place,
    pub(crate) metrics: ProxyMetrics,
    pub(crate) stop: CancellationToken,
    pub(crate) path: String,
}

impl Tunnel {
    /// Passes bytes until one side ends, the grant does, or the proxy is stopped for good.
    pub(crate) async fn run(self) {
        let Self { client, server, leash, held, place, metrics, stop, path } = self;
        let began = Instant::now();
        metrics.upgraded.inc();
        let pass = async {
            let (client, server) = tokio::try_join!(client, server)?;
            let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
            // Either side going away is how a session usually ends.
            let _ended = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await;
            Ok::<_, hyper::Error>(())
        };
        tokio::select! {
            ended = pass => if let Err(error) = ended {
                tracing::debug!(%error, "a session could not begin");
            },
            () = leash.cut(held.clone()) => {
                metrics.cut.inc();
                tracing::info!(user = held.user(), "a session was cut: its grant has ended");
            }
            () = stop.cancelled() => {}
        }
        metrics.upgraded.dec();
        let duration_ms = began.elapsed().as_millis() as u64;
        tracing::info!(target: "apiproxy::access", user = held.user(), path, duration_ms, "session ended");
        drop(place);
    }
}
