//! What a server has acknowledged, and what it must have for that.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::{Result, ensure};

/// How many of the newest policies are looked for in the history, which has the last 200.
const POLICIES: usize = 50;

/// What is made and deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Key,
    User,
    Device,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Key, Self::User, Self::Device];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "key",
            Self::User => "user",
            Self::Device => "device",
        })
    }
}

/// Things of one kind: whose making was acknowledged, whose deletion was asked for, and whose deletion was acknowledged.
#[derive(Clone, Debug, Default)]
struct Things {
    made: BTreeSet<String>,
    doomed: BTreeSet<String>,
    deleted: BTreeSet<String>,
}

/// What the writers know.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    things: BTreeMap<Kind, Things>,
    /// The numbers of the policies whose setting was acknowledged, the newest last.
    policies: Vec<u64>,
}

impl Ledger {
    pub(crate) fn made(&mut self, kind: Kind, id: &str) {
        self.things.entry(kind).or_default().made.insert(id.to_owned());
    }

    pub(crate) fn doomed(&mut self, kind: Kind, id: &str) {
        self.things.entry(kind).or_default().doomed.insert(id.to_owned());
    }

    pub(crate) fn deleted(&mut self, kind: Kind, id: &str) {
        self.things.entry(kind).or_default().deleted.insert(id.to_owned());
    }

    pub(crate) fn set(&mut self, policy: u64) {
        self.policies.push(policy);
    }

    /// How much was acknowledged.
    pub(crate) fn count(&self) -> usize {
        self.things.values().map(|things| things.made.len() + things.deleted.len()).sum::<usize>() + self.policies.len()
    }

    /// Fails while nothing of some kind was acknowledged.
    pub(crate) fn is_of_all_kinds(&self) -> Result<()> {
        for kind in Kind::ALL {
            ensure!(self.things.contains_key(&kind), "no {kind} was made");
        }
        ensure!(!self.policies.is_empty(), "no policy was set");
        Ok(())
    }

    /// Holds what there is of a kind against what this knew before it was asked for, and what is known by now.
    pub(crate) fn compare(&self, kind: Kind, there: &BTreeSet<&str>, now: &Self) -> Result<()> {
        let Some((before, now)) = self.things.get(&kind).zip(now.things.get(&kind)) else { return Ok(()) };
        let mut kept = before.made.iter().filter(|id| !now.doomed.contains(*id));
        let lost = kept.find(|id| !there.contains(id.as_str()));
        ensure!(lost.is_none(), "this {kind} is acknowledged and gone: {lost:?}");
        let back = before.deleted.iter().find(|id| there.contains(id.as_str()));
        ensure!(back.is_none(), "this {kind} is deleted and back: {back:?}");
        Ok(())
    }

    /// Holds the policy in force, and the history, against what this knew before they were asked for.
    pub(crate) fn compare_policies(&self, in_force: Option<u64>, history: &BTreeSet<u64>) -> Result<()> {
        let Some(newest) = self.policies.last() else { return Ok(()) };
        // The next may have come meanwhile, or been written and not acknowledged.
        ensure!(
            in_force.is_some_and(|in_force| in_force >= *newest),
            "policy {newest} is acknowledged, and {in_force:?} is in force"
        );
        let lost = self.policies.iter().rev().take(POLICIES).find(|policy| !history.contains(policy));
        ensure!(lost.is_none(), "this policy is acknowledged and not in the history: {lost:?}");
        Ok(())
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, things) in &self.things {
            write!(f, "{} {kind}s made and {} deleted, ", things.made.len(), things.deleted.len())?;
        }
        write!(f, "{} policies set", self.policies.len())
    }
}
