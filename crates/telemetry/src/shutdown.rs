use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The request to stop, shared by everything that runs in the process.
///
/// After the request, work in flight has [`Shutdown::drain`]'s time to end; a second signal cuts that time to nothing.
#[derive(Debug, Clone)]
pub struct Shutdown {
    requested: CancellationToken,
    forced: CancellationToken,
    drain: Duration,
}

/// Work was still in flight when the time for draining was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("work was still in flight when the time for draining was over")]
pub struct DrainTimedOut;

impl Shutdown {
    /// Makes a request that only [`Shutdown::request`] raises.
    pub fn new(drain: Duration) -> Self {
        Self { requested: CancellationToken::new(), forced: CancellationToken::new(), drain }
    }

    /// Makes a request that SIGTERM or SIGINT raises; needs a tokio runtime.
    pub fn on_signals(drain: Duration) -> io::Result<Self> {
        let shutdown = Self::new(drain);
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let raised = shutdown.clone();
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                if raised.requested.is_cancelled() {
                    tracing::info!(signal = name, "stopping now");
                    raised.forced.cancel();
                    return;
                }
                tracing::info!(signal = name, drain_seconds = raised.drain.as_secs(), "stopping");
                raised.request();
            }
        });
        Ok(shutdown)
    }

    /// Asks everything to stop.
    pub fn request(&self) {
        self.requested.cancel();
    }

    /// Whether somebody has asked to stop.
    pub fn is_requested(&self) -> bool {
        self.requested.is_cancelled()
    }

    /// Ends when somebody asks to stop.
    pub async fn requested(&self) {
        self.requested.cancelled().await;
    }

    /// The request as a token, for what takes one.
    pub fn token(&self) -> CancellationToken {
        self.requested.clone()
    }

    /// Waits for work in flight to end: at most the time for draining, counted from this call, or until a second signal.
    pub async fn drain<F: Future>(&self, work: F) -> Result<F::Output, DrainTimedOut> {
        tokio::select! {
            biased;
            output = work => Ok(output),
            () = self.forced.cancelled() => Err(DrainTimedOut),
            () = tokio::time::sleep(self.drain) => Err(DrainTimedOut),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everybody_sees_the_request() {
        let shutdown = Shutdown::new(Duration::from_secs(1));
        let other = shutdown.clone();
        assert!(!other.is_requested());
        shutdown.request();
        other.requested().await;
        assert!(other.is_requested());
    }

    #[tokio::test]
    async fn draining_ends_at_its_deadline() {
        let shutdown = Shutdown::new(Duration::from_millis(20));
        shutdown.request();
        assert_eq!(shutdown.drain(async { 7 }).await, Ok(7));
        assert_eq!(shutdown.drain(std::future::pending::<()>()).await, Err(DrainTimedOut));
    }

    #[tokio::test]
    async fn a_second_signal_cuts_draining_short() {
        let shutdown = Shutdown::new(Duration::from_secs(3600));
        shutdown.request();
        shutdown.forced.cancel();
        assert_eq!(shutdown.drain(std::future::pending::<()>()).await, Err(DrainTimedOut));
    }
}
