use std::sync::Arc;

use crypto::NodePublic;
use crypto::tunnel::HandshakeError;
use packet::wireguard::MessageError;

use crate::{RecvKey, SendKey, Source, Traffic};

/// What the owner of an [`Interface`](crate::Interface) should know, in the order in which it happened.
#[derive(Debug)]
pub enum Event {
    /// A session came to be: what arrives for [`RecvKey::session`] opens with this key.
    ///
    /// It belongs to the thread that receives, and to that one alone. A session of the peer's making can be received
    /// on before it may be sent on.
    Receive {
        /// The session's peer.
        peer: NodePublic,
        /// The key.
        key: Box<RecvKey>,
    },
    /// From now on this key seals what goes to the peer: a session is established.
    ///
    /// Said again, with the same key, to who asks for a key while there is one.
    Send {
        /// The session's peer.
        peer: NodePublic,
        /// The key.
        key: Arc<SendKey>,
    },
    /// A session is over: its receive key is of no more use, nor its send key if that is still the one in use.
    Ended {
        /// The session's peer.
        peer: NodePublic,
        /// What [`RecvKey::session`] and [`SendKey::session`] say.
        session: u32,
    },
    /// A handshake message from this source was the peer's own. Data says the same through its [`RecvKey`].
    Authenticated {
        /// The peer.
        peer: NodePublic,
        /// Where the message came from.
        source: Source,
    },
    /// An initiation goes out.
    HandshakeStarted {
        /// The peer.
        peer: NodePublic,
        /// 1 for the first of a row, more for each that repeats it.
        attempt: u32,
    },
    /// A row of initiations had no answer, and none follows until somebody wants to send again.
    HandshakeFailed {
        /// The peer.
        peer: NodePublic,
        /// How many initiations went out; none when the peer's key is no key.
        attempts: u32,
    },
    /// Nothing is left of a tunnel: no session, no handshake. It comes back when either side wants it.
    Idle {
        /// The peer.
        peer: NodePublic,
        /// What the tunnel moved over its lifetime.
        traffic: Traffic,
    },
}

/// Where a message is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// To a peer, whichever way is best.
    Peer(NodePublic),
    /// To a peer that has just proven itself from this source: the best way, and where none is known, back there.
    Answer(NodePublic, Source),
    /// Back to a source, and nowhere else: whoever is there has proven nothing.
    Source(Source),
}

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub destination: Destination,
    /// The datagram.
    pub message: Vec<u8>,
}

/// Why a datagram led to nothing. A counter each; none is worth a log line, since anybody can cause them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Discard {
    /// Not a WireGuard message.
    #[error(transparent)]
    Malformed(#[from] MessageError),
    /// A transport message, which belongs to the thread that holds its [`RecvKey`].
    #[error("a transport message is not for the handshake machine")]
    Transport,
    /// The first authenticator is wrong: the sender doesn't know this node's key.
    #[error("the message is not addressed to this node's key")]
    Mac1,
    /// Too many handshakes for one that proves nothing: a cookie goes back to the source.
    #[error("a cookie was asked for before the handshake is looked at")]
    CookieRequired,
    /// Too many handshakes even for a source that proved itself.
    #[error("the source begins more handshakes than {} a second", crate::limits::HANDSHAKES_PER_SOURCE)]
    SourceLimit,
    /// No handshake or session of this index is waiting for such a message.
    #[error("no handshake of that index waits for this message")]
    UnknownIndex,
    /// The handshake does not verify.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The initiation names this node's own key.
    #[error("the initiation claims this node's own key")]
    OwnKey,
    /// The initiation is not later than one before it.
    #[error("the initiation is a replay")]
    Replayed,
    /// The peer begins handshakes faster than one each [`INITIATION_INTERVAL`](crate::limits::INITIATION_INTERVAL).
    #[error("the peer begins handshakes too fast")]
    TooSoon,
    /// A cookie reply that doesn't answer the last message sent to that peer.
    #[error("the cookie does not answer the last handshake message")]
    Cookie,
}
