//! WireGuard's four messages (whitepaper, section 5.4): views over what arrived, values for what is sent.
//!
//! All integers are little-endian; the three bytes behind the type are reserved and zero. Handshake messages and the
//! cookie reply have one length each, so a message of any other length is none. Nothing here verifies anything: a view
//! says where the pieces lie, and [`Initiation::under_mac1`] and its like say what an authenticator covers.

/// Bytes of a handshake initiation (type 1).
pub const INITIATION_LENGTH: usize = 148;
/// Bytes of a handshake response (type 2).
pub const RESPONSE_LENGTH: usize = 92;
/// Bytes of a cookie reply (type 3).
pub const COOKIE_REPLY_LENGTH: usize = 64;
/// Bytes before the ciphertext of a transport message (type 4).
pub const TRANSPORT_HEADER: usize = 16;
/// Bytes of the authenticator behind every ciphertext.
pub const TAG: usize = 16;
/// Bytes that a transport message has around the (padded) packet it carries; also the length of a keepalive.
pub const TRANSPORT_OVERHEAD: usize = TRANSPORT_HEADER + TAG;
/// What the plaintext of a transport message is padded to a multiple of.
pub const PADDING: usize = 16;

const INITIATION: u8 = 1;
const RESPONSE: u8 = 2;
const COOKIE_REPLY: u8 = 3;
const TRANSPORT: u8 = 4;

const MAC: usize = 16;

/// Why a datagram is not a WireGuard message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The datagram ends before the type and the reserved bytes do.
    #[error("a datagram of {0} bytes is too short for a WireGuard message")]
    Short(usize),
    /// The first byte is none of the four types.
    #[error("{0} is not the type of a WireGuard message")]
    Type(u8),
    /// A reserved byte is not zero.
    #[error("the reserved bytes behind the type are not zero")]
    Reserved,
    /// The message does not have the length of its type.
    #[error("a WireGuard message of type {kind} can't have {length} bytes")]
    Length {
        /// The message's type.
        kind: u8,
        /// The datagram's length.
        length: usize,
    },
}

/// A datagram, sorted by its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// Type 1.
    Initiation(Initiation<'a>),
    /// Type 2.
    Response(Response<'a>),
    /// Type 3.
    CookieReply(CookieReply<'a>),
    /// Type 4.
    Transport(TransportHeader),
}

impl<'a> Message<'a> {
    /// Sorts a datagram; what is not exactly one of the four messages is an error.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, MessageError> {
        let [kind, reserved @ .., _, _, _, _] =
            datagram.first_chunk::<8>().ok_or(MessageError::Short(datagram.len()))?;
        if !(INITIATION..=TRANSPORT).contains(kind) {
            return Err(MessageError::Type(*kind));
        }
        if reserved != &[0; 3] {
            return Err(MessageError::Reserved);
        }
        let length = MessageError::Length { kind: *kind, length: datagram.len() };
        match *kind {
            INITIATION => datagram.try_into().map(|bytes| Self::Initiation(Initiation(bytes))).map_err(|_| length),
            RESPONSE => datagram.try_into().map(|bytes| Self::Response(Response(bytes))).map_err(|_| length),
            COOKIE_REPLY => datagram.try_into().map(|bytes| Self::CookieReply(CookieReply(bytes))).map_err(|_| length),
            _ if datagram.len() >= TRANSPORT_OVERHEAD => Ok(Self::Transport(TransportHeader {
                receiver: u32::from_le_bytes(cut(datagram, 4)),
                counter: u64::from_le_bytes(cut(datagram, 8)),
            })),
            _ => Err(length),
        }
    }
}

/// `N` bytes from `at`; every caller's constants lie within the length it has checked.
fn cut<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// The accessors that both handshake messages have for their two authenticators, the last 32 bytes.
macro_rules! authenticators {
    ($name:ident, $length:ident) => {
        impl $name<'_> {
            /// Where the first authenticator begins; it covers everything before.
            pub const MAC1_AT: usize = $length - 2 * MAC;
            /// Where the second authenticator begins; it covers everything before, the first included.
            pub const MAC2_AT: usize = $length - MAC;

            /// The first authenticator, keyed by the receiver's public key.
            pub fn mac1(&self) -> [u8; 16] {
                cut(self.0, Self::MAC1_AT)
            }

            /// The second authenticator, keyed by a cookie; all zero when the sender holds none.
            pub fn mac2(&self) -> [u8; 16] {
                cut(self.0, Self::MAC2_AT)
            }

            /// What the first authenticator covers.
            pub fn under_mac1(&self) -> &[u8] {
                &self.0[..Self::MAC1_AT]
            }

            /// What the second authenticator covers.
            pub fn under_mac2(&self) -> &[u8] {
                &self.0[..Self::MAC2_AT]
            }

            /// The index that the sender wants messages of this handshake addressed to.
            pub fn sender(&self) -> u32 {
                u32::from_le_bytes(cut(self.0, 4))
            }
        }
    };
}

