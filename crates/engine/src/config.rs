use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crypto::NodePrivate;
use derp::client::{Proxy, SocketSetup};
use dial::{Ledger, Resolve, Roots};

/// What an engine needs to start. Peers, routes and filter come later, as a view.
#[derive(Clone)]
pub struct Config {
    /// The node's key. An engine keeps it for life: a node with a new key starts another engine.
    pub key: NodePrivate,
    /// The UDP port of both families; 0 lets the system choose one, which a rebind then tries to keep.
    pub port: u16,
    /// What is done to every socket before it is used (a mark, a binding to an interface): UDP and relay connections.
    pub socket_setup: Option<SocketSetup>,
    /// The authorities that relays are believed by.
    pub roots: Roots,
    /// How names of relays are resolved.
    pub resolver: Arc<dyn Resolve>,
    /// The HTTPS proxy that relays are reached through.
    pub proxy: Option<Proxy>,
    /// Where connections to relays are written down: whom to, and how many bytes.
    pub ledger: Ledger,
    /// Endpoints that the user says lead to this node.
    pub explicit_endpoints: Vec<SocketAddr>,
    /// Sends everything by relay: UDP sockets are opened for nothing but STUN.
    pub relay_only: bool,
    /// Which of the kernel's batching is used, where the kernel has it.
    pub offloads: Offloads,
    /// What the relay's statistics call this program; at most 32 printable ASCII characters.
    pub app_name: String,
}

/// Which batching may be used. All of it is tried and given up where the kernel or a network card has none: turning it
/// off is for hardware that claims to have it and corrupts packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offloads {
    /// UDP segmentation: one system call for a train of up to 64 datagrams.
    pub udp_gso: bool,
    /// UDP coalescing: up to 64 datagrams of one sender in one read.
    pub udp_gro: bool,
    /// Joining TCP segments before they are written to the device.
    pub device_tcp: bool,
    /// Joining UDP datagrams before they are written to the device.
    pub device_udp: bool,
}

impl Offloads {
    /// All of it.
    pub const ALL: Self = Self { udp_gso: true, udp_gro: true, device_tcp: true, device_udp: true };
    /// None of it.
    pub const NONE: Self = Self { udp_gso: false, udp_gro: false, device_tcp: false, device_udp: false };

    /// Reads what a user turned off: words `udp-gso`, `udp-gro`, `device-tcp`, `device-udp` or `all`, by commas.
    ///
    /// # Errors
    ///
    /// With a sentence that names the word, when one is none of these.
    pub fn without(words: &str) -> Result<Self, String> {
        let mut offloads = Self::ALL;
        for word in words.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word {
                "udp-gso" => offloads.udp_gso = false,
                "udp-gro" => offloads.udp_gro = false,
                "device-tcp" => offloads.device_tcp = false,
                "device-udp" => offloads.device_udp = false,
                "all" => offloads = Self::NONE,
                _ => {
                    return Err(format!("{word:?} is no offload; use udp-gso, udp-gro, device-tcp, device-udp or all"));
                }
            }
        }
        Ok(offloads)
    }
}

impl Config {
    /// A node with a random port and all offloads.
    pub fn new(key: NodePrivate, roots: Roots, resolver: Arc<dyn Resolve>) -> Self {
        Self {
            key,
            port: 0,
            socket_setup: None,
            roots,
            resolver,
            proxy: None,
            ledger: Ledger::default(),
            explicit_endpoints: Vec::new(),
            relay_only: false,
            offloads: Offloads::ALL,
            app_name: "towline".to_owned(),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("node", &self.key.public())
            .field("port", &self.port)
            .field("proxy", &self.proxy)
            .field("explicit_endpoints", &self.explicit_endpoints)
            .field("relay_only", &self.relay_only)
            .field("offloads", &self.offloads)
            .finish_non_exhaustive()
    }
}

/// Why an engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Neither family has a socket.
    #[error("no UDP socket at port {port}: {source}; choose another port, or 0 for any that is free")]
    Socket {
        /// The port that was asked for.
        port: u16,
        /// What the system said of IPv4.
        source: io::Error,
    },
    /// The system has no threads, descriptors or memory left.
    #[error("the {what} of the data plane could not be made: {source}")]
    System {
        /// What it was.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offloads_are_turned_off_by_name() {
        let expected = Offloads { udp_gso: false, device_tcp: false, ..Offloads::ALL };
        assert_eq!(Offloads::without("udp-gso, device-tcp"), Ok(expected));
        assert_eq!(Offloads::without(""), Ok(Offloads::ALL));
        assert_eq!(Offloads::without("all"), Ok(Offloads::NONE));
        assert!(Offloads::without("tso").is_err());
    }
}
