use std::net::SocketAddr;
use std::time::Duration;

use crypto::NodePublic;

use super::MAX_PACKET_LEN;
use crate::endpoint;

/// What the `ServerKey` frame starts with: `DERP` and a key.
const MAGIC: [u8; 8] = *b"DERP\xf0\x9f\x94\x91";

/// Length of a frame's type and length.
pub const FRAME_HEADER_LEN: usize = 5;

const KEY: usize = 32;

/// The type of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameKind(pub u8);

impl FrameKind {
    /// Magic and the relay's key; to the client.
    pub const SERVER_KEY: Self = Self(0x01);
    /// The client's key and its sealed info; to the relay.
    pub const CLIENT_INFO: Self = Self(0x02);
    /// The relay's sealed info; to the client.
    pub const SERVER_INFO: Self = Self(0x03);
    /// A packet and where it shall go; to the relay.
    pub const SEND_PACKET: Self = Self(0x04);
    /// A packet and whence it came; to the client.
    pub const RECV_PACKET: Self = Self(0x05);
    /// Nothing, so that the stream isn't idle; to the client.
    pub const KEEP_ALIVE: Self = Self(0x06);
    /// Whether this relay is the client's home; to the relay.
    pub const NOTE_PREFERRED: Self = Self(0x07);
    /// A peer can't be reached here; to the client.
    pub const PEER_GONE: Self = Self(0x08);
    /// A client connected; to meshed relays.
    pub const PEER_PRESENT: Self = Self(0x09);
    /// A packet between clients of two relays; between meshed relays.
    pub const FORWARD_PACKET: Self = Self(0x0a);
    /// Asks for `PeerPresent` and `PeerGone` of every client; from meshed relays.
    pub const WATCH_CONNS: Self = Self(0x10);
    /// Asks to disconnect a client; from meshed relays.
    pub const CLOSE_PEER: Self = Self(0x11);
    /// Asks for a pong; both ways.
    pub const PING: Self = Self(0x12);
    /// Answers a ping; both ways.
    pub const PONG: Self = Self(0x13);
    /// A problem of the connection; to the client.
    pub const HEALTH: Self = Self(0x14);
    /// The relay is about to restart; to the client.
    pub const RESTARTING: Self = Self(0x15);

    /// Whether this version knows the type.
    pub(super) fn is_known(self) -> bool {
        matches!(self, Self::CLIENT_INFO | Self::SERVER_INFO) || self.most().is_some()
    }

    /// The longest body of a frame other than infos; `None` for infos and unknown types.
    ///
    /// Frames of fixed length have room for what later versions may append.
    pub(super) fn most(self) -> Option<usize> {
        const ROOM: usize = 256;
        const HEALTH_TEXT: usize = 4 << 10;
        match self {
            Self::SEND_PACKET | Self::RECV_PACKET => Some(KEY + MAX_PACKET_LEN),
            Self::FORWARD_PACKET => Some(2 * KEY + MAX_PACKET_LEN),
            Self::HEALTH => Some(HEALTH_TEXT),
            Self::SERVER_KEY
            | Self::KEEP_ALIVE
            | Self::NOTE_PREFERRED
            | Self::PEER_GONE
            | Self::PEER_PRESENT
            | Self::WATCH_CONNS
            | Self::CLOSE_PEER
            | Self::PING
            | Self::PONG
            | Self::RESTARTING => Some(ROOM),
            _ => None,
        }
    }
}

/// Why a peer is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoneReason {
    /// It was here and its connection ended.
    Disconnected,
    /// This relay does not know it.
    NotHere,
    /// What a later version may mean.
    Other(u8),
}

impl GoneReason {
    fn from_byte(byte: u8) -> Self {
        match byte {
            0 => Self::Disconnected,
            1 => Self::NotHere,
            other => Self::Other(other),
        }
    }

    fn to_byte(self) -> u8 {
        match self {
            Self::Disconnected => 0,
            Self::NotHere => 1,
            Self::Other(byte) => byte,
        }
    }
}

/// What kind of client a `PeerPresent` is about, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PresenceFlags(pub u8);

