use std::net::IpAddr;
use std::time::Duration;

/// What a stack is and how much it may hold.
#[derive(Debug, Clone)]
pub struct Config {
    /// The addresses that are the node's own: pings are answered there, and closed ports refused.
    pub addresses: Vec<IpAddr>,
    /// The longest packet that the link carries, in bytes; at least 1280.
    pub mtu: u16,
    /// Whether TCP over IPv4 may leave as super-packets longer than `mtu` ([`crate::Transmit::segment`]).
    pub offload: bool,
    /// Where sequence numbers and ephemeral ports start from; a new random value for each stack.
    pub seed: u64,
    /// What all windows together may hold, in bytes, receiving and sending.
    ///
    /// A connection that begins when `n` others live gets an eighth of this divided by `n + 1`, half of it for each
    /// direction, but between 64 KiB and 4 MiB a direction: 4 MiB is what 1.6 Gb/s at 20 ms need. The harmonic series keeps
    /// the sum below this value up to 1600 connections, whatever the order in which they begin and end; the floor of
    /// 128 KiB each comes on top.
    pub memory: usize,
    /// How many TCP connections there may be, those that wait for an answer included.
    pub connections: usize,
    /// How many TCP connections that began there one remote address may have, those that linger included, which make room
    /// for a new one, the oldest first: whoever never says goodbye keeps no place from anybody.
    pub connections_per_source: usize,
    /// How many TCP connections that are not established yet one remote address may have.
    pub handshakes_per_source: usize,
    /// How long a TCP handshake may take, the time for [`crate::Stack::accept`] included.
    pub handshake_time: Duration,
    /// After how long an idle TCP connection is asked whether it is still there.
    pub keep_alive: Duration,
    /// After how long without any answer a TCP connection is given up; longer than `keep_alive`.
    pub unanswered_time: Duration,
    /// How long a connection that the caller has released may take to send what is left and to say goodbye, unless it has
    /// to make room before.
    pub linger: Duration,
    /// How many forwarded UDP flows there may be; the one that is idle for longest makes room.
    pub udp_flows: usize,
    /// How many forwarded UDP flows one remote address may have.
    pub udp_flows_per_source: usize,
    /// After how long without a datagram in either direction a forwarded UDP flow ends.
    pub udp_idle: Duration,
    /// Whether pings to addresses that are not the node's own become [`crate::Event::Ping`], for the caller to send on.
    pub forward_pings: bool,
}

impl Config {
    /// The usual bounds, for a node with these addresses on a link with the least MTU of IPv6.
    pub fn new(addresses: Vec<IpAddr>, seed: u64) -> Self {
        Self {
            addresses,
            mtu: 1280,
            offload: true,
            seed,
            memory: 256 << 20,
            connections: 4096,
            connections_per_source: 1024,
            handshakes_per_source: 128,
            handshake_time: Duration::from_secs(30),
            keep_alive: Duration::from_secs(30),
            unanswered_time: Duration::from_secs(150),
            linger: Duration::from_secs(60),
            udp_flows: 4096,
            udp_flows_per_source: 1024,
            udp_idle: Duration::from_secs(120),
            forward_pings: false,
        }
    }

    /// The window of each direction of a connection that begins when `live` others live.
    pub(crate) fn window(&self, live: usize) -> usize {
        const LEAST: usize = 64 << 10;
        const MOST: usize = 4 << 20;
        (self.memory / 16 / (live + 1)).clamp(LEAST, MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_connection_gets_what_a_gigabit_at_20_ms_needs() {
        assert!(Config::new(Vec::new(), 1).window(0) >= 2_500_000);
    }

    #[test]
    fn the_windows_of_many_connections_stay_within_the_budget() {
        let config = Config::new(Vec::new(), 1);
        let floor = 64 << 10;
        let shared: usize = (0..1600).map(|live| config.window(live)).filter(|window| *window > floor).sum();
        assert!(2 * shared <= config.memory, "{shared}");
        assert_eq!(config.window(1599), floor);
    }
}
