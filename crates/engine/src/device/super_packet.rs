use packet::ip::Protocol;

use super::VNET_HEADER;
use crate::pipeline::{Segmentation, VnetHeader};

/// One packet of a [`PacketQueue`](super::PacketQueue): an IP packet, or many that are cut from one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuperPacket {
    pub(super) header: [u8; VNET_HEADER],
    pub(super) bytes: Vec<u8>,
}

impl SuperPacket {
    /// A packet that is whole, with all checksums in place.
    pub fn whole(bytes: Vec<u8>) -> Self {
        Self { header: [0; VNET_HEADER], bytes }
    }

    /// A TCP packet without options in its IP header that is to be cut into segments of at most `segment` bytes of data.
    ///
    /// Its checksums need not be right. `None` when it is no TCP packet, or `segment` is 0.
    pub fn tcp_segments(bytes: Vec<u8>, segment: u16) -> Option<Self> {
        let header = VnetHeader::for_transport(&bytes, Protocol::TCP, segment)?;
        let mut made = Self { header: header.encode(), bytes };
        header.begin_checksum(&mut made.bytes)?;
        Some(made)
    }

    /// The IP packet; larger than any link's MTU when it stands for many.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The IP packet with its transport checksum computed, if that was left open: what an IP stack takes that knows no
    /// offloads. It may be as large as an IP packet can be.
    pub fn into_checked(mut self) -> Vec<u8> {
        if let Ok(header) = VnetHeader::decode(&self.header) {
            header.finish_checksum(&mut self.bytes);
        }
        self.bytes
    }

    /// The bytes of data in each of the packets it stands for; `None` when it stands for itself.
    pub fn segment(&self) -> Option<u16> {
        match VnetHeader::decode(&self.header).ok()?.segmentation {
            Segmentation::None => None,
            Segmentation::Tcp { size } | Segmentation::Udp { size } => Some(size),
        }
    }
}
