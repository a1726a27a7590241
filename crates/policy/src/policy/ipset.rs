use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use filter::AddressRange;

use crate::fields::{Fields, strings};
use crate::hujson::Value;
use crate::internet;
use crate::problem::Problems;
use crate::ranges::{subtract, union};
use crate::{Alias, Autogroup};

/// The most ranges that all sets together may have once they are resolved.
const MOST_RANGES: usize = 500_000;

/// The most ranges that are looked at to resolve all sets: sets in sets, and what is taken out again, count each time.
const MOST_WORK: usize = 5_000_000;

/// Reads `ipsets`: named sets, each a list of `add target` and `remove target` in order. Without a word it is an `add`.
pub(super) fn read(
    fields: &Fields<'_>,
    hosts: &BTreeMap<Arc<str>, AddressRange>,
    problems: &mut Problems<'_>,
) -> BTreeMap<Arc<str>, Vec<AddressRange>> {
    let mut sections = BTreeMap::new();
    for (name, place, value) in fields.map("ipsets", problems) {
        if name.strip_prefix("ipset:").is_none_or(str::is_empty) {
            problems.at::<()>(place, format!("ipsets[{name:?}]: names of IP sets must start with 'ipset:'"));
            continue;
        }
        sections.insert(name, strings(value, problems));
    }
    let mut resolver = Resolver {
        hosts,
        sections: &sections,
        done: BTreeMap::new(),
        open: BTreeSet::new(),
        work: MOST_WORK,
        ranges: MOST_RANGES,
        problems,
    };
    for name in sections.keys() {
        if resolver.resolve(name).is_none() {
            break;
        }
    }
    resolver.done
}

struct Resolver<'a, 'v, 'p> {
    hosts: &'a BTreeMap<Arc<str>, AddressRange>,
    sections: &'a BTreeMap<&'v str, Vec<(&'v str, &'v Value)>>,
    done: BTreeMap<Arc<str>, Vec<AddressRange>>,
    /// Sets whose resolution has begun: meeting one again is a cycle.
    open: BTreeSet<&'v str>,
    /// How many ranges may still be looked at, and kept.
    work: usize,
    ranges: usize,
    problems: &'a mut Problems<'p>,
}

/// A set while it is resolved.
struct Opened<'v> {
    name: &'v str,
    /// The operation that is next.
    at: usize,
    so_far: Ranges,
}

/// Ranges with those that are to be put in or taken out, which are many at once or one by one.
#[derive(Default)]
struct Ranges {
    settled: Vec<AddressRange>,
    pending: Vec<AddressRange>,
    /// Whether what is pending is to be taken out.
    removes: bool,
}

/// What an operation is about.
enum Target<'v> {
    Ranges(Vec<AddressRange>),
    /// Another set, which has to be resolved first.
    Set(&'v str),
    /// Nothing: it was refused.
    Nothing,
    /// More than may still be looked at.
    TooMany,
}

impl<'v> Resolver<'_, 'v, '_> {
    /// Resolves a set and those in it. `None` once there is more to do than is done for a policy.
    ///
    /// The sets that wait for others are a list of their own: a chain of them may be as long as the policy.
    fn resolve(&mut self, name: &'v str) -> Option<()> {
        let sections = self.sections;
        let mut waiting = Vec::new();
        self.open(name, &mut waiting);
        while let Some(top) = waiting.last_mut() {
            let Some((text, value)) = sections.get(top.name).and_then(|operations| operations.get(top.at)) else {
                let Opened { name, so_far, .. } = waiting.pop()?;
                let ranges = so_far.settle(&mut self.work);
                let Some(ranges) = ranges.filter(|ranges| ranges.len() <= self.ranges) else {
                    return self.refuse(name);
                };
                self.ranges -= ranges.len();
                self.done.insert(name.into(), ranges);
                continue;
            };
            let (removes, target) = operation(text.trim());
            match self.target(top.name, target, value) {
                Target::Set(inner) => {
                    self.open(inner, &mut waiting);
                    continue;
                }
                Target::Ranges(ranges) => {
                    let name = top.name;
                    if top.so_far.change(removes, ranges, &mut self.work).is_none() {
                        return self.refuse(name);
                    }
                }
                Target::Nothing => {}
                Target::TooMany => {
                    let name = top.name;
                    return self.refuse(name);
                }
            }
            if let Some(top) = waiting.last_mut() {
                top.at += 1;
            }
        }
        Some(())
    }

