use std::net::SocketAddr;
use std::time::Duration;

use crypto::{DiscoPublic, Entropy, NodePublic};

use crate::endpoint::{self, ENDPOINT_LEN};

/// What every message starts with after its type. Later versions only add to the end of a body.
const VERSION: u8 = 0;

/// Tells the pongs of several pings apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(pub [u8; 12]);

impl TransactionId {
    /// Draws a new one.
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        let mut bytes = [0; 12];
        entropy.fill(&mut bytes);
        Self(bytes)
    }
}

/// A disco message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// 01: does this path work?
    Ping(Ping),
    /// 02: it does.
    Pong(Pong),
    /// 03, by relay only: try to reach me here.
    CallMeMaybe(CallMeMaybe),
    /// 04, to a peer relay: I want to use this endpoint.
    RelayBind(RelayBind),
    /// 05, from a peer relay: prove that you receive at this address.
    RelayBindChallenge(RelayBind),
    /// 06, to a peer relay: the proof.
    RelayBindAnswer(RelayBind),
    /// 07, by relay only: try to reach me through this peer relay.
    CallMeMaybeVia(CallMeMaybeVia),
    /// 08, to a peer relay by DERP: make an endpoint for us two.
    RelayAllocateRequest(RelayAllocateRequest),
    /// 09, from a peer relay by DERP: here it is.
    RelayAllocateResponse(RelayAllocateResponse),
}

/// Asks whether a path works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ping {
    /// What the pong repeats.
    pub transaction: TransactionId,
    /// The sender's node key: several nodes may share one disco key. Clients older than this field send none.
    pub node_key: Option<NodePublic>,
    /// Zero bytes at the end, to try a path's MTU. Without a node key there is none.
    pub padding: u16,
}

/// Says that a path works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pong {
    /// The ping's.
    pub transaction: TransactionId,
    /// Where the ping came from, as its receiver saw it.
    pub observed: SocketAddr,
}

/// Asks the receiver to ping the sender at all these endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallMeMaybe {
    /// Where the sender may be reached.
    pub endpoints: Vec<SocketAddr>,
}

/// The body that the three messages of a peer relay's handshake share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayBind {
    /// The endpoint's number.
    pub vni: u32,
    /// Which of the client's handshakes this is; starts at 1.
    pub generation: u32,
    /// The disco key of the node at the other side of the endpoint.
    pub remote: DiscoPublic,
    /// What the relay wants back; zero in the first message.
    pub challenge: [u8; 32],
}

/// An endpoint of a peer relay, as it was allocated for two nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayEndpoint {
    /// The relay's disco key.
    pub server: DiscoPublic,
    /// The two nodes that may use it, in order.
    pub clients: [DiscoPublic; 2],
    /// Orders the allocations of one relay.
    pub lamport: u64,
    /// The endpoint's number, 24 bits.
    pub vni: u32,
    /// How long the relay waits for both to bind.
    pub bind_lifetime: Duration,
    /// How long it waits for traffic afterwards.
    pub steady_lifetime: Duration,
    /// Where the relay listens.
    pub addresses: Vec<SocketAddr>,
}

/// Asks the receiver to reach the sender through a peer relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallMeMaybeVia {
    /// The relay's endpoint.
    pub endpoint: RelayEndpoint,
}

/// Asks a peer relay for an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayAllocateRequest {
    /// The two nodes that are to use it.
    pub clients: [DiscoPublic; 2],
    /// Repeated in the response.
    pub generation: u32,
}

/// A peer relay's endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayAllocateResponse {
    /// The request's.
    pub generation: u32,
    /// The endpoint.
    pub endpoint: RelayEndpoint,
}

/// Why the inside of an envelope is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableMessage {
    /// Its type is none that this version knows.
    #[error("disco message of unknown type {0:#04x}")]
    UnknownType(u8),
    /// Its body ends before its last field, or in the middle of an endpoint.
    #[error("disco message of type {0:#04x} is cut off")]
    Cut(u8),
    /// A duration or a length is out of the range that can be represented.
    #[error("disco message of type {0:#04x} has a field out of range")]
    Range(u8),
}

