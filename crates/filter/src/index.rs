use std::collections::HashMap;
use std::net::IpAddr;

use crate::AddressRange;
use crate::sparse::{SpanCounter, SparseSet};

/// Finds, for a point on a line, the set of spans whose ranges hold it, in the logarithm of the ranges' number.
///
/// The line is cut wherever a range begins or ends; equal sets are kept once.
#[derive(Clone, Debug, Default)]
pub(crate) struct LineIndex<K> {
    starts: Vec<K>,
    classes: Vec<u32>,
    sets: Vec<SparseSet>,
}

/// A coordinate of a [`LineIndex`].
pub(crate) trait Coordinate: Ord + Copy {
    /// The next greater one, if there is one.
    fn after(self) -> Option<Self>;
}

impl Coordinate for u16 {
    fn after(self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl Coordinate for u32 {
    fn after(self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl Coordinate for u128 {
    fn after(self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl<K: Coordinate> LineIndex<K> {
    /// Indexes ranges (both ends included), each leading to a span of `spans`.
    pub(crate) fn new(ranges: &[(K, K, u32)], spans: &[(u32, u32)]) -> Self {
        let mut begins: Vec<(K, u32)> = ranges.iter().map(|(first, _, span)| (*first, *span)).collect();
        let mut ends: Vec<(K, u32)> =
            ranges.iter().filter_map(|(_, last, span)| last.after().map(|after| (after, *span))).collect();
        begins.sort_unstable();
        ends.sort_unstable();
        let mut cuts: Vec<K> = begins.iter().chain(&ends).map(|(at, _)| *at).collect();
        cuts.sort_unstable();
        cuts.dedup();
        let mut active = SpanCounter::new(spans.to_vec());
        let mut known = HashMap::new();
        let mut index = Self { starts: Vec::new(), classes: Vec::new(), sets: vec![SparseSet::default()] };
        known.insert(SparseSet::default(), 0);
        let (mut begins, mut ends) = (begins.into_iter().peekable(), ends.into_iter().peekable());
        for cut in cuts {
            while let Some((_, span)) = begins.next_if(|(at, _)| *at == cut) {
                active.add(span);
            }
            while let Some((_, span)) = ends.next_if(|(at, _)| *at == cut) {
                active.remove(span);
            }
            let set = active.snapshot();
            let class = *known.entry(set.clone()).or_insert_with(|| {
                index.sets.push(set);
                index.sets.len() as u32 - 1
            });
            if index.classes.last() != Some(&class) {
                index.starts.push(cut);
                index.classes.push(class);
            }
        }
        index
    }

    /// The spans whose ranges hold the point; `None` means none do.
    pub(crate) fn at(&self, point: K) -> Option<&SparseSet> {
        let after = self.starts.partition_point(|start| *start <= point);
        let class = *self.classes.get(after.checked_sub(1)?)?;
        (class != 0).then(|| &self.sets[class as usize])
    }
}

/// A [`LineIndex`] for each family of addresses.
#[derive(Clone, Debug, Default)]
pub(crate) struct AddressIndex {
    v4: LineIndex<u32>,
    v6: LineIndex<u128>,
}

impl AddressIndex {
    pub(crate) fn new(ranges: &[(AddressRange, u32)], spans: &[(u32, u32)]) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (range, span) in ranges {
            match (range.first(), range.last()) {
                (IpAddr::V4(first), IpAddr::V4(last)) => v4.push((first.to_bits(), last.to_bits(), *span)),
                (IpAddr::V6(first), IpAddr::V6(last)) => v6.push((first.to_bits(), last.to_bits(), *span)),
                // A range has one family.
                _ => {}
            }
        }
        Self { v4: LineIndex::new(&v4, spans), v6: LineIndex::new(&v6, spans) }
    }

    pub(crate) fn at(&self, address: IpAddr) -> Option<&SparseSet> {
        match address {
            IpAddr::V4(address) => self.v4.at(address.to_bits()),
            IpAddr::V6(address) => self.v6.at(address.to_bits()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sparse::common;

    proptest! {
        #[test]
        fn a_point_finds_exactly_the_ranges_that_hold_it(
            ranges in proptest::collection::vec((0_u16..300, 0_u16..300), 0..40),
            points in proptest::collection::vec(0_u16..310, 20),
        ) {
            let spans: Vec<(u32, u32)> = (0..ranges.len() as u32).map(|at| (at, at + 1)).collect();
            let ranges: Vec<(u16, u16, u32)> =
                ranges.iter().zip(0..).map(|((a, b), span)| (*a.min(b), *a.max(b), span)).collect();
            let index = LineIndex::new(&ranges, &spans);
            for point in points {
                let found: Vec<usize> = index.at(point).map(|set| common([set]).collect()).unwrap_or_default();
                let expected: Vec<usize> = ranges
                    .iter()
                    .filter(|(first, last, _)| *first <= point && point <= *last)
                    .map(|(_, _, span)| *span as usize)
                    .collect();
                prop_assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn a_range_may_end_at_the_lines_end() {
        let index = LineIndex::new(&[(0_u16, u16::MAX, 0)], &[(0, 1)]);
        assert!(index.at(0).is_some());
        assert!(index.at(u16::MAX).is_some());
    }
}
