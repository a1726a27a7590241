use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use filter::AddressRange;

use crate::fields::{Fields, strings};
use crate::hujson::Value;
use crate::internet;
use crate::problem::Problems;
use crate::{Alias, Autogroup};

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
    let mut resolver = Resolver { hosts, sections: &sections, done: BTreeMap::new(), open: BTreeSet::new(), problems };
    sections.keys().for_each(|name| {
        resolver.resolve(name);
    });
    resolver.done
}

struct Resolver<'a, 'v, 'p> {
    hosts: &'a BTreeMap<Arc<str>, AddressRange>,
    sections: &'a BTreeMap<&'v str, Vec<(&'v str, &'v Value)>>,
    done: BTreeMap<Arc<str>, Vec<AddressRange>>,
    /// Sets whose resolution has begun: meeting one again is a cycle.
    open: BTreeSet<&'v str>,
    problems: &'a mut Problems<'p>,
}

impl<'v> Resolver<'_, 'v, '_> {
    fn resolve(&mut self, name: &'v str) -> Option<Vec<AddressRange>> {
        if let Some(ranges) = self.done.get(name) {
            return Some(ranges.clone());
        }
        let operations = self.sections.get(name)?;
        if !self.open.insert(name) {
            return None;
        }
        let mut ranges = Vec::new();
        for (text, value) in operations {
            let text = text.trim();
            let (adds, target) = match text.split_once(char::is_whitespace) {
                Some(("add", target)) => (true, target.trim()),
                Some(("remove", target)) => (false, target.trim()),
                _ => (true, text),
            };
            let Some(target) = self.target(name, target, value) else { continue };
            ranges.extend(target.iter().copied().filter(|_| adds));
            if !adds {
                ranges = subtract(&ranges, &target);
            }
        }
        let ranges = union(ranges);
        self.done.insert(name.into(), ranges.clone());
        Some(ranges)
    }

    fn target(&mut self, set: &str, text: &str, value: &'v Value) -> Option<Vec<AddressRange>> {
        let text = text.strip_prefix("host:").unwrap_or(text);
        match Alias::parse(text) {
            Ok(Alias::Literal(range)) => Some(vec![range]),
            Ok(Alias::Auto(Autogroup::Internet)) => Some(internet::ranges().to_vec()),
            Ok(Alias::Host(name)) if self.hosts.contains_key(&name) => self.hosts.get(&name).map(|range| vec![*range]),
            Ok(Alias::IpSet(_)) => match self.sections.get_key_value(text) {
                None => self.problems.at(value, format!("ipsets[\"{set}\"]: ipset not found: \"{text}\"")),
                Some((name, _)) => self.resolve(name).or_else(|| {
                    self.problems.at(value, format!("ipsets[\"{set}\"]: \"{text}\": IP sets cannot be recursive"))
                }),
            },
            Err(error) => self.problems.at(value, format!("ipsets[\"{set}\"]: {error}")),
            Ok(_) => self.problems.at(
                value,
                format!("ipsets[\"{set}\"]: \"{text}\": IP sets hold addresses, hosts, IP sets and autogroup:internet"),
            ),
        }
    }
}

/// The same addresses as disjoint, ascending ranges that don't touch.
fn union(mut ranges: Vec<AddressRange>) -> Vec<AddressRange> {
    ranges.sort();
    let mut out: Vec<AddressRange> = Vec::new();
    for range in ranges {
        match out.last_mut() {
            Some(last) if last.overlaps(&range) || after(last.last()) == Some(range.first()) => {
                *last = AddressRange::new(last.first(), last.last().max(range.last())).unwrap_or(*last);
            }
            _ => out.push(range),
        }
    }
    out
}

fn subtract(from: &[AddressRange], holes: &[AddressRange]) -> Vec<AddressRange> {
    let mut left = from.to_vec();
    for hole in holes {
        left = left.iter().flat_map(|range| cut(range, hole)).collect();
    }
    left
}

fn cut(range: &AddressRange, hole: &AddressRange) -> Vec<AddressRange> {
    if !range.overlaps(hole) {
        return vec![*range];
    }
    let lower = before(hole.first()).and_then(|end| AddressRange::new(range.first(), end));
    let upper = after(hole.last()).and_then(|start| AddressRange::new(start, range.last()));
    lower.into_iter().chain(upper).collect()
}

fn after(address: IpAddr) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits().checked_add(1)?).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits().checked_add(1)?).into(),
    })
}

fn before(address: IpAddr) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits().checked_sub(1)?).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits().checked_sub(1)?).into(),
    })
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
    fn what_is_no_address_is_refused() {
        let error = set(r#"["tag:x", "ipset:none"]"#).unwrap_err();
        assert!(error.contains("\"tag:x\": IP sets hold addresses"), "{error}");
        assert!(error.contains("ipset not found: \"ipset:none\""), "{error}");
    }
}
