use bytes::{Buf, Bytes, BytesMut};

use super::frame::{FRAME_HEADER_LEN, FrameError, FrameKind};

/// What a peer may send, in bytes of body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest `ClientInfo` or `ServerInfo`.
    pub info: usize,
    /// The longest frame of another known type; what the type itself allows counts too.
    pub known: usize,
    /// The longest frame of unknown type; it is skipped, not kept.
    pub unknown: usize,
}

impl Limits {
    /// What a relay takes from a client that has not proven its key: one small info, nothing else of length.
    pub const UNPROVEN_CLIENT: Self = Self { info: 4 << 10, known: 64, unknown: 0 };

    /// What a relay takes from a client: packets.
    pub const CLIENT: Self = Self { info: 0, known: usize::MAX, unknown: 64 << 10 };

    /// What a client takes from a relay.
    pub const RELAY: Self = Self { info: 64 << 10, known: usize::MAX, unknown: 1 << 20 };

    fn most(&self, kind: FrameKind) -> usize {
        match kind {
            FrameKind::CLIENT_INFO | FrameKind::SERVER_INFO => self.info,
            _ => kind.most().map_or(self.unknown, |most| most.min(self.known)),
        }
    }
}

/// A frame as it was cut from the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawFrame {
    /// Its type, one that this version knows.
    pub kind: FrameKind,
    /// Its body; shares the memory of the input where the frame lay in one piece.
    pub body: Bytes,
}

/// Cuts a stream of bytes, in whatever pieces it arrives, into frames.
///
/// A frame that lies whole in one piece of input is handed out without a copy. Only the part of a frame that has
/// arrived is ever held, so a claimed length costs nothing; one above the limit ends the stream.
#[derive(Debug)]
pub struct FrameDecoder {
    limits: Limits,
    state: State,
    /// The bytes of an unfinished header or body.
    partial: BytesMut,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Header,
    Body { kind: FrameKind, length: usize },
    Skip { left: usize },
}

impl FrameDecoder {
    /// A decoder at the start of a stream.
    pub fn new(limits: Limits) -> Self {
        Self { limits, state: State::Header, partial: BytesMut::new() }
    }

