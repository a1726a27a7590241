//! Keys and tokens that people and programs hold: their text, their id, and the hash that is all the server keeps.

use std::fmt;

use crypto::Entropy;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// What a key or token opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyKind {
    /// A device joins with it.
    Auth,
    /// A program gets access tokens with it.
    Client,
    /// A request to the REST API carries it.
    Api,
}

impl KeyKind {
    /// What the text starts with. Stock clients look for these very prefixes.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Auth => "tskey-auth-",
            Self::Client => "tskey-client-",
            Self::Api => "tskey-api-",
        }
    }
}

/// The public id of a key or token.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(pub String);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The secret text of a key or token: shown once when it is made, never in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// Takes a text as secret.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text, secret and all.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The longest text that is looked at.
    const LIMIT: usize = 256;

    /// Which kind of key this is and which one; `None` when it is none of ours.
    pub fn identify(&self) -> Option<(KeyKind, KeyId)> {
        if self.0.len() > Self::LIMIT {
            return None;
        }
        let kind =
            [KeyKind::Auth, KeyKind::Client, KeyKind::Api].into_iter().find(|k| self.0.starts_with(k.prefix()))?;
        let (id, _) = self.0.strip_prefix(kind.prefix())?.split_once('-')?;
        Some((kind, KeyId(id.to_owned())))
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(…)")
    }
}

/// The SHA-256 of a secret. The secrets are 190 random bits, so that a plain hash gives nothing away.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretHash(String);

impl SecretHash {
    /// The hash of a secret.
    pub fn of(secret: &SecretText) -> Self {
        Self(crypto::sha256_hex(secret.expose().as_bytes()))
    }

    /// Whether this is the hash of the secret. What is compared are hashes, so time tells nothing of the secret.
    pub fn matches(&self, secret: &SecretText) -> bool {
        *self == Self::of(secret)
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(…)")
    }
}

/// Makes a key: its id, its text and the text's hash.
pub(crate) fn mint(kind: KeyKind, entropy: &mut dyn Entropy) -> (KeyId, SecretText, SecretHash) {
    let id = KeyId(format!("k{}CNTRL", random_text(11, entropy)));
    let text = SecretText::new(format!("{}{id}-{}", kind.prefix(), random_text(32, entropy)));
    let hash = SecretHash::of(&text);
    (id, text, hash)
}

/// Random letters and digits, each of nearly six bits.
pub(crate) fn random_text(length: usize, entropy: &mut dyn Entropy) -> String {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut letters = entropy_letters(entropy, ALPHABET);
    (0..length).map(|_| letters()).collect()
}

fn entropy_letters<'a>(entropy: &'a mut dyn Entropy, alphabet: &'a [u8; 62]) -> impl FnMut() -> char + 'a {
    move || {
        let at = usize::try_from(entropy.below(62)).unwrap_or(0);
        char::from(alphabet.get(at).copied().unwrap_or(b'0'))
    }
}

#[cfg(test)]
mod tests {
    use crypto::SystemEntropy;

    use super::*;

    #[test]
    fn a_key_names_its_kind_and_id_and_only_its_own_text_matches() {
        let (id, text, hash) = mint(KeyKind::Client, &mut SystemEntropy);
        assert!(text.expose().starts_with("tskey-client-k"));
        assert_eq!(text.identify(), Some((KeyKind::Client, id)));
        assert!(hash.matches(&text));
        assert!(!hash.matches(&SecretText::new(format!("{}x", text.expose()))));
    }

    #[test]
    fn what_is_no_key_of_ours_has_no_id() {
        for text in
            ["", "tskey-auth-", "tskey-auth-kABC", "hskey-auth-k-x", &format!("tskey-auth-k-{}", "x".repeat(1 << 20))]
        {
            assert_eq!(SecretText::new(text.to_owned()).identify(), None);
        }
    }

    #[test]
    fn a_secret_does_not_show() {
        let (_, text, hash) = mint(KeyKind::Auth, &mut SystemEntropy);
        assert_eq!(format!("{text:?}{hash:?}"), "SecretText(…)SecretHash(…)");
    }
}