    fn open(&mut self, name: &'v str, waiting: &mut Vec<Opened<'v>>) {
        if self.open.insert(name) {
            waiting.push(Opened { name, at: 0, so_far: Ranges::default() });
        }
    }

    fn refuse(&mut self, set: &str) -> Option<()> {
        let place = self.sections.get(set).and_then(|operations| operations.first()).map(|(_, value)| *value);
        place.and_then(|value| {
            let message = format!(
                "ipsets[\"{set}\"]: IP sets have more than {MOST_RANGES} ranges in all, or need more than {MOST_WORK} to be \
                 looked at; join ranges to prefixes, and name a set once"
            );
            self.problems.at(value, message)
        })
    }

    fn target(&mut self, set: &str, text: &str, value: &'v Value) -> Target<'v> {
        let text = text.strip_prefix("host:").unwrap_or(text);
        let refused: Option<()> = match Alias::parse(text) {
            Ok(Alias::Literal(range)) => return Target::Ranges(vec![range]),
            Ok(Alias::Auto(Autogroup::Internet)) => return Target::Ranges(internet::ranges().to_vec()),
            Ok(Alias::Host(name)) if self.hosts.contains_key(&name) => {
                return Target::Ranges(self.hosts.get(&name).copied().into_iter().collect());
            }
            Ok(Alias::IpSet(_)) => match self.sections.get_key_value(text) {
                None => self.problems.at(value, format!("ipsets[\"{set}\"]: ipset not found: \"{text}\"")),
                Some((name, _)) => match self.done.get(*name) {
                    Some(ranges) if ranges.len() <= self.work => return Target::Ranges(ranges.clone()),
                    Some(_) => return Target::TooMany,
                    None if !self.open.contains(name) => return Target::Set(name),
                    None => {
                        self.problems.at(value, format!("ipsets[\"{set}\"]: \"{text}\": IP sets cannot be recursive"))
                    }
                },
            },
            Err(error) => self.problems.at(value, format!("ipsets[\"{set}\"]: {error}")),
            Ok(_) => self.problems.at(
                value,
                format!("ipsets[\"{set}\"]: \"{text}\": IP sets hold addresses, hosts, IP sets and autogroup:internet"),
            ),
        };
        debug_assert!(refused.is_none());
        Target::Nothing
    }
}

impl Ranges {
    /// Puts ranges in, or takes them out, after all that came before. `None` where `work` is used up.
    fn change(&mut self, removes: bool, ranges: Vec<AddressRange>, work: &mut usize) -> Option<()> {
        if self.removes != removes {
            self.apply(work)?;
            self.removes = removes;
        }
        *work = work.checked_sub(ranges.len().max(1))?;
        self.pending.extend(ranges);
        Some(())
    }

    fn apply(&mut self, work: &mut usize) -> Option<()> {
        *work = work.checked_sub(self.settled.len() + self.pending.len())?;
        let pending = union(std::mem::take(&mut self.pending));
        self.settled = match (self.removes, self.settled.is_empty()) {
            (true, _) => subtract(&self.settled, &pending),
            (false, true) => pending,
            (false, false) => union(self.settled.iter().copied().chain(pending).collect()),
        };
        Some(())
    }

    fn settle(mut self, work: &mut usize) -> Option<Vec<AddressRange>> {
        self.apply(work)?;
        Some(self.settled)
    }
}

/// Whether an operation takes something away, and what it is about.
fn operation(text: &str) -> (bool, &str) {
    match text.split_once(char::is_whitespace) {
        Some(("add", target)) => (false, target.trim()),
        Some(("remove", target)) => (true, target.trim()),
        _ => (false, text),
    }
}

#[cfg(test)]
mod tests {
    use crate::Policy;

