//! A policy as its text means it, checked as far as that is possible without knowing a tailnet.

mod approvers;
mod attributes;
mod duration;
mod expansion;
mod group;
mod ipset;
mod names;
mod posture;
mod rules;
mod ssh;
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use filter::{AddressRange, RawJson};

pub use approvers::Approvers;
pub use attributes::NodeAttributes;
pub use group::{Group, GroupMember};
pub use posture::{Condition, PostureValue, Requirement};
pub use rules::{Effect, Origin, Rule, Section};
pub(crate) use ssh::DEFAULT_CHECK;
pub use ssh::{SshAction, SshRule, SshUser};
pub use tests::{SshTest, Test};

use crate::fields::Fields;
use crate::hujson::{Document, Position, format};
use crate::problem::Problems;
use crate::{Alias, Node, PolicyError, Problem, Tag};
use names::Names;

/// The top-level names of a policy.
const FIELDS: [&str; 17] = [
    "groups",
    "hosts",
    "tagOwners",
    "acls",
    "grants",
    "nodeAttrs",
    "autoApprovers",
    "ssh",
    "tests",
    "sshTests",
    "randomizeClientPort",
    "postures",
    "defaultSrcPosture",
    "ipsets",
    "derpMap",
    "disableIPv4",
    "OneCGNATRoute",
];

/// A policy that is well-formed in itself: every name that it uses is defined, and every alias stands where it may.
#[derive(Clone, Debug)]
pub struct Policy {
    document: Document,
    names: Names,
    /// Grants in their order, then each destination of each ACL.
    rules: Vec<Rule>,
    node_attributes: Vec<NodeAttributes>,
    approvers: Approvers,
    ssh: Vec<SshRule>,
    tests: Vec<Test>,
    ssh_tests: Vec<SshTest>,
    settings: Settings,
    domains: Vec<(Arc<str>, Position)>,
    warnings: Vec<Problem>,
}

/// Settings of a policy that are no rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Every device takes a random UDP port.
    pub randomize_client_port: bool,
    /// No device gets an IPv4 address.
    pub disable_ipv4: bool,
    /// Whether macOS devices route the whole of 100.64.0.0/10: `mac-always`, `mac-never`, or nothing.
    pub one_cgnat_route: Option<bool>,
    /// The relay map of this tailnet, as the policy has it.
    pub derp_map: Option<RawJson>,
}

impl Policy {
    /// Reads a policy's text.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the text, up to a bound.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let document = Document::parse(text)?;
        let mut problems = Problems::new(&document);
        let read = read_sections(&document, &mut problems);
        problems.finish()?;
        let Some((names, sections)) = read else {
            return Err(Problem::new("the policy could not be read").into());
        };
        let Sections { rules, node_attributes, approvers, ssh, tests, ssh_tests, settings, domains, warnings } =
            sections;
        Ok(Self {
            document,
            names,
            rules,
            node_attributes,
            approvers,
            ssh,
            tests,
            ssh_tests,
            settings,
            domains,
            warnings,
        })
    }

    /// The same policy with other tests of reachability; its text stays.
    pub fn with_tests(&self, tests: Vec<Test>) -> Self {
        Self { tests, ..self.clone() }
    }

    /// The policy that a new tailnet starts with: every user reaches their own devices, and nobody anyone else's.
    pub fn default_for_new_tailnet() -> &'static str {
        include_str!("policy/default.hujson")
    }

    /// The text, byte for byte.
    pub fn text(&self) -> &str {
        self.document.text()
    }

    /// The text in the one form that all tools agree on: what an ETag is the SHA-256 of.
    pub fn formatted(&self) -> String {
        format(&self.document)
    }

    /// The parsed text, for edits and positions.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// Grants in their order, then each destination of each ACL.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// SSH rules in their order.
    pub fn ssh_rules(&self) -> &[SshRule] {
        &self.ssh
    }

    /// Node attributes in their order.
    pub fn node_attributes(&self) -> &[NodeAttributes] {
        &self.node_attributes
    }

    /// Who need not ask for routes, exit nodes and services.
    pub fn approvers(&self) -> &Approvers {
        &self.approvers
    }

    /// The policy's own tests of reachability.
    pub fn tests(&self) -> &[Test] {
        &self.tests
    }

    /// The policy's own tests of SSH.
    pub fn ssh_tests(&self) -> &[SshTest] {
        &self.ssh_tests
    }

    /// Settings that are no rules.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Things that are allowed and probably not meant.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// Login domains that `user:*@…` and `localpart:*@…` name, with their places: each must belong to the tailnet.
    pub fn domains(&self) -> &[(Arc<str>, Position)] {
        &self.domains
    }

    /// The members of a group.
    pub fn group(&self, name: &str) -> Option<&[GroupMember]> {
        self.names.groups.get(name).map(Group::members)
    }

    /// Whether a group has a login name as a member, by itself or by its domain.
    pub fn is_in_group(&self, name: &str, login: &str) -> bool {
        self.names.groups.get(name).is_some_and(|group| group.has(login))
    }

    /// All groups by name.
    pub fn groups(&self) -> &BTreeMap<Arc<str>, Group> {
        &self.names.groups
    }

    /// What a name in `hosts` stands for.
    pub fn host(&self, name: &str) -> Option<AddressRange> {
        self.names.hosts.get(name).copied()
    }

    /// All of `hosts`.
    pub fn hosts(&self) -> &BTreeMap<Arc<str>, AddressRange> {
        &self.names.hosts
    }

    /// The ranges of an IP set, disjoint and ascending.
    pub fn ip_set(&self, name: &str) -> Option<&[AddressRange]> {
        self.names.ip_sets.get(name).map(Vec::as_slice)
    }

    /// All tags that the policy defines.
    pub fn tags(&self) -> impl Iterator<Item = &Tag> {
        self.names.tag_owners.keys()
    }

    /// Who may give a tag, as the policy lists them. An empty list leaves it to admins.
    pub fn tag_owners(&self, tag: &Tag) -> Option<&[Alias]> {
        self.names.tag_owners.get(tag).map(Vec::as_slice)
    }

    /// The conditions of a posture: all of them must hold.
    pub fn posture(&self, name: &str) -> Option<&[Condition]> {
        self.names.postures.get(name).map(Vec::as_slice)
    }

    /// Whether a node has a posture: none has one that isn't defined.
    pub fn has_posture(&self, name: &str, node: &Node) -> bool {
        let conditions = self.posture(name);
        conditions.is_some_and(|conditions| conditions.iter().all(|condition| condition.holds(&node.posture)))
    }

    /// All postures by name.
    pub fn postures(&self) -> &BTreeMap<Arc<str>, Vec<Condition>> {
        &self.names.postures
    }

    /// The owners of a tag, with those of tags that own it, and so on; cycles are followed once. Tags themselves count
    /// as owners: a device or key that has one may give the tags it owns.
    pub fn all_tag_owners(&self, tag: &Tag) -> BTreeSet<&Alias> {
        let mut owners = BTreeSet::new();
        let mut waiting = vec![tag];
        while let Some(next) = waiting.pop() {
            for owner in self.names.tag_owners.get(next).into_iter().flatten() {
                if owners.insert(owner)
                    && let Alias::Tag(tag) = owner
                {
                    waiting.push(tag);
                }
            }
        }
        owners
    }
}

