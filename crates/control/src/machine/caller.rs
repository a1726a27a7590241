use std::net::SocketAddr;

use crypto::MachinePublic;
use tailcfg::CapabilityVersion;

/// Who is at the other end of a Noise channel: whoever holds this machine key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The machine key, proven by the handshake.
    pub machine: MachinePublic,
    /// The capability version that the handshake announced.
    pub version: CapabilityVersion,
    /// Where the connection comes from.
    pub source: SocketAddr,
}
