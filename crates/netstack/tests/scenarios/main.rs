//! The stack through its public interface: over a simulated network, against hostile peers, against the kernel's TCP.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

mod forwarding;
mod hostile;
mod kernel;
mod network;
mod transfer;
mod tun;
