//! What was found to differ so far.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;

use filter::AddressRange;

use super::{Difference, Reach};
use crate::ranges::union;

/// How many bytes are told.
const MOST_TEXT: usize = 4 << 20;

/// What a party is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Label {
    Text(Rc<str>),
    /// Neighbours of whom the same is told become one. The address of a service alone is called as that.
    Range(AddressRange, Option<Rc<str>>),
}

impl Label {
    /// About how many bytes it takes.
    fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Range(..) => 40,
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) | Self::Range(_, Some(text)) => formatter.write_str(text),
            Self::Range(range, None) => range.fmt(formatter),
        }
    }
}

/// By what is told: sources, and for each its destinations.
type Pairs = BTreeMap<String, BTreeMap<Label, BTreeSet<Label>>>;

/// What one of the policies allows and the other doesn't.
#[derive(Default)]
struct Side {
    pairs: Pairs,
    reaches: BTreeSet<Reach>,
}

#[derive(Default)]
pub(super) struct Found {
    opened: Side,
    closed: Side,
    changed: Vec<String>,
    pub(super) cut_short: bool,
    /// The bytes of all that, and of rules that are told as they stand.
    text: usize,
    whole: usize,
}

impl Found {
    /// Tells something that the new policy opens, or the old one gave.
    pub(super) fn tells(&mut self, reach: Reach, is_new: bool) {
        if self.has_room(size(&reach)) {
            self.side(is_new).reaches.insert(reach);
        }
    }

    fn side(&mut self, is_new: bool) -> &mut Side {
        if is_new { &mut self.opened } else { &mut self.closed }
    }

    pub(super) fn changes(&mut self, what: String) {
        if self.has_room(what.len()) {
            self.changed.push(what);
        }
    }

    /// Tells something of a pair, for which there must be room.
    pub(super) fn tells_pair(&mut self, (from, to): (&Label, &Label), what: &str, is_new: bool) {
        self.text += from.size() + to.size() + what.len();
        let side = self.side(is_new);
        if !side.pairs.contains_key(what) {
            side.pairs.insert(what.to_owned(), BTreeMap::new());
        }
        if let Some(pairs) = side.pairs.get_mut(what) {
            pairs.entry(from.clone()).or_default().insert(to.clone());
        }
    }

    /// How many bytes may still be told of pairs.
    pub(super) fn room(&self) -> usize {
        MOST_TEXT.saturating_sub(self.text)
    }

    /// A rule that is told as it stands has room where pairs have none any more.
    pub(super) fn tells_whole(&mut self, reach: Reach, is_new: bool) {
        self.cut_short = true;
        self.whole += size(&reach);
        if self.whole <= MOST_TEXT {
            self.side(is_new).reaches.insert(reach);
        }
    }

    fn has_room(&mut self, bytes: usize) -> bool {
        self.text += bytes;
        self.cut_short |= self.text > MOST_TEXT;
        self.text <= MOST_TEXT
    }

    /// All of it.
    pub(super) fn told(self) -> Difference {
        Difference {
            opened: self.opened.told(),
            closed: self.closed.told(),
            changed: self.changed,
            cut_short: self.cut_short,
        }
    }
}

impl Side {
    fn told(mut self) -> Vec<Reach> {
        for (what, by_source) in self.pairs {
            let mut by_destination: BTreeMap<Label, BTreeSet<Label>> = BTreeMap::new();
            for (from, to) in by_source {
                for to in joined(to) {
                    by_destination.entry(to).or_default().insert(from.clone());
                }
            }
            for (to, from) in by_destination {
                let reach =
                    |from: Label| Reach { source: from.to_string(), destination: to.to_string(), what: what.clone() };
                // Nobody sends from a service's address.
                let from = joined(from).filter(|from| !matches!(from, Label::Range(_, Some(_))));
                self.reaches.extend(from.map(reach));
            }
        }
        self.reaches.into_iter().collect()
    }
}

/// How many bytes it takes to tell.
fn size(reach: &Reach) -> usize {
    reach.source.len() + reach.destination.len() + reach.what.len()
}

/// The same parties, with neighbouring ranges as one.
fn joined(labels: BTreeSet<Label>) -> impl Iterator<Item = Label> {
    let (mut texts, mut ranges) = (Vec::new(), BTreeMap::new());
    for label in labels {
        match label {
            Label::Range(range, name) => drop(ranges.insert(range, name)),
            text => texts.push(text),
        }
    }
    let joined = union(ranges.keys().copied().collect()).into_iter();
    let named = joined.map(move |range| Label::Range(range, ranges.get(&range).cloned().flatten()));
    texts.into_iter().chain(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(what: String) -> Reach {
        Reach { source: "ann".to_owned(), destination: "tag:web".to_owned(), what }
    }

    #[test]
    fn what_is_told_takes_as_much_room_as_its_texts_have_bytes() {
        let mut found = Found::default();
        assert_eq!(found.room(), MOST_TEXT);
        let (ann, web) = (Label::Text("ann".into()), Label::Text("tag:web".into()));
        found.tells_pair((&ann, &web), "22", true);
        assert_eq!(found.room(), MOST_TEXT - 12);
        found.tells(reach("tcp:22".to_owned()), false);
        assert_eq!(found.room(), MOST_TEXT - 28);
        found.changes("disableIPv4: on instead of off".to_owned());
        assert_eq!(found.room(), MOST_TEXT - 58);
        assert!(!found.cut_short);
    }

    #[test]
    fn what_there_is_no_room_for_is_left_out_and_said_so_and_whole_rules_have_room_of_their_own() {
        let mut found = Found::default();
        // With the names, exactly as much as there is.
        found.tells(reach("a".repeat(MOST_TEXT - 10)), true);
        assert_eq!((found.room(), found.cut_short), (0, false));
        found.tells(reach("b".to_owned()), true);
        found.changes("c".to_owned());
        assert!(found.cut_short);
        found.tells_whole(reach("d".repeat(MOST_TEXT - 10)), true);
        found.tells_whole(reach("e".to_owned()), true);
        let told = found.told();
        let starts: Vec<&str> = told.opened.iter().map(|reach| &reach.what[..1]).collect();
        assert_eq!((starts, told.changed.len(), told.cut_short), (vec!["a", "d"], 0, true));
    }
}
