use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// The addresses of a node or a service: one of each family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Addresses {
    /// In 100.64.0.0/10.
    pub v4: Ipv4Addr,
    /// In fd7a:115c:a1e0::/48.
    pub v6: Ipv6Addr,
}

impl Addresses {
    /// Both as prefixes that hold nothing else.
    pub fn prefixes(&self) -> [IpNet; 2] {
        [IpAddr::V4(self.v4).into(), IpAddr::V6(self.v6).into()]
    }

    /// Both addresses.
    pub fn both(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }

    fn from_offset(v4: Ipv4Addr) -> Self {
        // The IPv6 address carries the IPv4 address in its last bits: one pool keeps both unique.
        let v6 = Ipv6Addr::from_bits(MESH_V6.network().to_bits() | u128::from(v4.to_bits()));
        Self { v4, v6 }
    }
}

/// Every IPv4 address of the mesh.
pub const MESH_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10);

/// Every IPv6 address of the mesh.
pub const MESH_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, 0), 48);

/// IPv6 addresses that stand for IPv4 addresses of a site (4via6): the one part of [`MESH_V6`] that is routed.
pub(crate) const VIA_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0xb1a, 0, 0, 0, 0), 64);

/// What no node is given: the network's own first and last address, the block that holds the resolver's address
/// 100.100.100.100, and the block that ChromeOS uses inside.
const WITHHELD: [(Ipv4Addr, Ipv4Addr); 4] = [
    (Ipv4Addr::new(100, 64, 0, 0), Ipv4Addr::new(100, 64, 0, 0)),
    (Ipv4Addr::new(100, 100, 100, 0), Ipv4Addr::new(100, 100, 100, 255)),
    (Ipv4Addr::new(100, 115, 92, 0), Ipv4Addr::new(100, 115, 93, 255)),
    (Ipv4Addr::new(100, 127, 255, 255), Ipv4Addr::new(100, 127, 255, 255)),
];

/// The server has no address left to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all {capacity} addresses of this server are taken: delete devices that are no longer used")]
pub struct PoolExhausted {
    /// How many there are.
    pub capacity: u32,
}

/// The addresses of one server: of all its tailnets, so that a node shared between two never collides.
///
/// It goes round: an address that was given back is given out again as late as possible, because peers and resolvers
/// remember it for a while. Taking and giving back cost the logarithm of the number of gaps, also when nothing is left.
#[derive(Debug, Clone)]
pub struct AddressPool {
    /// Free runs, first to last address, apart from each other.
    free: BTreeMap<u32, u32>,
    range: (u32, u32),
    capacity: u32,
    next: u32,
}

impl Default for AddressPool {
    fn default() -> Self {
        Self::new(MESH_V4)
    }
}

impl AddressPool {
    /// A pool of the addresses of `range` that nodes may have; of none when the range lies outside of [`MESH_V4`].
    pub fn new(range: Ipv4Net) -> Self {
        let bounds = (range.network().to_bits(), range.broadcast().to_bits());
        let mut pool = Self { free: BTreeMap::new(), range: bounds, capacity: 0, next: bounds.0 };
        if MESH_V4.contains(&range) {
            pool.free.insert(bounds.0, bounds.1);
            for (first, last) in WITHHELD {
                pool.withhold(first.to_bits(), last.to_bits());
            }
        }
        pool.capacity = pool.free.iter().map(|(first, last)| last - first + 1).sum();
        pool
    }

    /// Takes the next free address.
    pub fn reserve(&mut self) -> Result<Addresses, PoolExhausted> {
        let found = self.free_from(self.next).or_else(|| self.free_from(self.range.0));
        let address = found.ok_or(PoolExhausted { capacity: self.capacity })?;
        self.take(Ipv4Addr::from_bits(address));
        self.next = address.checked_add(1).filter(|next| *next <= self.range.1).unwrap_or(self.range.0);
        Ok(Addresses::from_offset(Ipv4Addr::from_bits(address)))
    }

    /// Takes the next free address that lies in none of these networks, which are kept for others; of one of them where
    /// nothing else is left.
    pub fn reserve_outside(&mut self, kept: &[Ipv4Net]) -> Result<Addresses, PoolExhausted> {
        for start in [self.next, self.range.0] {
            let mut from = Some(start);
            while let Some(found) = from.and_then(|from| self.free_from(from)) {
                let address = Ipv4Addr::from_bits(found);
                match kept.iter().find(|network| network.contains(&address)) {
                    Some(network) => from = network.broadcast().to_bits().checked_add(1),
                    None => {
                        self.next = found;
                        return self.reserve();
                    }
                }
            }
        }
        self.reserve()
    }

    /// Takes a free address of one of these networks.
    pub fn reserve_in(&mut self, networks: &[Ipv4Net]) -> Result<Addresses, PoolExhausted> {
        let first_free = |network: &Ipv4Net| {
            let found = self.free_from(network.network().to_bits())?;
            (found <= network.broadcast().to_bits()).then(|| Ipv4Addr::from_bits(found))
        };
        let address = networks.iter().find_map(first_free).ok_or_else(|| PoolExhausted {
            capacity: networks.iter().map(|network| 1_u32 << (32 - network.prefix_len()).min(22)).sum(),
        })?;
        self.take(address);
        Ok(Addresses::from_offset(address))
    }

    /// Takes this very address; says whether it was free.
    pub fn take(&mut self, address: Ipv4Addr) -> bool {
        let address = address.to_bits();
        let was_free = self.run_of(address).is_some();
        self.withhold(address, address);
        was_free
    }

