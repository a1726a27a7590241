//! A policy's own tests, and what else can only be checked where the tailnet is known.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use filter::{PortRange, Protocol};

use crate::hujson::Position;
use crate::policy::PostureValue;
use crate::{
    Alias, Autogroup, Compiled, GroupMember, Node, Owner, Party, PolicyError, Ports, Problem, Query, SshDecision,
    SshTest, Tag, Test, User, internet, parse_protocol,
};

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

impl Compiled {
    /// Checks a policy against the tailnet it was compiled for: that the login domains it names belong to the tailnet, and
    /// that its tests hold.
    ///
    /// # Errors
    /// Everything that doesn't.
    pub fn verify(&self) -> Result<(), PolicyError> {
        let foreign = self.policy().domains().iter().filter(|(domain, _)| !self.topology().domains.contains(&**domain));
        let problems: Vec<Problem> = foreign
            .map(|(domain, position)| Problem {
                message: format!(
                    "{domain} is not associated with this Tailnet and cannot be used in user:*@<domain> expressions"
                ),
                position: Some(*position),
            })
            .collect();
        if !problems.is_empty() {
            return Err(PolicyError::Invalid(problems));
        }
        let tests = self.policy().tests().iter().filter_map(|test| self.run_test(test));
        let failures: Vec<TestFailure> =
            tests.chain(self.policy().ssh_tests().iter().filter_map(|test| self.run_ssh_test(test))).collect();
        if failures.is_empty() { Ok(()) } else { Err(PolicyError::Tests(failures)) }
    }

    /// Runs one test, which need not be in the policy; `None` if it holds.
    pub fn run_test(&self, test: &Test) -> Option<TestFailure> {
        let mut errors = Vec::new();
        let protocols = match &test.protocol {
            None => vec![Protocol::TCP, Protocol::UDP],
            Some(text) => parse_protocol(text).map(|protocol| vec![protocol]).unwrap_or_else(|error| {
                errors.push(error.to_string());
                Vec::new()
            }),
        };
        let sources = self.parties(&test.source, Some(&test.attributes)).unwrap_or_else(|error| {
            errors.push(format!("src {:?}: {error}", test.source));
            Vec::new()
        });
        if errors.is_empty() {
            for (texts, wanted) in [(&test.accept, true), (&test.deny, false)] {
                errors.extend(texts.iter().filter_map(|text| self.try_address(text, &sources, &protocols, wanted)));
            }
        }
        (!errors.is_empty()).then(|| TestFailure { user: test.source.clone(), errors, position: test.position })
    }

    /// Runs one test of SSH, which need not be in the policy; `None` if it holds.
    pub fn run_ssh_test(&self, test: &SshTest) -> Option<TestFailure> {
        let mut errors = Vec::new();
        let sources = self.parties(&test.source, Some(&test.attributes)).unwrap_or_else(|error| {
            errors.push(format!("src {:?}: {error}", test.source));
            Vec::new()
        });
        let wanted = [(&test.accept, "Accept"), (&test.check, "Check"), (&test.deny, "Drop")];
        for text in &test.destinations {
            match self.parties(text, None) {
                Err(error) => errors.push(format!("dst {text:?}: {error}")),
                Ok(destinations) => {
                    for (account, wanted) in
                        wanted.iter().flat_map(|(accounts, want)| accounts.iter().map(move |a| (a, want)))
                    {
                        errors.extend(self.try_account(text, &sources, &destinations, account, wanted));
                    }
                }
            }
        }
        (!errors.is_empty()).then(|| TestFailure { user: test.source.clone(), errors, position: test.position })
    }

    fn try_address(&self, text: &str, sources: &[Party], protocols: &[Protocol], wanted: bool) -> Option<String> {
        let (destinations, port) = match self.test_destination(text, sources) {
            Ok(found) => found,
            Err(error) => return Some(format!("address {text:?}: {error}")),
        };
        let allowed = |source: &Party, destination: &Party| {
            protocols.iter().any(|protocol| {
                let query =
                    Query { source: source.clone(), destination: destination.clone(), protocol: *protocol, port };
                !self.decide(&query).allowed_by.is_empty()
            })
        };
        let mut pairs =
            sources.iter().flat_map(|source| destinations.iter().map(move |destination| (source, destination)));
        let holds = match wanted {
            true => pairs.all(|(source, destination)| allowed(source, destination)),
            false => !pairs.any(|(source, destination)| allowed(source, destination)),
        };
        let (want, got) = if wanted { ("Accept", "Drop") } else { ("Drop", "Accept") };
        (!holds).then(|| format!("address {text:?}: want: {want}, got: {got}"))
    }

    fn try_account(
        &self,
        text: &str,
        sources: &[Party],
        destinations: &[Party],
        account: &str,
        wanted: &str,
    ) -> Option<String> {
        for source in sources {
            for destination in destinations {
                let got = match self.decide_ssh(source, destination, account) {
                    SshDecision::Accept { .. } => "Accept",
                    SshDecision::Check { .. } => "Check",
                    SshDecision::Refuse { .. } => "Drop",
                };
                if got != wanted {
                    return Some(format!("user {account:?} on {text:?}: want: {wanted}, got: {got}"));
                }
            }
        }
        None
    }

