//! The client: one connection to one relay. When to connect, and again after it ended, is the caller's.
//!
//! [`Dialer`] knows how this machine reaches the world (names, trusted roots, marks on sockets, a proxy), [`Relay`] where
//! a relay is and how it proves itself, [`Connection`] is what comes of the two and a node key. A connection is driven by
//! one task: [`Connection::next`] waits for an event and writes, meanwhile, whatever the other calls queued.

mod connection;
mod dialer;
mod opening;
mod upgrade;
mod verifier;

pub use connection::{Connection, ConnectionError, Event, SendError};
pub use dialer::{Address, Dialer, Proxy, Relay, RelayIdentity, SocketSetup};
pub use opening::{ConnectError, Options};