impl PresenceFlags {
    /// An ordinary client.
    pub const REGULAR: Self = Self(1);
    /// Another relay of the mesh.
    pub const MESH_PEER: Self = Self(2);
    /// A prober.
    pub const PROBER: Self = Self(4);
    /// A client that would rather be at another node of the region.
    pub const NOT_IDEAL: Self = Self(8);
}

/// A frame, its body borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// The relay's key.
    ServerKey(NodePublic),
    /// The client's key, and nonce and box of its info.
    ClientInfo {
        /// The key that the client claims, proven by the box.
        key: NodePublic,
        /// Nonce and box.
        sealed: &'a [u8],
    },
    /// Nonce and box of the relay's info.
    ServerInfo {
        /// Nonce and box.
        sealed: &'a [u8],
    },
    /// A packet from this client.
    SendPacket {
        /// Where it shall go.
        destination: NodePublic,
        /// The packet.
        packet: &'a [u8],
    },
    /// A packet for this client.
    RecvPacket {
        /// Whence it came.
        source: NodePublic,
        /// The packet.
        packet: &'a [u8],
    },
    /// Keeps the stream from being idle.
    KeepAlive,
    /// Whether this relay is the client's home.
    NotePreferred(bool),
    /// A peer can't be reached here.
    PeerGone {
        /// The peer.
        peer: NodePublic,
        /// Why.
        reason: GoneReason,
    },
    /// A client is connected here.
    PeerPresent {
        /// The client.
        peer: NodePublic,
        /// Where it connected from, when the relay says.
        address: Option<SocketAddr>,
        /// What kind of client it is; not told without an address.
        flags: PresenceFlags,
    },
    /// A packet from a client of another relay.
    ForwardPacket {
        /// Whence it came.
        source: NodePublic,
        /// Where it shall go.
        destination: NodePublic,
        /// The packet.
        packet: &'a [u8],
    },
    /// Asks for the presence of every client.
    WatchConns,
    /// Asks to disconnect a client.
    ClosePeer(NodePublic),
    /// Asks for a pong.
    Ping([u8; 8]),
    /// Answers a ping.
    Pong([u8; 8]),
    /// A problem of the connection; empty when it is over.
    Health(&'a str),
    /// The relay is about to restart.
    Restarting {
        /// How long the client should wait before it connects again.
        reconnect_in: Duration,
        /// How long it should then go on trying.
        try_for: Duration,
    },
    /// A frame of a type that this version doesn't know, to be ignored.
    Unknown(FrameKind),
}

/// Why a stream of bytes is no DERP; the only thing to do is to close it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The header claims a body longer than its type may have here.
    #[error("DERP frame of type {:#04x} claims {length} bytes, of which at most {most} are allowed", kind.0)]
    TooLong {
        /// The frame's type.
        kind: FrameKind,
        /// What its header claims.
        length: u32,
        /// What would be allowed.
        most: usize,
    },
    /// The body ends before its last field.
    #[error("DERP frame of type {:#04x} is cut off", kind.0)]
    Cut {
        /// The frame's type.
        kind: FrameKind,
    },
    /// A field has a value that it can't have.
    #[error("DERP frame of type {:#04x} has a field that can't be read", kind.0)]
    Field {
        /// The frame's type.
        kind: FrameKind,
    },
}

