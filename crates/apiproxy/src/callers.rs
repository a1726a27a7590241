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
    known: Mutex<BTreeMap<Arc<Impersonated>, Caller>>,
}

struct Caller {
    upstream: Upstream,
    requests: usize,
    sessions: usize,
    last: Instant,
}

/// A request or session under way; gives its place back when it is dropped.
pub(crate) struct Place {
    callers: Arc<Callers>,
    caller: Arc<Impersonated>,
    session: bool,
    upstream: Upstream,
}

impl Callers {
    pub(crate) fn new(upstream: Upstream, limits: Limits) -> Self {
        Self { upstream, limits, known: Mutex::default() }
    }

    /// A place for one more request of a caller, and session if it is one.
    pub(crate) fn enter(self: &Arc<Self>, caller: &Arc<Impersonated>, session: bool) -> Result<Place, Refusal> {
        let now = Instant::now();
        let mut known = self.known();
        known.retain(|_, caller| caller.requests > 0 || now.duration_since(caller.last) < IDLE);
        self.check_own(known.get(caller), session)?;
        self.check_all(&known, session)?;
        if !known.contains_key(caller) {
            self.make_room(&mut known)?;
        }
        let entry = known.entry(caller.clone()).or_insert_with(|| Caller {
            upstream: self.upstream.with_own_pool(),
            requests: 0,
            sessions: 0,
            last: now,
        });
        entry.requests += 1;
        entry.sessions += usize::from(session);
        let upstream = entry.upstream.clone();
        Ok(Place { callers: self.clone(), caller: caller.clone(), session, upstream })
    }

    fn check_own(&self, caller: Option<&Caller>, session: bool) -> Result<(), Refusal> {
        let Limits { requests_per_caller, sessions_per_caller, .. } = self.limits;
        let (requests, sessions) = caller.map(|caller| (caller.requests, caller.sessions)).unwrap_or_default();
        if requests >= requests_per_caller {
            return Err(Refusal::TooMany { what: "requests", most: requests_per_caller });
        }
        if session && sessions >= sessions_per_caller {
            return Err(Refusal::TooMany { what: "sessions", most: sessions_per_caller });
        }
        Ok(())
    }

    fn check_all(&self, known: &BTreeMap<Arc<Impersonated>, Caller>, session: bool) -> Result<(), Refusal> {
        let Limits { requests, sessions, .. } = self.limits;
        if known.values().map(|caller| caller.requests).sum::<usize>() >= requests {
            return Err(Refusal::Full { what: "requests", most: requests });
        }
        if session && known.values().map(|caller| caller.sessions).sum::<usize>() >= sessions {
            return Err(Refusal::Full { what: "sessions", most: sessions });
        }
        Ok(())
    }

    /// Forgets whoever has been idle for longest when one more would be too many.
    fn make_room(&self, known: &mut BTreeMap<Arc<Impersonated>, Caller>) -> Result<(), Refusal> {
        if known.len() < self.limits.callers {
            return Ok(());
        }
        let idle = known.iter().filter(|(_, caller)| caller.requests == 0).min_by_key(|(_, caller)| caller.last);
        let idle =
            idle.map(|(name, _)| name.clone()).ok_or(Refusal::Full { what: "callers", most: self.limits.callers })?;
        known.remove(&idle);
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Arc<Impersonated>, Caller>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
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
        if let Some(caller) = self.callers.known().get_mut(&self.caller) {
            caller.requests -= 1;
            caller.sessions -= usize::from(self.session);
            caller.last = Instant::now();
        }
    }
}
