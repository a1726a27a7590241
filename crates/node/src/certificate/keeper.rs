use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crypto::{Entropy, SystemEntropy};
use jiff::Timestamp;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Certificate, CertificateError};
use crate::node::{Node, WeakNode};
use crate::snapshot::Snapshot;

/// Waits between attempts.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// How often the time is looked at: a clock may be set, and a machine may sleep.
const LOOK: Duration = Duration::from_secs(600);

/// The certificate of a node's own name, kept current for as long as this or a clone of it lives.
///
/// It is what a TLS server of the node resolves certificates with: a renewed one is shown from the next handshake on.
#[derive(Clone)]
pub struct NodeCertificate {
    standing: watch::Receiver<CertificateStanding>,
    _ends: Arc<DropGuard>,
}

/// How a node stands with its certificate.
#[derive(Clone)]
pub enum CertificateStanding {
    /// There is none that could be shown, for this reason.
    Missing(String),
    /// There is one.
    Valid {
        /// Whom it is for: the node's full name, without a dot at its end.
        name: String,
        /// The end of its validity.
        until: Timestamp,
        /// The chain and its key.
        key: Arc<CertifiedKey>,
    },
}

impl NodeCertificate {
    /// Begins to keep a certificate for a node; needs a tokio runtime.
    pub(crate) fn of(node: &Node) -> Self {
        let missing = CertificateStanding::Missing("it has not been asked for yet".to_owned());
        let (sender, standing) = watch::channel(missing);
        let ends = CancellationToken::new();
        let keeper = Keeper { node: node.weak(), snapshots: node.watch(), standing: sender, attempts: 0 };
        tokio::spawn(ends.clone().run_until_cancelled_owned(keeper.run()));
        Self { standing, _ends: Arc::new(ends.drop_guard()) }
    }

    /// Whether there is a certificate, as it changes.
    pub fn watch(&self) -> watch::Receiver<CertificateStanding> {
        self.standing.clone()
    }
}

impl ResolvesServerCert for NodeCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match &*self.standing.borrow() {
            CertificateStanding::Valid { key, .. } => Some(key.clone()),
            CertificateStanding::Missing(_) => None,
        }
    }
}

impl fmt::Debug for NodeCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NodeCertificate").field(&*self.standing.borrow()).finish()
    }
}

impl fmt::Debug for CertificateStanding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(reason) => f.debug_tuple("Missing").field(reason).finish(),
            Self::Valid { name, until, .. } => {
                f.debug_struct("Valid").field("name", name).field("until", until).finish_non_exhaustive()
            }
        }
    }
}

struct Keeper {
    /// Does not keep the node running.
    node: WeakNode,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    standing: watch::Sender<CertificateStanding>,
    attempts: u32,
}

impl Keeper {
    /// Runs for as long as the node does.
    async fn run(mut self) {
        let mut held: Option<Certificate> = None;
        loop {
            let snapshot = self.snapshots.borrow_and_update().clone();
            let name = snapshot.own_name();
            let wait = match &name {
                None => {
                    held = None;
                    self.missing(CertificateError::NoName.to_string());
                    LOOK
                }
                Some(name) => self.attend(name, &mut held).await,
            };
            if !self.pause(wait, name.as_deref()).await {
                return self.missing(CertificateError::Stopped.to_string());
            }
        }
    }

    /// Sees to the certificate of a name, and tells after how long it is to be looked at again.
    async fn attend(&mut self, name: &str, held: &mut Option<Certificate>) -> Duration {
        let now = Timestamp::now();
        if let Some(certificate) = held.as_ref().filter(|held| held.holds(name, now) && now < held.due()) {
            return until(certificate.due(), now);
        }
        let Some(node) = self.node.get() else { return LOOK };
        // What is kept is shown while another is asked for: also when the server is away.
        if !held.as_ref().is_some_and(|held| held.holds(name, now)) {
            *held = node.certifier().kept(name).await.ok().flatten();
            self.show(name, held.as_ref());
        }
        let enough = |kept: &Certificate| Timestamp::now() < kept.due();
        match node.certifier().obtain(&node, name, enough).await {
            Ok(certificate) => {
                self.attempts = 0;
                self.show(name, Some(&certificate));
                let wait = until(certificate.due(), Timestamp::now());
                *held = Some(certificate);
                wait
            }
            Err(error) => {
                let at_least = match &error {
                    CertificateError::Refused { retry_after, .. } => retry_after.unwrap_or_default(),
                    _ => Duration::ZERO,
                };
                tracing::warn!(%error, "there is no new certificate; it is tried again");
                if !held.as_ref().is_some_and(|held| held.holds(name, Timestamp::now())) {
                    self.missing(error.to_string());
                }
                self.backoff().max(at_least)
            }
        }
    }

    /// Waits for a time, or until the node has another name; false when the node has ended.
    async fn pause(&mut self, wait: Duration, name: Option<&str>) -> bool {
        let changes = async {
            while self.snapshots.changed().await.is_ok() {
                if self.snapshots.borrow_and_update().own_name().as_deref() != name {
                    return true;
                }
            }
            false
        };
        tokio::select! {
            goes_on = changes => goes_on,
            () = tokio::time::sleep(wait) => true,
        }
    }

    fn show(&self, name: &str, certificate: Option<&Certificate>) {
        if let Some(certificate) = certificate {
            let (until, key) = (certificate.not_after(), certificate.key());
            self.standing.send_replace(CertificateStanding::Valid { name: name.to_owned(), until, key });
        }
    }

    fn missing(&self, reason: String) {
        self.standing.send_replace(CertificateStanding::Missing(reason));
    }

    /// A wait that doubles, cut at random by up to a half.
    fn backoff(&mut self) -> Duration {
        let whole = LONGEST_WAIT.min(FIRST_WAIT * 2_u32.saturating_pow(self.attempts.min(16)));
        self.attempts += 1;
        let random = SystemEntropy.bytes32()[0];
        whole - whole.mul_f64(f64::from(random) / 510.0)
    }
}

fn until(time: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(time.duration_since(now)).unwrap_or_default().clamp(FIRST_WAIT, LOOK)
}