/// A view of a handshake initiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Initiation<'a>(&'a [u8; INITIATION_LENGTH]);

authenticators!(Initiation, INITIATION_LENGTH);

impl Initiation<'_> {
    /// The initiator's ephemeral public key.
    pub fn ephemeral(&self) -> [u8; 32] {
        cut(self.0, 8)
    }

    /// The initiator's static public key, sealed.
    pub fn sealed_static(&self) -> [u8; 48] {
        cut(self.0, 40)
    }

    /// The initiator's TAI64N timestamp, sealed.
    pub fn sealed_timestamp(&self) -> [u8; 28] {
        cut(self.0, 88)
    }
}

/// A handshake initiation to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitiationRepr {
    /// The index that answers shall be addressed to.
    pub sender: u32,
    /// The initiator's ephemeral public key.
    pub ephemeral: [u8; 32],
    /// The initiator's static public key, sealed.
    pub sealed_static: [u8; 48],
    /// The initiator's TAI64N timestamp, sealed.
    pub sealed_timestamp: [u8; 28],
}

impl InitiationRepr {
    /// The message with both authenticators zero: they are computed over the rest.
    pub fn emit(&self) -> [u8; INITIATION_LENGTH] {
        let mut out = [0; INITIATION_LENGTH];
        out[0] = INITIATION;
        out[4..8].copy_from_slice(&self.sender.to_le_bytes());
        out[8..40].copy_from_slice(&self.ephemeral);
        out[40..88].copy_from_slice(&self.sealed_static);
        out[88..116].copy_from_slice(&self.sealed_timestamp);
        out
    }
}

/// A view of a handshake response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response<'a>(&'a [u8; RESPONSE_LENGTH]);

authenticators!(Response, RESPONSE_LENGTH);

impl Response<'_> {
    /// The index from the initiation that this answers.
    pub fn receiver(&self) -> u32 {
        u32::from_le_bytes(cut(self.0, 8))
    }

    /// The responder's ephemeral public key.
    pub fn ephemeral(&self) -> [u8; 32] {
        cut(self.0, 12)
    }

    /// The authenticator over nothing that proves the responder.
    pub fn sealed_nothing(&self) -> [u8; 16] {
        cut(self.0, 44)
    }
}

/// A handshake response to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseRepr {
    /// The index that messages of the session shall be addressed to.
    pub sender: u32,
    /// The index from the initiation.
    pub receiver: u32,
    /// The responder's ephemeral public key.
    pub ephemeral: [u8; 32],
    /// The authenticator over nothing that proves the responder.
    pub sealed_nothing: [u8; 16],
}

impl ResponseRepr {
    /// The message with both authenticators zero: they are computed over the rest.
    pub fn emit(&self) -> [u8; RESPONSE_LENGTH] {
        let mut out = [0; RESPONSE_LENGTH];
        out[0] = RESPONSE;
        out[4..8].copy_from_slice(&self.sender.to_le_bytes());
        out[8..12].copy_from_slice(&self.receiver.to_le_bytes());
        out[12..44].copy_from_slice(&self.ephemeral);
        out[44..60].copy_from_slice(&self.sealed_nothing);
        out
    }
}

/// A view of a cookie reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CookieReply<'a>(&'a [u8; COOKIE_REPLY_LENGTH]);

impl CookieReply<'_> {
    /// The index from the handshake message that this answers.
    pub fn receiver(&self) -> u32 {
        u32::from_le_bytes(cut(self.0, 4))
    }

    /// The nonce that the cookie is sealed under.
    pub fn nonce(&self) -> [u8; 24] {
        cut(self.0, 8)
    }

    /// The cookie, sealed.
    pub fn sealed_cookie(&self) -> [u8; 32] {
        cut(self.0, 32)
    }
}

