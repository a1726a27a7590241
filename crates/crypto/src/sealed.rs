use crypto_box::SalsaBox;
use crypto_box::aead::{Aead, generic_array::GenericArray};

use crate::{DiscoPrivate, DiscoPublic, Entropy, NodePrivate, NodePublic};

/// Bytes that sealing adds: a nonce of 24 and an authenticator of 16.
pub const BOX_OVERHEAD: usize = 24 + 16;

/// A box did not open: it is damaged, cut, or from somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sealed message does not open: wrong key or damaged")]
pub struct BoxError;

/// The NaCl box (X25519, XSalsa20-Poly1305) between one private and one public key, agreed on once.
///
/// A sealed message is the 24-byte nonce followed by the ciphertext, as disco and DERP send it.
pub struct SharedBox(SalsaBox);

impl SharedBox {
    /// The box between this process and a peer's disco key.
    pub fn disco(private: &DiscoPrivate, public: &DiscoPublic) -> Self {
        Self::new(&private.expose_bytes(), public.as_bytes())
    }

    /// The box between a node key and a relay's key, either way round.
    pub fn node(private: &NodePrivate, public: &NodePublic) -> Self {
        Self::new(&private.expose_bytes(), public.as_bytes())
    }

    fn new(private: &[u8; 32], public: &[u8; 32]) -> Self {
        Self(SalsaBox::new(&crypto_box::PublicKey::from(*public), &crypto_box::SecretKey::from(*private)))
    }

    /// Seals `plaintext` under a fresh nonce: `nonce ‖ ciphertext`.
    pub fn seal(&self, plaintext: &[u8], entropy: &mut dyn Entropy) -> Vec<u8> {
        let mut nonce = [0; 24];
        entropy.fill(&mut nonce);
        let ciphertext = self
            .0
            .encrypt(GenericArray::from_slice(&nonce), plaintext)
            .expect("XSalsa20 takes any length that fits in memory");
        let mut sealed = Vec::with_capacity(nonce.len() + ciphertext.len());
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&ciphertext);
        sealed
    }

    /// Opens `nonce ‖ ciphertext`.
    pub fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, BoxError> {
        let (nonce, ciphertext) = sealed.split_at_checked(24).ok_or(BoxError)?;
        self.0.decrypt(GenericArray::from_slice(nonce), ciphertext).map_err(|_| BoxError)
    }
}

impl std::fmt::Debug for SharedBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SharedBox")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemEntropy;

    #[test]
    fn each_side_opens_what_the_other_sealed() {
        let (a, b) = (DiscoPrivate::generate(&mut SystemEntropy), DiscoPrivate::generate(&mut SystemEntropy));
        let sealed = SharedBox::disco(&a, &b.public()).seal(b"hello", &mut SystemEntropy);
        assert_eq!(sealed.len(), 5 + BOX_OVERHEAD);
        assert_eq!(SharedBox::disco(&b, &a.public()).open(&sealed).unwrap(), b"hello");
    }

    #[test]
    fn a_damaged_or_cut_box_does_not_open() {
        let (a, b) = (DiscoPrivate::generate(&mut SystemEntropy), DiscoPrivate::generate(&mut SystemEntropy));
        let shared = SharedBox::disco(&a, &b.public());
        let sealed = shared.seal(b"hello", &mut SystemEntropy);
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert_eq!(shared.open(&bad), Err(BoxError));
            assert_eq!(shared.open(&sealed[..at]), Err(BoxError));
        }
    }
}
