//! Typed Curve25519 keys and their text forms.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::Entropy;

/// Why a text is not the key that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyTextError {
    /// The text starts with something else than the key's prefix.
    #[error("a key that starts with {expected:?} was expected")]
    Prefix {
        /// The prefix of the expected kind of key.
        expected: &'static str,
    },
    /// What follows the prefix is not 64 hex digits.
    #[error("{prefix:?} must be followed by 64 hex digits")]
    Digits {
        /// The prefix of the expected kind of key.
        prefix: &'static str,
    },
}

/// Reads `prefix` and 64 hex digits.
fn parse(text: &str, prefix: &'static str) -> Result<[u8; 32], KeyTextError> {
    let digits = text.strip_prefix(prefix).ok_or(KeyTextError::Prefix { expected: prefix })?;
    let mut bytes = [0; 32];
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| KeyTextError::Digits { prefix })?;
    Ok(bytes)
}

macro_rules! public_key {
    ($name:ident, $prefix:literal, $what:literal) => {
        #[doc = concat!("The public half of ", $what, "; its text form starts with `", $prefix, "`.")]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name([u8; 32]);

        impl $name {
            /// What the text form starts with.
            pub const PREFIX: &str = $prefix;

            /// The all-zero key: on the wire it stands for "none".
            pub const ZERO: Self = Self([0; 32]);

            /// Takes 32 bytes as a key; any 32 bytes are one.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The key's 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// Whether this stands for "none".
            pub fn is_zero(&self) -> bool {
                self.0 == [0; 32]
            }

            /// The first eight hex digits, for logs.
            pub fn short(&self) -> String {
                hex::encode(&self.0[..4])
            }

            /// The 64 hex digits without the prefix.
            pub fn to_hex(&self) -> String {
                hex::encode(self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", $prefix, hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}…", $prefix, self.short())
            }
        }

        impl FromStr for $name {
            type Err = KeyTextError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                parse(text, $prefix).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            /// The empty string, as some clients write an absent key, reads as the zero key.
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                if text.is_empty() {
                    return Ok(Self::ZERO);
                }
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

macro_rules! private_key {
    ($name:ident, $public:ident, $what:literal) => {
        #[doc = concat!("The private half of ", $what, "; wiped from memory when dropped, never shown.")]
        #[derive(Clone)]
        pub struct $name(StaticSecret);

        impl $name {
            /// What the text form starts with, as node and relay state files have it.
            pub const PREFIX: &str = "privkey:";

            /// Makes a new key.
            pub fn generate(entropy: &mut dyn Entropy) -> Self {
                Self::from_bytes(entropy.bytes32())
            }

            /// Takes 32 bytes as a key; they are clamped when used, as X25519 does.
            pub fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(StaticSecret::from(bytes))
            }

            /// Reads `privkey:` and 64 hex digits.
            pub fn from_text(text: &str) -> Result<Self, KeyTextError> {
                parse(text, Self::PREFIX).map(Self::from_bytes)
            }

            /// The text form, secret and all: for a state file, never for a log.
            pub fn expose_text(&self) -> Zeroizing<String> {
                Zeroizing::new(format!("{}{}", Self::PREFIX, hex::encode(self.0.as_bytes())))
            }

            /// The key's bytes, secret and all: for a state file or a keyed hash, never for a log.
            pub fn expose_bytes(&self) -> Zeroizing<[u8; 32]> {
                Zeroizing::new(self.0.to_bytes())
            }

            /// The public half.
            pub fn public(&self) -> $public {
                $public::from_bytes(PublicKey::from(&self.0).to_bytes())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), self.public())
            }
        }
    };
}

/// For the keys of Noise handshakes; the others only open boxes.
macro_rules! agreement {
    ($name:ident) => {
        impl $name {
            /// X25519 between this key and 32 public bytes; `None` when they are a low-order point.
            pub(crate) fn agree(&self, public: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
                let shared = self.0.diffie_hellman(&PublicKey::from(*public));
                shared.was_contributory().then(|| Zeroizing::new(shared.to_bytes()))
            }
        }
    };
}

public_key!(MachinePublic, "mkey:", "a machine key: the identity of a device (or server) to its control connection");
private_key!(MachinePrivate, MachinePublic, "a machine key");
agreement!(MachinePrivate);
public_key!(
    NodePublic,
    "nodekey:",
    "a node key: WireGuard's static key, a relay's key, and the identity of a node in the netmap"
);
private_key!(NodePrivate, NodePublic, "a node key");
agreement!(NodePrivate);
public_key!(DiscoPublic, "discokey:", "a disco key: made anew by each process, for finding paths");
private_key!(DiscoPrivate, DiscoPublic, "a disco key");
public_key!(ChallengePublic, "chalpub:", "a challenge key: sent in the early payload of a control connection");
private_key!(ChallengePrivate, ChallengePublic, "a challenge key");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemEntropy;

    #[test]
    fn a_key_reads_back_from_its_text() {
        let key = NodePrivate::generate(&mut SystemEntropy);
        let text = key.public().to_string();
        assert_eq!(text.len(), "nodekey:".len() + 64);
        assert_eq!(text.parse::<NodePublic>().unwrap(), key.public());
        assert_eq!(NodePrivate::from_text(&key.expose_text()).unwrap().public(), key.public());
    }

    #[test]
    fn a_key_of_another_kind_is_refused_by_name() {
        let machine = MachinePrivate::generate(&mut SystemEntropy).public().to_string();
        assert_eq!(machine.parse::<NodePublic>(), Err(KeyTextError::Prefix { expected: "nodekey:" }));
        assert_eq!("nodekey:12".parse::<NodePublic>(), Err(KeyTextError::Digits { prefix: "nodekey:" }));
        assert!("nodekey:zz".parse::<NodePublic>().is_err());
    }

    #[test]
    fn an_empty_json_string_is_the_zero_key() {
        assert!(serde_json::from_str::<DiscoPublic>("\"\"").unwrap().is_zero());
        assert!(serde_json::from_str::<DiscoPublic>("\"discokey:1\"").is_err());
    }

    #[test]
    fn a_private_key_shows_only_its_public_half() {
        let key = MachinePrivate::generate(&mut SystemEntropy);
        let shown = format!("{key:?}");
        assert!(!shown.contains(&key.expose_text()["privkey:".len()..]));
        assert!(shown.contains(&key.public().short()));
    }

    #[test]
    fn a_low_order_point_agrees_on_nothing() {
        assert!(NodePrivate::generate(&mut SystemEntropy).agree(&[0; 32]).is_none());
    }
}
