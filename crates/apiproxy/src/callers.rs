use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::upstream::Upstream;
use crate::{Impersonated, Limits, Refusal};

/// How long a caller's connections to the API server are kept when nothing is under way.
const IDLE: Duration = Duration::from_secs(120);

/// Everybody who acts through the proxy: a pool of connections each, so that no caller waits for another's streams.
pub(crate) struct Callers {
    upstream: Upstream,
    limits: Limits,
    callers: Mutex<BTreeMap<Arc<Impersonated>, Caller>>,
}

struct Caller {
    upstream: Upstream,
    requests: usize,
    upgrades: usize,
    last: Instant,
}

/// A request or upgraded connection under way; gives its place back when it is dropped.
pub(crate) struct Place {
    callers: Arc<Callers>,
    caller: Arc<Impersonated>,
    upgrade: bool,
    upstream: Upstream,
}

impl Callers {
    pub(crate) fn new(upstream: Upstream, limits: Limits) -> Self {
        Self { upstream, limits, callers: Mutex::new(BTreeMap::new()) }
    }

    pub(crate) fn enter(self: &Arc<Self>, caller: &Arc<Impersonated>, upgrade: bool) -> Result<Place, Refusal> {
        let now = Instant::now();
        let mut callers = self.locked();
        callers.retain(|_, caller| caller.requests > 0 || now.duration_since(caller.last) < IDLE);
        let entry = callers.entry(caller.clone()).or_insert_with(|| Caller {
            upstream: self.upstream.with_own_pool(),
            requests: 0,
            upgrades: 0,
            last: now,
        });
        if entry.requests >= self.limits.requests_per_caller {
            return Err(Refusal::TooMany { what: "requests", most: self.limits.requests_per_caller });
        }
        if upgrade && entry.upgrades >= self.limits.upgrades_per_caller {
            return Err(Refusal::TooMany { what: "sessions", most: self.limits.upgrades_per_caller });
        }
        entry.requests += 1;
        entry.upgrades += usize::from(upgrade);
        let upstream = entry.upstream.clone();
        Ok(Place { callers: self.clone(), caller: caller.clone(), upgrade, upstream })
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<Arc<Impersonated>, Caller>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The caller's own connections to the API server.
    pub(crate) fn upstream(&self) -> &Upstream {
        &self.upstream
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(caller) = self.callers.locked().get_mut(&self.caller) {
            caller.requests -= 1;
            caller.upgrades -= usize::from(self.upgrade);
            caller.last = Instant::now();
        }
    }
}
