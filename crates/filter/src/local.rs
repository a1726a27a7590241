use std::net::IpAddr;

use crate::AddressRange;

/// The destinations that a node answers for: its own addresses, the subnet routes it serves, the addresses of services it
/// hosts, and for an exit node the default routes without the networks it is itself on.
#[derive(Clone, Debug, Default)]
pub struct Local {
    /// Disjoint and ascending.
    ranges: Vec<AddressRange>,
}

impl Local {
    /// Takes the ranges in any order; they may overlap.
    pub fn new(ranges: impl IntoIterator<Item = AddressRange>) -> Self {
        let mut sorted: Vec<AddressRange> = ranges.into_iter().collect();
        sorted.sort();
        let mut disjoint: Vec<AddressRange> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match disjoint.last_mut() {
                Some(last) if last.overlaps(&range) => {
                    let end = last.last().max(range.last());
                    *last = AddressRange::new(last.first(), end).unwrap_or(*last);
                }
                _ => disjoint.push(range),
            }
        }
        Self { ranges: disjoint }
    }

    /// Whether the node answers for the address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let after = self.ranges.partition_point(|range| range.first() <= address);
        after > 0 && self.ranges[after - 1].contains(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_ranges_are_one() {
        let local =
            Local::new(["10.0.0.0/8", "10.1.0.0/16", "100.64.0.1", "fd00::/8"].map(|text| text.parse().unwrap()));
        for inside in ["10.0.0.0", "10.2.0.1", "10.255.255.255", "100.64.0.1", "fd00::1"] {
            assert!(local.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["9.255.255.255", "11.0.0.0", "100.64.0.2", "fe00::1", "::a00:1"] {
            assert!(!local.contains(outside.parse().unwrap()), "{outside}");
        }
    }
}
