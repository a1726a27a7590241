//! Which way to a peer: direct paths, relays, and what this node must know of the network around it to find them.
//!
//! What it does not do: send or receive. It has no socket, clock, thread or randomness of its own. Peer relays, port
//! mapping and path MTU discovery are not here yet; a port mapping found elsewhere is taken as an input.
//!
//! Three state machines, which know nothing of each other; whoever owns the sockets passes on what they tell:
//!
//! - [`Paths`] decides for each peer where its packets go, by disco pings, call-me-maybe and what WireGuard
//!   authenticates. What a data thread must know of it is one [`PathChoice`] for each peer: a value, to be published in
//!   whatever slot the thread reads.
//! - [`Netcheck`] measures the network by STUN and chooses the relay region where this node waits for its peers, its home.
//! - [`Endpoints`] keeps the list of addresses where this node says it can be reached.
//!
//! ```text
//!  interfaces ─────────────┐
//!  STUN ──> Netcheck ──────┴─> Endpoints ──> the control server
//!              ├─ home ──> Paths <──┘ (current, after each report)
//!              └─ next measurement <── Paths: EndpointsWanted, is_active
//! ```
//!
//! Each is driven in the same way: `handle_…` with what happened and when, then `poll_transmit` and `poll_event` until
//! they are empty, then `handle_timeout` at what `poll_timeout` says. Time and randomness are arguments, so that the same
//! inputs give the same outputs.
//!
//! Invariants:
//!
//! - No path is used that no pong from the peer has proven; where packets come from changes nothing by itself.
//! - An idle peer has no timer and is sent nothing.
//! - Whatever peers and relays send, memory and packets per peer stay bounded.

#![forbid(unsafe_code)]

mod address;
mod budget;
pub mod endpoints;
pub mod netcheck;
pub mod paths;
mod region;
mod relay_map;
mod way;

pub use endpoints::{Endpoint, EndpointKind, Endpoints, PortMapped, Sockets};
pub use netcheck::{NatKind, Netcheck, Report};
pub use paths::{Paths, PeerConfig, PeerStatus, RelayState, UserPing};
pub use region::RegionId;
pub use relay_map::{Region, RelayMap, RelayNode};
pub use way::{Answer, Families, PathChoice, Transmit, Via, Way};