impl<'a> Frame<'a> {
    /// Reads the body of a frame. Bytes after the known fields are left to later versions.
    pub fn parse(kind: FrameKind, body: &'a [u8]) -> Result<Self, FrameError> {
        let mut body = Body { kind, rest: body };
        Ok(match kind {
            FrameKind::SERVER_KEY => {
                if body.take::<8>()? != MAGIC {
                    return Err(FrameError::Field { kind });
                }
                Self::ServerKey(body.key()?)
            }
            FrameKind::CLIENT_INFO => Self::ClientInfo { key: body.key()?, sealed: body.rest },
            FrameKind::SERVER_INFO => Self::ServerInfo { sealed: body.rest },
            FrameKind::SEND_PACKET => Self::SendPacket { destination: body.key()?, packet: body.rest },
            FrameKind::RECV_PACKET => Self::RecvPacket { source: body.key()?, packet: body.rest },
            FrameKind::KEEP_ALIVE => Self::KeepAlive,
            FrameKind::NOTE_PREFERRED => Self::NotePreferred(body.take::<1>()? != [0]),
            FrameKind::PEER_GONE => {
                // Relays from before there were reasons send none.
                let peer = body.key()?;
                let reason = body.rest.first().map_or(GoneReason::Disconnected, |byte| GoneReason::from_byte(*byte));
                Self::PeerGone { peer, reason }
            }
            FrameKind::PEER_PRESENT => {
                // Both were added later, the flags after the address.
                let peer = body.key()?;
                let address = body.take().ok().map(|bytes| endpoint::read(&bytes));
                let flags = address.and(body.rest.first()).copied().unwrap_or(0);
                Self::PeerPresent { peer, address, flags: PresenceFlags(flags) }
            }
            FrameKind::FORWARD_PACKET => {
                Self::ForwardPacket { source: body.key()?, destination: body.key()?, packet: body.rest }
            }
            FrameKind::WATCH_CONNS => Self::WatchConns,
            FrameKind::CLOSE_PEER => Self::ClosePeer(body.key()?),
            FrameKind::PING => Self::Ping(body.take()?),
            FrameKind::PONG => Self::Pong(body.take()?),
            FrameKind::HEALTH => Self::Health(std::str::from_utf8(body.rest).map_err(|_| FrameError::Field { kind })?),
            FrameKind::RESTARTING => {
                Self::Restarting { reconnect_in: body.milliseconds()?, try_for: body.milliseconds()? }
            }
            unknown => Self::Unknown(unknown),
        })
    }

    /// Appends the frame, header and all. An unknown frame is written empty.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[self.kind().0, 0, 0, 0, 0]);
        self.encode_body(out);
        let length = (out.len() - start - FRAME_HEADER_LEN) as u32;
        out[start + 1..start + FRAME_HEADER_LEN].copy_from_slice(&length.to_be_bytes());
    }

    /// The frame as bytes of its own.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    fn encode_body(&self, out: &mut Vec<u8>) {
        match self {
            Self::ServerKey(key) => {
                out.extend_from_slice(&MAGIC);
                out.extend_from_slice(key.as_bytes());
            }
            Self::ClientInfo { key, sealed: rest }
            | Self::SendPacket { destination: key, packet: rest }
            | Self::RecvPacket { source: key, packet: rest } => {
                out.extend_from_slice(key.as_bytes());
                out.extend_from_slice(rest);
            }
            Self::ServerInfo { sealed } => out.extend_from_slice(sealed),
            Self::NotePreferred(preferred) => out.push(u8::from(*preferred)),
            Self::PeerGone { peer, reason } => {
                out.extend_from_slice(peer.as_bytes());
                out.push(reason.to_byte());
            }
            Self::PeerPresent { peer, address, flags } => {
                out.extend_from_slice(peer.as_bytes());
                if let Some(address) = address {
                    out.extend_from_slice(&endpoint::write(*address));
                    out.push(flags.0);
                }
            }
            Self::ForwardPacket { source, destination, packet } => {
                out.extend_from_slice(source.as_bytes());
                out.extend_from_slice(destination.as_bytes());
                out.extend_from_slice(packet);
            }
            Self::ClosePeer(key) => out.extend_from_slice(key.as_bytes()),
            Self::Ping(data) | Self::Pong(data) => out.extend_from_slice(data),
            Self::Health(problem) => out.extend_from_slice(problem.as_bytes()),
            Self::Restarting { reconnect_in, try_for } => {
                for time in [reconnect_in, try_for] {
                    let milliseconds = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
                    out.extend_from_slice(&milliseconds.to_be_bytes());
                }
            }
            Self::KeepAlive | Self::WatchConns | Self::Unknown(_) => {}
        }
    }

    fn kind(&self) -> FrameKind {
        match self {
            Self::ServerKey(_) => FrameKind::SERVER_KEY,
            Self::ClientInfo { .. } => FrameKind::CLIENT_INFO,
            Self::ServerInfo { .. } => FrameKind::SERVER_INFO,
            Self::SendPacket { .. } => FrameKind::SEND_PACKET,
            Self::RecvPacket { .. } => FrameKind::RECV_PACKET,
            Self::KeepAlive => FrameKind::KEEP_ALIVE,
            Self::NotePreferred(_) => FrameKind::NOTE_PREFERRED,
            Self::PeerGone { .. } => FrameKind::PEER_GONE,
            Self::PeerPresent { .. } => FrameKind::PEER_PRESENT,
            Self::ForwardPacket { .. } => FrameKind::FORWARD_PACKET,
            Self::WatchConns => FrameKind::WATCH_CONNS,
            Self::ClosePeer(_) => FrameKind::CLOSE_PEER,
            Self::Ping(_) => FrameKind::PING,
            Self::Pong(_) => FrameKind::PONG,
            Self::Health(_) => FrameKind::HEALTH,
            Self::Restarting { .. } => FrameKind::RESTARTING,
            Self::Unknown(kind) => *kind,
        }
    }
}

