//! The proxy between real clients and an API server: one that records what arrives, and the real one.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

mod kubernetes;
mod requests;
mod sessions;
mod streams;
mod world;