    /// Gives an address back; one that nobody had, or that no node may have, changes nothing.
    pub fn release(&mut self, address: Ipv4Addr) {
        let bits = address.to_bits();
        let withheld = WITHHELD.iter().any(|(first, last)| (*first..=*last).contains(&address));
        if withheld || bits < self.range.0 || bits > self.range.1 || self.run_of(bits).is_some() {
            return;
        }
        let (mut first, mut last) = (bits, bits);
        if let Some((before, end)) = self.free.range(..bits).next_back().map(|(first, last)| (*first, *last))
            && end + 1 == bits
        {
            self.free.remove(&before);
            first = before;
        }
        if let Some(end) = bits.checked_add(1).and_then(|after| self.free.remove(&after)) {
            last = end;
        }
        self.free.insert(first, last);
    }

    /// Makes the next address given out one behind `address`, if nothing higher was given out yet.
    pub(crate) fn seen(&mut self, address: Ipv4Addr) {
        let after = address.to_bits().saturating_add(1);
        if after <= self.range.1 {
            self.next = self.next.max(after);
        }
    }

    fn free_from(&self, address: u32) -> Option<u32> {
        if self.run_of(address).is_some() {
            return Some(address);
        }
        self.free.range(address..).next().map(|(first, _)| *first)
    }

    fn run_of(&self, address: u32) -> Option<(u32, u32)> {
        let (first, last) = self.free.range(..=address).next_back()?;
        (*last >= address).then_some((*first, *last))
    }

    /// Takes everything from `first` to `last` out of the free runs.
    fn withhold(&mut self, first: u32, last: u32) {
        let touched: Vec<_> =
            self.free.range(..=last).rev().take_while(|(_, end)| **end >= first).map(|(a, b)| (*a, *b)).collect();
        for (start, end) in touched {
            self.free.remove(&start);
            if start < first {
                self.free.insert(start, first - 1);
            }
            if end > last {
                self.free.insert(last + 1, end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn small() -> AddressPool {
        AddressPool::new("100.64.0.0/28".parse().unwrap())
    }

    #[test]
    fn a_node_gets_one_address_of_each_family() {
        let addresses = AddressPool::default().reserve().unwrap();
        assert_eq!(addresses.v4, Ipv4Addr::new(100, 64, 0, 1));
        assert_eq!(addresses.v6, "fd7a:115c:a1e0::6440:1".parse::<Ipv6Addr>().unwrap());
        assert_eq!(addresses.prefixes().map(|p| p.to_string()), ["100.64.0.1/32", "fd7a:115c:a1e0::6440:1/128"]);
    }

    #[test]
    fn an_exhausted_pool_says_so_at_once_and_what_to_do() {
        let mut pool = small();
        for _ in 0..15 {
            pool.reserve().unwrap();
        }
        let error = pool.reserve().unwrap_err();
        assert_eq!(
            error.to_string(),
            "all 15 addresses of this server are taken: delete devices that are no longer used"
        );
    }

    #[test]
    fn an_address_comes_from_the_networks_that_are_named() {
        let mut pool = AddressPool::default();
        let networks = ["100.81.0.0/31".parse().unwrap(), "100.82.0.0/30".parse().unwrap()];
        let mut taken = || pool.reserve_in(&networks).map(|addresses| addresses.v4.to_string());
        let got: Vec<String> = (0..6).map(|_| taken().unwrap()).collect();
        assert_eq!(got, ["100.81.0.0", "100.81.0.1", "100.82.0.0", "100.82.0.1", "100.82.0.2", "100.82.0.3"]);
        assert!(taken().is_err());
        let mut pool = small();
        let kept = ["100.64.0.0/29".parse().unwrap()];
        let others: Vec<String> = (0..9).map(|_| pool.reserve_outside(&kept).unwrap().v4.to_string()).collect();
        assert_eq!(others[0], "100.64.0.8");
        assert_eq!(others[7], "100.64.0.15");
        assert_eq!(others[8], "100.64.0.1", "what is kept is given when nothing else is left");
    }

    #[test]
    fn an_address_given_back_is_given_out_last() {
        let mut pool = small();
        let first = pool.reserve().unwrap().v4;
        pool.release(first);
        for _ in 0..14 {
            assert_ne!(pool.reserve().unwrap().v4, first);
        }
        assert_eq!(pool.reserve().unwrap().v4, first);
    }

    #[test]
    fn addresses_with_another_meaning_are_never_given_out() {
        let mut pool = AddressPool::default();
        for text in ["100.100.100.100", "100.115.92.5", "100.115.93.255", "100.64.0.0", "100.127.255.255", "10.0.0.1"] {
            let address = text.parse().unwrap();
            assert!(!pool.take(address), "{text}");
            pool.release(address);
            assert!(!pool.take(address), "{text}");
        }
        assert!(AddressPool::new("10.0.0.0/8".parse().unwrap()).reserve().is_err());
    }

    proptest! {
        #[test]
        fn no_address_is_out_twice(steps in proptest::collection::vec((any::<bool>(), 0_u8..18), 0..200)) {
            let mut pool = small();
            let mut out = BTreeSet::new();
            for (give_back, which) in steps {
                let address = Ipv4Addr::from_bits(MESH_V4.network().to_bits() + u32::from(which));
                if give_back {
                    pool.release(address);
                    out.remove(&address);
                } else if let Ok(addresses) = pool.reserve() {
                    prop_assert!(out.insert(addresses.v4));
                } else {
                    prop_assert_eq!(out.len(), 15);
                }
            }
        }
    }
}
