//! What a change of policy opens and closes, by user, tag and port.

mod allowed;
mod classes;
mod entries;
mod logins;
mod meaning;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use roaring::RoaringBitmap;

use crate::policy::Effect;
use crate::{Alias, Compiled, UserId};
use allowed::Allowed;
use classes::{Class, Classes};
use meaning::{Meanings, RuleMeanings};

/// How many pairs of parties are compared one by one. A rule that is about more than are left is told as it stands.
const MOST_PAIRS: usize = 50_000;

/// How many rules and ranges of ports are looked at for that, and how many bytes are told.
const MOST_WORK: u64 = 20_000_000;
const MOST_TEXT: usize = 4 << 20;

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

/// What a new policy takes away from a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CutOff {
    /// The user's devices don't reach each other any more.
    pub own_devices: bool,
    /// The user's devices reach nothing at all any more.
    pub everything: bool,
    /// What they don't reach any more.
    pub lost: Vec<Reach>,
}

impl fmt::Display for Reach {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} -> {}: {}", self.source, self.destination, self.what)
    }
}

impl Difference {
    /// Compares two policies that are compiled for the same tailnet. Only what rules that differ are about is looked at.
    pub fn between(old: &Compiled, new: &Compiled) -> Self {
        let comparison = Comparison::new(old, new, None);
        let mut found = Found::default();
        comparison.compare_rules(&mut found);
        comparison.compare_logins(&mut found);
        entries::compare(old.policy(), new.policy(), &mut found);
        Self {
            opened: found.opened.into_iter().collect(),
            closed: found.closed.into_iter().collect(),
            changed: found.changed,
            cut_short: found.cut_short,
        }
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

/// What was found to differ so far.
#[derive(Default)]
struct Found {
    opened: BTreeSet<Reach>,
    closed: BTreeSet<Reach>,
    changed: Vec<String>,
    cut_short: bool,
    /// The bytes of all that, and of rules that are told as they stand.
    text: usize,
    whole: usize,
}

impl Found {
    fn opens(&mut self, reach: Reach) {
        if self.has_room(reach.source.len() + reach.destination.len() + reach.what.len()) {
            self.opened.insert(reach);
        }
    }

    fn closes(&mut self, reach: Reach) {
        if self.has_room(reach.source.len() + reach.destination.len() + reach.what.len()) {
            self.closed.insert(reach);
        }
    }

    fn changes(&mut self, what: String) {
        if self.has_room(what.len()) {
            self.changed.push(what);
        }
    }

    /// A rule that is told as it stands has room where pairs have none any more.
    fn tells_whole(&mut self, reach: Reach, is_new: bool) {
        self.cut_short = true;
        self.whole += reach.source.len() + reach.destination.len() + reach.what.len();
        if self.whole <= MOST_TEXT {
            let list = if is_new { &mut self.opened } else { &mut self.closed };
            list.insert(reach);
        }
    }

    fn has_room(&mut self, bytes: usize) -> bool {
        self.text += bytes;
        self.cut_short |= self.text > MOST_TEXT;
        self.text <= MOST_TEXT
    }
}

/// Two policies with what differs between them.
struct Comparison<'c> {
    old: &'c Compiled,
    new: &'c Compiled,
    meanings: [RuleMeanings; 2],
    /// The rules that the other policy doesn't have.
    changed: [RoaringBitmap; 2],
    classes: Classes<'c>,
}

/// Rules of one policy and the classes that are their sources and destinations.
type ClassesOfRules = HashMap<u32, (Vec<usize>, Vec<usize>)>;

impl<'c> Comparison<'c> {
    /// Of addresses, those are looked at that the rules name which differ, or these rules.
    fn new(old: &'c Compiled, new: &'c Compiled, about: Option<&[RoaringBitmap; 2]>) -> Self {
        let mut all = Meanings::default();
        let meanings = [RuleMeanings::of(old, &mut all), RuleMeanings::of(new, &mut all)];
        let changed = [meanings[0].changed(&meanings[1]), meanings[1].changed(&meanings[0])];
        let [of_old, of_new] = about.unwrap_or(&changed);
        let classes = Classes::new([(old, of_old), (new, of_new)]);
        Self { old, new, meanings, changed, classes }
    }

