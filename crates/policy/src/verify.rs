//! A policy's own tests, and what else can only be checked where the tailnet is known.

mod trials;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use filter::{PortRange, Protocol};

use crate::hujson::Position;
use crate::policy::PostureValue;
use crate::{
    Alias, Autogroup, Compiled, GroupMember, Node, Owner, Party, PolicyError, Ports, Problem, SshTest, Tag, Test, User,
    parse_protocol,
};
use trials::Trials;

/// A test of a policy that failed, in the shape that the hosted service reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestFailure {
    /// Who tried.
    pub user: String,
    /// What went otherwise than the test wants.
    pub errors: Vec<String>,
    /// Where the test begins.
    pub position: Option<Position>,
}

impl fmt::Display for TestFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(position) = self.position {
            write!(formatter, "{position}: ")?;
        }
        write!(formatter, "test of {:?} failed: {}", self.user, self.errors.join("; "))
    }
}

/// How many errors of one test are told, and how many of all tests of a policy: beyond that no more tests are tried.
const MOST_OF_A_TEST: usize = 100;
const MOST_ERRORS: usize = 1_000;

/// How many bytes of an error are told: it has names from the test, which may be long.
const LONGEST_ERROR: usize = 1_000;

/// The most that one device may be told of logins by SSH: addresses of sources, accounts and variables, each as often as
/// it is told.
const MOST_OF_LOGINS: usize = 500_000;

impl Compiled {
    /// Checks a policy against the tailnet it was compiled for: that the login domains it names belong to the tailnet, that
    /// its SSH rules are not too much to tell a device, and that its tests hold.
    ///
    /// # Errors
    /// Everything that doesn't.
    pub fn verify(&self) -> Result<(), PolicyError> {
        let foreign = self.policy().domains().iter().filter(|(domain, _)| !self.topology().domains.contains(&**domain));
        let mut problems: Vec<Problem> = foreign
            .map(|(domain, position)| Problem {
                message: format!(
                    "{domain} is not associated with this Tailnet and cannot be used in user:*@<domain> expressions"
                ),
                position: Some(*position),
            })
            .collect();
        problems.extend(self.too_many_logins());
        if !problems.is_empty() {
            return Err(PolicyError::Invalid(problems));
        }
        let mut trials = Trials::new(self);
        let mut failures = Failures::default();
        for test in self.policy().tests() {
            failures.add(|| run_test(test, &mut trials));
        }
        for test in self.policy().ssh_tests() {
            failures.add(|| run_ssh_test(test, &mut trials));
        }
        failures.finish()
    }

    /// The rule of SSH by which a device could be told too much: how much depends on who is there.
    fn too_many_logins(&self) -> Option<Problem> {
        let mut in_all: usize = 0;
        for (at, rule) in self.policy().ssh_rules().iter().enumerate() {
            in_all = in_all.saturating_add(self.ssh_size(at));
            if in_all > MOST_OF_LOGINS {
                let message = format!(
                    "from here on, rules of ssh tell a device more than {MOST_OF_LOGINS} addresses of sources, accounts and \
                     variables; name fewer sources, or join rules"
                );
                return Some(Problem { message, position: Some(rule.origin.position) });
            }
        }
        None
    }

    /// Runs one test, which need not be in the policy; `None` if it holds.
    pub fn run_test(&self, test: &Test) -> Option<TestFailure> {
        run_test(test, &mut Trials::new(self))
    }

    /// Runs one test of SSH, which need not be in the policy; `None` if it holds.
    pub fn run_ssh_test(&self, test: &SshTest) -> Option<TestFailure> {
        run_ssh_test(test, &mut Trials::new(self))
    }

    /// The user that a party belongs to.
    fn user_of_party(&self, party: &Party) -> Option<User> {
        let topology = self.topology();
        match party {
            Party::Node(id) => topology.nodes.get(id).and_then(|node| topology.user_of(node)).cloned(),
            Party::Device(node, user) => user.clone().or_else(|| topology.user_of(node).cloned()),
            Party::Address(address) => {
                self.node_by_address(*address).and_then(|(_, node)| topology.user_of(node)).cloned()
            }
        }
    }

    /// A party whose device has these attributes and no others; an address that is no node's stays one.
    fn with_attributes(&self, party: Party, attributes: &BTreeMap<String, PostureValue>) -> Party {
        let with = |node: &Node| Node { posture: attributes.clone(), ..node.clone() };
        match party {
            Party::Node(id) => match self.topology().nodes.get(&id) {
                Some(node) => Party::Device(with(node), None),
                None => party,
            },
            Party::Device(node, user) => Party::Device(with(&node), user),
            Party::Address(address) => match self.node_by_address(address) {
                Some((_, node)) => Party::Device(Node { addresses: vec![address], ..with(node) }, None),
                None => party,
            },
        }
    }

