//! The commands against real peers: a stock daemon on our coordination server, and the stock command beside ours.
//!
//! The stock programs come from the cache that `cargo xtask fetch` fills; their absence is a failure.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

mod command;
mod daemon;
mod support;
