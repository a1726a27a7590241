use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Which destination addresses a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Destination {
    /// This address only.
    Address(IpAddr),
    /// Each of the node's own addresses.
    Own,
    /// Every address, own or not: forwarding to a subnet or out.
    Any,
}

/// Where a listener listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listen {
    /// The addresses.
    pub to: Destination,
    /// The port; `None` is every port.
    pub port: Option<u16>,
}

/// A listener or forwarder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Listener(u64);

/// Who listens where.
///
/// The most specific one gets a client: an address before the own addresses before any, and a port before every port.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    by_place: BTreeMap<Listen, Listener>,
}

impl Listeners {
    /// Adds a listener; `None` when there is one at this very place.
    pub(crate) fn add(&mut self, place: Listen, number: u64) -> Option<Listener> {
        let std::collections::btree_map::Entry::Vacant(vacant) = self.by_place.entry(place) else { return None };
        Some(*vacant.insert(Listener(number)))
    }

    pub(crate) fn remove(&mut self, listener: Listener) {
        self.by_place.retain(|_, other| *other != listener);
    }

    pub(crate) fn find(&self, to: SocketAddr, own: bool) -> Option<Listener> {
        let destinations =
            [Some(Destination::Address(to.ip())), own.then_some(Destination::Own), Some(Destination::Any)];
        destinations.into_iter().flatten().find_map(|destination| {
            [Some(to.port()), None]
                .into_iter()
                .find_map(|port| self.by_place.get(&Listen { to: destination, port }).copied())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_listener_gets_the_client() {
        let mut listeners = Listeners::default();
        let address: IpAddr = "100.64.0.1".parse().unwrap();
        let mut add = |to, port| {
            let number = listeners.by_place.len() as u64;
            listeners.add(Listen { to, port }, number).unwrap()
        };
        let any = add(Destination::Any, None);
        let any_443 = add(Destination::Any, Some(443));
        let own = add(Destination::Own, None);
        let exact = add(Destination::Address(address), Some(22));
        assert_eq!(listeners.find("100.64.0.1:22".parse().unwrap(), true), Some(exact));
        assert_eq!(listeners.find("100.64.0.1:443".parse().unwrap(), true), Some(own));
        assert_eq!(listeners.find("10.0.0.1:443".parse().unwrap(), false), Some(any_443));
        assert_eq!(listeners.find("10.0.0.1:80".parse().unwrap(), false), Some(any));
        listeners.remove(any);
        assert_eq!(listeners.find("10.0.0.1:80".parse().unwrap(), false), None);
    }

    #[test]
    fn a_place_is_taken_once() {
        let mut listeners = Listeners::default();
        let place = Listen { to: Destination::Own, port: Some(80) };
        assert!(listeners.add(place, 1).is_some());
        assert_eq!(listeners.add(place, 2), None);
    }
}
