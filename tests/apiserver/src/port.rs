//! Ports for programs that are told theirs.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

/// A port that nobody has. It lies below those that the kernel gives to whoever connects, so that nobody gets it before the
/// program that it is for does.
pub(crate) fn free() -> Result<u16> {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    let first = std::process::id().wrapping_mul(31);
    let tries = (0..COUNT).map(|_| FIRST + first.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % COUNT);
    let mut ports = tries.filter_map(|port| u16::try_from(port).ok());
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).context("no port of loopback is free")
}