/// A cookie reply to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CookieReplyRepr {
    /// The index from the handshake message that this answers.
    pub receiver: u32,
    /// The nonce that the cookie is sealed under.
    pub nonce: [u8; 24],
    /// The cookie, sealed.
    pub sealed_cookie: [u8; 32],
}

impl CookieReplyRepr {
    /// The message.
    pub fn emit(&self) -> [u8; COOKIE_REPLY_LENGTH] {
        let mut out = [0; COOKIE_REPLY_LENGTH];
        out[0] = COOKIE_REPLY;
        out[4..8].copy_from_slice(&self.receiver.to_le_bytes());
        out[8..32].copy_from_slice(&self.nonce);
        out[32..].copy_from_slice(&self.sealed_cookie);
        out
    }
}

/// What stands before the ciphertext of a transport message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransportHeader {
    /// The receiver's index of the session.
    pub receiver: u32,
    /// The message's number within the session, the cipher's nonce.
    pub counter: u64,
}

impl TransportHeader {
    /// Reads the header of a transport message, which has at least [`TRANSPORT_OVERHEAD`] bytes.
    ///
    /// The same verdict as [`Message::parse`], for threads to which every other type is a stranger.
    #[inline]
    pub fn parse(datagram: &[u8]) -> Result<Self, MessageError> {
        match datagram {
            [TRANSPORT, 0, 0, 0, r0, r1, r2, r3, c0, c1, c2, c3, c4, c5, c6, c7, sealed @ ..]
                if sealed.len() >= TAG =>
            {
                Ok(Self {
                    receiver: u32::from_le_bytes([*r0, *r1, *r2, *r3]),
                    counter: u64::from_le_bytes([*c0, *c1, *c2, *c3, *c4, *c5, *c6, *c7]),
                })
            }
            _ => Err(match Message::parse(datagram) {
                Ok(_) => MessageError::Type(datagram.first().copied().unwrap_or_default()),
                Err(error) => error,
            }),
        }
    }

