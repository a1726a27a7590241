use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::admission::AdmissionConfig;
use super::mesh::MeshKey;
use super::stun::StunLimits;
use crate::client::Relay;
use dial::{Resolve, Roots};
use listen::CertificateFiles;

/// Everything that a relay needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where TLS is served.
    pub listen: Vec<SocketAddr>,
    /// Where plain HTTP is served, for captive-portal checks only; usually port 80.
    pub http_listen: Vec<SocketAddr>,
    /// Where STUN is answered; usually port 3478.
    pub stun_listen: Vec<SocketAddr>,
    /// Where health and metrics are served; on an address that only the machine's operator reaches.
    pub admin_listen: Option<SocketAddr>,
    /// The TLS certificate.
    pub certificate: CertificateFiles,
    /// The relay's own key; made when it does not exist.
    pub key_file: PathBuf,
    /// Who may use the relay.
    pub admission: AdmissionConfig,
    /// The other relays of the region, and the secret shared with them.
    pub mesh: Option<MeshConfig>,
    /// What `/bootstrap-dns` answers: names of this installation, for clients whose DNS is broken.
    pub bootstrap_dns: BTreeMap<String, Vec<IpAddr>>,
    /// How much a client, a source and all together may ask for.
    pub limits: Limits,
    /// How the relay resolves the names of who admits clients, and of other relays.
    pub resolver: Arc<dyn Resolve>,
    /// Which certificates it believes there.
    pub roots: Roots,
}

/// The mesh of a region's relays.
#[derive(Debug, Clone)]
pub struct MeshConfig {
    /// The secret that they share.
    pub key: MeshKey,
    /// The other relays; this one may be among them.
    pub relays: Vec<Relay>,
}

/// How much a client, a source and all together may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections altogether. One of an idle client holds about 11 kB of memory, measured with 4000 of them.
    pub connections: usize,
    /// Connections of one IPv4 address or IPv6 network of 64 bits that were not admitted as clients.
    pub connections_per_source: usize,
    /// New connections a second that are let into the TLS handshake; more wait their turn.
    pub accepts_per_second: u32,
    /// New connections a second from one source; more are turned away.
    pub accepts_per_source: u32,
    /// What one client may send, in bytes a second; its connection is read no faster. `None` for no limit.
    pub client_rate: Option<NonZeroU64>,
    /// What one client may send at once beyond that, in bytes.
    pub client_burst: u64,
    /// How long a connection may take to prove a key, or to ask its question.
    pub unproven_time: Duration,
    /// How long a client may take nothing of what is sent to it.
    pub write_timeout: Duration,
    /// How often an otherwise silent client hears that the relay is there; up to a twelfth more is added at random.
    pub keep_alive: Duration,
    /// How long clients are still served after they were told that the relay stops.
    pub restart_time: Duration,
    /// Limits of STUN.
    pub stun: StunLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 50_000,
            connections_per_source: 64,
            accepts_per_second: 200,
            accepts_per_source: 100,
            client_rate: NonZeroU64::new(50_000_000 / 8),
            client_burst: 1 << 20,
            unproven_time: Duration::from_secs(10),
            write_timeout: Duration::from_secs(2),
            keep_alive: Duration::from_secs(60),
            restart_time: Duration::from_secs(2),
            stun: StunLimits::default(),
        }
    }
}
