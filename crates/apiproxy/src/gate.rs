use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::gauge::Gauge;

use crate::Limits;

/// How many connections there are, and of whom. Clones are the same gate.
#[derive(Debug, Clone)]
pub(crate) struct Gate(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    most: usize,
    most_per_source: usize,
    sources: Mutex<BTreeMap<IpAddr, usize>>,
    open: Gauge,
}

/// A connection's place; gives it back when it is dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    gate: Gate,
    source: SocketAddr,
}

impl Gate {
    pub(crate) fn new(limits: Limits, open: Gauge) -> Self {
        let Limits { connections: most, connections_per_source: most_per_source, .. } = limits;
        Self(Arc::new(Counted { most, most_per_source, sources: Mutex::default(), open }))
    }

    /// A place for one more connection, if there is one.
    pub(crate) fn admit(&self, source: SocketAddr) -> Option<Pass> {
        let mut sources = self.sources();
        let of_source = sources.get(&source.ip()).copied().unwrap_or_default();
        if of_source >= self.0.most_per_source || sources.values().sum::<usize>() >= self.0.most {
            return None;
        }
        sources.insert(source.ip(), of_source + 1);
        self.0.open.inc();
        Some(Pass { gate: self.clone(), source })
    }

    fn sources(&self) -> MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        self.0.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// Where the connection comes from.
    pub(crate) fn source(&self) -> SocketAddr {
        self.source
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut sources = self.gate.sources();
        if let Some(count) = sources.get_mut(&self.source.ip()) {
            *count -= 1;
            if *count == 0 {
                sources.remove(&self.source.ip());
            }
        }
        self.gate.0.open.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(connections: usize, connections_per_source: usize) -> Gate {
        Gate::new(Limits { connections, connections_per_source, ..Limits::default() }, Gauge::default())
    }

    fn source(last: u8) -> SocketAddr {
        SocketAddr::from(([100, 64, 0, last], 40_000))
    }

    #[test]
    fn one_source_leaves_places_to_others() {
        let gate = gate(10, 2);
        let mine = [gate.admit(source(1)), gate.admit(source(1))];
        assert!(mine.iter().all(Option::is_some) && gate.admit(source(1)).is_none());
        assert!(gate.admit(source(2)).is_some());
    }

    #[test]
    fn all_sources_together_are_bounded() {
        let gate = gate(3, 2);
        let taken: Vec<_> = (1..=4).map(|last| gate.admit(source(last))).collect();
        assert_eq!(taken.iter().flatten().count(), 3);
        assert_eq!(gate.0.open.get(), 3);
    }

    #[test]
    fn a_connection_that_ends_makes_room() {
        let gate = gate(1, 1);
        let pass = gate.admit(source(1));
        assert!(pass.is_some() && gate.admit(source(2)).is_none());
        drop(pass);
        assert!(gate.admit(source(2)).is_some());
        assert!(gate.sources().is_empty() && gate.0.open.get() == 0);
    }
}
