use std::collections::BTreeMap;

use crypto::{Entropy, NodePublic};

/// Which tunnel an index of ours belongs to: one per handshake in flight and one per live session.
///
/// Indices are random, so that nobody can guess one, and none is given out again while it is taken.
#[derive(Debug, Default)]
pub(crate) struct Indices {
    owners: BTreeMap<u32, NodePublic>,
}

impl Indices {
    pub(crate) fn allocate(&mut self, peer: &NodePublic, entropy: &mut dyn Entropy) -> u32 {
        let mut drawn = [0; 4];
        entropy.fill(&mut drawn);
        let mut index = u32::from_le_bytes(drawn);
        // Three or four per peer are taken of 2^32: the next draw, or the next number of a source that repeats itself.
        for _ in 0..32 {
            if !self.owners.contains_key(&index) {
                break;
            }
            entropy.fill(&mut drawn);
            index = u32::from_le_bytes(drawn);
        }
        while self.owners.contains_key(&index) {
            index = index.wrapping_add(1);
        }
        self.owners.insert(index, *peer);
        index
    }

    pub(crate) fn owner(&self, index: u32) -> Option<&NodePublic> {
        self.owners.get(&index)
    }

    pub(crate) fn free(&mut self, index: u32) {
        self.owners.remove(&index);
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use crypto::SystemEntropy;

    use super::*;

    /// A broken source that says the same for ever.
    struct Stuck;

    impl Entropy for Stuck {
        fn fill(&mut self, out: &mut [u8]) {
            out.fill(7);
        }
    }

    #[test]
    fn a_taken_index_is_never_given_again_even_by_a_source_that_repeats_itself() {
        let mut indices = Indices::default();
        let peer = NodePublic::from_bytes([1; 32]);
        let given: std::collections::BTreeSet<_> = (0..100).map(|_| indices.allocate(&peer, &mut Stuck)).collect();
        assert_eq!(given.len(), 100);
    }

    #[test]
    fn indices_use_all_32_bits_and_follow_no_pattern() {
        let mut indices = Indices::default();
        let peer = NodePublic::from_bytes([1; 32]);
        let drawn: Vec<u32> = (0..256).map(|_| indices.allocate(&peer, &mut SystemEntropy)).collect();
        let (any, all) = drawn.iter().fold((0, u32::MAX), |(any, all), index| (any | index, all & index));
        assert_eq!((any, all), (u32::MAX, 0));
        let steps: std::collections::BTreeSet<_> = drawn.windows(2).map(|w| w[1].wrapping_sub(w[0])).collect();
        assert!(steps.len() > 250);
    }

    #[test]
    fn a_freed_index_has_no_owner() {
        let mut indices = Indices::default();
        let index = indices.allocate(&NodePublic::from_bytes([1; 32]), &mut SystemEntropy);
        assert!(indices.owner(index).is_some());
        indices.free(index);
        assert!(indices.owner(index).is_none());
    }
}
