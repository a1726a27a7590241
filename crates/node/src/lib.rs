//! A node of the mesh: the daemon that `towline node` runs, and a library for programs that are nodes themselves.
//!
//! [`Node::start`] makes a [`Config`] run: it logs in to a coordination server, keeps a map of the network, moves packets
//! ([`engine`]) between peers and either an interface of the machine ([`host`]) or an IP stack of its own
//! ([`UserSpace`]), and serves the LocalAPI that command lines use. A [`Node`] is a handle: [`Node::snapshot`] and
//! [`Node::watch`] tell how it stands, [`Node::whois`] who stands behind an address.
//!
//! [`Node::certificate`] is what a TLS server of the node shows.
//!
//! - `control`: the client of the coordination server; `daemon`: the one task that owns all state; `local_api` and `dns`:
//!   what it serves; [`StateStore`]: where keys and settings are kept.
//!
//! Invariants:
//! - One task decides. Everybody else sees a [`Snapshot`], whole and never half changed, and sends wishes.
//! - The coordination server may go away: what it last said stays in force, also after a restart.
//! - The machine is changed through `host` only, and is left as it was found.
//! - Nothing is served on a network but what the LocalAPI's socket, the mesh and MagicDNS are for.
//!
//! What it does not do: encrypt, find paths, or judge packets: those are `engine`'s, `mesh`'s and `filter`'s.

#![forbid(unsafe_code)]

mod arguments;
mod certificate;
mod config;
mod control;
mod control_pings;
mod daemon;
mod dns;
mod hostinfo;
mod identity;
mod local_api;
mod node;
mod other_daemon;
mod snapshot;
mod store;
mod user_space;

pub use arguments::Arguments;
pub use certificate::{CertificateStanding, NodeCertificate};
pub use config::{AuthKey, Config, DeviceConfig, Wishes};
pub use control::{ControlUrl, ControlUrlError};
pub use dial::{Resolve, Roots};
pub use dns::machine_resolver;
pub use mesh::{BackendState, Mesh, Preferences, Status, Whois};
pub use netstack::{Datagram, Destination, Listen};
pub use node::{Node, NodeError, run};
pub use snapshot::Snapshot;
pub use store::{FileStore, MemoryStore, StateChange, StateStore, StoreError};
pub use user_space::{Incoming, TcpListener, TcpStream, UdpForwarder, UdpSocket, UserSpace};

/// What this program's client understands of the control protocol.
pub const CAPABILITY_VERSION: u32 = tailcfg::CapabilityVersion::OURS.0;

/// This program's version, as it tells it to servers and command lines.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "-towline");
