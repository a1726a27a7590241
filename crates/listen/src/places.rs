use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Whom a stranger on the internet is counted as: an IPv4 address, or an IPv6 network of 64 bits, which is what one site
/// has.
pub fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

/// The network that a stranger is counted with where one address too many is cheap: 24 bits of IPv4 or 48 of IPv6. Who is given
/// many sites of IPv6 gets them side by side, and so it is with addresses of IPv4.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            Ipv4Addr::new(a, b, c, 0).into()
        }
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).into()
        }
    }
}

/// The places that a server has for connections: so many for each source, and so many for all.
#[derive(Debug)]
pub struct Places {
    most_each: usize,
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    each: HashMap<IpAddr, usize>,
}

impl Taken {
    fn give_back(&mut self, source: IpAddr) {
        if let Some(count) = self.each.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.each.remove(&source);
            }
        }
    }
}

/// Why a connection gets no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// Its source has as many as it may.
    Source,
    /// The server has as many as it may.
    Server,
}

impl Places {
    /// Has `most_each` places for every source, and `most` for all sources together.
    pub fn new(most_each: usize, most: usize) -> Arc<Self> {
        Arc::new(Self { most_each, most, taken: Mutex::default() })
    }

    /// Takes a place for a connection that counts for `source`: a stranger's [`site`], or an address that is one device.
    ///
    /// # Errors
    /// When its source, or the server, has none left.
    pub fn take(self: &Arc<Self>, source: IpAddr) -> Result<Place, Full> {
        let mut place = self.take_unshared()?;
        let mut taken = self.taken();
        let count = taken.each.entry(source).or_default();
        if *count >= self.most_each {
            drop(taken);
            return Err(Full::Source);
        }
        *count += 1;
        place.source = Some(source);
        Ok(place)
    }

    /// Takes a place that counts for no source: for whoever brings the connections of many.
    ///
    /// # Errors
    /// When the server has none left.
    pub fn take_unshared(self: &Arc<Self>) -> Result<Place, Full> {
        let mut taken = self.taken();
        if taken.all >= self.most {
            return Err(Full::Server);
        }
        taken.all += 1;
        Ok(Place { places: self.clone(), source: None })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place; it is free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    source: Option<IpAddr>,
}

impl Place {
    /// Stops counting for the source: the connection has shown whose it is, and is limited by that.
    ///
    /// A whole company behind one address would otherwise share the few places that strangers get.
    pub fn release_source(&mut self) {
        if let Some(source) = self.source.take() {
            self.places.taken().give_back(source);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        if let Some(source) = self.source {
            taken.give_back(source);
        }
        taken.all -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 2));

    #[test]
    fn a_source_gets_its_places_and_not_one_more() {
        let places = Places::new(64, 1000);
        let mut held: Vec<Place> = (0..64).map(|_| places.take(A).unwrap()).collect();
        for _ in 0..6400 {
            assert_eq!(places.take(A).err(), Some(Full::Source));
        }
        assert!(places.take(B).is_ok());
        held.pop();
        assert!(places.take(A).is_ok());
    }

    #[test]
    fn all_sources_together_have_so_many_places_and_who_left_is_forgotten() {
        let places = Places::new(2, 3);
        let held: Vec<_> = [A, A, B].map(|source| places.take(source).unwrap()).into();
        assert_eq!(places.take(B).err(), Some(Full::Server));
        drop(held);
        assert_eq!(places.taken().all, 0);
        assert!(places.taken().each.is_empty());
    }

    #[test]
    fn who_was_turned_away_holds_no_place() {
        let places = Places::new(1, 2);
        let _held = places.take(A).unwrap();
        assert_eq!(places.take(A).err(), Some(Full::Source));
        assert!(places.take(B).is_ok(), "the place of the refused one is free");
    }

    #[test]
    fn who_has_shown_whose_it_is_no_longer_counts_for_its_source() {
        let places = Places::new(1, 3);
        let mut admitted = places.take(A).unwrap();
        admitted.release_source();
        let _second = places.take(A).unwrap();
        drop(admitted);
        assert_eq!(places.taken().all, 1);
        assert_eq!(places.take(A).err(), Some(Full::Source));
    }

    #[test]
    fn a_bringer_of_many_is_bounded_by_the_server_alone() {
        let places = Places::new(1, 3);
        let _held = [places.take_unshared(), places.take_unshared(), places.take_unshared()].map(Result::unwrap);
        assert_eq!(places.take_unshared().err(), Some(Full::Server));
    }

    #[test]
    fn neighbours_are_of_one_network() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.255"));
        assert_ne!(of("192.0.2.1"), of("192.0.3.1"));
        assert_eq!(of("2001:db8:1:2::3"), of("2001:db8:1:ffff::"));
        assert_ne!(of("2001:db8:1::"), of("2001:db8:2::"));
    }

    #[test]
    fn an_ipv6_site_is_one_source_and_a_mapped_address_is_ipv4() {
        let of = |text: &str| site(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:203.0.113.1"), A);
    }
}