    /// Changes what is allowed from the next frame on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Takes the next frame of a known type from `input`, which is consumed as far as it was needed.
    ///
    /// `None` means that all of `input` is consumed and more is needed. After an error the stream can't be read on.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<RawFrame>, FrameError> {
        loop {
            match self.state {
                State::Header => {
                    let Some(header) = self.take(input, FRAME_HEADER_LEN) else { return Ok(None) };
                    self.state = self.judge(&header)?;
                }
                State::Body { kind, length } => {
                    let Some(body) = self.take(input, length) else { return Ok(None) };
                    self.state = State::Header;
                    return Ok(Some(RawFrame { kind, body }));
                }
                State::Skip { left } => {
                    let now = left.min(input.len());
                    input.advance(now);
                    if now < left {
                        self.state = State::Skip { left: left - now };
                        return Ok(None);
                    }
                    self.state = State::Header;
                }
            }
        }
    }

    /// Whether the stream may end here: between two frames.
    pub fn is_between_frames(&self) -> bool {
        matches!(self.state, State::Header) && self.partial.is_empty()
    }

    fn judge(&self, header: &[u8]) -> Result<State, FrameError> {
        let kind = FrameKind(header[0]);
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
        let most = self.limits.most(kind);
        match usize::try_from(length) {
            Ok(length) if length <= most && kind.is_known() => Ok(State::Body { kind, length }),
            Ok(length) if length <= most => Ok(State::Skip { left: length }),
            _ => Err(FrameError::TooLong { kind, length, most }),
        }
    }

    /// Takes `wanted` bytes from what is held and `input`; holds `input` when that isn't enough.
    fn take(&mut self, input: &mut Bytes, wanted: usize) -> Option<Bytes> {
        if self.partial.is_empty() && input.len() >= wanted {
            return Some(input.split_to(wanted));
        }
        let now = (wanted - self.partial.len()).min(input.len());
        self.partial.extend_from_slice(&input.split_to(now));
        if self.partial.len() < wanted {
            return None;
        }
        Some(std::mem::take(&mut self.partial).freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::derp::{Frame, MAX_PACKET_LEN};
    use crypto::NodePublic;
    use proptest::prelude::*;

    const KEY: NodePublic = NodePublic::from_bytes([7; 32]);

    fn decode(limits: Limits, pieces: &[&[u8]]) -> Result<Vec<RawFrame>, FrameError> {
        let mut decoder = FrameDecoder::new(limits);
        let mut frames = Vec::new();
        for piece in pieces {
            let mut input = Bytes::copy_from_slice(piece);
            while let Some(frame) = decoder.next(&mut input)? {
                frames.push(frame);
            }
            assert!(input.is_empty());
        }
        assert!(decoder.is_between_frames());
        Ok(frames)
    }

    fn header(kind: u8, length: u32) -> Vec<u8> {
        [&[kind][..], &length.to_be_bytes()].concat()
    }

    #[test]
    fn a_frame_in_one_piece_shares_the_memory_of_the_input() {
        let mut input = Bytes::from(Frame::SendPacket { destination: KEY, packet: b"packet" }.to_vec());
        let body = input.slice(5..);
        let frame = FrameDecoder::new(Limits::CLIENT).next(&mut input).unwrap().unwrap();
        assert_eq!(frame.body.as_ptr(), body.as_ptr());
    }

    #[test]
    fn drp_03_a_packet_of_64_kib_passes_and_one_byte_more_ends_the_stream() {
        let frame = Frame::SendPacket { destination: KEY, packet: &vec![1; MAX_PACKET_LEN] }.to_vec();
        assert_eq!(decode(Limits::CLIENT, &[&frame]).unwrap().len(), 1);
        let length = (32 + MAX_PACKET_LEN + 1) as u32;
        let error = decode(Limits::CLIENT, &[&header(0x04, length)]).unwrap_err();
        assert_eq!(error, FrameError::TooLong { kind: FrameKind(4), length, most: 32 + MAX_PACKET_LEN });
        assert_eq!(error.to_string(), "DERP frame of type 0x04 claims 65569 bytes, of which at most 65568 are allowed");
    }

    #[test]
    fn drp_03_four_gibibytes_are_refused_whatever_the_type() {
        for kind in 0..=255 {
            for limits in [Limits::UNPROVEN_CLIENT, Limits::CLIENT, Limits::RELAY] {
                let error = decode(limits, &[&header(kind, u32::MAX)]).unwrap_err();
                assert!(matches!(error, FrameError::TooLong { length: u32::MAX, .. }));
            }
        }
    }

    #[test]
    fn drp_03_an_unknown_type_of_legal_length_is_skipped_without_being_held() {
        let mut decoder = FrameDecoder::new(Limits::CLIENT);
        assert_eq!(decoder.next(&mut Bytes::from(header(0x7f, 64 << 10))), Ok(None));
        for _ in 0..64 {
            assert_eq!(decoder.next(&mut Bytes::from(vec![0; 1 << 10])), Ok(None));
            assert_eq!(decoder.partial.capacity(), 0);
        }
        let frame = decoder.next(&mut Bytes::from(Frame::KeepAlive.to_vec())).unwrap().unwrap();
        assert_eq!(frame.kind, FrameKind::KEEP_ALIVE);
        let error = decode(Limits::CLIENT, &[&header(0x7f, (64 << 10) + 1)]).unwrap_err();
        assert!(matches!(error, FrameError::TooLong { .. }));
    }

    #[test]
    fn drp_03_a_length_of_zero_is_a_frame_without_body() {
        assert_eq!(decode(Limits::CLIENT, &[&header(0x04, 0)]).unwrap()[0].body.len(), 0);
        assert_eq!(decode(Limits::CLIENT, &[&header(0x7f, 0)]).unwrap(), []);
    }

    #[test]
    fn drp_03_a_claimed_length_costs_no_memory_before_its_bytes_arrive() {
        let mut decoder = FrameDecoder::new(Limits::CLIENT);
        decoder.next(&mut Bytes::from(header(0x04, 32 + MAX_PACKET_LEN as u32))).unwrap();
        decoder.next(&mut Bytes::from_static(b"one")).unwrap();
        assert!(decoder.partial.capacity() <= 64);
        assert!(!decoder.is_between_frames());
    }

    #[test]
    fn drp_02_an_unproven_client_may_send_an_info_of_4_kib_and_no_packet() {
        let info = Frame::ClientInfo { key: KEY, sealed: &[0; (4 << 10) - 32] }.to_vec();
        assert_eq!(decode(Limits::UNPROVEN_CLIENT, &[&info]).unwrap().len(), 1);
        for header in [header(0x02, (4 << 10) + 1), header(0x04, 65), header(0x7f, 1)] {
            assert!(decode(Limits::UNPROVEN_CLIENT, &[&header]).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_split_of_a_stream_gives_the_same_frames(
            packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..8),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..20),
        ) {
            let mut stream = Vec::new();
            for packet in &packets {
                Frame::SendPacket { destination: KEY, packet }.encode(&mut stream);
                stream.extend_from_slice(&[0x7e, 0, 0, 0, 3, 1, 2, 3]);
            }
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|ends| &stream[ends[0]..ends[1]]).collect();
            let frames = decode(Limits::CLIENT, &pieces).unwrap();
            let got: Vec<&[u8]> = frames.iter().map(|frame| &frame.body[32..]).collect();
            prop_assert_eq!(got, packets);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut decoder = FrameDecoder::new(Limits::RELAY);
            let mut input = Bytes::from(bytes);
            while let Ok(Some(frame)) = decoder.next(&mut input) {
                let _ = Frame::parse(frame.kind, &frame.body);
            }
        }
    }
}
