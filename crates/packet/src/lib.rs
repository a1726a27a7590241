//! Every packet format that Towline reads or writes, as views over bytes and as values.
//!
//! What it does not do: send, receive, keep state between packets, or decide whether a packet is welcome.
//!
//! A *view* (`Ipv4`, `Tcp`, `Frame`) borrows the bytes it describes and can only be had from bytes that are long enough
//! for every field it hands out, so that no accessor fails. A *representation* (`…Repr`) is a value that is written out
//! as a packet; lengths and checksums are never a caller's business. No input makes this crate panic, and none makes it
//! allocate more than the input is long.
//!
//! - [`ip`], [`tcp`], [`udp`], [`icmp`], [`tsmp`]: what travels inside the tunnel; [`checksum`] sums and patches it.
//! - [`stun`], [`geneve`], [`disco`]: what travels beside WireGuard on the same socket; [`demux`] tells them apart.
//! - [`derp`]: the frames between a relay and its clients. [`wireguard`]: the four messages between nodes.

#![forbid(unsafe_code)]

pub mod checksum;
pub mod demux;
pub mod derp;
pub mod disco;
mod endpoint;
pub mod geneve;
pub mod icmp;
pub mod ip;
mod malformed;
pub mod stun;
pub mod tcp;
pub mod tsmp;
pub mod udp;
pub mod wireguard;

pub use malformed::Malformed;