const PING: u8 = 0x01;
const PONG: u8 = 0x02;
const CALL_ME_MAYBE: u8 = 0x03;
const RELAY_BIND: u8 = 0x04;
const RELAY_BIND_CHALLENGE: u8 = 0x05;
const RELAY_BIND_ANSWER: u8 = 0x06;
const CALL_ME_MAYBE_VIA: u8 = 0x07;
const RELAY_ALLOCATE_REQUEST: u8 = 0x08;
const RELAY_ALLOCATE_RESPONSE: u8 = 0x09;

impl Message {
    /// Reads the inside of an envelope. Bytes after the known fields are left to later versions.
    pub fn decode(bytes: &[u8]) -> Result<Self, UnreadableMessage> {
        let (&[kind, _version], body) = bytes.split_first_chunk::<2>().ok_or(UnreadableMessage::Cut(0))?;
        let mut body = Body { kind, rest: body };
        Ok(match kind {
            PING => Self::Ping(body.ping()?),
            PONG => {
                Self::Pong(Pong { transaction: TransactionId(body.take()?), observed: endpoint::read(&body.take()?) })
            }
            CALL_ME_MAYBE => Self::CallMeMaybe(CallMeMaybe { endpoints: body.endpoints()? }),
            RELAY_BIND => Self::RelayBind(body.relay_bind()?),
            RELAY_BIND_CHALLENGE => Self::RelayBindChallenge(body.relay_bind()?),
            RELAY_BIND_ANSWER => Self::RelayBindAnswer(body.relay_bind()?),
            CALL_ME_MAYBE_VIA => Self::CallMeMaybeVia(CallMeMaybeVia { endpoint: body.relay_endpoint()? }),
            RELAY_ALLOCATE_REQUEST => Self::RelayAllocateRequest(RelayAllocateRequest {
                clients: [body.disco_key()?, body.disco_key()?],
                generation: body.number()?,
            }),
            RELAY_ALLOCATE_RESPONSE => Self::RelayAllocateResponse(RelayAllocateResponse {
                generation: body.number()?,
                endpoint: body.relay_endpoint()?,
            }),
            other => return Err(UnreadableMessage::UnknownType(other)),
        })
    }

    /// Writes the inside of an envelope.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.kind(), VERSION];
        match self {
            Self::Ping(ping) => {
                out.extend_from_slice(&ping.transaction.0);
                if let Some(key) = &ping.node_key {
                    out.extend_from_slice(key.as_bytes());
                    out.resize(out.len() + usize::from(ping.padding), 0);
                }
            }
            Self::Pong(pong) => {
                out.extend_from_slice(&pong.transaction.0);
                out.extend_from_slice(&endpoint::write(pong.observed));
            }
            Self::CallMeMaybe(call) => write_endpoints(&mut out, &call.endpoints),
            Self::RelayBind(bind) | Self::RelayBindChallenge(bind) | Self::RelayBindAnswer(bind) => {
                out.extend_from_slice(&bind.vni.to_be_bytes());
                out.extend_from_slice(&bind.generation.to_be_bytes());
                out.extend_from_slice(bind.remote.as_bytes());
                out.extend_from_slice(&bind.challenge);
            }
            Self::CallMeMaybeVia(call) => write_relay_endpoint(&mut out, &call.endpoint),
            Self::RelayAllocateRequest(request) => {
                out.extend_from_slice(request.clients[0].as_bytes());
                out.extend_from_slice(request.clients[1].as_bytes());
                out.extend_from_slice(&request.generation.to_be_bytes());
            }
            Self::RelayAllocateResponse(response) => {
                out.extend_from_slice(&response.generation.to_be_bytes());
                write_relay_endpoint(&mut out, &response.endpoint);
            }
        }
        out
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Ping(_) => PING,
            Self::Pong(_) => PONG,
            Self::CallMeMaybe(_) => CALL_ME_MAYBE,
            Self::RelayBind(_) => RELAY_BIND,
            Self::RelayBindChallenge(_) => RELAY_BIND_CHALLENGE,
            Self::RelayBindAnswer(_) => RELAY_BIND_ANSWER,
            Self::CallMeMaybeVia(_) => CALL_ME_MAYBE_VIA,
            Self::RelayAllocateRequest(_) => RELAY_ALLOCATE_REQUEST,
            Self::RelayAllocateResponse(_) => RELAY_ALLOCATE_RESPONSE,
        }
    }
}

