//! What the crate does to a machine, in network namespaces of the tests' own. They need root.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

mod dns;
mod firewall;
mod forwarding;
mod monitor;
mod namespace;
mod rights;
mod routes;
mod tun;