    /// Who a test's alias means: the nodes there are, or a device such as it would be.
    pub(crate) fn parties(&self, text: &str) -> Result<Vec<Party>, String> {
        let alias = Alias::parse(text).map_err(|error| error.to_string())?;
        let single = |range: &filter::AddressRange| {
            let address = Some(range.first()).filter(|_| range.is_single());
            address.ok_or_else(|| format!("{text:?} is not a single address"))
        };
        match &alias {
            Alias::Literal(range) => return Ok(vec![Party::Address(single(range)?)]),
            Alias::Host(name) => {
                let range = self.policy().host(name).ok_or_else(|| format!("host not found: {text:?}"))?;
                return Ok(vec![Party::Address(single(&range)?)]);
            }
            Alias::Group(name) if self.policy().group(name).is_none() => {
                return Err(format!("group not found: {text:?}"));
            }
            Alias::Tag(tag) if self.policy().tag_owners(tag).is_none() => {
                return Err(format!("tag not found: {text:?}"));
            }
            Alias::Group(_) | Alias::Tag(_) | Alias::User(_) | Alias::UsersOf(_) => {}
            Alias::Auto(Autogroup::Member | Autogroup::Tagged | Autogroup::Shared | Autogroup::Role(_)) => {}
            _ => return Err(format!("{text:?} can't be used in a test")),
        }
        let parties: Vec<Party> = self.nodes_of(&alias).into_iter().map(Party::Node).collect();
        Ok(if parties.is_empty() { self.imagined(&alias) } else { parties })
    }

    /// Devices that an alias would mean if there were any.
    fn imagined(&self, alias: &Alias) -> Vec<Party> {
        let tagged = |tags: BTreeSet<Tag>| Party::Device(device(Owner::Tags(tags)), None);
        match alias {
            Alias::Tag(tag) => vec![tagged([tag.clone()].into())],
            Alias::Auto(Autogroup::Tagged) => vec![tagged(BTreeSet::new())],
            Alias::User(login) => vec![users_device(self.user_named(login))],
            Alias::UsersOf(domain) => vec![users_device(self.user_named(&format!("somebody@{domain}")))],
            Alias::Group(name) => self.imagined_members(self.policy().group(name).unwrap_or_default()),
            Alias::Auto(Autogroup::Shared) => vec![users_device(User { shared: true, ..User::default() })],
            Alias::Auto(Autogroup::Role(role)) => vec![users_device(User { role: *role, ..User::default() })],
            _ => vec![users_device(User::default())],
        }
    }

    /// A device of each member of a group, which may be as many as there are users.
    fn imagined_members(&self, members: &[GroupMember]) -> Vec<Party> {
        let users: HashMap<&str, &User> =
            self.topology().users.values().rev().map(|user| (&*user.login, user)).collect();
        let named = |login: Arc<str>| {
            users.get(&*login).map(|user| (*user).clone()).unwrap_or_else(|| User { login, ..User::default() })
        };
        let members = members.iter().map(|member| match member {
            GroupMember::User(login) => named(login.clone()),
            GroupMember::UsersOf(domain) => named(format!("somebody@{domain}").into()),
        });
        members.map(users_device).collect()
    }

    /// A user of the tailnet, or one as they would be.
    fn user_named(&self, login: &str) -> User {
        let known = self.topology().user_by_login(login).map(|(_, user)| user.clone());
        known.unwrap_or_else(|| User { login: login.into(), ..User::default() })
    }
}

/// The tests of a policy that failed.
#[derive(Default)]
struct Failures {
    told: Vec<TestFailure>,
    errors: usize,
    /// Tests that are not tried, as enough has failed.
    left_out: usize,
}

impl Failures {
    fn add(&mut self, run: impl FnOnce() -> Option<TestFailure>) {
        if self.errors >= MOST_ERRORS {
            self.left_out += 1;
        } else if let Some(failure) = run() {
            self.errors += failure.errors.len();
            self.told.push(failure);
        }
    }

    fn finish(mut self) -> Result<(), PolicyError> {
        let Some(last) = self.told.last_mut() else { return Ok(()) };
        if self.left_out > 0 {
            last.errors.push(format!("and {} more tests, which were not tried", self.left_out));
        }
        Err(PolicyError::Tests(self.told))
    }
}