/// What stands before a packet in a `SendPacket` or `RecvPacket` frame, so that the packet itself needs no copy.
///
/// The packet is at most [`MAX_PACKET_LEN`] long.
pub fn packet_header(kind: FrameKind, peer: &NodePublic, packet_length: usize) -> [u8; FRAME_HEADER_LEN + KEY] {
    let mut header = [0; FRAME_HEADER_LEN + KEY];
    header[0] = kind.0;
    header[1..FRAME_HEADER_LEN].copy_from_slice(&((KEY + packet_length) as u32).to_be_bytes());
    header[FRAME_HEADER_LEN..].copy_from_slice(peer.as_bytes());
    header
}

/// What stands before a packet in a `ForwardPacket` frame.
///
/// The packet is at most [`MAX_PACKET_LEN`] long.
pub fn forward_header(
    source: &NodePublic,
    destination: &NodePublic,
    packet_length: usize,
) -> [u8; FRAME_HEADER_LEN + 2 * KEY] {
    let mut header = [0; FRAME_HEADER_LEN + 2 * KEY];
    header[0] = FrameKind::FORWARD_PACKET.0;
    header[1..FRAME_HEADER_LEN].copy_from_slice(&((2 * KEY + packet_length) as u32).to_be_bytes());
    header[FRAME_HEADER_LEN..FRAME_HEADER_LEN + KEY].copy_from_slice(source.as_bytes());
    header[FRAME_HEADER_LEN + KEY..].copy_from_slice(destination.as_bytes());
    header
}

struct Body<'a> {
    kind: FrameKind,
    rest: &'a [u8],
}

