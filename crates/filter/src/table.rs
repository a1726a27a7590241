use std::net::{IpAddr, SocketAddr};

use crate::{Flow, Protocol};

/// Flows a set holds before it evicts one.
const WAYS: usize = 8;

/// The flows that a node began, so that answers come back in: bounded, and what was used last stays longest.
///
/// The table is a cache of [`WAYS`]-way sets, each with a clock hand: a flow that was used since the hand passed is
/// spared once. Lookups look at one set and allocate nothing.
#[derive(Clone, Debug)]
pub struct FlowTable {
    sets: Box<[FlowSet]>,
    seed: u64,
}

#[derive(Clone, Debug, Default)]
struct FlowSet {
    flows: [Option<OutboundFlow>; WAYS],
    used: u8,
    hand: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OutboundFlow {
    protocol: Protocol,
    source: SocketAddr,
    destination: SocketAddr,
}

impl FlowTable {
    /// A table for at least `capacity` flows (8 or more). `seed` should be random: it keeps a remote from choosing ports
    /// that crowd one corner of the table.
    pub fn new(capacity: usize, seed: u64) -> Self {
        let sets = capacity.div_ceil(WAYS).next_power_of_two();
        Self { sets: vec![FlowSet::default(); sets].into_boxed_slice(), seed }
    }

    /// How many flows the table can hold.
    pub fn capacity(&self) -> usize {
        self.sets.len() * WAYS
    }

    /// Remembers a flow that this node sends. Only UDP and SCTP need it; others are ignored.
    pub fn record(&mut self, outbound: &Flow) {
        if !matches!(outbound.protocol, Protocol::UDP | Protocol::SCTP) {
            return;
        }
        let flow =
            OutboundFlow { protocol: outbound.protocol, source: outbound.source, destination: outbound.destination };
        self.set_of(&flow).record(flow);
    }

    /// Whether an inbound flow answers one that was recorded. A flow that is asked for stays longer.
    pub fn expects(&mut self, inbound: &Flow) -> bool {
        let flow =
            OutboundFlow { protocol: inbound.protocol, source: inbound.destination, destination: inbound.source };
        self.set_of(&flow).touch(&flow)
    }

    fn set_of(&mut self, flow: &OutboundFlow) -> &mut FlowSet {
        let mut hash = self.seed ^ u64::from(flow.protocol.0);
        for end in [flow.source, flow.destination] {
            let address = match end.ip() {
                IpAddr::V4(address) => u128::from(address.to_bits()),
                IpAddr::V6(address) => address.to_bits(),
            };
            hash = mix(hash ^ address as u64, (address >> 64) as u64 ^ u64::from(end.port()));
        }
        let mask = self.sets.len() - 1;
        &mut self.sets[mix(hash, self.seed) as usize & mask]
    }
}

impl FlowSet {
    fn touch(&mut self, flow: &OutboundFlow) -> bool {
        let found = self.flows.iter().position(|known| known.as_ref() == Some(flow));
        if let Some(way) = found {
            self.used |= 1 << way;
        }
        found.is_some()
    }

    fn record(&mut self, flow: OutboundFlow) {
        if self.touch(&flow) {
            return;
        }
        let way = self.flows.iter().position(Option::is_none).unwrap_or_else(|| self.evict());
        // Not marked as used: of flows that were never answered, the oldest goes first.
        self.flows[way] = Some(flow);
    }

