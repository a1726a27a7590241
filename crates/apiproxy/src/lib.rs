//! The Kubernetes API server proxy: whoever reaches it over the tailnet is to the cluster who they are to the tailnet.
//!
//! What it does not do: join the tailnet (whoever runs it makes an [`Entrance`]: who stands behind an address, see
//! [`Identify`], and where connections come from, see [`Listener`]; [`TailnetIdentities`] and [`TailnetListener`] are these
//! for a [`node`]), authorize (the cluster's RBAC does), or record sessions (a grant that enforces recording closes what
//! would have to be recorded).
//!
//! A request passes: TLS and HTTP ([`Server`]), the question who stands behind its source address ([`Identify`]), the rules
//! of the capability `tailscale.com/cap/kubernetes` ([`Impersonated`]), the removal of every header that could name
//! somebody (`headers`), and the one client of the cluster's API server (`upstream`), which takes nothing but a request
//! that was built from an `Impersonated`.
//!
//! Invariants:
//!
//! - No request reaches the API server with the proxy's own identity, or with two: the identity headers are removed by
//!   prefix, set once, and looked at again just before the request leaves. Any doubt on the way ends the request.
//! - Only groups that the proxy's own configuration lists are impersonated, and no user whose name begins with `system:`.
//! - A stream ends when the grant it began with does: on every change of the network map, and at intervals.
//! - Bodies stream; no more of one is held than the windows of its two connections, and of all together no more than
//!   [`Limits::memory`] says.

#![forbid(unsafe_code)]

mod abrupt;
mod access;
mod answer;
mod arguments;
mod callers;
mod capability;
mod cluster;
mod config;
mod connection;
mod gate;
mod grant;
mod headers;
mod identity;
mod impersonation;
mod leash;
mod listener;
mod memory;
mod metrics;
mod path;
mod proxy;
mod server;
mod status;
mod tailnet;
mod tunnel;
mod upstream;
mod uses;

pub use arguments::Arguments;
pub use capability::{CAPABILITY, LEGACY_CAPABILITY};
pub use cluster::{Cluster, ClusterError};
pub use config::{Config, Limits};
pub use identity::{Identify, IdentifyError, Identity};
pub use impersonation::{Allowed, Impersonated, Refusal};
pub use listener::{AdmittedStream, Listener};
pub use server::{Entrance, Server};
pub use tailnet::{TailnetIdentities, TailnetListener};
