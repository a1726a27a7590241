//! A node in a pod: `towline proxy`, what a Service or a Connector of the cluster becomes in the tailnet.
//!
//! The operator says in [`kubeapi::contract`] what such a pod is given and must give back; this crate is the other side
//! of it. An [`Environment`] is understood as a [`Config`], and [`run`] lives by it:
//!
//! - *ingress*: what the tailnet sends to the node's own addresses goes to an address or a name of the cluster;
//! - *egress*: what the cluster sends to the pod's addresses goes to an address or a name of the tailnet;
//! - *connector*: the networks that the configuration names are offered to the tailnet.
//!
//! In user space each flow ends here and begins anew on the other side, the backend first. In kernel mode packets pass
//! by nf_tables, and this crate keeps the rules.
//!
//! ```text
//!   configuration folder ──▶ settings ──┐                             ┌──▶ relay, ingress, egress (user space)
//!                                       ├─▶ membership ──▶ forwarder ─┼──▶ rules (kernel)
//!   state Secret ◀──▶ secret, account ──┘   a node                    └──▶ health, which the probe asks
//! ```
//!
//! A [`Membership`] alone is for other workloads that are nodes by the same contract: what they do is their [`Duty`].
//!
//! Invariants:
//! - Nothing that is missing ends a proxy or makes it start over and over: it waits, says in one line for what, and goes
//!   on with what it has. A variable that contradicts another is the exception: only a new pod helps.
//! - Of the cluster it touches its own state Secret, by `get` and `patch`, and nothing else.
//! - A client gets an answer only after its backend; a family without a destination is refused, never sent elsewhere.
//! - No traffic is sent to loopback, link-local, multicast or unspecified addresses, nor by name to the API server.
//! - The device's id is told before anything can fail, so that the operator can always remove it.
//!
//! What it does not do: speak the tailnet's protocols or keep a node running, which is [`node`]'s; decide who may reach
//! what, which is the policy's; make or remove anything in the cluster or the tailnet, which is the operator's.

#![forbid(unsafe_code)]

mod account;
mod address;
mod arguments;
mod backends;
mod backoff;
mod config;
mod egress;
mod environment;
#[cfg(test)]
mod fake_api_server;
mod forwarder;
mod health;
mod ingress;
mod membership;
mod offer;
mod relay;
mod rules;
mod run;
mod secret;
mod settings;
mod standing;
mod target;
mod traffic;

pub use arguments::{Arguments, Probe, Task};
pub use config::{Config, Destination, Member, Pod, Port, Purpose, Target, Transport};
pub use environment::{Environment, EnvironmentError};
pub use health::{Unwell, ask};
pub use kubeapi::{MissingTarget, NodeConfig};
pub use membership::{Duty, Membership, Surroundings};
pub use run::run;