    /// The header's bytes.
    #[inline]
    pub fn emit(&self) -> [u8; TRANSPORT_HEADER] {
        let mut out = [0; TRANSPORT_HEADER];
        out[0] = TRANSPORT;
        out[4..8].copy_from_slice(&self.receiver.to_le_bytes());
        out[8..16].copy_from_slice(&self.counter.to_le_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes<const N: usize>(from: u8) -> [u8; N] {
        std::array::from_fn(|at| from.wrapping_add(at as u8))
    }

    fn initiation() -> [u8; INITIATION_LENGTH] {
        InitiationRepr {
            sender: 0x0403_0201,
            ephemeral: bytes(10),
            sealed_static: bytes(50),
            sealed_timestamp: bytes(100),
        }
        .emit()
    }

    #[test]
    fn an_initiation_reads_back_and_lies_where_the_protocol_says() {
        let mut message = initiation();
        assert_eq!(message[..9], [1, 0, 0, 0, 1, 2, 3, 4, 10]);
        message[116..].copy_from_slice(&bytes::<32>(200));
        let Ok(Message::Initiation(view)) = Message::parse(&message) else { panic!("an initiation was expected") };
        assert_eq!(view.sender(), 0x0403_0201);
        assert_eq!(view.ephemeral(), bytes(10));
        assert_eq!(view.sealed_static(), bytes(50));
        assert_eq!(view.sealed_timestamp(), bytes(100));
        assert_eq!((view.mac1(), view.mac2()), (bytes(200), bytes(216)));
        assert_eq!((view.under_mac1().len(), view.under_mac2().len()), (116, 132));
    }

    #[test]
    fn a_response_reads_back_and_lies_where_the_protocol_says() {
        let repr = ResponseRepr { sender: 7, receiver: 9, ephemeral: bytes(1), sealed_nothing: bytes(60) };
        let message = repr.emit();
        assert_eq!(message[..13], [2, 0, 0, 0, 7, 0, 0, 0, 9, 0, 0, 0, 1]);
        let Ok(Message::Response(view)) = Message::parse(&message) else { panic!("a response was expected") };
        assert_eq!((view.sender(), view.receiver()), (7, 9));
        assert_eq!((view.ephemeral(), view.sealed_nothing()), (bytes(1), bytes(60)));
        assert_eq!((view.under_mac1().len(), view.under_mac2().len()), (60, 76));
    }

    #[test]
    fn a_cookie_reply_reads_back_and_lies_where_the_protocol_says() {
        let message = CookieReplyRepr { receiver: 5, nonce: bytes(3), sealed_cookie: bytes(90) }.emit();
        assert_eq!(message[..9], [3, 0, 0, 0, 5, 0, 0, 0, 3]);
        let Ok(Message::CookieReply(view)) = Message::parse(&message) else { panic!("a cookie reply was expected") };
        assert_eq!((view.receiver(), view.nonce(), view.sealed_cookie()), (5, bytes(3), bytes(90)));
    }

    #[test]
    fn a_transport_header_reads_back_once_a_tag_follows() {
        let header = TransportHeader { receiver: 0xdead_beef, counter: 0x0102_0304_0506_0708 };
        let mut message = header.emit().to_vec();
        assert_eq!(message, [4, 0, 0, 0, 0xef, 0xbe, 0xad, 0xde, 8, 7, 6, 5, 4, 3, 2, 1]);
        message.extend_from_slice(&[0; 15]);
        assert_eq!(TransportHeader::parse(&message), Err(MessageError::Length { kind: 4, length: 31 }));
        message.push(0);
        assert_eq!(TransportHeader::parse(&message), Ok(header));
        assert_eq!(Message::parse(&message), Ok(Message::Transport(header)));
    }

    #[test]
    fn a_reserved_byte_that_is_not_zero_is_refused_in_every_type() {
        for (kind, length) in [(1, INITIATION_LENGTH), (2, RESPONSE_LENGTH), (3, COOKIE_REPLY_LENGTH), (4, 64)] {
            for reserved in 1..4 {
                let mut message = vec![0; length];
                message[0] = kind;
                assert!(Message::parse(&message).is_ok());
                message[reserved] = 1;
                assert_eq!(Message::parse(&message), Err(MessageError::Reserved));
                assert!(TransportHeader::parse(&message).is_err());
            }
        }
    }

    #[test]
    fn a_message_of_another_length_than_its_type_has_is_refused() {
        for (kind, length) in [(1u8, INITIATION_LENGTH), (2, RESPONSE_LENGTH), (3, COOKIE_REPLY_LENGTH)] {
            for wrong in [8, length - 1, length + 1, 1500, 65535] {
                let mut message = vec![0; wrong];
                message[0] = kind;
                assert_eq!(Message::parse(&message), Err(MessageError::Length { kind, length: wrong }));
            }
        }
        assert_eq!(Message::parse(&[1, 0, 0]), Err(MessageError::Short(3)));
        assert_eq!(Message::parse(&[]), Err(MessageError::Short(0)));
        assert_eq!(Message::parse(&[5; 100]), Err(MessageError::Type(5)));
    }

    #[test]
    fn what_is_no_message_is_told_by_the_rule_that_it_breaks() {
        for (datagram, says) in [
            (&[1, 0, 0][..], "a datagram of 3 bytes is too short for a WireGuard message"),
            (&[5; 100], "5 is not the type of a WireGuard message"),
            (&[1; 148], "the reserved bytes behind the type are not zero"),
            (&[2, 0, 0, 0, 0, 0, 0, 0, 0], "a WireGuard message of type 2 can't have 9 bytes"),
        ] {
            assert_eq!(Message::parse(datagram).unwrap_err().to_string(), says);
            assert_eq!(TransportHeader::parse(datagram).unwrap_err().to_string(), says);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_both_parsers_agree_on_transport(
            kind in 0u8..7, mut tail in proptest::collection::vec(any::<u8>(), 0..200), zero in any::<bool>(),
        ) {
            if zero {
                tail.iter_mut().take(3).for_each(|byte| *byte = 0);
            }
            tail.insert(0, kind);
            let sorted = Message::parse(&tail);
            let header = TransportHeader::parse(&tail);
            prop_assert_eq!(matches!(sorted, Ok(Message::Transport(_))), header.is_ok());
            if let (Ok(Message::Transport(a)), Ok(b)) = (sorted, header) {
                prop_assert_eq!(a, b);
            }
        }
    }
}
