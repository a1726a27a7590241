//! What the control thread itself says inside the tunnels: TSMP and ICMP pings.

use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use crypto::{Entropy, NodePublic, SystemEntropy};
use filter::{Flow, Refusal};
use packet::icmp::{Echo, Icmpv4, Icmpv4Repr, Icmpv6, Icmpv6Repr};
use packet::ip::{Ipv4Repr, Ipv6Repr, Packet, Protocol};
use packet::tsmp::{RejectReason, Tsmp};
use path::Via;
use tokio::sync::oneshot;

use super::{Driver, Token, moment};
use crate::control::Shared;
use crate::counters::count_many;
use crate::pipeline::send_plain;
use crate::{PingError, PingKind, Pong};

impl Driver {
    /// A TSMP message of a peer came.
    pub(super) fn take_tsmp(&mut self, node: NodePublic, packet: &[u8]) {
        let Ok(packet) = Packet::parse(packet) else { return };
        let (source, destination) = (packet.source(), packet.destination());
        if !self.shared.table.load().view.addresses.contains(&destination) {
            return;
        }
        let Ok(message) = Tsmp::parse(packet.upper_layer().payload) else { return };
        match message {
            Tsmp::Ping(data) => {
                let pong = Tsmp::Pong { data, peer_api_port: self.peer_api_port };
                self.send_inside(&node, tsmp(destination, source, &pong));
            }
            Tsmp::Pong { data, peer_api_port } => {
                let port = Some(peer_api_port).filter(|port| *port != 0);
                let found = (self.via_of(&node), port);
                self.pings.settle(Token::Tsmp(data), &node, source, found, Instant::now());
            }
            Tsmp::Reject { protocol, reason, source_port, destination_port, .. } => {
                tracing::debug!(peer = %node, %protocol, ?reason, source_port, destination_port, "peer refused a flow");
            }
            Tsmp::DiscoKey(key) => self.take_disco_key(node, key),
        }
    }

    /// An ICMP echo reply with this engine's identifier came.
    pub(super) fn take_echo(&mut self, node: &NodePublic, packet: &[u8]) {
        let Ok(packet) = Packet::parse(packet) else { return };
        let payload = packet.upper_layer().payload;
        let sequence = match packet {
            Packet::V4(_) => match Icmpv4::parse(payload) {
                Ok(Icmpv4::EchoReply(echo)) => echo.sequence,
                _ => return,
            },
            Packet::V6(ip) => match Icmpv6::parse(payload, ip.source(), ip.destination()) {
                Ok(Icmpv6::EchoReply(echo)) => echo.sequence,
                _ => return,
            },
        };
        let found = (self.via_of(node), None);
        self.pings.settle(Token::Icmp(sequence), node, packet.source(), found, Instant::now());
        self.look_for_echoes();
    }

    /// Has the receiving thread look for answers to pings only while there are any.
    pub(super) fn look_for_echoes(&self) {
        if !self.pings.has_icmp() {
            self.shared.echo_identifier.store(0, Relaxed);
        }
    }

    /// Tells a peer that the filter refused its connection, as far as that is not too often.
    pub(super) fn tell_refusal(&mut self, node: NodePublic, flow: &Flow, refusal: Refusal) {
        let reason = match refusal {
            Refusal::ShieldsUp => RejectReason::ShieldsUp,
            Refusal::NoRule | Refusal::Jailed => RejectReason::AccessRules,
            _ => return,
        };
        if !self.rejects.take(Instant::now()) {
            return;
        }
        let message = Tsmp::Reject {
            protocol: Protocol(flow.protocol.0),
            reason,
            source_port: flow.source.port(),
            destination_port: flow.destination.port(),
            maybe_broken: false,
        };
        self.send_inside(&node, tsmp(flow.destination.ip(), flow.source.ip(), &message));
    }

