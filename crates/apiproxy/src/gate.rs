use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use listen::{Place, Places};
use prometheus_client::metrics::gauge::Gauge;

use crate::Limits;

/// How many connections there are, and of which device. Clones are the same gate.
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
        Self { places: Places::new(limits.connections_per_device, limits.connections), open }
    }

    /// A place for one more connection of a device, if there is one; see [`crate::Identify::device`].
    pub(crate) fn admit(&self, source: SocketAddr, device: IpAddr) -> Option<Pass> {
        let place = self.places.take(device).ok()?;
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

    fn gate(connections: usize, connections_per_device: usize) -> Gate {
        Gate::new(Limits { connections, connections_per_device, ..Limits::default() }, Gauge::default())
    }

    fn admit(gate: &Gate, last: u8) -> Option<Pass> {
        let source = SocketAddr::from(([100, 64, 0, last], 40_000));
        gate.admit(source, source.ip())
    }

    #[test]
    fn one_device_leaves_places_to_others() {
        let gate = gate(10, 2);
        let mine = [admit(&gate, 1), admit(&gate, 1)];
        assert!(mine.iter().all(Option::is_some) && admit(&gate, 1).is_none());
        assert!(admit(&gate, 2).is_some());
    }

    #[test]
    fn all_devices_together_are_bounded() {
        let gate = gate(3, 2);
        let taken: Vec<_> = (1..=4).map(|last| admit(&gate, last)).collect();
        assert_eq!(taken.iter().flatten().count(), 3);
        assert_eq!(gate.open.get(), 3);
    }

    #[test]
    fn a_connection_that_ends_makes_room() {
        let gate = gate(1, 1);
        let pass = admit(&gate, 1);
        assert!(pass.is_some() && admit(&gate, 2).is_none());
        drop(pass);
        assert!(admit(&gate, 2).is_some());
        assert!(gate.open.get() == 0);
    }
}
