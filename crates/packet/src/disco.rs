//! Disco: the messages by which two nodes find a path to each other, and a node binds an endpoint of a peer relay.
//!
//! On the wire: magic, the sender's disco key, a nonce, and a NaCl box of type, version and body. The same bytes travel
//! over UDP, through a DERP relay, and inside Geneve.

mod envelope;
mod message;

pub use envelope::{Envelope, OpenError, seal};
pub use message::{
    CallMeMaybe, CallMeMaybeVia, Message, Ping, Pong, RelayAllocateRequest, RelayAllocateResponse, RelayBind,
    RelayEndpoint, TransactionId, UnreadableMessage,
};
