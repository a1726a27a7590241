//! How many connections one source may hold.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts the connections of every source: an IPv4 address, or an IPv6 network of 64 bits, which is what one site has.
#[derive(Debug)]
pub(crate) struct Sources {
    most: usize,
    counts: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection's place; it is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    sources: Arc<Sources>,
    source: IpAddr,
}

impl Sources {
    /// Gives each source so many places.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, counts: Mutex::default() })
    }

    /// Takes a place, if the source has one left.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let source = site(address);
        let mut counts = self.locked();
        let count = counts.entry(source).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place { sources: Arc::clone(self), source })
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.sources.locked();
        if let Some(count) = counts.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.source);
            }
        }
    }
}

fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_gets_its_places_back_and_nobody_elses() {
        let sources = Sources::new(2);
        let (here, there) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let first = sources.take(here).unwrap();
        let _second = sources.take(here).unwrap();
        assert!(sources.take(here).is_none());
        assert!(sources.take(there).is_some());
        drop(first);
        assert!(sources.take(here).is_some());
        assert_eq!(sources.locked().len(), 1, "who left is forgotten");
    }

    #[test]
    fn an_ipv6_site_is_one_source_and_a_mapped_address_is_ipv4() {
        assert_eq!(site("2001:db8::1".parse().unwrap()), site("2001:db8::ffff:1".parse().unwrap()));
        assert_eq!(site("::ffff:192.0.2.1".parse().unwrap()), "192.0.2.1".parse::<IpAddr>().unwrap());
    }
}