    fn compare_rules(&self, found: &mut Found) {
        let mut seen: BTreeSet<(usize, usize)> = BTreeSet::new();
        let mut left = MOST_WORK;
        let mut whole: [BTreeSet<u32>; 2] = Default::default();
        for (at, compiled) in [self.old, self.new].into_iter().enumerate() {
            let of_rules = self.classes_of_rules(at);
            for (rule, (sources, destinations)) in of_rules {
                let pairs = self.pairs_of(rule, compiled, &sources, &destinations, MOST_PAIRS - seen.len());
                let Some(pairs) = pairs else {
                    whole[at].insert(rule);
                    continue;
                };
                for (source, destination) in pairs {
                    if !seen.insert((source, destination)) {
                        continue;
                    }
                    let (from, to) = (&self.classes.all[source], &self.classes.all[destination]);
                    if self.compare_pair(from, to, &mut left, found).is_none() {
                        whole[at].insert(rule);
                        break;
                    }
                }
            }
        }
        self.tell_whole(whole, found);
    }

    /// By changed rule of one policy: the classes that it is about, in the order of the rules.
    fn classes_of_rules(&self, at: usize) -> BTreeMap<u32, (Vec<usize>, Vec<usize>)> {
        let mut of_rules: ClassesOfRules = HashMap::new();
        for (number, class) in self.classes.all.iter().enumerate() {
            let sides = if at == 0 { &class.old } else { &class.new };
            for rule in &(sides.source.rules() & &self.changed[at]) {
                of_rules.entry(rule).or_default().0.push(number);
            }
            for rule in &(sides.destination.rules() & &self.changed[at]) {
                of_rules.entry(rule).or_default().1.push(number);
            }
        }
        of_rules.into_iter().collect()
    }

    /// The pairs that a rule is about; `None` if they are too many, or not all of them are known.
    fn pairs_of(
        &self,
        rule: u32,
        compiled: &Compiled,
        sources: &[usize],
        destinations: &[usize],
        most: usize,
    ) -> Option<Vec<(usize, usize)>> {
        let rule = &compiled.policy().rules()[rule as usize];
        let is_coarse = |alias: &Alias| self.classes.coarse.contains(alias);
        if !self.classes.coarse.is_empty() && rule.sources.iter().chain(&rule.destinations).any(is_coarse) {
            return None;
        }
        if rule.is_own_devices() {
            let login = |at: usize| self.classes.all[at].old.source.login.as_ref();
            let mut by_login: HashMap<_, Vec<usize>> = HashMap::new();
            destinations.iter().for_each(|to| by_login.entry(login(*to)).or_default().push(*to));
            let of_user = |from: &usize| login(*from).and_then(|user| by_login.get(&Some(user)));
            let pairs = sources.iter().filter_map(|from| Some((*from, of_user(from)?)));
            let pairs = pairs.flat_map(|(from, own)| own.iter().map(move |to| (from, *to)));
            let pairs: Vec<(usize, usize)> = pairs.take(most + 1).collect();
            return (pairs.len() <= most).then_some(pairs);
        }
        if sources.len().saturating_mul(destinations.len()) > most {
            return None;
        }
        Some(sources.iter().flat_map(|from| destinations.iter().map(move |to| (*from, *to))).collect())
    }

    /// `None` where that is more work than is left.
    fn compare_pair(&self, from: &Class, to: &Class, left: &mut u64, found: &mut Found) -> Option<()> {
        let was = self.old.rules_between(&from.old.source, &to.old.destination);
        let is = self.new.rules_between(&from.new.source, &to.new.destination);
        let work = 1 + weight(&was, self.old) + weight(&is, self.new);
        *left = left.checked_sub(work)?;
        let (was, is) = (Allowed::by(&was, self.old), Allowed::by(&is, self.new));
        let reach = |what: String| Reach { source: from.label.clone(), destination: to.label.clone(), what };
        is.without(&was).into_iter().map(reach).for_each(|reach| found.opens(reach));
        was.without(&is).into_iter().map(reach).for_each(|reach| found.closes(reach));
        Some(())
    }

