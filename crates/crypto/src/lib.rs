//! Keys, boxes and Noise handshakes: the only crate that names cryptographic primitives.
//!
//! Every key of the protocols is a Curve25519 key, and each has a type of its own, so that a machine key can't stand
//! where a node key belongs. Public keys are values: they compare, hash, sort and have the text form of the control
//! protocol (`nodekey:` and 64 hex digits). Private keys show themselves only to who asks by name.
//!
//! - [`MachinePublic`], [`NodePublic`], [`DiscoPublic`], [`ChallengePublic`] and their private halves: [`key`].
//! - [`SharedBox`] between two such keys (NaCl box, X25519 and XSalsa20-Poly1305): disco and DERP.
//! - [`control`]: Noise IK as the control protocol speaks it, handshake and records.
//! - [`tunnel`]: Noise IKpsk2 and the transport cipher as WireGuard speaks them.
//!
//! What it does not do: read a clock, keep state between connections, or find randomness. Whoever needs random bytes
//! hands in an [`Entropy`], so that a simulation can replay what a handshake did.

#![forbid(unsafe_code)]

pub mod control;
mod entropy;
mod hash;
pub mod key;
mod noise;
mod sealed;
pub mod tunnel;

pub use entropy::{Entropy, SystemEntropy};
pub use hash::{sha256, sha256_hex};
pub use key::{
    ChallengePrivate, ChallengePublic, DiscoPrivate, DiscoPublic, KeyTextError, MachinePrivate, MachinePublic,
    NodePrivate, NodePublic,
};
pub use sealed::{BOX_OVERHEAD, BoxError, SharedBox};
