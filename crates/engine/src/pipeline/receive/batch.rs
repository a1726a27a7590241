use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use crypto::NodePublic;

use crate::pipeline::coalesce::Coalescer;
use crate::slots::{PeerSlot, Table};

/// Packets that were opened and not delivered yet.
pub(super) struct Batch {
    pub(super) coalescer: Coalescer,
    /// Whose they are; a group's owner is a place in here.
    pub(super) owners: Vec<Arc<PeerSlot>>,
}

impl Batch {
    pub(super) fn owner(&mut self, slot: &Arc<PeerSlot>) -> usize {
        if let Some(place) = self.owners.iter().rposition(|other| Arc::ptr_eq(other, slot)) {
            return place;
        }
        self.owners.push(slot.clone());
        self.owners.len() - 1
    }

    /// Takes a packet with its padding; false when its header does not say where it ends.
    pub(super) fn push(&mut self, owner: usize, buffer: &mut [u8], padded: Range<usize>, own: &OwnAddress) -> bool {
        let Some(length) = length_of(&buffer[padded.clone()]) else { return false };
        let range = padded.start..padded.start + length;
        if !own.restore(&mut buffer[range.clone()]) {
            return false;
        }
        self.coalescer.push(owner, buffer, range);
        true
    }
}

/// What this node's addresses are to a peer that knows it by others.
#[derive(Debug, Default)]
pub(super) struct OwnAddress {
    v4: Option<(IpAddr, IpAddr)>,
    v6: Option<(IpAddr, IpAddr)>,
}

pub(super) fn own_address(table: &Table, node: &NodePublic) -> OwnAddress {
    let Some(peer) = table.peer(node) else { return OwnAddress::default() };
    let pair = |is_v4: bool| {
        let known_as = peer.masquerade(is_v4)?;
        let own = table.view.addresses.iter().find(|address| address.is_ipv4() == is_v4)?;
        Some((known_as, *own))
    };
    OwnAddress { v4: pair(true), v6: pair(false) }
}

impl OwnAddress {
    /// Puts this node's own address in the place of that which the peer used; false when the packet can't be read.
    fn restore(&self, packet: &mut [u8]) -> bool {
        let pair = if packet[0] >> 4 == 4 { self.v4 } else { self.v6 };
        let Some((known_as, own)) = pair else { return true };
        match packet::ip::Packet::parse(packet) {
            Ok(parsed) if parsed.destination() == known_as => packet::ip::set_destination(packet, own).is_ok(),
            Ok(_) => true,
            Err(_) => false,
        }
    }
}

/// A packet's length, as its header says.
fn length_of(padded: &[u8]) -> Option<usize> {
    let length = match padded.first()? >> 4 {
        4 => usize::from(u16::from_be_bytes([*padded.get(2)?, *padded.get(3)?])),
        6 => 40 + usize::from(u16::from_be_bytes([*padded.get(4)?, *padded.get(5)?])),
        _ => return None,
    };
    (length >= 20 && length <= padded.len()).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_ends_where_the_header_says() {
        let mut packet = vec![0x45, 0, 0, 21];
        packet.resize(32, 0);
        assert_eq!(length_of(&packet), Some(21));
        packet[3] = 33;
        assert_eq!(length_of(&packet), None);
        packet[3] = 19;
        assert_eq!(length_of(&packet), None);
        assert_eq!(length_of(&[]), None);
    }
}