    fn set(operations: &str) -> Result<String, String> {
        let text = format!(
            r#"{{"hosts": {{"lab": "10.1.0.0/16"}}, "ipsets": {{"ipset:a": {operations}, "ipset:b": ["192.168.0.0/24"]}}}}"#
        );
        let policy = Policy::parse(&text).map_err(|error| error.to_string())?;
        Ok(policy.ip_set("ipset:a").unwrap().iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn operations_apply_in_order() {
        assert_eq!(set(r#"["add 10.0.0.0/15", "remove host:lab", "ipset:b"]"#).unwrap(), "10.0.0.0/16 192.168.0.0/24");
        assert_eq!(set(r#"["remove lab", "add 10.0.0.0/15"]"#).unwrap(), "10.0.0.0/15");
        assert_eq!(set(r#"["10.0.0.0/30", "remove 10.0.0.1"]"#).unwrap(), "10.0.0.0 10.0.0.2/31");
    }

    #[test]
    fn a_cycle_is_refused() {
        let error = Policy::parse(r#"{"ipsets": {"ipset:a": ["ipset:b"], "ipset:b": ["add ipset:a"]}}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "line 1, column 49: ipsets[\"ipset:b\"]: \"ipset:a\": IP sets cannot be recursive"
        );
    }

    #[test]
    fn a_set_of_sets_may_be_as_deep_as_the_policy() {
        for ascending in [true, false] {
            let name = |at: usize| format!("ipset:n{:06}", if ascending { at } else { 99_999 - at });
            let chain: Vec<String> =
                (0..40_000).map(|at| format!("\"{}\": [\"{}\"]", name(at), name(at + 1))).collect();
            let text = format!("{{\"ipsets\": {{{}, \"{}\": [\"10.0.0.0/8\"]}}}}", chain.join(","), name(40_000));
            let policy = Policy::parse(&text).unwrap();
            assert_eq!(policy.ip_set(&name(0)).unwrap().len(), 1);
        }
    }

    #[test]
    fn sets_that_name_sets_again_and_again_are_refused_before_they_are_large() {
        let members: Vec<String> = (0..20_000).map(|at| format!("\"10.{}.{}.1\"", at / 256, at % 256)).collect();
        let copies = vec!["\"ipset:a\""; 20_000].join(",");
        let text = format!("{{\"ipsets\": {{\"ipset:a\": [{}],\n\"ipset:b\": [{copies}]}}}}", members.join(","));
        let error = Policy::parse(&text).unwrap_err().to_string();
        assert!(error.starts_with("line 2, column 13: ipsets[\"ipset:b\"]: IP sets have more than 500000"), "{error}");
        let growing = (0..2_000).map(|at| format!("\"ipset:c{at:04}\": [\"ipset:c{:04}\", \"ipset:a\"]", at + 1));
        let growing: Vec<String> = growing.chain(["\"ipset:c2000\": []".to_owned()]).collect();
        let text = format!("{{\"ipsets\": {{\"ipset:a\": [{}], {}}}}}", members.join(","), growing.join(","));
        assert!(Policy::parse(&text).unwrap_err().to_string().contains("more than 500000"));
    }

    #[test]
    fn the_ranges_of_all_sets_together_are_bounded() {
        // Two apart, so that they don't become one range.
        let members = (0..20_000).map(|at| format!("\"10.{}.{}.{}\"", at >> 15, at >> 7 & 255, at << 1 & 255));
        let members = members.collect::<Vec<_>>().join(",");
        let with = |copies: usize| {
            let copies = (0..copies).map(|at| format!(",\n\"ipset:b{at:02}\": [\"ipset:a\"]")).collect::<String>();
            Policy::parse(&format!("{{\"ipsets\": {{\"ipset:a\": [{members}]{copies}}}, \"grants\": []}}"))
        };
        let most = with(24).unwrap();
        assert_eq!(most.ip_set("ipset:b23").unwrap().len(), 20_000);
        let refused = with(25).unwrap_err().to_string();
        assert!(
            refused.starts_with("line 26, column 15: ipsets[\"ipset:b24\"]: IP sets have more than 500000"),
            "{refused}"
        );
    }

    #[test]
    fn many_removals_are_taken_out_at_once() {
        let (adds, removes): (Vec<String>, Vec<String>) = (0..30_000)
            .map(|at| (at / 128, at % 128 * 2))
            .map(|(high, low)| (format!("\"10.0.{high}.{low}/31\""), format!("\"remove 10.0.{high}.{low}\"")))
            .unzip();
        let text = format!("{{\"ipsets\": {{\"ipset:a\": [{}, {}]}}}}", adds.join(","), removes.join(","));
        let policy = Policy::parse(&text).unwrap();
        let left = policy.ip_set("ipset:a").unwrap();
        assert_eq!((left.len(), left[0].to_string()), (30_000, "10.0.0.1".to_owned()));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let error = set(r#"["tag:x", "ipset:none"]"#).unwrap_err();
        assert!(error.contains("\"tag:x\": IP sets hold addresses"), "{error}");
        assert!(error.contains("ipset not found: \"ipset:none\""), "{error}");
    }
}
