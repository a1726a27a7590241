/// A set of small numbers as the non-zero words of its bitmap, ascending: intersections touch no word that is empty in
/// one of the sets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct SparseSet {
    positions: Box<[u32]>,
    words: Box<[u64]>,
}

impl SparseSet {
    pub(crate) fn from_words(words: &[u64]) -> Self {
        let filled = || words.iter().enumerate().filter(|(_, word)| **word != 0);
        Self {
            positions: filled().map(|(at, _)| at as u32).collect(),
            words: filled().map(|(_, word)| *word).collect(),
        }
    }

    fn word_at(&self, position: u32, from: &mut usize) -> u64 {
        *from += self.positions[*from..].partition_point(|at| *at < position);
        match self.positions.get(*from) {
            Some(at) if *at == position => self.words[*from],
            _ => 0,
        }
    }
}

/// The members that all sets share, ascending.
pub(crate) fn common<'a, const N: usize>(sets: [&'a SparseSet; N]) -> impl Iterator<Item = usize> + 'a {
    let mut cursors = [0_usize; N];
    let shortest = sets.iter().min_by_key(|set| set.positions.len()).map(|set| &set.positions[..]).unwrap_or_default();
    shortest.iter().flat_map(move |position| {
        let mut word = u64::MAX;
        for (set, cursor) in sets.iter().zip(&mut cursors) {
            word &= set.word_at(*position, cursor);
        }
        bits(word).map(move |bit| *position as usize * 64 + bit)
    })
}

fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = word.trailing_zeros();
        (word != 0).then(|| {
            word &= word - 1;
            bit as usize
        })
    })
}

/// A dense set of spans while it is being built: members come and go, and a member may have been added several times.
pub(crate) struct SpanCounter {
    words: Vec<u64>,
    spans: Vec<(u32, u32)>,
    counts: Vec<u32>,
}

impl SpanCounter {
    /// Counts the given spans of numbers (`start`, `end` excluded); spans don't overlap each other.
    pub(crate) fn new(spans: Vec<(u32, u32)>) -> Self {
        let size = spans.iter().map(|(_, end)| *end).max().unwrap_or(0) as usize;
        Self { words: vec![0; size.div_ceil(64)], counts: vec![0; spans.len()], spans }
    }

    pub(crate) fn add(&mut self, span: u32) {
        self.counts[span as usize] += 1;
        if self.counts[span as usize] == 1 {
            self.fill(span, true);
        }
    }

    pub(crate) fn remove(&mut self, span: u32) {
        self.counts[span as usize] -= 1;
        if self.counts[span as usize] == 0 {
            self.fill(span, false);
        }
    }

    pub(crate) fn snapshot(&self) -> SparseSet {
        SparseSet::from_words(&self.words)
    }

    fn fill(&mut self, span: u32, on: bool) {
        let (start, end) = self.spans[span as usize];
        let (mut at, end) = (start as usize, end as usize);
        while at < end {
            let stop = end.min((at / 64 + 1) * 64);
            let ones = if stop - at == 64 { u64::MAX } else { ((1 << (stop - at)) - 1) << (at % 64) };
            let word = &mut self.words[at / 64];
            *word = if on { *word | ones } else { *word & !ones };
            at = stop;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sparse(members: &[usize]) -> SparseSet {
        let mut words = vec![0; 100];
        for member in members {
            words[member / 64] |= 1 << (member % 64);
        }
        SparseSet::from_words(&words)
    }

    proptest! {
        #[test]
        fn common_members_are_those_in_every_set(
            a in proptest::collection::btree_set(0_usize..640, 0..60),
            b in proptest::collection::btree_set(0_usize..640, 0..600),
            c in proptest::collection::btree_set(0_usize..640, 0..300),
        ) {
            let [x, y, z] = [&a, &b, &c].map(|set| sparse(&set.iter().copied().collect::<Vec<_>>()));
            let expected: Vec<usize> = a.iter().filter(|m| b.contains(m) && c.contains(m)).copied().collect();
            prop_assert_eq!(common([&x, &y, &z]).collect::<Vec<_>>(), expected);
        }

        #[test]
        fn common_members_are_found_where_most_words_are_empty(
            a in proptest::collection::btree_set(0_usize..6400, 0..40),
            b in proptest::collection::btree_set(0_usize..6400, 0..40),
            shared in proptest::collection::btree_set(0_usize..6400, 0..10),
        ) {
            let [a, b] = [&a | &shared, &b | &shared];
            let [x, y] = [&a, &b].map(|set| sparse(&set.iter().copied().collect::<Vec<_>>()));
            prop_assert_eq!(common([&x, &y]).collect::<Vec<_>>(), a.intersection(&b).copied().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_span_stays_until_it_was_removed_as_often_as_added() {
        let mut counter = SpanCounter::new(vec![(0, 3), (3, 130)]);
        counter.add(1);
        counter.add(1);
        counter.remove(1);
        let all = counter.snapshot();
        assert_eq!(common([&all]).collect::<Vec<_>>(), (3..130).collect::<Vec<_>>());
        counter.remove(1);
        assert_eq!(counter.snapshot(), SparseSet::default());
    }
}
