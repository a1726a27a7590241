//! The relay and its client through their public API: what users see, what attackers try, and stock peers on both sides.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

mod admission;
mod attacks;
mod clients;
mod interop;
mod mesh;
mod pages;
mod support;
