use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use crypto::{Entropy, SystemEntropy};
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::Full;
use telemetry::{Condition, Shutdown};

use super::document::Document;
use super::{Admission, AdmissionSet};
use crate::client::Dialer;
use crate::https::{self, ServerUrl};
use crate::server::hub::Hub;
use crate::server::metrics::RelayMetrics;
use crate::server::outbox::Ending;

/// How long the server is asked to wait for a change, and how long its answer may take altogether.
const WAIT: Duration = Duration::from_secs(50);
const ANSWER_TIME: Duration = Duration::from_secs(80);

/// The longest document: half a million keys.
const MOST_DOCUMENT: usize = 40 << 20;

/// Between two attempts when the server can't be used: from the first to the second, doubling, with jitter.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What following needs.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) dialer: Dialer,
    pub(crate) url: ServerUrl,
    pub(crate) token_file: std::path::PathBuf,
    pub(crate) admission: Arc<Admission>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) metrics: RelayMetrics,
    pub(crate) ready: Condition,
}

/// Keeps the set as the coordination server has it, until shutdown.
pub(crate) async fn follow(follower: Follower, shutdown: Shutdown) {
    let Admission::Set(set) = follower.admission.as_ref() else { return };
    let mut pause = SHORTEST_PAUSE;
    follower.report(set);
    loop {
        let asked = Instant::now();
        let result = tokio::select! {
            () = shutdown.requested() => return,
            result = follower.ask(set) => result,
        };
        match result {
            Ok(changed) => {
                pause = SHORTEST_PAUSE;
                follower.metrics.admission_contact.set(since_epoch());
                if changed {
                    follower.report(set);
                }
                if changed || asked.elapsed() >= Duration::from_secs(1) {
                    continue;
                }
                // A server that says "no change" without waiting would be asked in a tight loop.
            }
            Err(error) => {
                follower.metrics.admission_failures.inc();
                tracing::warn!(error = format!("{error:#}"), "could not ask the coordination server whom to admit");
                if !set.is_known() {
                    follower.ready.unmet(format!("no admission set was ever received: {error:#}"));
                }
            }
        }
        let jitter = SystemEntropy.below(pause.as_millis() as u64);
        tokio::select! {
            () = shutdown.requested() => return,
            () = tokio::time::sleep(pause / 2 + Duration::from_millis(jitter)) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

impl Follower {
    /// Asks once; says whether there was something new.
    async fn ask(&self, set: &AdmissionSet) -> anyhow::Result<bool> {
        let token = read_token(&self.token_file)?;
        let mut query = format!("wait={}", WAIT.as_secs());
        if let Some(version) = set.version() {
            query = format!("since={version}&{query}");
        }
        let request = Request::builder()
            .uri(self.url.with_query(&query))
            .header(header::AUTHORIZATION, token)
            .header(header::ACCEPT, "application/json")
            .body(Full::new(Bytes::new()))?;
        let response = https::request(&self.dialer, &self.url, request, MOST_DOCUMENT, ANSWER_TIME).await;
        let response = response.with_context(|| format!("{} gives no answer", self.url))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NO_CONTENT => return Ok(false),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                anyhow::bail!("{} refuses the token in {}", self.url, self.token_file.display())
            }
            status => anyhow::bail!("{} answers with status {status}", self.url),
        }
        let document = serde_json::from_slice::<Document>(response.body());
        let document = document.with_context(|| format!("the answer of {} is no admission set", self.url))?;
        let before = set.version();
        let revoked = match set.apply(document) {
            Ok(revoked) => revoked,
            Err(error) => {
                // The next request must ask for all of it; keeping the set meanwhile keeps the relay working.
                set.forget_version();
                return Err(error.into());
            }
        };
        for key in &revoked {
            if self.hub.disconnect(key, Ending::Revoked) {
                tracing::debug!(node = key.short(), "disconnected a node whose key is not admitted any more");
            }
        }
        if let Err(error) = set.keep() {
            self.metrics.admission_failures.inc();
            tracing::error!(%error, "the admission set can't be kept on disk: after a restart an older one counts");
        }
        Ok(set.version() != before || !revoked.is_empty())
    }

    fn report(&self, set: &AdmissionSet) {
        if set.is_known() {
            self.ready.met();
            self.metrics.admitted.set(set.len() as i64);
            tracing::debug!(version = set.version(), nodes = set.len(), "admission set");
        }
    }
}

fn read_token(file: &Path) -> anyhow::Result<HeaderValue> {
    let token = std::fs::read_to_string(file).with_context(|| format!("can't read the token in {}", file.display()))?;
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
        .with_context(|| format!("{} holds no token: it must be one line of visible characters", file.display()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn since_epoch() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64)
}
