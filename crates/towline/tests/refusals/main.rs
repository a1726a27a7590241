//! Bad input and broken surroundings, as users of the binary meet them: what it says, with which exit code, and that it
//! goes on by itself once things are as they should be.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

mod certificates;
mod devices;
mod disk;
mod guide;
mod hints;
mod keys;
mod missing;
mod pod;
mod policy;
mod program;
mod server;
mod state;
mod tailnets;
mod tls;
