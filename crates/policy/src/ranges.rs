//! Sets of addresses and of ports, as ranges.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use filter::{AddressRange, PortRange};

/// A run of points that have an order, both ends included.
pub(crate) trait Range: Copy + Ord {
    type Point: Copy + Ord;

    fn ends(&self) -> (Self::Point, Self::Point);
    /// `None` where the ends are in the wrong order.
    fn of(first: Self::Point, last: Self::Point) -> Option<Self>;
    fn after(point: Self::Point) -> Option<Self::Point>;
    fn before(point: Self::Point) -> Option<Self::Point>;
}

impl Range for AddressRange {
    type Point = IpAddr;

    fn ends(&self) -> (IpAddr, IpAddr) {
        (self.first(), self.last())
    }

    fn of(first: IpAddr, last: IpAddr) -> Option<Self> {
        Self::new(first, last)
    }

    fn after(address: IpAddr) -> Option<IpAddr> {
        Some(match address {
            IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits().checked_add(1)?).into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits().checked_add(1)?).into(),
        })
    }

    fn before(address: IpAddr) -> Option<IpAddr> {
        Some(match address {
            IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits().checked_sub(1)?).into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits().checked_sub(1)?).into(),
        })
    }
}

impl Range for PortRange {
    type Point = u16;

    fn ends(&self) -> (u16, u16) {
        (self.first, self.last)
    }

    fn of(first: u16, last: u16) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    fn after(port: u16) -> Option<u16> {
        port.checked_add(1)
    }

    fn before(port: u16) -> Option<u16> {
        port.checked_sub(1)
    }
}

/// The same points as disjoint, ascending ranges that don't touch.
pub(crate) fn union<R: Range>(mut ranges: Vec<R>) -> Vec<R> {
    ranges.sort_unstable();
    let mut joined: Vec<R> = Vec::with_capacity(ranges.len());
    for range in ranges {
        let (first, last) = range.ends();
        match joined.last_mut() {
            Some(known) if first <= known.ends().1 || R::after(known.ends().1) == Some(first) => {
                *known = R::of(known.ends().0, known.ends().1.max(last)).unwrap_or(*known);
            }
            _ => joined.push(range),
        }
    }
    joined
}

/// What is left of ranges without others; both are disjoint and ascending, and so is the result.
pub(crate) fn subtract<R: Range>(from: &[R], holes: &[R]) -> Vec<R> {
    let mut left = Vec::with_capacity(from.len());
    let mut next = 0;
    for range in from {
        while holes.get(next).is_some_and(|hole| hole.ends().1 < range.ends().0) {
            next += 1;
        }
        // The part of the range that no hole was cut into yet.
        let mut rest = Some(*range);
        for (first, last) in holes[next..].iter().map(R::ends) {
            let Some((start, end)) = rest.map(|part| part.ends()).filter(|(_, end)| *end >= first) else { break };
            left.extend(R::before(first).and_then(|below| R::of(start, below)));
            rest = R::after(last).and_then(|above| R::of(above, end));
        }
        left.extend(rest);
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(all: &[(u16, u16)]) -> Vec<PortRange> {
        all.iter().map(|(first, last)| PortRange { first: *first, last: *last }).collect()
    }

    #[test]
    fn ranges_that_touch_become_one() {
        let joined = union(ports(&[(80, 90), (22, 22), (91, 95), (85, 86), (u16::MAX, u16::MAX)]));
        assert_eq!(joined, ports(&[(22, 22), (80, 95), (u16::MAX, u16::MAX)]));
    }

    #[test]
    fn the_families_of_addresses_stay_apart() {
        let ranges: Vec<AddressRange> = ["0.0.0.0/0", "::/0"].iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(union(ranges.clone()), ranges);
        assert_eq!(subtract(&ranges, &ranges[..1]), ranges[1..]);
    }

    #[test]
    fn holes_are_cut_at_both_ends_and_within() {
        let left = subtract(&ports(&[(0, 100), (200, 300)]), &ports(&[(0, 9), (50, 60), (90, 250), (300, 300)]));
        assert_eq!(left, ports(&[(10, 49), (61, 89), (251, 299)]));
        assert_eq!(subtract(&ports(&[(0, u16::MAX)]), &ports(&[(0, u16::MAX)])), ports(&[]));
    }
}
