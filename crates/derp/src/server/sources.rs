//! How many connections one source may hold before it has proven to be somebody.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Whom something is counted for: an IPv4 address, or an IPv6 network of 64 bits, which is what one site has.
pub(crate) fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

/// Counts the connections of every source, up to a limit each and a limit for all.
#[derive(Debug)]
pub(crate) struct Sources {
    most_each: usize,
    most: usize,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    each: HashMap<IpAddr, usize>,
}

/// Why a connection was turned away before a byte was read from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// Its source has as many as it may.
    Source,
    /// The relay has as many as it may.
    Relay,
}

impl Sources {
    pub(crate) fn new(most_each: usize, most: usize) -> Arc<Self> {
        Arc::new(Self { most_each, most, counts: Mutex::default() })
    }

    /// Takes a place for a connection from `address`; the place is free again when the value is dropped.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Result<Place, Full> {
        let source = site(address);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.all >= self.most {
            return Err(Full::Relay);
        }
        let count = counts.each.entry(source).or_default();
        if *count >= self.most_each {
            return Err(Full::Source);
        }
        *count += 1;
        counts.all += 1;
        Ok(Place { sources: self.clone(), source: Some(source) })
    }
}

/// A connection's place among those of its source and of the relay.
#[derive(Debug)]
pub(crate) struct Place {
    sources: Arc<Sources>,
    source: Option<IpAddr>,
}

impl Place {
    /// Stops counting for the source: the connection has proven a key that was admitted, and is limited by that.
    ///
    /// A whole company behind one address would otherwise share the few places that strangers get.
    pub(crate) fn release_source(&mut self) {
        let Some(source) = self.source.take() else { return };
        let mut counts = self.sources.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.each.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                counts.each.remove(&source);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.release_source();
        self.sources.counts.lock().unwrap_or_else(PoisonError::into_inner).all -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 2));

    #[test]
    fn drp_10_a_source_gets_its_limit_and_not_one_more() {
        let sources = Sources::new(64, 1000);
        let mut places: Vec<Place> = (0..64).map(|_| sources.take(A).unwrap()).collect();
        for _ in 0..6400 {
            assert_eq!(sources.take(A).err(), Some(Full::Source));
        }
        assert!(sources.take(B).is_ok());
        places.pop();
        assert!(sources.take(A).is_ok());
    }

    #[test]
    fn drp_10_the_relay_has_a_limit_for_all_sources_together() {
        let sources = Sources::new(2, 3);
        let places: Vec<_> = [A, A, B].map(|source| sources.take(source).unwrap()).into();
        assert_eq!(sources.take(B).err(), Some(Full::Relay));
        drop(places);
        assert!(sources.counts.lock().unwrap().each.is_empty());
    }

    #[test]
    fn an_admitted_client_no_longer_counts_for_its_source() {
        let sources = Sources::new(1, 3);
        let mut admitted = sources.take(A).unwrap();
        admitted.release_source();
        let _second = sources.take(A).unwrap();
        drop(admitted);
        assert_eq!(sources.counts.lock().unwrap().all, 1);
        assert_eq!(sources.take(A).err(), Some(Full::Source));
    }

    #[test]
    fn an_ipv6_site_is_one_source_and_a_mapped_address_is_ipv4() {
        let of = |text: &str| site(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:203.0.113.1"), A);
    }
}