    fn evict(&mut self) -> usize {
        while self.used & (1 << self.hand) != 0 {
            self.used &= !(1 << self.hand);
            self.hand = (self.hand + 1) % WAYS as u8;
        }
        let way = usize::from(self.hand);
        self.hand = (self.hand + 1) % WAYS as u8;
        way
    }
}

/// Folds a product of odd multiples: every bit of both sides reaches the result.
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0x9e37_79b9_7f4a_7c15) * u128::from(b ^ 0xd6e8_feb8_6659_fd93);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbound(port: u16) -> Flow {
        Flow::udp(SocketAddr::from(([100, 64, 0, 1], port)), SocketAddr::from(([100, 64, 0, 2], 53)))
    }

    fn answer(port: u16) -> Flow {
        Flow::udp(SocketAddr::from(([100, 64, 0, 2], 53)), SocketAddr::from(([100, 64, 0, 1], port)))
    }

    #[test]
    fn an_answer_is_expected_and_nothing_else() {
        let mut table = FlowTable::new(512, 7);
        table.record(&outbound(1000));
        assert!(table.expects(&answer(1000)));
        assert!(!table.expects(&answer(1001)));
        assert!(!table.expects(&outbound(1000)));
        assert!(!table.expects(&Flow { protocol: Protocol::SCTP, ..answer(1000) }));
    }

    #[test]
    fn tcp_is_not_recorded() {
        let mut table = FlowTable::new(8, 7);
        table.record(&Flow::tcp(outbound(1).source, outbound(1).destination));
        assert!(table.sets.iter().all(|set| set.flows.iter().all(Option::is_none)));
    }

    #[test]
    fn the_table_never_grows_and_keeps_a_flow_in_use() {
        let mut table = FlowTable::new(8, 7);
        table.record(&outbound(1));
        for port in 2..2000 {
            table.record(&outbound(port));
            assert!(table.expects(&answer(1)), "evicted after {port}");
        }
        let kept = (1..2000).filter(|port| table.expects(&answer(*port))).count();
        assert_eq!(kept, table.capacity());
    }

    #[test]
    fn whichever_flow_is_in_use_stays() {
        for used in 1..=WAYS as u16 {
            let mut table = FlowTable::new(WAYS, 7);
            (1..=WAYS as u16).for_each(|port| table.record(&outbound(port)));
            for port in 100..200 {
                assert!(table.expects(&answer(used)), "{used} was evicted before {port}");
                table.record(&outbound(port));
            }
        }
    }

    #[test]
    fn all_flows_in_use_stay_while_there_is_room() {
        let mut table = FlowTable::new(WAYS, 7);
        (1..=WAYS as u16).for_each(|port| table.record(&outbound(port)));
        for port in 100..200 {
            for used in [2, 3, 6] {
                assert!(table.expects(&answer(used)), "{used} was evicted before {port}");
            }
            table.record(&outbound(port));
        }
    }

    #[test]
    fn a_flow_that_was_in_use_once_is_spared_once() {
        for used in 1..=WAYS as u16 {
            let mut table = FlowTable::new(WAYS, 7);
            (1..=WAYS as u16).for_each(|port| table.record(&outbound(port)));
            assert!(table.expects(&answer(used)));
            (100..100 + 2 * WAYS as u16).for_each(|port| table.record(&outbound(port)));
            assert!(!table.expects(&answer(used)), "{used} is still there");
        }
    }

    #[test]
    fn of_flows_that_nobody_answered_the_oldest_goes_first() {
        let mut table = FlowTable::new(WAYS, 7);
        (1..=3 * WAYS as u16).for_each(|port| table.record(&outbound(port)));
        let kept: Vec<u16> = (1..=3 * WAYS as u16).filter(|port| table.expects(&answer(*port))).collect();
        assert_eq!(kept, (2 * WAYS as u16 + 1..=3 * WAYS as u16).collect::<Vec<u16>>());
        let mut table = FlowTable::new(WAYS, 7);
        (1..=WAYS as u16 + 3).for_each(|port| table.record(&outbound(port)));
        assert_eq!(
            (1..=WAYS as u16).filter(|port| table.expects(&answer(*port))).collect::<Vec<u16>>(),
            [4, 5, 6, 7, 8]
        );
    }

    #[test]
    fn flows_that_differ_in_one_end_only_spread_too() {
        let end = |text: String| text.parse::<SocketAddr>().unwrap();
        let kinds: [&dyn Fn(u16) -> Flow; 4] = [
            &|at| Flow::udp(end(format!("100.64.0.1:{at}")), end("8.8.8.8:53".to_owned())),
            &|at| Flow::udp(end("100.64.0.1:9".to_owned()), end(format!("10.1.{}.{}:53", at >> 8, at & 255))),
            &|at| Flow::udp(end("[fd7a::1]:9".to_owned()), end(format!("[2001:db8::{at:x}]:53"))),
            &|at| Flow::udp(end("[fd7a::1]:9".to_owned()), end(format!("[2001:db8:{at:x}::1]:53"))),
        ];
        for (kind, flow) in kinds.iter().enumerate() {
            let mut table = FlowTable::new(4096, 99);
            (0..2048).for_each(|at| table.record(&flow(at)));
            let answer = |at: u16| {
                let sent = flow(at);
                Flow { source: sent.destination, destination: sent.source, ..sent }
            };
            let kept = (0..2048).filter(|at| table.expects(&answer(*at))).count();
            assert!(kept > 1900, "only {kept} of 2048 flows of kind {kind} were kept at half load");
        }
    }

    #[test]
    fn flows_spread_over_the_sets() {
        let mut table = FlowTable::new(4096, 99);
        (0..2048).for_each(|port| table.record(&outbound(port)));
        let kept = (0..2048).filter(|port| table.expects(&answer(*port))).count();
        assert!(kept > 1900, "only {kept} of 2048 flows were kept at half load");
    }
}
