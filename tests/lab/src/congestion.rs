//! TCP congestion control: the same in every box of every machine.

use std::fs;

use anyhow::{Context, Result};

/// What every box and pod uses, whatever the machine's own default is.
pub(crate) const CONGESTION_CONTROL: &str = "cubic";

const ALLOWED: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";

/// Lets network namespaces choose [`CONGESTION_CONTROL`].
///
/// The kernel lets a namespace other than the first set a default only from the machine's list of allowed algorithms, and
/// gives a new namespace the machine's default. The list is the one thing that the laboratory changes on the machine and leaves
/// so: it is a permission, and grows by an algorithm that most machines allow from the start.
pub(crate) fn allow() -> Result<()> {
    let allowed = fs::read_to_string(ALLOWED).with_context(|| format!("reading {ALLOWED}"))?;
    if allowed.split_whitespace().any(|name| name == CONGESTION_CONTROL) {
        return Ok(());
    }
    fs::write(ALLOWED, format!("{} {CONGESTION_CONTROL}", allowed.trim())).with_context(|| {
        format!("adding {CONGESTION_CONTROL} to {ALLOWED} (is the kernel module tcp_{CONGESTION_CONTROL} there?)")
    })
}
