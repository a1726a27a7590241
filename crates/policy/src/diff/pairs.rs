use std::collections::{BTreeMap, HashSet};

use roaring::RoaringBitmap;

use super::Comparison;
use super::allowed::{Allowed, weight};
use super::classes::Kind;
use super::found::Found;
use crate::Alias;
use crate::policy::Effect;

/// How many pairs of parties are told one by one. A rule that is about more than are left is told as it stands.
const MOST_PAIRS: usize = 50_000;

/// How many pairs of kinds, rules and ranges of ports are looked at for that.
const MOST_WORK: u64 = 20_000_000;

/// What a pair of kinds counts beside its rules, as it is kept in mind.
const PAIR: u64 = 10;

/// How many kinds are noted in all for the rules that are about them.
const MOST_ENTRIES: u64 = 4_000_000;

/// Rules of one policy with the same sources and destinations, by the first of them, and the kinds that these are.
struct Sided {
    at: usize,
    rule: u32,
    sources: Vec<usize>,
    destinations: Vec<usize>,
}

/// What the pairs of two kinds may do by one policy and not by the other.
#[derive(Default)]
struct Change {
    opened: Vec<String>,
    closed: Vec<String>,
}

/// The same for devices of different users or of none, and for those of one user where that is another matter.
struct Changes {
    others: Change,
    own: Option<Change>,
}

/// What is left of the budget.
struct Budget {
    work: u64,
    pairs: usize,
}

