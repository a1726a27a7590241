//! Noise IKpsk2 and the transport cipher as WireGuard speaks them (whitepaper, section 5.4).
//!
//! Only what touches a key is here: the two handshake messages as sealed pieces, the authenticators and cookies around
//! them, and a cipher per direction. Indices, timers, replay windows and the layout of messages are other crates'.
//!
//! ```text
//! initiator                                              responder
//! Initiator::start ───────── SealedInitiation ─────────▶ OpenedInitiation::open        who is it?
//!                                                            ::authenticate            is it really?
//! Initiator::finish ◀──────── SealedResponse ─────────── AuthenticInitiation::respond
//! TransportKeys                                          TransportKeys
//! ```
//!
//! Invariant: a step that fails has changed nothing. [`Initiator::finish`] borrows the handshake, so that a forged
//! response costs time and no more; the true one still completes it.

mod handshake;
mod mac;
mod timestamp;
mod transport;

pub use handshake::{
    AuthenticInitiation, HandshakeError, Identity, Initiator, OpenedInitiation, PresharedKey, SealedInitiation,
    SealedResponse,
};
pub use mac::{Cookie, CookieCipher, CookieSecret, MacKey};
pub use timestamp::Tai64n;
pub use transport::{CipherError, TAG, TransportKey, TransportKeys};
