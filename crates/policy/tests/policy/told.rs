//! What is told of a change of policy is what changes: of any two policies on any small tailnet, by the decisions of either.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::random;
use crate::world::{ACCOUNTS, SHOP, World};
use filter::{AddressRange, Protocol};
use policy::{
    Compiled, Difference, NodeId, Party, Policy, Query, Reach, SshAction, SshDecision, SshUser, Topology,
    parse_protocol,
};
use proptest::prelude::*;

/// Ports at the edges of those that the policies name.
const PROBES: [(Protocol, u16); 10] = [
    (Protocol::TCP, 19),
    (Protocol::TCP, 22),
    (Protocol::TCP, 24),
    (Protocol::TCP, 25),
    (Protocol::TCP, 80),
    (Protocol::UDP, 22),
    (Protocol::UDP, 26),
    (Protocol::UDP, 53),
    (Protocol::UDP, 61),
    (Protocol(47), 0),
];

/// Addresses behind routers and on the Internet: in ranges that policies name, and in none.
const SAMPLES: [&str; 8] =
    ["10.33.5.9", "10.33.9.9", "10.33.200.1", "10.44.0.1", "fd00:1::5", "8.8.8.8", "9.9.9.9", "2600::9"];

const CAPABILITIES: [&str; 2] = ["example.com/cap", "tailscale.com/cap/drive"];

