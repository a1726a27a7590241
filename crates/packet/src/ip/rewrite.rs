//! Changing an address of a packet in place, with every checksum that covers it.

use std::net::IpAddr;

use super::{Fragment, Packet, Protocol};
use crate::{Malformed, checksum};

/// Replaces the source address of a packet, and patches the checksums that cover it.
///
/// Fails when the packet is malformed or `address` is of the other family; the packet is then untouched.
pub fn set_source(packet: &mut [u8], address: IpAddr) -> Result<(), Malformed> {
    set_address(packet, address, Side::Source)
}

/// Replaces the destination address of a packet, and patches the checksums that cover it.
///
/// Fails when the packet is malformed or `address` is of the other family; the packet is then untouched.
pub fn set_destination(packet: &mut [u8], address: IpAddr) -> Result<(), Malformed> {
    set_address(packet, address, Side::Destination)
}

#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

fn set_address(bytes: &mut [u8], address: IpAddr, side: Side) -> Result<(), Malformed> {
    let packet = Packet::parse(bytes)?;
    let upper = packet.upper_layer();
    let transport_sum = transport_checksum_offset(upper.protocol, upper.fragment)
        .filter(|within| upper.payload.len() >= within + 2)
        .map(|within| (upper.offset + within, upper.protocol));
    match (packet, address) {
        (Packet::V4(_), IpAddr::V4(new)) => {
            let at = if matches!(side, Side::Source) { 12 } else { 16 };
            replace(bytes, at, new.octets(), Some(10), transport_sum);
        }
        (Packet::V6(_), IpAddr::V6(new)) => {
            let at = if matches!(side, Side::Source) { 8 } else { 24 };
            replace(bytes, at, new.octets(), None, transport_sum);
        }
        _ => return Err(Malformed::new("IP packet", "it is of another family than its new address")),
    }
    Ok(())
}

/// Where a transport's checksum over the addresses stands, if the packet has it. ICMP for IPv4 covers no addresses.
fn transport_checksum_offset(protocol: Protocol, fragment: Fragment) -> Option<usize> {
    if matches!(fragment, Fragment::Later { .. }) {
        return None;
    }
    match protocol {
        Protocol::TCP => Some(16),
        Protocol::UDP => Some(6),
        Protocol::ICMPV6 => Some(2),
        _ => None,
    }
}

fn replace<const N: usize>(
    bytes: &mut [u8],
    at: usize,
    new: [u8; N],
    header_sum: Option<usize>,
    transport_sum: Option<(usize, Protocol)>,
) {
    let mut old = [0; N];
    old.copy_from_slice(&bytes[at..at + N]);
    bytes[at..at + N].copy_from_slice(&new);
    if let Some(at) = header_sum {
        patch(bytes, at, &old, &new);
    }
    if let Some((at, protocol)) = transport_sum {
        // A UDP checksum of zero means that there is none.
        let absent = protocol == Protocol::UDP && bytes[at..at + 2] == [0, 0];
        if !absent {
            patch(bytes, at, &old, &new);
            if protocol == Protocol::UDP && bytes[at..at + 2] == [0, 0] {
                bytes[at..at + 2].copy_from_slice(&[0xff, 0xff]);
            }
        }
    }
}

fn patch(bytes: &mut [u8], at: usize, old: &[u8], new: &[u8]) {
    let sum = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    bytes[at..at + 2].copy_from_slice(&checksum::update(sum, old, new).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::udp::{Udp, UdpRepr};
    use proptest::prelude::*;

    fn addresses() -> impl Strategy<Value = (IpAddr, IpAddr, IpAddr)> {
        prop_oneof![
            any::<[[u8; 4]; 3]>().prop_map(|[a, b, c]| (a.into(), b.into(), c.into())),
            any::<[[u8; 16]; 3]>().prop_map(|[a, b, c]| (a.into(), b.into(), c.into())),
        ]
    }

    proptest! {
        #[test]
        fn a_rewritten_packet_has_right_checksums((a, b, c) in addresses(), payload in proptest::collection::vec(any::<u8>(), 0..50)) {
            let mut bytes = UdpRepr { source_port: 1, destination_port: 2 }.packet(a, b, &payload);
            set_source(&mut bytes, c).unwrap();
            set_destination(&mut bytes, a).unwrap();
            let packet = Packet::parse(&bytes).unwrap();
            prop_assert_eq!((packet.source(), packet.destination()), (c, a));
            if let Packet::V4(v4) = packet {
                prop_assert!(v4.checksum_is_right());
            }
            prop_assert!(Udp::parse(packet.upper_layer().payload).unwrap().checksum_is_right(c, a));
        }
    }

    #[test]
    fn an_address_of_the_other_family_is_refused() {
        let v4 = IpAddr::from([10, 0, 0, 1]);
        let mut bytes = UdpRepr { source_port: 1, destination_port: 2 }.packet(v4, v4, b"x");
        let before = bytes.clone();
        assert!(set_source(&mut bytes, IpAddr::from([0u16; 8])).is_err());
        assert_eq!(bytes, before);
    }
}
