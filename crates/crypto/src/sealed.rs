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
/// A sealed message is the 24-byte nonce followed by the ciphertext, as disco and DERP send it. There is no box with a
/// public key of low order: everybody knows the few secrets that such a key agrees on, so that it would prove nothing.
pub struct SharedBox(SalsaBox);

impl SharedBox {
    /// The box between this process and a peer's disco key; `None` when that is a point of low order.
    pub fn disco(private: &DiscoPrivate, public: &DiscoPublic) -> Option<Self> {
        Self::new(&private.expose_bytes(), public.as_bytes())
    }

    /// The box between a node key and a relay's key, either way round; `None` when `public` is a point of low order.
    pub fn node(private: &NodePrivate, public: &NodePublic) -> Option<Self> {
        Self::new(&private.expose_bytes(), public.as_bytes())
    }

    fn new(private: &[u8; 32], public: &[u8; 32]) -> Option<Self> {
        let key = || crypto_box::PublicKey::from(*public);
        (!has_low_order(public)).then(|| Self(SalsaBox::new(&key(), &crypto_box::SecretKey::from(*private))))
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

/// Whether a public key is one of the few points of low order.
/// The list is that of <https://cr.yp.to/ecdh.html>; X25519 ignores the highest bit.
fn has_low_order(key: &[u8; 32]) -> bool {
    const LOW_ORDER: [[u8; 32]; 7] = {
        let (mut one, mut last) = ([0; 32], [0xff; 32]);
        one[0] = 1;
        last[31] = 0x7f;
        let (mut minus_one, mut zero_again, mut one_again) = (last, last, last);
        minus_one[0] = 0xec;
        zero_again[0] = 0xed;
        one_again[0] = 0xee;
        let eighth = [
            0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09,
            0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
        ];
        let other_eighth = [
            0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04, 0x44,
            0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
        ];
        [[0; 32], one, eighth, other_eighth, minus_one, zero_again, one_again]
    };
    let mut point = *key;
    point[31] &= 0x7f;
    LOW_ORDER.contains(&point)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemEntropy;

    #[test]
    fn each_side_opens_what_the_other_sealed() {
        let (a, b) = (DiscoPrivate::generate(&mut SystemEntropy), DiscoPrivate::generate(&mut SystemEntropy));
        let sealed = SharedBox::disco(&a, &b.public()).unwrap().seal(b"hello", &mut SystemEntropy);
        assert_eq!(sealed.len(), 5 + BOX_OVERHEAD);
        assert_eq!(SharedBox::disco(&b, &a.public()).unwrap().open(&sealed).unwrap(), b"hello");
    }

    #[test]
    fn a_damaged_or_cut_box_does_not_open() {
        let (a, b) = (DiscoPrivate::generate(&mut SystemEntropy), DiscoPrivate::generate(&mut SystemEntropy));
        let shared = SharedBox::disco(&a, &b.public()).unwrap();
        let sealed = shared.seal(b"hello", &mut SystemEntropy);
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert_eq!(shared.open(&bad), Err(BoxError));
            assert_eq!(shared.open(&sealed[..at]), Err(BoxError));
        }
    }
    #[test]
    fn there_is_no_box_with_a_key_on_which_everybody_agrees() {
        let private = DiscoPrivate::generate(&mut SystemEntropy);
        let mut last = [0xff; 32];
        last[31] = 0x7f;
        let point = |first: u8, mut rest: [u8; 32]| {
            rest[0] = first;
            rest
        };
        let eighth = hex::decode("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800").unwrap();
        let other = hex::decode("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157").unwrap();
        let small = [[0; 32], point(1, [0; 32]), eighth.try_into().unwrap(), other.try_into().unwrap()];
        for mut point in small.into_iter().chain([0xec, 0xed, 0xee].map(|first| point(first, last))) {
            for high_bit in [0, 0x80] {
                point[31] = point[31] & 0x7f | high_bit;
                assert!(SharedBox::disco(&private, &DiscoPublic::from_bytes(point)).is_none());
            }
        }
    }
}