    /// The destination of a test: one alias and one port.
    fn test_destination(&self, text: &str, sources: &[Party]) -> Result<(Vec<Party>, u16), String> {
        let (target, ports) = text.trim().rsplit_once(':').ok_or("a test's destination has the form alias:port")?;
        let ports = Ports::of(None, ports).map_err(|error| error.to_string())?;
        let port = match ports.ranges.as_slice() {
            [PortRange { first, last }] if first == last => *first,
            _ => return Err("a test names exactly one port".to_owned()),
        };
        let target = target.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(target);
        match Alias::parse(target).map_err(|error| error.to_string())? {
            Alias::Auto(Autogroup::Internet) => {
                let samples = internet::ranges().iter().map(|range| Party::Address(range.last()));
                Ok((samples.collect(), port))
            }
            Alias::Auto(Autogroup::OwnDevices) => Ok((self.own_devices(sources)?, port)),
            _ => Ok((self.parties(target, None)?, port)),
        }
    }

    fn own_devices(&self, sources: &[Party]) -> Result<Vec<Party>, String> {
        let user = |party: &Party| match party {
            Party::Node(id) => self.topology().nodes.get(id).and_then(|node| self.topology().user_of(node)).cloned(),
            Party::Device(node, user) => user.clone().or_else(|| self.topology().user_of(node).cloned()),
            Party::Address(address) => {
                self.topology().node_at(*address).and_then(|(_, node)| self.topology().user_of(node)).cloned()
            }
        };
        let devices = sources.iter().map(|source| user(source).map(users_device));
        devices.collect::<Option<_>>().ok_or_else(|| "autogroup:self needs a user as src".to_owned())
    }

    /// Who a test's alias means: the nodes there are, or a device such as it would be. With `attributes`, devices have
    /// these instead of their own.
    pub(crate) fn parties(
        &self,
        text: &str,
        attributes: Option<&BTreeMap<String, PostureValue>>,
    ) -> Result<Vec<Party>, String> {
        let alias = Alias::parse(text).map_err(|error| error.to_string())?;
        let single = |range: &filter::AddressRange| {
            let address = Some(range.first()).filter(|_| range.is_single());
            address.ok_or_else(|| format!("{text:?} is not a single address"))
        };
        match &alias {
            Alias::Literal(range) => return Ok(vec![self.with_attributes(single(range)?, attributes)]),
            Alias::Host(name) => {
                let range = self.policy().host(name).ok_or_else(|| format!("host not found: {text:?}"))?;
                return Ok(vec![self.with_attributes(single(&range)?, attributes)]);
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
        let nodes = self.topology().nodes.iter().filter(|(_, node)| self.is_alias_of_node(&alias, node));
        let mut parties: Vec<Party> = match attributes {
            None => nodes.map(|(id, _)| Party::Node(*id)).collect(),
            Some(attributes) => nodes
                .map(|(_, node)| Party::Device(Node { posture: attributes.clone(), ..node.clone() }, None))
                .collect(),
        };
        if parties.is_empty() {
            parties = self.imagined(&alias);
            for party in &mut parties {
                if let (Party::Device(node, _), Some(attributes)) = (party, attributes) {
                    node.posture = attributes.clone();
                }
            }
        }
        Ok(parties)
    }

    /// A node by its address with other attributes, or an address that is no node's.
    fn with_attributes(&self, address: IpAddr, attributes: Option<&BTreeMap<String, PostureValue>>) -> Party {
        match (self.topology().node_at(address), attributes) {
            (Some((_, node)), Some(attributes)) => {
                Party::Device(Node { posture: attributes.clone(), addresses: vec![address], ..node.clone() }, None)
            }
            _ => Party::Address(address),
        }
    }

    /// Devices that an alias would mean if there were any.
    fn imagined(&self, alias: &Alias) -> Vec<Party> {
        let tagged = |tags: BTreeSet<Tag>| Party::Device(device(Owner::Tags(tags)), None);
        match alias {
            Alias::Tag(tag) => vec![tagged([tag.clone()].into())],
            Alias::Auto(Autogroup::Tagged) => vec![tagged(BTreeSet::new())],
            Alias::User(login) => vec![users_device(self.user_named(login))],
            Alias::UsersOf(domain) => vec![users_device(self.user_named(&format!("somebody@{domain}")))],
            Alias::Group(name) => {
                let members = self.policy().group(name).unwrap_or_default().iter().map(|member| match member {
                    GroupMember::User(login) => self.user_named(login),
                    GroupMember::UsersOf(domain) => self.user_named(&format!("somebody@{domain}")),
                });
                members.map(users_device).collect()
            }
            Alias::Auto(Autogroup::Shared) => vec![users_device(User { shared: true, ..User::default() })],
            Alias::Auto(Autogroup::Role(role)) => vec![users_device(User { role: *role, ..User::default() })],
            _ => vec![users_device(User::default())],
        }
    }

    /// A user of the tailnet, or one as they would be.
    fn user_named(&self, login: &str) -> User {
        let known = self.topology().user_by_login(login).map(|(_, user)| user.clone());
        known.unwrap_or_else(|| User { login: login.into(), ..User::default() })
    }
}

pub(crate) fn users_device(user: User) -> Party {
    Party::Device(device(Owner::Tags(BTreeSet::new())), Some(user))
}

fn device(owner: Owner) -> Node {
    Node {
        name: "test".into(),
        addresses: Vec::new(),
        owner,
        advertised: BTreeSet::new(),
        approved: BTreeSet::new(),
        posture: BTreeMap::new(),
    }
}
