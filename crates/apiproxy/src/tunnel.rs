use std::time::{Duration, Instant};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;

use crate::Refusal;
use crate::grant::Grant;
use crate::memory::SESSION_BUFFER;

/// How long a client may take for the last of a session that the API server broke off.
const GOODBYE: Duration = Duration::from_secs(5);

/// A session of exec, attach, cp or port-forward: bytes in both directions, none of them looked at.
pub(crate) struct Tunnel {
    pub(crate) client: OnUpgrade,
    pub(crate) server: OnUpgrade,
    pub(crate) grant: Grant,
    pub(crate) path: String,
}

impl Tunnel {
    /// Passes bytes until one side ends, the grant does, or the proxy is stopped for good.
    pub(crate) async fn run(self) {
        let Self { client, server, grant, path } = self;
        let (began, user) = (Instant::now(), grant.held.user());
        grant.metrics.upgraded.inc();
        tokio::select! {
            ended = pass(client, server) => if let Err(error) = ended {
                tracing::debug!(%error, "a session could not begin");
            },
            refusal = grant.ended() => if refusal == Refusal::Revoked {
                tracing::info!(user, "a session was cut: its grant has ended");
            },
        }
        grant.metrics.upgraded.dec();
        let duration_ms = began.elapsed().as_millis() as u64;
        tracing::info!(target: "apiproxy::access", user, path, duration_ms, "session ended");
    }
}

async fn pass(client: OnUpgrade, server: OnUpgrade) -> hyper::Result<()> {
    let (client, server) = tokio::try_join!(client, server)?;
    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
    // Either side going away is how a session usually ends.
    let ended =
        tokio::io::copy_bidirectional_with_sizes(&mut client, &mut server, SESSION_BUFFER, SESSION_BUFFER).await;
    if ended.is_err() {
        // Without a goodbye the connection would be reset, and what is still on its way lost.
        let _late = tokio::time::timeout(GOODBYE, client.shutdown()).await;
    }
    Ok(())
}
