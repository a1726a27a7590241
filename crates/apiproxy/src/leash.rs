//! What ends a stream when the grant it began with does.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{Allowed, Identify, Impersonated, Refusal};

/// Whom a source address acts as, as of now.
type Verdict = Result<Arc<Impersonated>, Refusal>;

/// The verdict about one connection's source, kept current while the connection or anything of it lives.
#[derive(Clone)]
pub(crate) struct Leash(Arc<Source>);

struct Source {
    identify: Arc<dyn Identify>,
    allowed: Arc<Allowed>,
    address: SocketAddr,
    /// One question at a time, so that an old answer never replaces a new one.
    asking: Mutex<()>,
    verdict: watch::Sender<Option<Verdict>>,
    _gone: DropGuard,
}

impl Leash {
    pub(crate) fn new(
        identify: Arc<dyn Identify>,
        allowed: Arc<Allowed>,
        address: SocketAddr,
        recheck: Duration,
    ) -> Self {
        let gone = CancellationToken::new();
        let changes = identify.changes();
        let verdict = watch::Sender::new(None);
        let _gone = gone.clone().drop_guard();
        let source = Arc::new(Source { identify, allowed, address, asking: Mutex::new(()), verdict, _gone });
        tokio::spawn(keep(Arc::downgrade(&source), changes, recheck, gone));
        Self(source)
    }

    /// Decides anew, from what the network map says now.
    pub(crate) async fn decide(&self) -> Verdict {
        self.0.decide().await
    }

    /// Ends when `held` is no longer what the source acts as.
    pub(crate) async fn cut(&self, held: Arc<Impersonated>) {
        let mut verdict = self.0.verdict.subscribe();
        let holds = |verdict: &Option<Verdict>| verdict.as_ref().is_none_or(|now| now.as_ref() == Ok(&held));
        // The sender lives as long as this leash does.
        let _ = verdict.wait_for(|verdict| !holds(verdict)).await;
    }
}

impl Source {
    async fn decide(&self) -> Verdict {
        let _asking = self.asking.lock().await;
        let identity = self.identify.whois(self.address).await.map_err(Refusal::from);
        let verdict = identity.and_then(|identity| Impersonated::decide(&identity, &self.allowed).map(Arc::new));
        self.publish(verdict.clone());
        verdict
    }

    fn publish(&self, verdict: Verdict) {
        self.verdict.send_if_modified(|current| {
            let verdict = Some(verdict);
            let changed = *current != verdict;
            *current = verdict;
            changed
        });
    }
}

/// Decides anew whenever the answer may have changed.
async fn keep(source: Weak<Source>, mut changes: watch::Receiver<u64>, recheck: Duration, gone: CancellationToken) {
    loop {
        tokio::select! {
            () = gone.cancelled() => return,
            changed = changes.changed() => if changed.is_err() {
                // Nobody knows the network map any more.
                if let Some(source) = source.upgrade() {
                    source.publish(Err(Refusal::Stopping));
                }
                return;
            },
            () = tokio::time::sleep(recheck) => {}
        }
        let Some(source) = source.upgrade() else { return };
        // Whoever waits for the verdict learns it there.
        let _ = source.decide().await;
    }
}