/// What names mean in one of two policies and not in the other.
const REDEFINED: [(&str, &str); 4] = [
    (r#""office": "10.33.0.0/16""#, r#""office": "10.33.0.0/21""#),
    (r#""group:ops": ["bob@example.com"]"#, r#""group:ops": ["cat@example.org"]"#),
    (r#""remove 10.33.9.0/24""#, r#""remove 10.33.0.0/21""#),
    (r#""resolver": "8.8.8.0/24""#, r#""resolver": "8.0.0.0/8""#),
];

/// Someone of whom something may be told.
struct Subject {
    party: Party,
    label: String,
    address: Option<IpAddr>,
}

/// Two policies for one tailnet.
struct Edit {
    old: Compiled,
    new: Compiled,
}

impl Edit {
    fn of(before: &World, after: &World, redefined: usize) -> Self {
        let topology = before.topology();
        let text = |text: String, (_, (old, new)): (usize, &(&str, &str))| {
            assert!(text.contains(old), "{old}");
            text.replace(old, new)
        };
        let changes = REDEFINED.iter().enumerate().filter(|(bit, _)| redefined & (1 << bit) != 0);
        let after = changes.fold(after.text(), text);
        let compile = |text: &str| Compiled::new(Arc::new(Policy::parse(text).unwrap()), topology.clone());
        Self { old: compile(&before.text()), new: compile(&after) }
    }

    fn topology(&self) -> &Topology {
        self.old.topology()
    }

    fn nodes(&self) -> Vec<Subject> {
        let topology = self.topology();
        let label = |node: &policy::Node| match topology.user_of(node) {
            Some(user) => user.login.to_string(),
            None => node.tags().map(ToString::to_string).collect::<Vec<_>>().join("+"),
        };
        let nodes = topology.nodes.iter();
        nodes.map(|(id, node)| Subject { party: Party::Node(*id), label: label(node), address: None }).collect()
    }

    fn addresses(&self) -> Vec<Subject> {
        let subject = |text: &&str| {
            let address: IpAddr = text.parse().unwrap();
            Subject { party: Party::Address(address), label: (*text).to_owned(), address: Some(address) }
        };
        let address = "100.64.1.1".parse().unwrap();
        let shop = Subject { party: Party::Address(address), label: SHOP.to_owned(), address: Some(address) };
        SAMPLES.iter().map(subject).chain([shop]).collect()
    }

    /// Whether somebody leads to an address, and nobody's service has it.
    fn is_led_to(&self, address: IpAddr) -> bool {
        let is_public = is_public(address);
        let mut nodes = self.topology().nodes.values();
        nodes.any(|node| node.subnets().any(|route| route.contains(&address)) || (is_public && node.is_exit()))
    }

    /// What is open by either policy.
    fn is_open(&self, from: &Subject, to: &Subject, (protocol, port): (Protocol, u16)) -> [bool; 2] {
        let query = Query { source: from.party.clone(), destination: to.party.clone(), protocol, port };
        [&self.old, &self.new].map(|compiled| !compiled.decide(&query).allowed_by.is_empty())
    }

    fn has(&self, from: &Subject, to: &Subject, capability: &str) -> [bool; 2] {
        [&self.old, &self.new]
            .map(|compiled| compiled.decide_capabilities(&from.party, &to.party).capabilities.has(capability))
    }

    /// Whether some rule of SSH names an account; root is never meant without that.
    fn names_account(&self, account: &str) -> bool {
        let name = SshUser::Name(account.to_owned());
        let mut rules = [&self.old, &self.new].into_iter().flat_map(|compiled| compiled.policy().ssh_rules());
        account == "root" || rules.any(|rule| rule.users.contains(&name))
    }

    /// How a login is let through by either policy, after the account's name.
    fn login(&self, from: NodeId, to: NodeId, account: &str) -> [Option<String>; 2] {
        [&self.old, &self.new].map(|compiled| {
            let (rule, action) = match compiled.decide_ssh(&Party::Node(from), &Party::Node(to), account) {
                SshDecision::Accept { rule } => (rule, SshAction::Accept),
                SshDecision::Check { rule, period } => (rule, SshAction::Check(period)),
                SshDecision::Refuse { .. } => return None,
            };
            let check = if action == SshAction::Accept { "" } else { " (check)" };
            let recorded = !compiled.policy().ssh_rules()[rule].recorders.is_empty();
            Some(format!("{check}{}", if recorded { ", recorded by tag:gate" } else { "" }))
        })
    }
}

fn is_public(address: IpAddr) -> bool {
    ["8.8.8.8", "9.9.9.9", "2600::9"].iter().any(|public| address == public.parse::<IpAddr>().unwrap())
}

/// Whether a label means a subject; whoever is told of as the Internet, means what of it no rule names.
fn means(label: &str, subject: &Subject) -> bool {
    match subject.address {
        None => label == subject.label,
        Some(address) if label == "autogroup:internet" => is_public(address),
        Some(_) if label == SHOP => subject.label == SHOP,
        Some(address) => label.parse::<AddressRange>().is_ok_and(|range| range.contains(address)),
    }
}

/// Whether what is told of ports names one.
fn names(what: &str, (protocol, port): (Protocol, u16)) -> bool {
    let (protocols, ports) = match what.split_once(':') {
        Some((name, ports)) => (vec![parse_protocol(name.trim_start_matches("protocol ")).unwrap()], ports),
        None => (vec![Protocol::TCP, Protocol::UDP], what),
    };
    let has = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        range == "*" || (first.parse().unwrap()..=last.parse().unwrap()).contains(&port)
    };
    protocols.contains(&protocol) && ports.split(',').any(has)
}

fn is_of_ports(reach: &Reach) -> bool {
    !["ssh ", "may give", "approved", "route "].iter().any(|start| reach.what.starts_with(start))
        && !reach.what.contains('/')
        && reach.destination != "nodeAttrs"
}

/// By old and new what is closed or opened.
fn told_where(difference: &Difference, [was, is]: [bool; 2]) -> Option<&Vec<Reach>> {
    match (was, is) {
        (true, false) => Some(&difference.closed),
        (false, true) => Some(&difference.opened),
        _ => None,
    }
}

/// A line, whether it is opened, and a port that it names.
type Proof<'a> = (bool, &'a Reach, (Protocol, u16));

/// All packets that pass by one of the policies only are told of, and whatever is told of passes by one only.
fn check_ports(edit: &Edit, difference: &Difference) -> Result<(), TestCaseError> {
    let subjects: Vec<Subject> = edit.nodes().into_iter().chain(edit.addresses()).collect();
    // By line, whether some pair that it means changes so.
    let mut proven: BTreeMap<Proof<'_>, bool> = BTreeMap::new();
    for (from, to) in subjects.iter().flat_map(|from| subjects.iter().map(move |to| (from, to))) {
        let lines = |told: &'_ [Reach]| -> Vec<usize> {
            let about =
                |reach: &Reach| is_of_ports(reach) && means(&reach.source, from) && means(&reach.destination, to);
            told.iter().enumerate().filter(|(_, reach)| about(reach)).map(|(at, _)| at).collect()
        };
        let about = [lines(&difference.closed), lines(&difference.opened)];
        for probe in PROBES {
            let open = edit.is_open(from, to, probe);
            let can = |end: &Subject| end.address.is_none_or(|address| edit.is_led_to(address));
            let must = can(from) && (can(to) || to.label == SHOP);
            for (is_new, told) in [(false, &difference.closed), (true, &difference.opened)] {
                let changes = open[usize::from(is_new)] && !open[usize::from(!is_new)];
                let told: Vec<&Reach> = about[usize::from(is_new)]
                    .iter()
                    .map(|at| &told[*at])
                    .filter(|told| names(&told.what, probe))
                    .collect();
                let place = || format!("{} -> {}, {probe:?}, new: {is_new}\n{difference}", from.label, to.label);
                prop_assert!(!changes || !must || !told.is_empty(), "untold: {}", place());
                for line in told {
                    let precise = |end: &Subject, label: &str| end.address.is_some() && label != "autogroup:internet";
                    let both_precise = precise(from, &line.source) && precise(to, &line.destination);
                    prop_assert!(changes || !both_precise, "told, but as it was: {}", place());
                    *proven.entry((is_new, line, probe)).or_default() |= changes;
                }
            }
        }
    }
    for ((is_new, line, probe), changes) in proven {
        prop_assert!(changes, "told, but as it was: {line}, {probe:?}, new: {is_new}\n{difference}");
    }
    Ok(())
}

fn check_capabilities(edit: &Edit, difference: &Difference) -> Result<(), TestCaseError> {
    let nodes = edit.nodes();
    let mut proven = BTreeSet::new();
    for (from, to) in nodes.iter().flat_map(|from| nodes.iter().map(move |to| (from, to))) {
        for capability in CAPABILITIES {
            let Some(told) = told_where(difference, edit.has(from, to, capability)) else { continue };
            let line = told.iter().find(|reach| {
                reach.what.starts_with(capability) && reach.source == from.label && reach.destination == to.label
            });
            prop_assert!(line.is_some(), "untold: {} -> {}: {capability}\n{difference}", from.label, to.label);
            proven.extend(line);
        }
    }
    let labels: BTreeSet<&str> = nodes.iter().map(|node| node.label.as_str()).collect();
    let has_nodes = |reach: &&Reach| labels.contains(&*reach.source) && labels.contains(&*reach.destination);
    for line in difference.opened.iter().chain(&difference.closed).filter(has_nodes) {
        let is_capability = CAPABILITIES.iter().any(|name| line.what.starts_with(name));
        prop_assert!(!is_capability || proven.contains(line), "told, but as it was: {line}\n{difference}");
    }
    Ok(())
}

/// The same of logins by SSH.
fn check_logins(edit: &Edit, difference: &Difference) -> Result<(), TestCaseError> {
    let nodes: Vec<(NodeId, String)> =
        edit.topology().nodes.keys().copied().zip(edit.nodes().into_iter().map(|node| node.label)).collect();
    let mut proven: BTreeSet<(bool, &Reach)> = BTreeSet::new();
    for ((from, source), (to, destination)) in nodes.iter().flat_map(|from| nodes.iter().map(move |to| (from, to))) {
        for account in ACCOUNTS {
            let logins = edit.login(*from, *to, account);
            if logins[0] == logins[1] {
                continue;
            }
            for ((is_new, told), words) in
                [(false, &difference.closed), (true, &difference.opened)].into_iter().zip(&logins)
            {
                let Some(words) = words else { continue };
                // One that some rule names is told by its name.
                let any = if edit.names_account(account) { account } else { "any account but root" };
                let said = [account, any].map(|account| format!("ssh {account}{words}"));
                let is_said = |reach: &&Reach| {
                    reach.source == *source && reach.destination == *destination && said.contains(&reach.what)
                };
                let lines: Vec<&Reach> = told.iter().filter(is_said).collect();
                let place = || format!("{source} -> {destination} as {account}{words}, new: {is_new}\n{difference}");
                prop_assert!(!lines.is_empty(), "untold: {}", place());
                proven.extend(lines.into_iter().map(|line| (is_new, line)));
            }
        }
    }
    let labels: BTreeSet<&str> = nodes.iter().map(|(_, label)| label.as_str()).collect();
    for (is_new, told) in [(false, &difference.closed), (true, &difference.opened)] {
        for line in told.iter().filter(|line| line.what.starts_with("ssh ")) {
            let has_nodes = labels.contains(&*line.source) && labels.contains(&*line.destination);
            prop_assert!(!has_nodes || proven.contains(&(is_new, line)), "told, but as it was: {line}\n{difference}");
        }
    }
    Ok(())
}

/// A tailnet with another policy: some of its rules, and some others.
fn edited() -> impl Strategy<Value = (World, World, usize)> {
    let redefined = prop_oneof![3 => Just(0_usize), 1 => 0_usize..16];
    (random::world(), random::world(), any::<u32>(), redefined).prop_map(|(mut before, other, kept, redefined)| {
        before.nodes.truncate(4);
        let mut after = before.clone();
        let is_kept = |bit: usize| kept & (1 << bit) != 0;
        let mut bits = 0..;
        after.grants.retain(|_| is_kept(bits.next().unwrap_or_default()));
        after.ssh.retain(|_| is_kept(bits.next().unwrap_or_default()));
        after.grants.extend(other.grants.into_iter().filter(|_| is_kept(bits.next().unwrap_or_default())));
        after.ssh.extend(other.ssh.into_iter().filter(|_| is_kept(bits.next().unwrap_or_default())));
        (before, after, redefined)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::default())]

    #[test]
    fn what_changes_is_told_and_what_is_told_changes((before, after, redefined) in edited()) {
        let edit = Edit::of(&before, &after, redefined);
        let difference = Difference::between(&edit.old, &edit.new);
        prop_assert!(!difference.cut_short);
        check_ports(&edit, &difference)?;
        check_capabilities(&edit, &difference)?;
        check_logins(&edit, &difference)?;
    }

    #[test]
    fn a_policy_that_stays_opens_and_closes_nothing((world, _, _) in edited()) {
        let edit = Edit::of(&world, &world, 0);
        prop_assert!(Difference::between(&edit.old, &edit.new).is_empty());
    }
}
