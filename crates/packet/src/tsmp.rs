//! TSMP, IP protocol 99: short messages between two nodes of a tailnet, inside the tunnel.

use crypto::DiscoPublic;

use crate::Malformed;
use crate::ip::Protocol;

/// Why a node refused a flow. Others than those named here exist or will: they are kept as they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectReason {
    /// The access rules forbid it.
    AccessRules,
    /// The node takes no incoming connections.
    ShieldsUp,
    /// The node does not forward IP packets.
    ForwardingOff,
    /// The host's own firewall drops it.
    HostFirewall,
    /// An app connector does not know the address it would have to translate.
    UnknownTransitAddress,
    /// Another reason.
    Other(u8),
}

impl RejectReason {
    fn from_byte(byte: u8) -> Self {
        match byte {
            b'A' => Self::AccessRules,
            b'S' => Self::ShieldsUp,
            b'F' => Self::ForwardingOff,
            b'W' => Self::HostFirewall,
            b'T' => Self::UnknownTransitAddress,
            other => Self::Other(other),
        }
    }

    fn to_byte(self) -> u8 {
        match self {
            Self::AccessRules => b'A',
            Self::ShieldsUp => b'S',
            Self::ForwardingOff => b'F',
            Self::HostFirewall => b'W',
            Self::UnknownTransitAddress => b'T',
            Self::Other(byte) => byte,
        }
    }
}

/// A TSMP message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tsmp {
    /// The sender refused a flow from the node that this is sent to.
    Reject {
        /// The flow's protocol.
        protocol: Protocol,
        /// Why.
        reason: RejectReason,
        /// The flow's source port, at the node that this is sent to.
        source_port: u16,
        /// The flow's destination port, at the sender.
        destination_port: u16,
        /// The sender isn't sure: the rules would let it pass, but the host may not.
        maybe_broken: bool,
    },
    /// Asks for a pong with the same bytes.
    Ping([u8; 8]),
    /// Answers a ping.
    Pong {
        /// The ping's bytes.
        data: [u8; 8],
        /// Where the sender's PeerAPI listens; 0 when it has none.
        peer_api_port: u16,
    },
    /// The sender's current disco key, so that peers find each other while control is away.
    DiscoKey(DiscoPublic),
}

impl Tsmp {
    /// Reads the payload of an IP packet of protocol 99. Bytes after the known fields are left to later versions.
    pub fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        const CUT: Malformed = Malformed::new("TSMP message", "it is cut off");
        let (kind, body) = payload.split_first().ok_or(CUT)?;
        match kind {
            b'!' => {
                let [protocol, reason, a, b, c, d] = *body.first_chunk::<6>().ok_or(CUT)?;
                Ok(Self::Reject {
                    protocol: Protocol(protocol),
                    reason: RejectReason::from_byte(reason),
                    source_port: u16::from_be_bytes([a, b]),
                    destination_port: u16::from_be_bytes([c, d]),
                    maybe_broken: body.get(6).is_some_and(|flags| flags & 1 != 0),
                })
            }
            b'p' => Ok(Self::Ping(*body.first_chunk().ok_or(CUT)?)),
            b'o' => {
                let (data, rest) = body.split_first_chunk().ok_or(CUT)?;
                let port = rest.first_chunk().ok_or(CUT)?;
                Ok(Self::Pong { data: *data, peer_api_port: u16::from_be_bytes(*port) })
            }
            b'a' => Ok(Self::DiscoKey(DiscoPublic::from_bytes(*body.first_chunk().ok_or(CUT)?))),
            _ => Err(Malformed::new("TSMP message", "its type is unknown")),
        }
    }

    /// The payload of an IP packet of protocol 99.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Reject { protocol, reason, source_port, destination_port, maybe_broken } => {
                let [a, b] = source_port.to_be_bytes();
                let [c, d] = destination_port.to_be_bytes();
                let mut out = vec![b'!', protocol.0, reason.to_byte(), a, b, c, d];
                if *maybe_broken {
                    out.push(1);
                }
                out
            }
            Self::Ping(data) => [b"p", &data[..]].concat(),
            Self::Pong { data, peer_api_port } => [b"o", &data[..], &peer_api_port.to_be_bytes()].concat(),
            Self::DiscoKey(key) => [b"a", &key.as_bytes()[..]].concat(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_reject_is_written_as_the_wire_has_it() {
        let reject = Tsmp::Reject {
            protocol: Protocol::TCP,
            reason: RejectReason::AccessRules,
            source_port: 0x1234,
            destination_port: 443,
            maybe_broken: false,
        };
        assert_eq!(hex::encode(reject.encode()), "210641123401bb");
    }

    #[test]
    fn an_unknown_type_and_a_cut_message_are_refused_by_name() {
        assert_eq!(Tsmp::parse(b"z").unwrap_err().rule, "its type is unknown");
        assert_eq!(Tsmp::parse(b"").unwrap_err().rule, "it is cut off");
        assert_eq!(Tsmp::parse(b"p1234567").unwrap_err().rule, "it is cut off");
    }

    fn message() -> impl Strategy<Value = Tsmp> {
        prop_oneof![
            any::<(u8, u8, u16, u16, bool)>().prop_map(
                |(protocol, reason, source_port, destination_port, maybe_broken)| {
                    Tsmp::Reject {
                        protocol: Protocol(protocol),
                        reason: RejectReason::from_byte(reason),
                        source_port,
                        destination_port,
                        maybe_broken,
                    }
                }
            ),
            any::<[u8; 8]>().prop_map(Tsmp::Ping),
            any::<([u8; 8], u16)>().prop_map(|(data, peer_api_port)| Tsmp::Pong { data, peer_api_port }),
            any::<[u8; 32]>().prop_map(|key| Tsmp::DiscoKey(DiscoPublic::from_bytes(key))),
        ]
    }

    proptest! {
        #[test]
        fn every_message_reads_back(message in message()) {
            prop_assert_eq!(Tsmp::parse(&message.encode()), Ok(message));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Tsmp::parse(&bytes);
        }
    }
}