/// What went otherwise than a test wants.
#[derive(Default)]
struct Errors {
    told: Vec<String>,
    more: usize,
}

impl Errors {
    fn add(&mut self, mut error: String) {
        if self.told.len() >= MOST_OF_A_TEST {
            self.more += 1;
            return;
        }
        if error.len() > LONGEST_ERROR {
            error.truncate(error.floor_char_boundary(LONGEST_ERROR));
            error.push('…');
        }
        self.told.push(error);
    }

    fn finish(mut self, user: &str, position: Option<Position>) -> Option<TestFailure> {
        if self.more > 0 {
            self.told.push(format!("and {} more", self.more));
        }
        (!self.told.is_empty()).then(|| TestFailure { user: user.to_owned(), errors: self.told, position })
    }
}

fn run_test(test: &Test, trials: &mut Trials<'_>) -> Option<TestFailure> {
    let mut errors = Errors::default();
    let protocols = match &test.protocol {
        None => vec![Protocol::TCP, Protocol::UDP],
        Some(text) => parse_protocol(text).map(|protocol| vec![protocol]).unwrap_or_else(|error| {
            errors.add(error.to_string());
            Vec::new()
        }),
    };
    let source = (test.source.as_str(), &test.attributes);
    if let Err(error) = trials.source(source) {
        errors.add(format!("src {:?}: {error}", test.source));
    }
    if errors.told.is_empty() {
        for (texts, wanted) in [(&test.accept, true), (&test.deny, false)] {
            let found = texts.iter().filter_map(|text| try_address(text, source, &protocols, wanted, trials));
            found.for_each(|error| errors.add(error));
        }
    }
    errors.finish(&test.source, test.position)
}

fn try_address(
    text: &str,
    source: (&str, &BTreeMap<String, PostureValue>),
    protocols: &[Protocol],
    wanted: bool,
    trials: &mut Trials<'_>,
) -> Option<String> {
    let found =
        test_destination(text).and_then(|(target, port)| trials.holds(source, (target, protocols, port), wanted));
    let (want, got) = if wanted { ("Accept", "Drop") } else { ("Drop", "Accept") };
    match found {
        Err(error) => Some(format!("address {text:?}: {error}")),
        Ok(holds) => (!holds).then(|| format!("address {text:?}: want: {want}, got: {got}")),
    }
}

/// The destination of a test: one alias and one port.
fn test_destination(text: &str) -> Result<(&str, u16), String> {
    let (target, ports) = text.trim().rsplit_once(':').ok_or("a test's destination has the form alias:port")?;
    let ports = Ports::of(None, ports).map_err(|error| error.to_string())?;
    let port = match ports.ranges.as_slice() {
        [PortRange { first, last }] if first == last => *first,
        _ => return Err("a test names exactly one port".to_owned()),
    };
    Ok((target.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(target), port))
}

fn run_ssh_test(test: &SshTest, trials: &mut Trials<'_>) -> Option<TestFailure> {
    let mut errors = Errors::default();
    let wanted = [(&test.accept, "Accept"), (&test.check, "Check"), (&test.deny, "Drop")];
    let accounts = wanted.iter().flat_map(|(accounts, want)| accounts.iter().map(|account| (account.as_str(), *want)));
    let accounts: Vec<(&str, &'static str)> = accounts.collect();
    if let Err(error) = trials.source((&test.source, &test.attributes)) {
        errors.add(format!("src {:?}: {error}", test.source));
        return errors.finish(&test.source, test.position);
    }
    for text in &test.destinations {
        match trials.unlike((&test.source, &test.attributes), text, &accounts) {
            Err(error) => errors.add(format!("dst {text:?}: {error}")),
            Ok(unlike) => unlike.into_iter().for_each(|(account, want, got)| {
                errors.add(format!("user {account:?} on {text:?}: want: {want}, got: {got}"));
            }),
        }
    }
    errors.finish(&test.source, test.position)
}

pub(crate) fn users_device(user: User) -> Party {
    Party::Device(device(Owner::Tags(BTreeSet::new())), Some(user))
}

/// A device that isn't there, of an owner.
pub(crate) fn device(owner: Owner) -> Node {
    Node {
        name: "test".into(),
        addresses: Vec::new(),
        owner,
        advertised: BTreeSet::new(),
        approved: BTreeSet::new(),
        revoked: BTreeSet::new(),
        posture: BTreeMap::new(),
    }
}
