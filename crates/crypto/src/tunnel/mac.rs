use std::fmt;

use blake2::Blake2sMac;
use blake2::digest::{FixedOutput, KeyInit, Mac, consts::U16};
use chacha20poly1305::{AeadInPlace, XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use crate::noise::{self, TAG};
use crate::{Entropy, NodePublic};

const LABEL_MAC1: &[u8] = b"mac1----";
const LABEL_COOKIE: &[u8] = b"cookie--";

/// BLAKE2s keyed, with 16 bytes of output: `Mac` of the whitepaper.
fn keyed(key: &[u8], parts: &[&[u8]]) -> Blake2sMac<U16> {
    let mut mac =
        <Blake2sMac<U16> as KeyInit>::new_from_slice(key).expect("keys here have 16 or 32 bytes, and BLAKE2s takes 32");
    parts.iter().for_each(|part| Mac::update(&mut mac, part));
    mac
}

/// The key of the first authenticator of messages to one receiver: whoever knows its public key can compute it.
///
/// It proves nothing of the sender; it keeps a host from answering who does not even know whom it talks to.
#[derive(Debug, Clone)]
pub struct MacKey([u8; 32]);

impl MacKey {
    /// The key for messages to `receiver`.
    pub fn of(receiver: &NodePublic) -> Self {
        Self(noise::hash(&[LABEL_MAC1, receiver.as_bytes()]))
    }

    /// Authenticates the message up to its first authenticator.
    pub fn mac1(&self, message: &[u8]) -> [u8; 16] {
        keyed(&self.0, &[message]).finalize_fixed().into()
    }

    /// Whether `mac` authenticates `message`, in constant time.
    pub fn verify(&self, message: &[u8], mac: &[u8; 16]) -> bool {
        keyed(&self.0, &[message]).verify_slice(mac).is_ok()
    }
}

/// What a loaded responder gives to an address, and who shows it again can receive at that address.
#[derive(Clone)]
pub struct Cookie(Zeroizing<[u8; 16]>);

impl Cookie {
    /// Authenticates the message up to its second authenticator.
    pub fn mac2(&self, message: &[u8]) -> [u8; 16] {
        keyed(&*self.0, &[message]).finalize_fixed().into()
    }

    /// Whether `mac` authenticates `message`, in constant time.
    pub fn verify(&self, message: &[u8], mac: &[u8; 16]) -> bool {
        keyed(&*self.0, &[message]).verify_slice(mac).is_ok()
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookie")
    }
}

/// The secret that a responder makes cookies from; it lives two minutes.
pub struct CookieSecret(Zeroizing<[u8; 32]>);

impl CookieSecret {
    /// Makes a new secret.
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        Self(Zeroizing::new(entropy.bytes32()))
    }

    /// The cookie of a source: its address, its port, and whatever else tells it from others, as bytes.
    pub fn cookie(&self, source: &[u8]) -> Cookie {
        Cookie(Zeroizing::new(keyed(&*self.0, &[source]).finalize_fixed().into()))
    }
}

impl fmt::Debug for CookieSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CookieSecret")
    }
}

/// The cipher that carries cookies from one responder: XChaCha20-Poly1305, keyed by the responder's public key.
pub struct CookieCipher(XChaCha20Poly1305);

impl CookieCipher {
    /// The cipher for cookies that `responder` hands out.
    pub fn of(responder: &NodePublic) -> Self {
        Self(XChaCha20Poly1305::new(&noise::hash(&[LABEL_COOKIE, responder.as_bytes()]).into()))
    }

    /// Seals a cookie, bound to the first authenticator of the message that it answers.
    pub fn seal(&self, nonce: &[u8; 24], cookie: &Cookie, mac1: &[u8; 16]) -> [u8; 16 + TAG] {
        let mut sealed = [0; 16 + TAG];
        sealed[..16].copy_from_slice(&*cookie.0);
        let tag = self
            .0
            .encrypt_in_place_detached(XNonce::from_slice(nonce), mac1, &mut sealed[..16])
            .expect("16 bytes are below the cipher's limit");
        sealed[16..].copy_from_slice(&tag);
        sealed
    }

    /// Opens a cookie that answers the message with the first authenticator `mac1`; `None` when it does not verify.
    pub fn open(&self, nonce: &[u8; 24], sealed: &[u8; 16 + TAG], mac1: &[u8; 16]) -> Option<Cookie> {
        let (mut cookie, mut tag) = (Zeroizing::new([0; 16]), [0; TAG]);
        cookie.copy_from_slice(&sealed[..16]);
        tag.copy_from_slice(&sealed[16..]);
        self.0.decrypt_in_place_detached(XNonce::from_slice(nonce), mac1, &mut *cookie, &tag.into()).ok()?;
        Some(Cookie(cookie))
    }
}

impl fmt::Debug for CookieCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CookieCipher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemEntropy;

    #[test]
    fn mac1_agrees_with_a_known_answer() {
        // Python: k = blake2s(b"mac1----" + bytes(range(32))).digest(); blake2s(b"towline", key=k, digest_size=16)
        let key = MacKey::of(&NodePublic::from_bytes(std::array::from_fn(|at| at as u8)));
        assert_eq!(hex::encode(key.mac1(b"towline")), "e4c3e8c8e8540015428127f321ead122");
        assert!(key.verify(b"towline", &key.mac1(b"towline")));
        assert!(!key.verify(b"towlinf", &key.mac1(b"towline")));
    }

    #[test]
    fn a_cookie_opens_for_the_message_it_answers_only() {
        let responder = NodePublic::from_bytes([3; 32]);
        let cookie = CookieSecret::generate(&mut SystemEntropy).cookie(b"192.0.2.1:41641");
        let sealed = CookieCipher::of(&responder).seal(&[5; 24], &cookie, &[1; 16]);
        let opened = CookieCipher::of(&responder).open(&[5; 24], &sealed, &[1; 16]).unwrap();
        assert!(cookie.verify(b"message", &opened.mac2(b"message")));
        assert!(CookieCipher::of(&responder).open(&[5; 24], &sealed, &[2; 16]).is_none());
        assert!(CookieCipher::of(&NodePublic::from_bytes([4; 32])).open(&[5; 24], &sealed, &[1; 16]).is_none());
    }

    #[test]
    fn cookies_of_two_ports_differ() {
        let secret = CookieSecret::generate(&mut SystemEntropy);
        let (one, other) = (secret.cookie(b"192.0.2.1:1"), secret.cookie(b"192.0.2.1:2"));
        assert!(!other.verify(b"message", &one.mac2(b"message")));
    }
}