impl Comparison<'_> {
    pub(super) fn compare_rules(&self, found: &mut Found) {
        let mut whole = [RoaringBitmap::new(), RoaringBitmap::new()];
        let mut sided = Vec::new();
        for (at, whole) in whole.iter_mut().enumerate() {
            let first = self.first_by_sides(at);
            match self.kinds_of(at, &first) {
                Some(all) => sided.extend(all),
                None => *whole = first,
            }
        }
        // Those that are about few come first, so that one about very many leaves room for them.
        sided.sort_by_key(|sided| (sided.sources.len().saturating_mul(sided.destinations.len()), sided.at, sided.rule));
        let mut seen = HashSet::new();
        let mut budget = Budget { work: MOST_WORK, pairs: MOST_PAIRS };
        for sided in sided {
            if self.compare_sided(&sided, &mut seen, &mut budget, found).is_none() {
                whole[sided.at].insert(sided.rule);
            }
        }
        self.tell_whole(whole, found);
    }

    /// Of the changed rules of one policy that have the same sources and destinations, the first.
    fn first_by_sides(&self, at: usize) -> RoaringBitmap {
        let rules = self.compiled[at].policy().rules();
        let mut seen = HashSet::new();
        // Exit nodes take part in rules of ports only.
        let key = |rule: u32| {
            let has_ports = matches!(rules[rule as usize].effect, Effect::Ports(_));
            (self.meanings[at].sides[rule as usize], has_ports)
        };
        self.changed[at].iter().filter(|rule| seen.insert(key(*rule))).collect()
    }

    /// The kinds that some rules are about, in the order of the rules; `None` if they are too many.
    fn kinds_of(&self, at: usize, rules: &RoaringBitmap) -> Option<Vec<Sided>> {
        let kinds = &self.classes.kinds;
        let sides = |kind: &Kind| [kind.sides[at].source.rules(), kind.sides[at].destination.rules()];
        let mut left = MOST_ENTRIES;
        for side in kinds.iter().flat_map(sides) {
            left = left.checked_sub(side.intersection_len(rules))?;
        }
        let mut of_rules: BTreeMap<u32, [Vec<usize>; 2]> =
            rules.iter().map(|rule| (rule, Default::default())).collect();
        for (number, kind) in kinds.iter().enumerate() {
            for (side, which) in sides(kind).iter().zip(0..) {
                for rule in side & rules {
                    of_rules.entry(rule).or_default()[which].push(number);
                }
            }
        }
        let sided = |(rule, [sources, destinations]): (u32, [Vec<usize>; 2])| Sided { at, rule, sources, destinations };
        Some(of_rules.into_iter().map(sided).collect())
    }

    /// Tells what differs for all that a rule is about; `None`, with nothing told, where that is more than is left.
    fn compare_sided(
        &self,
        sided: &Sided,
        seen: &mut HashSet<(usize, usize)>,
        budget: &mut Budget,
        found: &mut Found,
    ) -> Option<()> {
        if self.classes.is_partial || self.is_coarse(sided) {
            return None;
        }
        let looks = (sided.sources.len() as u64).saturating_mul(sided.destinations.len() as u64).saturating_mul(PAIR);
        budget.work = budget.work.checked_sub(looks)?;
        let (mut fresh, mut differing) = (Vec::new(), Vec::new());
        let (mut pairs, mut room) = (budget.pairs, found.room());
        let kinds = sided.sources.iter().flat_map(|from| sided.destinations.iter().map(move |to| (*from, *to)));
        for (from, to) in kinds.filter(|pair| !seen.contains(pair)) {
            let changes = self.changes(from, to, &mut budget.work)?;
            let (count, text) = self.size(from, to, &changes);
            pairs = pairs.checked_sub(count)?;
            room = room.checked_sub(text)?;
            fresh.push((from, to));
            differing.extend((count > 0).then_some(((from, to), changes)));
        }
        budget.pairs = pairs;
        seen.extend(fresh);
        differing.into_iter().for_each(|(pair, changes)| self.tell_pairs(pair, &changes, found));
        Some(())
    }

    /// Whether not all addresses are known that a rule is about.
    fn is_coarse(&self, sided: &Sided) -> bool {
        let coarse = &self.classes.coarse;
        let rule = &self.compiled[sided.at].policy().rules()[sided.rule as usize];
        !coarse.is_empty() && rule.sources.iter().chain(&rule.destinations).any(|alias: &Alias| coarse.contains(alias))
    }

    /// What differs between two kinds; `None` where that is more work than is left.
    fn changes(&self, from: usize, to: usize, work: &mut u64) -> Option<Changes> {
        let (from, to) = (&self.classes.kinds[from], &self.classes.kinds[to]);
        let rules = [0, 1].map(|at: usize| from.sides[at].source.common(&to.sides[at].destination));
        let own = [0, 1].map(|at: usize| &rules[at] & self.compiled[at].own_device_rules());
        let has_own = own.iter().any(|own| !own.is_empty()) && shared_logins(from, to).next().is_some();
        let others = [0, 1].map(|at: usize| &rules[at] - &own[at]);
        Some(Changes {
            own: if has_own { Some(self.change(&rules, work)?) } else { None },
            others: self.change(&others, work)?,
        })
    }

    fn change(&self, rules: &[RoaringBitmap; 2], work: &mut u64) -> Option<Change> {
        // By their number at first: to weigh them is work too.
        *work = work.checked_sub(1 + rules[0].len() + rules[1].len())?;
        if rules.iter().zip(&self.changed).all(|(rules, changed)| rules.is_disjoint(changed)) {
            return Some(Change::default());
        }
        let weights = [0, 1].map(|at: usize| weight(&rules[at], self.compiled[at]));
        *work = work.checked_sub(weights[0].saturating_add(weights[1]))?;
        let [was, is] = [0, 1].map(|at: usize| Allowed::by(&rules[at], self.compiled[at]));
        Some(Change { opened: is.without(&was), closed: was.without(&is) })
    }

    /// How many pairs of classes something is told of, and about how many bytes that are.
    fn size(&self, from: usize, to: usize, changes: &Changes) -> (usize, usize) {
        let (from, to) = (&self.classes.kinds[from], &self.classes.kinds[to]);
        let all = from.classes.len().saturating_mul(to.classes.len());
        let own: usize = match &changes.own {
            Some(_) => shared_logins(from, to).map(|(from, to)| from.len().saturating_mul(to.len())).sum(),
            None => 0,
        };
        let of = |count: usize, change: &Change| match change.size() {
            0 => (0, 0),
            size => (count, count.saturating_mul(size)),
        };
        let (others, own) =
            (of(all - own, &changes.others), changes.own.as_ref().map_or((0, 0), |change| of(own, change)));
        (others.0.saturating_add(own.0), others.1.saturating_add(own.1))
    }

    fn tell_pairs(&self, (from, to): (usize, usize), changes: &Changes, found: &mut Found) {
        let (from, to) = (&self.classes.kinds[from], &self.classes.kinds[to]);
        let mut tell = |from: usize, to: usize, change: &Change| {
            let labels = (&self.classes.all[from].label, &self.classes.all[to].label);
            for (is_new, words) in [(true, &change.opened), (false, &change.closed)] {
                words.iter().for_each(|what| found.tells_pair(labels, what, is_new));
            }
        };
        if let Some(own) = &changes.own {
            for (from, to) in shared_logins(from, to) {
                from.iter().for_each(|from| to.iter().for_each(|to| tell(*from, *to, own)));
            }
        }
        if changes.others.size() == 0 {
            return;
        }
        for from in &from.classes {
            let is_other = |to: &&usize| changes.own.is_none() || !self.classes.are_one_users(*from, **to);
            to.classes.iter().filter(is_other).for_each(|to| tell(*from, *to, &changes.others));
        }
    }
}

impl Change {
    /// About how many bytes it takes to tell it of one pair; none if there is nothing to tell.
    fn size(&self) -> usize {
        self.opened.iter().chain(&self.closed).map(|what| 80 + what.len()).sum()
    }
}

/// The classes of each user that has some of either kind.
fn shared_logins<'k>(from: &'k Kind, to: &'k Kind) -> impl Iterator<Item = (&'k Vec<usize>, &'k Vec<usize>)> {
    from.by_login.iter().filter_map(|(login, mine)| Some((mine, to.by_login.get(login)?)))
}
