//! The policy of a tailnet: who reaches what, read from HuJSON, checked, compiled against the nodes there are, and
//! explained.
//!
//! - [`hujson`]: the text, with its comments, kept byte for byte.
//! - [`Policy`]: what the text says, with every name resolved; a policy that can't be read is refused with line, column
//!   and the words of the hosted service ([`PolicyError`]).
//! - [`Topology`]: the users, nodes, routes and services of a tailnet, as the caller has them.
//! - [`Compiled`]: both together. It answers for each node: its packet filter, its peers, what it is told of their
//!   addresses, its SSH rules, its attributes, what is approved at once; and for people: why, and what a change opens and
//!   closes.
//!
//! Invariants:
//! - What a policy doesn't allow is refused. A rule only ever adds.
//! - Filters, visibility, tests and explanations come from the same sets; none has a reading of the policy of its own.
//! - Work is by sets of nodes ([`roaring`] bitmaps), never by pairs of nodes.
//!
//! What it does not do: keep policies, elect the routers of a route, give out addresses, or speak the control protocol;
//! of that it only knows the filter rules, which are [`filter`]'s.

#![forbid(unsafe_code)]

mod alias;
mod compiled;
mod diff;
mod fields;
pub mod hujson;
mod internet;
mod policy;
mod ports;
mod problem;
mod ranges;
mod report;
mod topology;
mod verify;
mod why;
mod words;

pub use alias::{Alias, AliasError, Autogroup, Role, Tag};
pub use compiled::{
    Affected, AllowedIps, CapabilityDecision, Change, Compiled, Decision, Lack, NearMiss, OwnerIdentity, Pair, Party,
    Query, SshDecision, SshGrant,
};
pub use diff::{CutOff, Difference, Reach};
pub use policy::{
    Approvers, Condition, Effect, Group, GroupMember, NodeAttributes, Origin, Policy, PostureValue, Requirement, Rule,
    Section, Settings, SshAction, SshRule, SshTest, SshUser, Test,
};
pub use ports::{Ports, PortsError, parse_protocol};
pub use problem::{PolicyError, Problem};
pub use report::{Finding, Report};
pub use topology::{Node, NodeId, Owner, Service, Topology, User, UserId, is_exit_route};
pub use verify::TestFailure;
pub use why::{Answer, Citation, Explanation, Question, QuestionError, Subject, Verdict};
