use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use filter::AddressRange;
use roaring::RoaringBitmap;

use super::aliases::{AliasId, Meaning};
use super::decide::Known;
use super::{Compiled, Party, has_posture};
use crate::{Alias, Autogroup, internet};

/// The rules of which a party is one side, and what else decides between two parties.
///
/// By the family of the address that the party uses: a rule is about a pair only where both sides match by one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Side {
    v4: RoaringBitmap,
    v6: RoaringBitmap,
    /// The login of the user that the party belongs to.
    pub(crate) login: Option<Arc<str>>,
}

impl Side {
    /// The rules by either family.
    pub(crate) fn rules(&self) -> RoaringBitmap {
        &self.v4 | &self.v6
    }

    /// The rules that match both sides, those about own devices for whomever.
    pub(crate) fn common(&self, other: &Self) -> RoaringBitmap {
        (&self.v4 & &other.v4) | (&self.v6 & &other.v6)
    }

    /// Those of its rules that are among some.
    pub(crate) fn within(&self, rules: &RoaringBitmap) -> Self {
        Self { v4: &self.v4 & rules, v6: &self.v6 & rules, login: self.login.clone() }
    }

    /// Whether a rule matches both sides.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        !self.v4.is_disjoint(&other.v4) || !self.v6.is_disjoint(&other.v6)
    }

    /// Enters the rules of another side.
    pub(crate) fn add(&mut self, other: &Self) {
        self.v4 |= &other.v4;
        self.v6 |= &other.v6;
    }

    /// Its rules without whose they are, in as little room as they take.
    pub(crate) fn shared(mut self) -> Self {
        self.v4.optimize();
        self.v6.optimize();
        self.login = None;
        self
    }

    /// How many rules there are, about.
    pub(crate) fn size(&self) -> u64 {
        self.v4.len().max(self.v6.len())
    }

    /// The same but for the user.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.v4 == other.v4 && self.v6 == other.v6
    }

    fn enter(&mut self, address: Option<IpAddr>, rules: &RoaringBitmap) {
        if address.is_none_or(|address| address.is_ipv4()) {
            self.v4 |= rules;
        }
        if address.is_none_or(|address| address.is_ipv6()) {
            self.v6 |= rules;
        }
    }
}

impl Compiled {
    /// The rules that match a pair.
    pub(crate) fn rules_between(&self, source: &Side, destination: &Side) -> RoaringBitmap {
        let rules = source.common(destination);
        let is_own = source.login.is_some() && source.login == destination.login;
        if is_own { rules } else { rules - &self.own_rules }
    }

    /// The rules about the devices of one user among themselves.
    pub(crate) fn own_device_rules(&self) -> &RoaringBitmap {
        &self.own_rules
    }

    /// The ranges that its rules name, by alias.
    pub(crate) fn named_ranges(&self) -> impl Iterator<Item = AddressRange> {
        self.aliases.entries.iter().flat_map(|entry| entry.meaning.ranges()).map(|(range, _)| *range)
    }

    /// The networks behind routers.
    pub(crate) fn served_networks(&self) -> impl Iterator<Item = AddressRange> {
        self.subnets.keys().copied().map(AddressRange::prefix)
    }

    /// Whether somebody leads to the Internet.
    pub(crate) fn has_exit_node(&self) -> bool {
        !self.exit_nodes.is_empty()
    }

    /// Whether a rule leads to anything that there is or, by its tag or address, could be.
    pub(crate) fn leads_anywhere(&self, at: u32) -> bool {
        let Some(destination) = self.rules[at as usize].destination else { return false };
        let rule = &self.policy.rules()[at as usize];
        let could_be = |alias: &Alias| {
            use Alias::{Anyone, Auto, Host, IpSet, Literal, Service, Tag};
            matches!(alias, Anyone | Auto(Autogroup::Internet) | Host(_) | IpSet(_) | Literal(_) | Service(_) | Tag(_))
        };
        let is_named = rule.via.is_empty() && rule.destinations.iter().any(could_be);
        is_named || !self.destinations[destination as usize].receivers.is_empty()
    }

    /// The rules of which a party is a source, or would be with the posture that they ask for.
    pub(crate) fn rules_from(&self, party: &Party) -> RoaringBitmap {
        let known = self.known(party);
        let owned = self.owned_aliases(&known);
        let ids = known.addresses.iter().flat_map(|address| self.source_aliases(owned.as_deref(), *address));
        let sets: RoaringBitmap = ids.flat_map(|id| self.aliases.entry(id).source_sets.iter().copied()).collect();
        sets.iter().flat_map(|set| self.sources[set as usize].rules.iter().copied()).collect()
    }