/// What a document says once its names are known.
struct Sections {
    rules: Vec<Rule>,
    node_attributes: Vec<NodeAttributes>,
    approvers: Approvers,
    ssh: Vec<SshRule>,
    tests: Vec<Test>,
    ssh_tests: Vec<SshTest>,
    settings: Settings,
    domains: Vec<(Arc<str>, Position)>,
    warnings: Vec<Problem>,
}

fn read_sections(document: &Document, problems: &mut Problems<'_>) -> Option<(Names, Sections)> {
    let fields = Fields::read(document.root(), &FIELDS, problems)?;
    let mut domains = names::Domains::default();
    let mut warnings = Vec::new();
    let names = Names::read(&fields, &mut domains, problems);
    let mut context = rules::Context { names: &names, domains: &mut domains, warnings: &mut warnings };
    let rules = rules::read(&fields, &mut context, problems);
    let ssh = ssh::read(&fields, &mut context, problems);
    let node_attributes = attributes::read(&fields, &mut context, problems);
    let approvers = approvers::read(&fields, &names, problems);
    let tests = tests::read(&fields, problems);
    let ssh_tests = tests::read_ssh(&fields, &names, problems);
    let settings = read_settings(&fields, problems);
    expansion::check(&rules, &ssh, &names, problems);
    expansion::check_attributes(&node_attributes, problems);
    let domains = domains.found;
    Some((names, Sections { rules, node_attributes, approvers, ssh, tests, ssh_tests, settings, domains, warnings }))
}

fn read_settings(fields: &Fields<'_>, problems: &mut Problems<'_>) -> Settings {
    let one_cgnat_route = fields.string("OneCGNATRoute", problems).and_then(|(text, value)| match text {
        "" => None,
        "mac-always" => Some(true),
        "mac-never" => Some(false),
        _ => problems.at(value, format!("OneCGNATRoute {text:?} is not known; use \"mac-always\" or \"mac-never\"")),
    });
    let derp_map = fields.get("derpMap").and_then(|value| match value.members() {
        Some(_) => RawJson::parse(&problems.document().minify(value)).ok(),
        None => problems.at(value, format!("derpMap must be an object, not {}", value.kind_name())),
    });
    Settings {
        randomize_client_port: fields.boolean("randomizeClientPort", problems).unwrap_or_default(),
        disable_ipv4: fields.boolean("disableIPv4", problems).unwrap_or_default(),
        one_cgnat_route,
        derp_map,
    }
}
