use std::net::SocketAddr;
use std::time::Duration;

use crate::{Allowed, Cluster};

/// What a proxy is and how much it may hold.
#[derive(Debug, Clone)]
pub struct Config {
    /// The API server.
    pub cluster: Cluster,
    /// Who may be impersonated.
    pub allowed: Allowed,
    /// Where `/healthz`, `/readyz` and `/metrics` are served, if anywhere.
    pub admin_listen: Option<SocketAddr>,
    /// How much there may be at once.
    pub limits: Limits,
}

/// How much there may be at once, and how long it may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections of all clients.
    pub connections: usize,
    /// Connections of one address.
    pub connections_per_source: usize,
    /// Requests under way of one caller, watches included.
    pub requests_per_caller: usize,
    /// Upgraded connections of one caller: exec, attach, port-forward, cp.
    pub upgrades_per_caller: usize,
    /// Header fields of one request.
    pub headers: usize,
    /// Bytes of all header fields of one request.
    pub header_bytes: u32,
    /// The time for a TLS handshake, then for the first request, and for the head of each.
    pub head_time: Duration,
    /// The time for connecting to the API server.
    pub connect_time: Duration,
    /// After how long the grant of what is under way is looked at again although nothing is known to have changed.
    pub recheck: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            connections_per_source: 64,
            requests_per_caller: 1000,
            upgrades_per_caller: 32,
            headers: 100,
            header_bytes: 64 << 10,
            head_time: Duration::from_secs(10),
            connect_time: Duration::from_secs(10),
            recheck: Duration::from_secs(30),
        }
    }
}
