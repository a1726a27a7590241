#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

//! Nodes through their public API, against coordination servers that do what a test says, on loopback.

mod certificate;
mod daemon;
mod login;
mod names;
mod rights;
mod user_space;
