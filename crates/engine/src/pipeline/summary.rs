use std::net::SocketAddr;

use filter::{Flow, Payload};
use packet::ip::{Fragment, Packet, Protocol, UpperLayer};

/// A later fragment that begins before this could overwrite the transport header of the first, which was judged.
const LEAST_OFFSET: u16 = 80;

/// What a packet says about itself, as filter, routes and flow records look at it. What can't be read comes out as
/// [`Payload::Unreadable`], if it has addresses at all.
pub(crate) fn summarize(bytes: &[u8]) -> Option<Flow> {
    let packet = Packet::parse(bytes).ok()?;
    let upper = packet.upper_layer();
    let (source_port, destination_port) = match upper.protocol {
        Protocol::TCP | Protocol::UDP | Protocol::SCTP => upper.ports().unwrap_or_default(),
        _ => (0, 0),
    };
    Some(Flow {
        protocol: filter::Protocol(upper.protocol.0),
        source: SocketAddr::new(packet.source(), source_port),
        destination: SocketAddr::new(packet.destination(), destination_port),
        payload: payload(&upper),
    })
}

fn payload(upper: &UpperLayer<'_>) -> Payload {
    if let Fragment::Later { offset, .. } = upper.fragment {
        return if offset < LEAST_OFFSET { Payload::Unreadable } else { Payload::LaterFragment };
    }
    match (upper.protocol, upper.payload) {
        (Protocol::TCP, [_, _, _, _, _, _, _, _, _, _, _, _, _, flags, _, _, _, _, _, _, ..]) => {
            const SYN: u8 = 2;
            const ACK: u8 = 16;
            if flags & (SYN | ACK) == SYN { Payload::TcpSyn } else { Payload::TcpLater }
        }
        (Protocol::TCP, _) => Payload::Unreadable,
        (Protocol::UDP | Protocol::SCTP, payload) if payload.len() < 8 => Payload::Unreadable,
        (Protocol::ICMP, [kind, ..]) => match kind {
            0 => Payload::EchoReply,
            3 | 11 | 12 => Payload::IcmpError,
            _ => Payload::IcmpOther,
        },
        (Protocol::ICMPV6, [kind, ..]) => match kind {
            129 => Payload::EchoReply,
            1..=4 => Payload::IcmpError,
            _ => Payload::IcmpOther,
        },
        (Protocol::ICMP | Protocol::ICMPV6, []) => Payload::Unreadable,
        _ => Payload::Plain,
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use packet::udp::UdpRepr;

    use super::*;

    fn udp() -> Vec<u8> {
        let (source, destination): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        UdpRepr { source_port: 5, destination_port: 6 }.packet(source, destination, &[1; 100])
    }

    #[test]
    fn a_datagram_is_known_by_its_ends() {
        let flow = summarize(&udp()).unwrap();
        assert_eq!(flow, Flow::udp("10.0.0.1:5".parse().unwrap(), "10.0.0.2:6".parse().unwrap()));
    }

    #[test]
    fn a_fragment_that_could_overwrite_ports_is_unreadable() {
        let mut packet = udp();
        packet[6..8].copy_from_slice(&1u16.to_be_bytes());
        assert_eq!(summarize(&packet).unwrap().payload, Payload::Unreadable);
        packet[6..8].copy_from_slice(&10u16.to_be_bytes());
        assert_eq!(summarize(&packet).unwrap().payload, Payload::LaterFragment);
    }

    #[test]
    fn a_segment_without_its_whole_header_is_unreadable() {
        let mut packet = udp();
        packet[9] = 6;
        packet[2..4].copy_from_slice(&39u16.to_be_bytes());
        assert_eq!(summarize(&packet).unwrap().payload, Payload::Unreadable);
    }
}
