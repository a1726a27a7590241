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
///
/// [`Limits::memory`] says what it can come to in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections of all clients, sessions included.
    pub connections: usize,
    /// Connections of one device, whichever of its addresses they come from, sessions included.
    pub connections_per_device: usize,
    /// Requests that one connection over HTTP/2 may have under way; a client opens another connection for more.
    pub streams_per_connection: u32,
    /// Callers with anything under way.
    pub callers: usize,
    /// Requests under way of all callers, watches and sessions included.
    pub requests: usize,
    /// Requests under way of one caller, watches and sessions included.
    pub requests_per_caller: usize,
    /// Sessions of all callers: exec, attach, port-forward, cp.
    pub sessions: usize,
    /// Sessions of one caller.
    pub sessions_per_caller: usize,
    /// Connections to the API server: one for each caller over HTTP/2, and one for each session.
    pub upstream_connections: usize,
    /// Header fields of one request.
    pub headers: usize,
    /// Bytes of all header fields of one request.
    pub header_bytes: u32,
    /// The time for a TLS handshake, then for the first request, and for the head of each.
    pub head_time: Duration,
    /// After how long with nothing under way a connection is closed.
    pub idle_time: Duration,
    /// The time for a place among the connections to the API server, and then for connecting.
    pub connect_time: Duration,
    /// After how long the grant of what is under way is looked at again although nothing is known to have changed.
    pub recheck: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            connections_per_device: 48,
            streams_per_connection: 100,
            callers: 128,
            requests: 768,
            requests_per_caller: 384,
            sessions: 128,
            sessions_per_caller: 32,
            upstream_connections: 256,
            headers: 100,
            header_bytes: 32 << 10,
            head_time: Duration::from_secs(10),
            idle_time: Duration::from_secs(300),
            connect_time: Duration::from_secs(10),
            recheck: Duration::from_secs(30),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tailnet::{HANDSHAKES, HANDSHAKES_PER_DEVICE};

    #[test]
    fn the_guide_tells_every_limit_as_it_is() {
        let guide = include_str!("../../../docs/guide/api-server.md");
        let limits = Limits::default();
        let rows = [
            ("connections of one device, sessions included", limits.connections_per_device),
            ("connections of all devices", limits.connections),
            ("handshakes under way of one device", HANDSHAKES_PER_DEVICE),
            ("handshakes under way of all devices", HANDSHAKES),
            ("requests under way on one connection over HTTP/2", limits.streams_per_connection as usize),
            ("requests under way of one caller, watches and sessions included", limits.requests_per_caller),
            ("requests under way of all callers", limits.requests),
            ("sessions of one caller: exec, attach, cp, port-forward", limits.sessions_per_caller),
            ("sessions of all callers", limits.sessions),
            ("callers with anything under way", limits.callers),
            ("connections to the API server", limits.upstream_connections),
            ("header fields of one request", limits.headers),
            ("KiB of all header fields of one request", limits.header_bytes as usize >> 10),
            (
                "seconds for a TLS handshake, then for the first request, and for the head of each",
                limits.head_time.as_secs() as usize,
            ),
            ("seconds with nothing under way on a connection", limits.idle_time.as_secs() as usize),
        ];
        for (of, most) in rows {
            assert!(guide.contains(&format!("\n| {of} | {most} |")), "{of}: {most}");
        }
        let told = guide.lines().filter(|line| line.matches(" | ").count() == 2 && line.starts_with("| "));
        assert_eq!(told.count(), rows.len() + 1, "and the head of the table");
        assert!(guide.contains(&format!("503, after {} s", limits.connect_time.as_secs())));
    }
}