impl Body<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(FrameError::Cut { kind: self.kind })?;
        self.rest = rest;
        Ok(*taken)
    }

    fn key(&mut self) -> Result<NodePublic, FrameError> {
        self.take().map(NodePublic::from_bytes)
    }

    fn milliseconds(&mut self) -> Result<Duration, FrameError> {
        self.take().map(|bytes| Duration::from_millis(u32::from_be_bytes(bytes).into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: NodePublic = NodePublic::from_bytes([0xaa; 32]);
    const B: NodePublic = NodePublic::from_bytes([0xbb; 32]);

    fn hex_of(frame: Frame<'_>) -> String {
        hex::encode(frame.to_vec())
    }

    #[test]
    fn every_frame_is_written_as_the_wire_has_it() {
        let (a, b) = ("aa".repeat(32), "bb".repeat(32));
        assert_eq!(hex_of(Frame::ServerKey(A)), format!("010000002844455250f09f9491{a}"));
        assert_eq!(hex_of(Frame::ClientInfo { key: A, sealed: b"xy" }), format!("0200000022{a}7879"));
        assert_eq!(hex_of(Frame::ServerInfo { sealed: b"xy" }), "03000000027879");
        assert_eq!(hex_of(Frame::SendPacket { destination: A, packet: b"xy" }), format!("0400000022{a}7879"));
        assert_eq!(hex_of(Frame::RecvPacket { source: A, packet: b"xy" }), format!("0500000022{a}7879"));
        assert_eq!(hex_of(Frame::KeepAlive), "0600000000");
        assert_eq!(hex_of(Frame::NotePreferred(true)), "070000000101");
        assert_eq!(hex_of(Frame::PeerGone { peer: A, reason: GoneReason::NotHere }), format!("0800000021{a}01"));
        let present =
            Frame::PeerPresent { peer: A, address: Some("1.2.3.4:5".parse().unwrap()), flags: PresenceFlags::REGULAR };
        assert_eq!(hex_of(present), format!("0900000033{a}00000000000000000000ffff01020304000501"));
        let forward = Frame::ForwardPacket { source: A, destination: B, packet: b"xy" };
        assert_eq!(hex_of(forward), format!("0a00000042{a}{b}7879"));
        assert_eq!(hex_of(Frame::WatchConns), "1000000000");
        assert_eq!(hex_of(Frame::ClosePeer(A)), format!("1100000020{a}"));
        assert_eq!(hex_of(Frame::Ping(*b"12345678")), "12000000083132333435363738");
        assert_eq!(hex_of(Frame::Pong(*b"12345678")), "13000000083132333435363738");
        assert_eq!(hex_of(Frame::Health("no")), "14000000026e6f");
        let restarting = Frame::Restarting { reconnect_in: Duration::from_millis(1), try_for: Duration::from_secs(2) };
        assert_eq!(hex_of(restarting), "150000000800000001000007d0");
    }

    #[test]
    fn a_packet_header_and_its_packet_are_the_frame() {
        let header = packet_header(FrameKind::RECV_PACKET, &A, 2);
        assert_eq!([&header[..], b"xy"].concat(), Frame::RecvPacket { source: A, packet: b"xy" }.to_vec());
        let header = forward_header(&A, &B, 2);
        let frame = Frame::ForwardPacket { source: A, destination: B, packet: b"xy" };
        assert_eq!([&header[..], b"xy"].concat(), frame.to_vec());
    }

    #[test]
    fn the_server_key_needs_its_magic() {
        let mut body = Frame::ServerKey(A).to_vec().split_off(5);
        assert_eq!(Frame::parse(FrameKind::SERVER_KEY, &body), Ok(Frame::ServerKey(A)));
        body.extend_from_slice(b"later versions");
        assert_eq!(Frame::parse(FrameKind::SERVER_KEY, &body), Ok(Frame::ServerKey(A)));
        body[0] ^= 1;
        assert_eq!(Frame::parse(FrameKind::SERVER_KEY, &body), Err(FrameError::Field { kind: FrameKind::SERVER_KEY }));
    }

    #[test]
    fn a_frame_without_its_fields_is_cut() {
        for kind in [0x01, 0x02, 0x04, 0x05, 0x07, 0x08, 0x09, 0x0a, 0x11, 0x12, 0x13, 0x15].map(FrameKind) {
            assert_eq!(Frame::parse(kind, b""), Err(FrameError::Cut { kind }), "{kind:?}");
        }
    }

    #[test]
    fn the_optional_ends_of_older_relays_may_lack() {
        let gone = Frame::PeerGone { peer: A, reason: GoneReason::Disconnected };
        assert_eq!(Frame::parse(FrameKind::PEER_GONE, A.as_bytes()), Ok(gone));
        let present = Frame::PeerPresent { peer: A, address: None, flags: PresenceFlags(0) };
        assert_eq!(Frame::parse(FrameKind::PEER_PRESENT, A.as_bytes()), Ok(present));
    }

    proptest! {
        #[test]
        fn what_can_be_read_is_written_back_the_same(kind in 0u8..0x18, body in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(frame) = Frame::parse(FrameKind(kind), &body) {
                let written = frame.to_vec();
                prop_assert_eq!(Frame::parse(FrameKind(kind), &written[5..]), Ok(frame));
            }
        }
    }
}
