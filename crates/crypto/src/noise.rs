//! What both Noise protocols here share: BLAKE2s, its HMAC and HKDF, and one ChaCha20-Poly1305 with the nonce given.

use blake2::{Blake2s256, Digest};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

/// The authenticator that sealing adds.
pub(crate) const TAG: usize = 16;

pub(crate) type Secret = Zeroizing<[u8; 32]>;

/// BLAKE2s-256 over `parts` in a row.
pub(crate) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut state = Blake2s256::new();
    for part in parts {
        state.update(part);
    }
    state.finalize().into()
}

/// HMAC-BLAKE2s (RFC 2104 with the 64-byte block of BLAKE2s); keys here are never longer than a block.
pub(crate) fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let pad = |byte: u8| {
        let mut block = Zeroizing::new([byte; 64]);
        block.iter_mut().zip(key).for_each(|(padded, key)| *padded ^= key);
        block
    };
    let mut inner = Blake2s256::new();
    inner.update(*pad(0x36));
    parts.iter().for_each(|part| inner.update(part));
    hash(&[&*pad(0x5c), &inner.finalize()])
}

/// HKDF as Noise defines it (section 4.3): `N` outputs from a chaining key and input.
pub(crate) fn hkdf<const N: usize>(chaining_key: &[u8; 32], input: &[u8]) -> [Secret; N] {
    const { assert!(N >= 1 && N <= 3) };
    let key = Zeroizing::new(hmac(chaining_key, &[input]));
    let mut previous: Option<Secret> = None;
    let mut counter = 0;
    [(); N].map(|()| {
        counter += 1;
        let input = previous.as_ref().map_or(&[][..], |output| &output[..]);
        let output = Zeroizing::new(hmac(&key, &[input, &[counter]]));
        previous = Some(output.clone());
        output
    })
}

/// A ChaCha20-Poly1305 key whose caller picks every nonce, and never the same twice.
pub(crate) fn cipher(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("the cipher's key has 32 bytes"))
}

/// Appends the ciphertext and tag of `plaintext` to `out`.
pub(crate) fn seal(key: &LessSafeKey, nonce: [u8; NONCE_LEN], aad: &[u8], plaintext: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(plaintext);
    let tag = key
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut out[start..])
        .expect("messages of handshakes and records are far below the cipher's limit");
    out.extend_from_slice(tag.as_ref());
}

/// Opens `sealed` in place and returns the plaintext within it; `None` when the tag is wrong.
pub(crate) fn open<'a>(
    key: &LessSafeKey,
    nonce: [u8; NONCE_LEN],
    aad: &[u8],
    sealed: &'a mut [u8],
) -> Option<&'a mut [u8]> {
    key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), sealed).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hmac_agrees_with_a_known_answer() {
        // HMAC-BLAKE2s-256 computed with Python's hmac.new(bytes(range(32)), b"towline", hashlib.blake2s).
        let key: [u8; 32] = std::array::from_fn(|at| at as u8);
        assert_eq!(
            hex::encode(hmac(&key, &[b"tow", b"line"])),
            "c51af4b56ba24524b27085d9c36dfd98bb1d5f6633a7bb20425ab50acf81bef0"
        );
    }

    #[test]
    fn hkdf_outputs_differ_and_chain() {
        let [first] = hkdf::<1>(&[1; 32], b"x");
        let [one, two, three] = hkdf::<3>(&[1; 32], b"x");
        assert_eq!(first, one);
        assert!(one != two && two != three && one != three);
    }
}
