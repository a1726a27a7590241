use std::fmt;

use ring::aead::{Aad, LessSafeKey, Nonce};

use crate::noise::{self, Secret};

/// Bytes of the authenticator behind every ciphertext.
pub const TAG: usize = noise::TAG;

/// A message did not open, or can't be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the transport message does not verify: it was changed on the way or sealed with another key")]
pub struct CipherError;

/// One direction's cipher: ChaCha20-Poly1305 under the nonce `0000 ‖ counter` with the counter in little-endian.
///
/// Whoever holds it sees to it that no counter seals twice.
pub struct TransportKey(LessSafeKey);

impl TransportKey {
    /// Takes 32 bytes as a key.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(noise::cipher(key))
    }

    /// Seals `text` in place and returns its tag.
    #[inline]
    pub fn seal(&self, counter: u64, text: &mut [u8]) -> Result<[u8; TAG], CipherError> {
        let tag = self.0.seal_in_place_separate_tag(nonce(counter), Aad::empty(), text).map_err(|_| CipherError)?;
        let mut out = [0; TAG];
        out.copy_from_slice(tag.as_ref());
        Ok(out)
    }

    /// Opens a ciphertext with its tag in place and returns the length of the text, which then stands at its start.
    ///
    /// After an error the bytes are undefined.
    #[inline]
    pub fn open(&self, counter: u64, sealed: &mut [u8]) -> Result<usize, CipherError> {
        match self.0.open_in_place(nonce(counter), Aad::empty(), sealed) {
            Ok(text) => Ok(text.len()),
            Err(_) => Err(CipherError),
        }
    }
}

#[inline]
fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

impl fmt::Debug for TransportKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TransportKey")
    }
}

/// What a completed handshake leaves to each side.
#[derive(Debug)]
pub struct TransportKeys {
    /// Seals what this side sends.
    pub send: TransportKey,
    /// Opens what this side receives.
    pub receive: TransportKey,
}

impl TransportKeys {
    pub(super) fn new(send: &Secret, receive: &Secret) -> Self {
        Self { send: TransportKey::new(send), receive: TransportKey::new(receive) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nonce_is_four_zeros_and_the_counter_in_little_endian() {
        let bytes = *nonce(0x0102_0304).as_ref();
        assert_eq!(bytes, [0, 0, 0, 0, 4, 3, 2, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn a_text_opens_under_its_own_counter_only() {
        let key = TransportKey::new(&[9; 32]);
        let mut sealed = *b"twelve bytes................";
        let tag = key.seal(7, &mut sealed[..12]).unwrap();
        sealed[12..].copy_from_slice(&tag);
        assert_eq!(key.open(8, &mut sealed.clone()), Err(CipherError));
        assert_eq!(key.open(7, &mut sealed), Ok(12));
        assert_eq!(&sealed[..12], b"twelve bytes");
        assert_eq!(key.open(7, &mut [0; TAG - 1]), Err(CipherError));
    }
}