    /// The rules of which a party is a destination; those about own devices have any user's.
    pub(crate) fn rules_to(&self, party: &Party) -> RoaringBitmap {
        self.destination_side(party).rules()
    }

    /// A party as a source: its rules by way of its aliases and the sets that have them, not by a walk over all rules.
    pub(crate) fn source_side(&self, party: &Party) -> Side {
        let known = self.known(party);
        let mut side = side_of(&known);
        let owned = self.owned_aliases(&known);
        let mut postures = HashMap::new();
        for address in &known.addresses {
            let ids = self.source_aliases(owned.as_deref(), *address);
            side.enter(*address, &self.rules_of_sources(&ids, &known, &mut postures));
        }
        side
    }

    /// The aliases that mean a party by whose it is; `None` for what is no device.
    fn owned_aliases(&self, known: &Known) -> Option<Vec<AliasId>> {
        known.node.as_ref().map(|node| self.aliases.of_owner(&node.owner, known.user.as_ref()))
    }

    /// The aliases that mean a party as a source: by whose it is, and by one of its addresses.
    fn source_aliases(&self, owned: Option<&[AliasId]>, address: Option<IpAddr>) -> Vec<AliasId> {
        let mut ids = owned.unwrap_or_default().to_vec();
        if let Some(address) = address {
            self.aliases.add_ranged(address, &mut ids);
        }
        if owned.is_none() {
            ids.extend(self.aliases.id(&Alias::Auto(Autogroup::DangerAll)));
            if address.is_some_and(|address| self.is_in_star(address)) {
                ids.extend(self.aliases.id(&Alias::Anyone));
            }
        }
        ids
    }

    fn rules_of_sources<'c>(
        &'c self,
        ids: &[AliasId],
        known: &Known,
        postures: &mut HashMap<&'c [Arc<str>], bool>,
    ) -> RoaringBitmap {
        let mut rules = RoaringBitmap::new();
        for id in ids {
            for set in &self.aliases.entry(*id).source_sets {
                let set = &self.sources[*set as usize];
                let eligible = set.postures.is_empty()
                    || *postures.entry(&set.postures).or_insert_with(|| {
                        known.node.as_ref().is_some_and(|node| has_posture(&self.policy, &set.postures, node))
                    });
                if eligible {
                    rules.extend(set.rules.iter().copied());
                }
            }
        }
        rules
    }

    /// A party as a destination.
    pub(crate) fn destination_side(&self, party: &Party) -> Side {
        let known = self.known(party);
        let mut side = side_of(&known);
        let mut owned = match &known.node {
            Some(node) => self.aliases.of_owner(&node.owner, known.user.as_ref()),
            None => self.aliases.id(&Alias::Anyone).into_iter().collect(),
        };
        owned.retain(|id| self.aliases.entry(*id).meaning != Meaning::Everything);
        for address in &known.addresses {
            let mut ids = owned.clone();
            if let Some(address) = address {
                self.aliases.add_ranged(*address, &mut ids);
                self.aliases.add_services(*address, &mut ids);
                if internet::ranges().iter().any(|range| range.contains(*address)) {
                    ids.extend(self.aliases.id(&Alias::Auto(Autogroup::Internet)));
                }
            }
            let mut rules = self.rules_of_destinations(&ids, &known, *address);
            if known.user.is_some() {
                rules |= &self.own_rules;
            }
            side.enter(*address, &rules);
        }
        side
    }

    fn rules_of_destinations(&self, ids: &[AliasId], known: &Known, address: Option<IpAddr>) -> RoaringBitmap {
        let mut rules = RoaringBitmap::new();
        for id in ids {
            for set in &self.aliases.entry(*id).destination_sets {
                let set = &self.destinations[*set as usize];
                let leads = |at: &u32| {
                    let rule = &self.policy.rules()[*at as usize];
                    set.via.is_empty() || self.via_lack(*at as usize, rule, known, address).is_none()
                };
                // The rules of a set have the same destinations and the same routers.
                if set.rules.first().is_some_and(leads) {
                    rules.extend(set.rules.iter().copied());
                }
            }
        }
        rules
    }
}

fn side_of(known: &Known) -> Side {
    Side { login: known.user.as_ref().map(|user| user.login.clone()), ..Side::default() }
}
