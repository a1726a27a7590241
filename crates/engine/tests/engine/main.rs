//! Engines through their public API: real sockets on loopback, a real relay, and devices in memory.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

mod direct;
mod hostile;
mod relayed;
mod support;
