//! The proxy between real clients and an API server: one that records what arrives, and the real one.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

mod bounds;
mod generated;
mod http2;
mod kubernetes;
mod metrics;
mod people;
mod pressure;
mod recording;
mod requests;
mod sessions;
mod streams;
mod token;
mod world;
