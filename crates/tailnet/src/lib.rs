//! The coordination state of a tailnet as a value that decides, commits, and knows who must be told what.
//!
//! ```text
//! command ──▶ Server::decide ──▶ Decision { changes, reply } ──▶ written down by the driver, in one transaction
//!                  │ or Refusal: nothing happened                     │
//!                  └── looks only                                     ▼
//! Effects { wake, cut } ◀── Server::commit ◀──────────────────── the same changes
//!        │
//!        └──▶ each viewer's stream: Tailnet::netmap once, then Tailnet::delta(what it was last sent)
//! ```
//!
//! - A [`Tailnet`] is what its [`Change`]s make of nothing: a server that starts commits its tables' rows. Deciding never
//!   changes it; committing never fails. A [`Decision`] names the revision it looked at, so that of two decisions from
//!   the same revision only one can be written.
//! - [`Server`] holds the tailnets of one server and their [`Registry`]: numbers, addresses, and whose a key is.
//! - Where devices are right now ([`Presence`]) is told by [`Tailnet::touch`] and streams that open and close; it is
//!   written behind ([`Tailnet::take_presence`]). Which of several routers serves a route follows from it.
//! - Maps are made per viewer: what policy hides appears in nothing that is sent. What differs from what the viewer was
//!   last sent ([`Viewer`]) becomes one message, however much happened meanwhile.
//! - [`Logins`] are devices that wait for a person in a browser, [`Checks`] logins by SSH that do.
//!
//! Invariants: no address, number or node key belongs to two nodes; a node belongs to one tailnet; a request for a node
//! comes from the machine that registered it; a key that works once lets one device in; nobody takes the name of a tagged
//! device; a node is never among its own peers.
//!
//! What it does not do: read a clock, keep files, speak HTTP, check passwords or scopes of credentials (the driver did,
//! before it names the [`Actor`]), or understand policy (crate `policy`).

#![forbid(unsafe_code)]

mod address;
mod change;
mod check;
mod command;
mod decide;
mod description;
mod device;
mod effects;
mod login;
mod name;
mod netmap;
mod presence;
mod primary;
mod record;
mod refusal;
mod registry;
mod relays;
mod rules;
mod secret;
mod server;
mod tag;
mod tailnet;
mod trial;

pub use address::{AddressPool, Addresses, MESH_V4, MESH_V6, PoolExhausted};
pub use change::{Change, Table};
pub use check::{CheckId, Checks, PendingCheck, SshPath};
pub use command::{
    Actor, Command, Context, Decision, HostUpdate, KeyExpiry, NewApiToken, NewAuthKey, NewOAuthClient, NewPolicy,
    NewService, NewUser, PolicyPrecondition, Proof, Registered, Registration, Reply,
};
pub use effects::{Effects, Wake};
pub use login::{Awaited, LoginId, LoginRequest, LoginSource, LoginState, Logins, PendingLogin, Waiter};
pub use name::{Domain, DomainError, Label, LabelError};
pub use netmap::{Map, SshVerdict, Viewer};
pub use presence::{Presence, PresenceRecord, Report, StreamId};
pub use record::{
    ApiToken, AuthKey, DnsPatch, DnsSettings, KeySpent, LoginName, LoginNameError, NameServer, Node, OAuthClient,
    Owner, PasswordHash, PolicyRecord, Role, Service, ServiceName, ServiceNameError, Settings, SettingsPatch,
    TailnetId, TailnetRecord, TokenHolder, User, UserStatus,
};
pub use refusal::{Refusal, RefusalKind};
pub use registry::{Registry, TAGGED_DEVICES};
pub use secret::{KeyId, KeyKind, SecretHash, SecretText};
pub use server::{NewTailnet, Route, Server};
pub use tag::{Tag, TagError};
pub use tailnet::Tailnet;
pub use trial::{PolicyReview, PolicyTrial, TriedPolicy};