    /// Tells rules as they stand: what those with the same sources and destinations give now, and gave before.
    fn tell_whole(&self, whole: [BTreeSet<u32>; 2], found: &mut Found) {
        let compiled = [self.old, self.new];
        found.cut_short |= whole.iter().any(|rules| !rules.is_empty());
        let wanted: BTreeSet<(u32, u32)> = whole
            .iter()
            .zip(&self.meanings)
            .flat_map(|(rules, meanings)| rules.iter().map(|rule| meanings.sides[*rule as usize]))
            .collect();
        let mut alike: BTreeMap<(u32, u32), [RoaringBitmap; 2]> = BTreeMap::new();
        for (at, meanings) in self.meanings.iter().enumerate() {
            for (sides, rule) in meanings.sides.iter().zip(0..).filter(|(sides, _)| wanted.contains(sides)) {
                alike.entry(*sides).or_default()[at].insert(rule);
            }
        }
        let mut left = MOST_WORK;
        for [old, new] in alike.into_values() {
            let Some(rest) = left.checked_sub(weight(&old, self.old) + weight(&new, self.new)) else { break };
            left = rest;
            let (was, is) = (Allowed::by(&old, self.old), Allowed::by(&new, self.new));
            for (more, less, at) in [(&is, &was, 1), (&was, &is, 0)] {
                let rules = if at == 1 { &new } else { &old };
                let first = (rules & &self.changed[at]).min().or(rules.min());
                let Some(first) = first else { continue };
                let rule = &compiled[at].policy().rules()[first as usize];
                for what in more.without(less) {
                    let reach = Reach {
                        source: listed(&rule.sources),
                        destination: listed(&rule.destinations),
                        what: format!("{what}, line {}", rule.origin.position.line),
                    };
                    found.tells_whole(reach, at == 1);
                }
            }
        }
    }
}

/// How much there is to look at in rules.
fn weight(rules: &RoaringBitmap, compiled: &Compiled) -> u64 {
    let of = |rule: u32| match &compiled.policy().rules()[rule as usize].effect {
        Effect::Ports(all) => all.iter().map(|ports| ports.ranges.len() as u64).sum::<u64>(),
        Effect::Capabilities(all) => {
            let values = all.0.iter().map(|(name, values)| {
                let values = values.iter().flatten().map(|value| value.as_str().len());
                (name.len() + values.sum::<usize>()) as u64 / 16
            });
            1 + values.sum::<u64>()
        }
    };
    // Each rule has at least one range; that many are too many without a look at each.
    if rules.len() > MOST_WORK { u64::MAX / 4 } else { rules.iter().map(of).sum() }
}

/// Aliases in a list that stays readable.
fn listed(aliases: &[Alias]) -> String {
    let shown: Vec<String> = aliases.iter().take(6).map(ToString::to_string).collect();
    match aliases.len() - shown.len() {
        0 => shown.join(", "),
        rest => format!("{} and {rest} more", shown.join(", ")),
    }
}

impl Compiled {
    /// What `next`, compiled for the same tailnet, takes away from a user; `None` if they keep all that they reach.
    pub fn would_cut_off(&self, next: &Self, user: UserId) -> Option<CutOff> {
        let login = self.topology().users.get(&user)?.login.to_string();
        // Of networks only those that rules for the user name.
        let of_user =
            |compiled: &Self| -> RoaringBitmap { compiled.rules_of_user(user).iter().map(|at| *at as u32).collect() };
        let named = [of_user(self), of_user(next)];
        let comparison = Comparison::new(self, next, Some(&named));
        let ports = [self.port_rules(), next.port_rules()];
        let mut found = Found::default();
        let mut left = MOST_WORK;
        let (mut reached, mut reaches, mut own_before, mut own_after) = (false, false, false, false);
        let classes = &comparison.classes.all;
        for source in classes.iter().filter(|class| class.label == login) {
            for destination in classes {
                let was = self.rules_between(&source.old.source, &destination.old.destination);
                let is = next.rules_between(&source.new.source, &destination.new.destination);
                let (had, has) = (!was.is_disjoint(&ports[0]), !is.is_disjoint(&ports[1]));
                reached |= had;
                reaches |= has;
                if destination.label == login {
                    own_before |= had;
                    own_after |= has;
                }
                // Rules that stay take nothing away.
                if !was.is_disjoint(&comparison.changed[0]) {
                    let _ = comparison.compare_pair(source, destination, &mut left, &mut found);
                }
            }
        }
        let cut = CutOff {
            own_devices: own_before && !own_after,
            everything: reached && !reaches,
            lost: found.closed.into_iter().collect(),
        };
        (!cut.lost.is_empty() || cut.everything || cut.own_devices).then_some(cut)
    }

    fn port_rules(&self) -> RoaringBitmap {
        let rules = self.policy().rules().iter().zip(0..);
        rules.filter(|(rule, _)| matches!(rule.effect, Effect::Ports(_))).map(|(_, at)| at).collect()
    }
}