    /// Pings a peer for a user.
    pub(super) fn ping(&mut self, node: NodePublic, kind: PingKind, reply: oneshot::Sender<Result<Pong, PingError>>) {
        let token = match self.send_ping(&node, kind) {
            Ok(token) => token,
            Err(error) => {
                let _gone = reply.send(Err(error));
                return;
            }
        };
        self.pings.wait(token, node, Instant::now(), reply);
    }

    fn send_ping(&mut self, node: &NodePublic, kind: PingKind) -> Result<Token, PingError> {
        if self.pings.is_full() {
            return Err(PingError::TooMany);
        }
        if kind == PingKind::Disco {
            return Ok(Token::Disco(self.paths.ping(node, Instant::now(), &mut SystemEntropy)?));
        }
        let (source, destination) = ends(&self.shared, node)?;
        if kind == PingKind::Tsmp {
            let mut data = [0; 8];
            SystemEntropy.fill(&mut data);
            self.send_inside(node, tsmp(source, destination, &Tsmp::Ping(data)));
            return Ok(Token::Tsmp(data));
        }
        let before = self.shared.echo_identifier.load(Relaxed);
        let identifier = if before == 0 { 1 + SystemEntropy.below(u64::from(u16::MAX)) as u32 } else { before };
        self.shared.echo_identifier.store(identifier, Relaxed);
        self.echo_sequence = self.echo_sequence.wrapping_add(1);
        let sequence = self.echo_sequence;
        let echo = Echo { identifier: identifier as u16, sequence, data: b"towline ping" };
        let packet = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Icmpv4Repr::EchoRequest(echo).packet(source, destination),
            (IpAddr::V6(source), IpAddr::V6(destination)) => Icmpv6Repr::EchoRequest(echo).packet(source, destination),
            _ => return Err(PingError::NoAddress),
        };
        self.send_inside(node, packet);
        Ok(Token::Icmp(sequence))
    }

    fn via_of(&self, node: &NodePublic) -> Option<Via> {
        let choice = self.paths.choice(node);
        choice.direct().map(Via::Direct).or_else(|| choice.relay().map(Via::Relay))
    }

    /// Sends a packet of this node's own through the tunnel to a peer.
    fn send_inside(&mut self, node: &NodePublic, packet: Vec<u8>) {
        let now = moment();
        let table = self.shared.table.load_full();
        let Some(peer) = table.peer(node) else { return };
        self.paths.handle_sent(node, now.instant, &mut SystemEntropy);
        let mtu = usize::from(table.view.mtu);
        let sent = peer.slot.ready().is_some_and(|key| send_plain(&mut self.outbox, peer, &key, &packet, mtu));
        if !sent {
            let dropped = peer.slot.wait(packet.into(), &self.shared.waiting);
            count_many(&self.shared.counters.unsent_waiting, dropped);
            self.wireguard.handle_wanted(*node, now, &mut SystemEntropy);
        }
    }
}

/// This node's address and one of the peer's, of a family that both have.
fn ends(shared: &Shared, node: &NodePublic) -> Result<(IpAddr, IpAddr), PingError> {
    let table = shared.table.load();
    let peer = table.peer(node).ok_or(PingError::UnknownPeer)?;
    let pair = |destination: &IpAddr| {
        let source = table.view.addresses.iter().find(|own| own.is_ipv4() == destination.is_ipv4())?;
        Some((*source, *destination))
    };
    peer.view.addresses.iter().find_map(pair).ok_or(PingError::NoAddress)
}

fn tsmp(source: IpAddr, destination: IpAddr, message: &Tsmp) -> Vec<u8> {
    let payload = message.encode();
    let header = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            Ipv4Repr::new(source, destination, Protocol::TSMP).header(payload.len()).to_vec()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            Ipv6Repr::new(source, destination, Protocol::TSMP).header(payload.len()).to_vec()
        }
        // No packet has ends of two families.
        _ => Vec::new(),
    };
    [header, payload].concat()
}
