//! Tells apart what shares one UDP socket: STUN, Geneve, disco and WireGuard.

use crate::disco::Envelope;
use crate::geneve::{Geneve, Inner};
use crate::stun;

/// What a datagram is, judged by its first bytes; none of it is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datagram<'a> {
    /// A STUN message.
    Stun(&'a [u8]),
    /// Disco or WireGuard through a peer relay.
    Relayed {
        /// The outer header.
        header: Geneve,
        /// What it carries.
        inner: Carried<'a>,
    },
    /// Disco or WireGuard from its sender itself.
    Direct(Carried<'a>),
    /// None of these.
    Unknown,
}

/// A packet between two nodes, by whatever way it came: UDP, peer relay or DERP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carried<'a> {
    /// A disco packet.
    Disco(Envelope<'a>),
    /// A packet that starts with one of WireGuard's four types.
    WireGuard(&'a [u8]),
}

impl<'a> Carried<'a> {
    /// Judges a packet without an outer header, as a DERP relay hands it over.
    pub fn classify(packet: &'a [u8]) -> Option<Self> {
        if let Some(envelope) = Envelope::parse(packet) {
            return Some(Self::Disco(envelope));
        }
        matches!(packet, [1..=4, 0, 0, 0, ..]).then_some(Self::WireGuard(packet))
    }
}

impl<'a> Datagram<'a> {
    /// Judges a datagram from the socket.
    ///
    /// WireGuard is asked first, as nearly all datagrams are; no other format has its first four bytes, except the
    /// STUN messages that its type 1 could be taken for, which carry their length where WireGuard has zeros.
    pub fn classify(datagram: &'a [u8]) -> Self {
        if let Some(carried) = Carried::classify(datagram) {
            return Self::Direct(carried);
        }
        if stun::is_stun(datagram) {
            return Self::Stun(datagram);
        }
        let Ok((header, rest)) = Geneve::parse(datagram) else { return Self::Unknown };
        match (header.inner, Carried::classify(rest)) {
            (Inner::Disco, Some(inner @ Carried::Disco(_))) => Self::Relayed { header, inner },
            (Inner::WireGuard, Some(inner @ Carried::WireGuard(_))) => Self::Relayed { header, inner },
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disco::{self, Message, Pong, TransactionId};
    use crypto::{DiscoPrivate, SharedBox, SystemEntropy};
    use proptest::prelude::*;

    fn disco_packet() -> Vec<u8> {
        let key = DiscoPrivate::from_bytes([1; 32]);
        let pong =
            Message::Pong(Pong { transaction: TransactionId([1; 12]), observed: "2.3.4.5:1234".parse().unwrap() });
        disco::seal(&key.public(), &SharedBox::disco(&key, &key.public()).unwrap(), &pong, &mut SystemEntropy)
    }

    #[test]
    fn each_format_is_told_from_the_others() {
        let request = stun::request(stun::TransactionId([4; 12]));
        assert_eq!(Datagram::classify(&request), Datagram::Stun(&request));
        let answer = stun::response(stun::TransactionId([4; 12]), "1.2.3.4:5".parse().unwrap());
        assert_eq!(Datagram::classify(&answer), Datagram::Stun(&answer));
        let disco = disco_packet();
        assert!(matches!(Datagram::classify(&disco), Datagram::Direct(Carried::Disco(_))));
        for kind in 1..=4 {
            let mut packet = vec![0; 148];
            packet[0] = kind;
            assert_eq!(Datagram::classify(&packet), Datagram::Direct(Carried::WireGuard(&packet)));
        }
        assert_eq!(Datagram::classify(b""), Datagram::Unknown);
        assert_eq!(Datagram::classify(&[5, 0, 0, 0, 1]), Datagram::Unknown);
        assert_eq!(Datagram::classify(&[4, 0, 0, 1, 1]), Datagram::Unknown);
    }

    #[test]
    fn geneve_carries_only_what_its_header_names() {
        let disco = disco_packet();
        let wrap = |inner| [&Geneve { vni: 7, control: true, inner }.encode()[..], &disco[..]].concat();
        let right = wrap(Inner::Disco);
        let Datagram::Relayed { header, inner: Carried::Disco(_) } = Datagram::classify(&right) else { panic!() };
        assert_eq!((header.vni, header.control), (7, true));
        assert_eq!(Datagram::classify(&wrap(Inner::WireGuard)), Datagram::Unknown);
    }

    #[test]
    fn a_wireguard_packet_whose_index_is_the_stun_cookie_stays_wireguard() {
        for kind in 1..=4u8 {
            let mut packet = vec![0; 92];
            packet[0] = kind;
            packet[4..8].copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
            assert_eq!(Datagram::classify(&packet), Datagram::Direct(Carried::WireGuard(&packet)));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            Datagram::classify(&bytes);
        }
    }
}
