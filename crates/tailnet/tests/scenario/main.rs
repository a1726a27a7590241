//! Scenarios through the public interface: a server as its driver sees it, and what its devices make of their maps.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

mod client;
mod descriptions;
mod devices;
mod invariants;
mod keys;
mod maps;
mod policies;
mod registration;
mod users;
mod world;
