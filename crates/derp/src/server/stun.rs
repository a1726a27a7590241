//! STUN on UDP: tells nodes, and nobody else, from which address their packets come.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use listen::{network, site};
use packet::stun;
use telemetry::Shutdown;
use tokio::net::UdpSocket;

use super::metrics::{RelayMetrics, StunResult};
use super::second_counts::SecondCounts;

/// Longer than any request: what fills it is none.
const BUFFER: usize = 128;

/// Limits of the answers that one source, and one network, gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StunLimits {
    /// Answers a second to one IPv4 address or IPv6 network of 64 bits.
    pub per_source: u32,
    /// Answers a second to one IPv4 network of 24 bits or IPv6 network of 48: what a flood with forged sources can
    /// have sent to somebody else's network.
    pub per_network: u32,
}

impl Default for StunLimits {
    fn default() -> Self {
        Self { per_source: 10, per_network: 200 }
    }
}

/// Answers requests until shutdown.
pub(crate) async fn serve(socket: UdpSocket, limits: StunLimits, metrics: RelayMetrics, shutdown: Shutdown) {
    let mut gate = Gate::new(limits, Instant::now());
    let mut buffer = [0; BUFFER];
    loop {
        let received = tokio::select! {
            () = shutdown.requested() => return,
            received = socket.recv_from(&mut buffer) => received,
        };
        // An error is that of an earlier answer (a port that nobody listens on), not of the socket.
        let Ok((length, source)) = received else { continue };
        let result = match stun::parse_request(&buffer[..length]) {
            Err(_) => StunResult::Malformed,
            Ok(_) if !gate.passes(source.ip(), Instant::now()) => StunResult::Limited,
            Ok(transaction) => answer(&socket, transaction, source),
        };
        metrics.count_stun(result);
    }
}

fn answer(socket: &UdpSocket, transaction: stun::TransactionId, source: SocketAddr) -> StunResult {
    // Waiting for a full send buffer would hold up everybody; the asker asks again.
    match socket.try_send_to(&stun::response(transaction, source), source) {
        Ok(_) => StunResult::Answered,
        Err(_) => StunResult::Unsent,
    }
}

/// Limits answers by source and by network, in memory that no number of sources makes grow.
#[derive(Debug)]
struct Gate {
    limits: StunLimits,
    sources: SecondCounts,
    networks: SecondCounts,
}

impl Gate {
    fn new(limits: StunLimits, now: Instant) -> Self {
        Self { limits, sources: SecondCounts::new(now), networks: SecondCounts::new(now) }
    }

    fn passes(&mut self, source: IpAddr, now: Instant) -> bool {
        // Asked in this order, a source that floods uses up its own share and not its network's.
        self.sources.take(&site(source), self.limits.per_source, now)
            && self.networks.take(&network(source), self.limits.per_network, now)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::time::Duration;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn drp_09_a_source_gets_its_limit_of_answers_in_a_second() {
        let start = Instant::now();
        let mut gate = Gate::new(StunLimits::default(), start);
        let passed = |gate: &mut Gate, now| (0..1000).filter(|_| gate.passes(address("203.0.113.1"), now)).count();
        assert_eq!(passed(&mut gate, start), 10);
        assert_eq!(passed(&mut gate, start + Duration::from_secs(1)), 10);
        assert!(gate.passes(address("203.0.113.2"), start + Duration::from_secs(1)));
    }

    #[test]
    fn drp_09_a_flood_with_forged_sources_sends_a_network_no_more_than_its_limit() {
        let start = Instant::now();
        let mut gate = Gate::new(StunLimits::default(), start);
        let passed = (0..=255)
            .cycle()
            .take(20_000)
            .filter(|last| gate.passes(IpAddr::V4(Ipv4Addr::new(203, 0, 113, *last)), start));
        assert_eq!(passed.count(), 200);
        assert!(gate.passes(address("198.51.100.1"), start));
    }

    #[test]
    fn an_ipv6_site_is_one_source() {
        let start = Instant::now();
        let mut gate = Gate::new(StunLimits::default(), start);
        let passed = (0..100u16)
            .filter(|last| gate.passes(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0, 0, 0, *last)), start));
        assert_eq!(passed.count(), 10);
    }
}
