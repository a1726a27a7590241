use std::net::SocketAddr;
use std::sync::Arc;

use listen::{Place, Places};
use prometheus_client::metrics::gauge::Gauge;

use crate::Limits;

/// How many connections there are, and of whom. Clones are the same gate.
///
/// On the tailnet an address is one device, of either family.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    places: Arc<Places>,
    open: Gauge,
}

/// A connection's place; gives it back when it is dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    _place: Place,
    open: Gauge,
    source: SocketAddr,
}

impl Gate {
    pub(crate) fn new(limits: Limits, open: Gauge) -> Self {
        Self { places: Places::new(limits.connections_per_source, limits.connections), open }
    }

    /// A place for one more connection, if there is one.
    pub(crate) fn admit(&self, source: SocketAddr) -> Option<Pass> {
        let place = self.places.take(source.ip()).ok()?;
        self.open.inc();
        Some(Pass { _place: place, open: self.open.clone(), source })
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
        self.open.dec();
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
        assert_eq!(gate.open.get(), 3);
    }

    #[test]
    fn a_connection_that_ends_makes_room() {
        let gate = gate(1, 1);
        let pass = gate.admit(source(1));
        assert!(pass.is_some() && gate.admit(source(2)).is_none());
        drop(pass);
        assert!(gate.admit(source(2)).is_some());
        assert!(gate.open.get() == 0);
    }
}
