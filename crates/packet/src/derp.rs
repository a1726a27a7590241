//! DERP: the frames between a relay and its clients, over any stream of bytes.
//!
//! A frame is a type, a length of four bytes, and a body. The relay opens with `ServerKey`, the client proves its key in
//! `ClientInfo`, the relay answers `ServerInfo`; from then on packets travel by public key. The JSON inside the two
//! sealed infos is not a packet format and lives with the relay.

mod decoder;
mod frame;

pub use decoder::{FrameDecoder, Limits, RawFrame};
pub use frame::{
    FRAME_HEADER_LEN, Frame, FrameError, FrameKind, GoneReason, PresenceFlags, forward_header, packet_header,
};

/// The version of the framing that this speaks, and every client since 2020.
pub const PROTOCOL_VERSION: u32 = 2;

/// The longest packet that travels in one frame.
pub const MAX_PACKET_LEN: usize = 64 << 10;
