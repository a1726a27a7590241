//! The relay and its client: packets between nodes that can't reach each other, by public key, over TLS.
//!
//! What it does not do: open a packet (it sees ciphertext only), decide who belongs to a tailnet (the relay is told, see
//! [`server::AdmissionConfig`]), choose a relay, or connect again after a connection ended: both are the node's.
//!
//! - [`client`]: one connection to one relay.
//! - [`server`]: the relay, with everything that clients expect of its host: DERP over TLS and WebSocket, STUN, probes,
//!   captive-portal checks.
//!
//! Both sides cut the stream into frames with `packet::derp` and drive it through the same link: one task per connection
//! that reads, writes and keeps time, so that neither direction ever waits for the other.
//!
//! Invariants:
//!
//! - A client's packets are taken only after it has proven its key and was admitted; zero bytes are relayed before.
//! - Nothing that a client does makes another client's queue longer than its bound, or memory grow with a claimed length.
//! - A connection that carries nothing holds no read buffer: threads share theirs between connections.
//! - The path of a packet takes no lock that all clients share.

#![forbid(unsafe_code)]

mod bucket;
pub mod client;
mod https;
mod info;
mod link;
pub mod server;
mod wire;

pub use info::InfoError;