fn write_endpoints(out: &mut Vec<u8>, endpoints: &[SocketAddr]) {
    for endpoint in endpoints {
        out.extend_from_slice(&endpoint::write(*endpoint));
    }
}

fn write_relay_endpoint(out: &mut Vec<u8>, endpoint: &RelayEndpoint) {
    out.extend_from_slice(endpoint.server.as_bytes());
    out.extend_from_slice(endpoint.clients[0].as_bytes());
    out.extend_from_slice(endpoint.clients[1].as_bytes());
    out.extend_from_slice(&endpoint.lamport.to_be_bytes());
    out.extend_from_slice(&endpoint.vni.to_be_bytes());
    for lifetime in [endpoint.bind_lifetime, endpoint.steady_lifetime] {
        let nanoseconds = i64::try_from(lifetime.as_nanos()).unwrap_or(i64::MAX);
        out.extend_from_slice(&nanoseconds.to_be_bytes());
    }
    write_endpoints(out, &endpoint.addresses);
}

/// What is left of a body, and whose body it is.
struct Body<'a> {
    kind: u8,
    rest: &'a [u8],
}

impl Body<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], UnreadableMessage> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(UnreadableMessage::Cut(self.kind))?;
        self.rest = rest;
        Ok(*taken)
    }

    fn number(&mut self) -> Result<u32, UnreadableMessage> {
        self.take().map(u32::from_be_bytes)
    }

    fn disco_key(&mut self) -> Result<DiscoPublic, UnreadableMessage> {
        self.take().map(DiscoPublic::from_bytes)
    }

    /// A lifetime is a signed count of nanoseconds; a negative one can't be meant.
    fn lifetime(&mut self) -> Result<Duration, UnreadableMessage> {
        let nanoseconds = i64::from_be_bytes(self.take()?);
        u64::try_from(nanoseconds).map(Duration::from_nanos).map_err(|_| UnreadableMessage::Range(self.kind))
    }

    fn ping(&mut self) -> Result<Ping, UnreadableMessage> {
        let transaction = TransactionId(self.take()?);
        let node_key = self.take().ok().map(NodePublic::from_bytes);
        let padding = match node_key {
            Some(_) => u16::try_from(self.rest.len()).map_err(|_| UnreadableMessage::Range(self.kind))?,
            None => 0,
        };
        Ok(Ping { transaction, node_key, padding })
    }

    fn endpoints(&mut self) -> Result<Vec<SocketAddr>, UnreadableMessage> {
        let (endpoints, cut) = self.rest.as_chunks::<ENDPOINT_LEN>();
        if cut.is_empty() {
            Ok(endpoints.iter().map(endpoint::read).collect())
        } else {
            Err(UnreadableMessage::Cut(self.kind))
        }
    }

    fn relay_bind(&mut self) -> Result<RelayBind, UnreadableMessage> {
        Ok(RelayBind {
            vni: self.number()?,
            generation: self.number()?,
            remote: self.disco_key()?,
            challenge: self.take()?,
        })
    }

    fn relay_endpoint(&mut self) -> Result<RelayEndpoint, UnreadableMessage> {
        Ok(RelayEndpoint {
            server: self.disco_key()?,
            clients: [self.disco_key()?, self.disco_key()?],
            lamport: u64::from_be_bytes(self.take()?),
            vni: self.number()?,
            bind_lifetime: self.lifetime()?,
            steady_lifetime: self.lifetime()?,
            addresses: self.endpoints()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::IpAddr;

    fn endpoints() -> impl Strategy<Value = Vec<SocketAddr>> {
        let endpoint = any::<(IpAddr, u16)>().prop_map(|(ip, port)| SocketAddr::new(ip.to_canonical(), port));
        proptest::collection::vec(endpoint, 0..6)
    }

    fn key() -> impl Strategy<Value = DiscoPublic> {
        any::<[u8; 32]>().prop_map(DiscoPublic::from_bytes)
    }

    fn bind() -> impl Strategy<Value = RelayBind> {
        (any::<u32>(), any::<u32>(), key(), any::<[u8; 32]>())
            .prop_map(|(vni, generation, remote, challenge)| RelayBind { vni, generation, remote, challenge })
    }

    fn relay_endpoint() -> impl Strategy<Value = RelayEndpoint> {
        (key(), [key(), key()], any::<u64>(), any::<u32>(), [0..1u64 << 62, 0..1u64 << 62], endpoints()).prop_map(
            |(server, clients, lamport, vni, [bind, steady], addresses)| RelayEndpoint {
                server,
                clients,
                lamport,
                vni,
                bind_lifetime: Duration::from_nanos(bind),
                steady_lifetime: Duration::from_nanos(steady),
                addresses,
            },
        )
    }

    fn message() -> impl Strategy<Value = Message> {
        let ping = (any::<[u8; 12]>(), proptest::option::of((any::<[u8; 32]>(), 0..2000u16))).prop_map(|(id, rest)| {
            Message::Ping(Ping {
                transaction: TransactionId(id),
                node_key: rest.map(|(key, _)| NodePublic::from_bytes(key)),
                padding: rest.map_or(0, |(_, padding)| padding),
            })
        });
        let pong = (any::<[u8; 12]>(), any::<(IpAddr, u16)>()).prop_map(|(id, (ip, port))| {
            Message::Pong(Pong { transaction: TransactionId(id), observed: SocketAddr::new(ip.to_canonical(), port) })
        });
        prop_oneof![
            ping,
            pong,
            endpoints().prop_map(|endpoints| Message::CallMeMaybe(CallMeMaybe { endpoints })),
            bind().prop_map(Message::RelayBind),
            bind().prop_map(Message::RelayBindChallenge),
            bind().prop_map(Message::RelayBindAnswer),
            relay_endpoint().prop_map(|endpoint| Message::CallMeMaybeVia(CallMeMaybeVia { endpoint })),
            ([key(), key()], any::<u32>()).prop_map(|(clients, generation)| {
                Message::RelayAllocateRequest(RelayAllocateRequest { clients, generation })
            }),
            (any::<u32>(), relay_endpoint()).prop_map(|(generation, endpoint)| {
                Message::RelayAllocateResponse(RelayAllocateResponse { generation, endpoint })
            }),
        ]
    }

    #[test]
    fn ping_and_pong_are_written_as_the_wire_has_them() {
        let transaction = TransactionId([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        let old = Message::Ping(Ping { transaction, node_key: None, padding: 0 });
        assert_eq!(hex::encode(old.encode()), "01000102030405060708090a0b0c");
        let node_key = Some(NodePublic::from_bytes([0xee; 32]));
        let padded = Message::Ping(Ping { transaction, node_key, padding: 3 });
        let expected = format!("01000102030405060708090a0b0c{}000000", "ee".repeat(32));
        assert_eq!(hex::encode(padded.encode()), expected);
        let pong = Message::Pong(Pong { transaction, observed: "2.3.4.5:1234".parse().unwrap() });
        let expected = "02000102030405060708090a0b0c00000000000000000000ffff0203040504d2";
        assert_eq!(hex::encode(pong.encode()), expected);
    }

    #[test]
    fn call_me_maybe_is_written_as_the_wire_has_it() {
        let endpoints = vec!["1.2.3.4:567".parse().unwrap(), "[2001::3456]:789".parse().unwrap()];
        let call = Message::CallMeMaybe(CallMeMaybe { endpoints });
        let expected = "030000000000000000000000ffff010203040237200100000000000000000000000034560315";
        assert_eq!(hex::encode(call.encode()), expected);
    }

    #[test]
    fn the_relay_messages_are_written_as_the_wire_has_them() {
        let bind =
            RelayBind { vni: 1, generation: 2, remote: DiscoPublic::from_bytes([0xaa; 32]), challenge: [0xbb; 32] };
        let body = format!("000000010000000 2{}{}", "aa".repeat(32), "bb".repeat(32)).replace(' ', "");
        assert_eq!(hex::encode(Message::RelayBind(bind).encode()), format!("0400{body}"));
        assert_eq!(hex::encode(Message::RelayBindChallenge(bind).encode()), format!("0500{body}"));
        assert_eq!(hex::encode(Message::RelayBindAnswer(bind).encode()), format!("0600{body}"));
        let endpoint = RelayEndpoint {
            server: DiscoPublic::from_bytes([1; 32]),
            clients: [DiscoPublic::from_bytes([2; 32]), DiscoPublic::from_bytes([3; 32])],
            lamport: 4,
            vni: 5,
            bind_lifetime: Duration::from_secs(1),
            steady_lifetime: Duration::from_nanos(6),
            addresses: vec!["1.2.3.4:5".parse().unwrap()],
        };
        let body = [
            "01".repeat(32),
            "02".repeat(32),
            "03".repeat(32),
            "0000000000000004".to_owned(),
            "00000005".to_owned(),
            "000000003b9aca00".to_owned(),
            "0000000000000006".to_owned(),
            "00000000000000000000ffff010203040005".to_owned(),
        ]
        .concat();
        let via = Message::CallMeMaybeVia(CallMeMaybeVia { endpoint: endpoint.clone() });
        assert_eq!(hex::encode(via.encode()), format!("0700{body}"));
        let request = RelayAllocateRequest { clients: endpoint.clients, generation: 7 };
        let expected = format!("0800{}{}00000007", "02".repeat(32), "03".repeat(32));
        assert_eq!(hex::encode(Message::RelayAllocateRequest(request).encode()), expected);
        let response = Message::RelayAllocateResponse(RelayAllocateResponse { generation: 7, endpoint });
        assert_eq!(hex::encode(response.encode()), format!("090000000007{body}"));
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_name() {
        let mut negative = vec![7, 0];
        negative.resize(2 + 32 * 3 + 8 + 4, 0);
        negative.extend_from_slice(&[0xff; 16]);
        for (bytes, refusal, says) in [
            (&[][..], UnreadableMessage::Cut(0), "disco message of type 0x00 is cut off"),
            (&[0x7f, 0], UnreadableMessage::UnknownType(0x7f), "disco message of unknown type 0x7f"),
            (&[2, 0, 1], UnreadableMessage::Cut(2), "disco message of type 0x02 is cut off"),
            (&[3, 0, 1, 2, 3], UnreadableMessage::Cut(3), "disco message of type 0x03 is cut off"),
            (&negative, UnreadableMessage::Range(7), "disco message of type 0x07 has a field out of range"),
        ] {
            let refused = Message::decode(bytes).unwrap_err();
            assert_eq!((refused, refused.to_string().as_str()), (refusal, says));
        }
    }

    #[test]
    fn bytes_of_a_later_version_after_the_known_fields_are_ignored() {
        let pong =
            Message::Pong(Pong { transaction: TransactionId([1; 12]), observed: "2.3.4.5:1234".parse().unwrap() });
        let mut bytes = pong.encode();
        bytes[1] = 9;
        bytes.extend_from_slice(b"more");
        assert_eq!(Message::decode(&bytes), Ok(pong));
    }

    proptest! {
        #[test]
        fn every_message_reads_back(message in message()) {
            prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
        }

        #[test]
        fn arbitrary_bytes_never_panic(kind in 0u8..11, body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let bytes = [&[kind, 0][..], &body[..]].concat();
            let _ = Message::decode(&bytes);
        }
    }
}
