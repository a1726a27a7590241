use crypto::{BOX_OVERHEAD, BoxError, DiscoPublic, Entropy, SharedBox};

use super::{Message, UnreadableMessage};

/// The six bytes that every disco packet starts with: `TS` and a speech balloon.
const MAGIC: [u8; 6] = *b"TS\xf0\x9f\x92\xac";

const HEADER: usize = MAGIC.len() + 32;

/// A disco packet that has not been opened: all that shows is whose it claims to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The disco key that the sender claims; proven by [`Envelope::open`].
    pub sender: DiscoPublic,
    sealed: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Whether a packet starts as disco does and is long enough for the shortest message.
    pub fn is_disco(packet: &[u8]) -> bool {
        packet.len() >= HEADER + BOX_OVERHEAD + 2 && packet.starts_with(&MAGIC)
    }

    /// Reads the outside of a packet; `None` when it is not disco.
    pub fn parse(packet: &'a [u8]) -> Option<Self> {
        if !Self::is_disco(packet) {
            return None;
        }
        let (sender, sealed) = packet[MAGIC.len()..].split_first_chunk::<32>()?;
        Some(Self { sender: DiscoPublic::from_bytes(*sender), sealed })
    }

    /// Opens the box with what this node and the sender share, which proves the sender.
    pub fn open(&self, shared: &SharedBox) -> Result<Message, OpenError> {
        Ok(Message::decode(&shared.open(self.sealed)?)?)
    }
}

/// Why an envelope gave no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The sender does not hold the key that the envelope claims, or the packet is damaged.
    #[error(transparent)]
    Box(#[from] BoxError),
    /// The sender is who it claims to be, but its message can't be read.
    #[error(transparent)]
    Message(#[from] UnreadableMessage),
}

/// A whole disco packet from `sender` with `message` in it; `shared` is the box between sender and receiver.
pub fn seal(sender: &DiscoPublic, shared: &SharedBox, message: &Message, entropy: &mut dyn Entropy) -> Vec<u8> {
    let sealed = shared.seal(&message.encode(), entropy);
    let mut packet = Vec::with_capacity(HEADER + sealed.len());
    packet.extend_from_slice(&MAGIC);
    packet.extend_from_slice(sender.as_bytes());
    packet.extend_from_slice(&sealed);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disco::{Ping, TransactionId};
    use crypto::{DiscoPrivate, NodePublic, SystemEntropy};
    use proptest::prelude::*;

    fn ping() -> Message {
        Message::Ping(Ping {
            transaction: TransactionId([7; 12]),
            node_key: Some(NodePublic::from_bytes([9; 32])),
            padding: 0,
        })
    }

    #[test]
    fn the_smallest_ping_is_a_packet_of_124_bytes_that_the_receiver_opens() {
        let (a, b) = (DiscoPrivate::generate(&mut SystemEntropy), DiscoPrivate::generate(&mut SystemEntropy));
        let packet = seal(&a.public(), &SharedBox::disco(&a, &b.public()).unwrap(), &ping(), &mut SystemEntropy);
        assert_eq!(packet.len(), 124);
        assert_eq!(hex::encode(&packet[..6]), "5453f09f92ac");
        let envelope = Envelope::parse(&packet).unwrap();
        assert_eq!(envelope.sender, a.public());
        assert_eq!(envelope.open(&SharedBox::disco(&b, &a.public()).unwrap()), Ok(ping()));
    }

    #[test]
    fn an_envelope_of_somebody_else_does_not_open() {
        let [a, b, c] = [(); 3].map(|()| DiscoPrivate::generate(&mut SystemEntropy));
        let packet = seal(&a.public(), &SharedBox::disco(&c, &b.public()).unwrap(), &ping(), &mut SystemEntropy);
        let opened = Envelope::parse(&packet).unwrap().open(&SharedBox::disco(&b, &a.public()).unwrap());
        assert_eq!(opened, Err(OpenError::Box(BoxError)));
    }

    #[test]
    fn what_is_too_short_for_a_message_is_not_disco() {
        let mut packet = MAGIC.to_vec();
        packet.resize(HEADER + BOX_OVERHEAD + 1, 0);
        assert_eq!(Envelope::parse(&packet), None);
        packet.push(0);
        assert!(Envelope::parse(&packet).is_some());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(rest in proptest::collection::vec(any::<u8>(), 0..200)) {
            let packet = [&MAGIC[..], &rest[..]].concat();
            let shared = SharedBox::disco(&DiscoPrivate::from_bytes([1; 32]), &DiscoPublic::from_bytes([2; 32])).unwrap();
            if let Some(envelope) = Envelope::parse(&packet) {
                prop_assert!(envelope.open(&shared).is_err());
            }
        }
    }
}
