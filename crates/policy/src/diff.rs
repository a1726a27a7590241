//! What a change of policy opens and closes, by user, tag and port.

mod addresses;
mod allowed;
mod classes;
mod cut_off;
mod entries;
mod found;
mod logins;
mod meaning;
mod pairs;
mod whole;

use std::fmt;

use roaring::RoaringBitmap;

use crate::Compiled;
use classes::Classes;
pub use cut_off::CutOff;
use found::Found;
use meaning::{Meanings, RuleMeanings};

/// What one policy allows and another doesn't.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// What the new policy allows and the old one doesn't.
    pub opened: Vec<Reach>,
    /// What the old policy allows and the new one doesn't.
    pub closed: Vec<Reach>,
    /// What is neither: postures and settings that are other than they were, in words.
    pub changed: Vec<String>,
    /// Some rules are about too many pairs to compare, and are told as they stand; or not everything is told.
    pub cut_short: bool,
}

/// Something that a source may do with a destination.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reach {
    /// A user's login, tags, or addresses; the aliases of a rule that is told as it stands.
    pub source: String,
    /// A user's login, tags, addresses or `autogroup:internet`; for what is no packet, what it is about.
    pub destination: String,
    /// Ports (`tcp:22,80-90`, `*`), a capability, a login (`ssh root (check)`), or what else somebody may do.
    pub what: String,
}

impl fmt::Display for Reach {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} -> {}: {}", self.source, self.destination, self.what)
    }
}

impl Difference {
    /// Compares two policies that are compiled for the same tailnet. Only what rules that differ are about is looked at.
    pub fn between(old: &Compiled, new: &Compiled) -> Self {
        let comparison = Comparison::new(old, new);
        let mut found = Found::default();
        comparison.compare_rules(&mut found);
        comparison.compare_logins(&mut found);
        entries::compare(old.policy(), new.policy(), &mut found);
        found.told()
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.opened.is_empty() && self.closed.is_empty() && self.changed.is_empty() && !self.cut_short
    }
}

/// The words of `towline policy check`, a line each.
impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (title, reaches) in [("It opens:", &self.opened), ("It closes:", &self.closed)] {
            if !reaches.is_empty() {
                writeln!(formatter, "{title}")?;
            }
            for reach in reaches {
                writeln!(formatter, "  {reach}")?;
            }
        }
        if !self.changed.is_empty() {
            writeln!(formatter, "It changes:")?;
        }
        for change in &self.changed {
            writeln!(formatter, "  {change}")?;
        }
        match (self.is_empty(), self.cut_short) {
            (true, _) => writeln!(formatter, "It opens and closes nothing."),
            (_, true) => writeln!(
                formatter,
                "Not everything was compared one by one: a rule about too many is told as it stands."
            ),
            _ => Ok(()),
        }
    }
}

/// Two policies with what differs between them.
struct Comparison<'c> {
    /// The old one and the new one, as all that follows.
    compiled: [&'c Compiled; 2],
    meanings: [RuleMeanings; 2],
    /// The rules that the other policy doesn't have.
    changed: [RoaringBitmap; 2],
    classes: Classes<'c>,
}

impl<'c> Comparison<'c> {
    fn new(old: &'c Compiled, new: &'c Compiled) -> Self {
        let mut all = Meanings::default();
        let meanings = [RuleMeanings::of(old, &mut all), RuleMeanings::of(new, &mut all)];
        let changed = [meanings[0].changed(&meanings[1]), meanings[1].changed(&meanings[0])];
        let classes = Classes::new([old, new], &changed);
        Self { compiled: [old, new], meanings, changed, classes }
    }
}
