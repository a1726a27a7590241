use std::fmt;

use zeroize::Zeroizing;

use super::{Tai64n, TransportKeys};
use crate::noise::{self, Secret, TAG};
use crate::{Entropy, NodePrivate, NodePublic};

const CONSTRUCTION: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const IDENTIFIER: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";

const SEALED_STATIC: usize = 32 + TAG;
const SEALED_TIMESTAMP: usize = 12 + TAG;

/// Why a handshake message led to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// A Diffie-Hellman result was all zero: a key of the other side is a low-order point.
    #[error("the other side's key is a low-order point")]
    LowOrderPoint,
    /// A tag did not verify: the message was changed, made with other keys, or with another preshared key.
    #[error("the handshake does not verify: it was changed on the way or made with other keys")]
    Verification,
}

/// A node's static key with its public half worked out once.
#[derive(Clone)]
pub struct Identity {
    private: NodePrivate,
    public: NodePublic,
}

impl Identity {
    /// Takes a node's private key.
    pub fn new(private: NodePrivate) -> Self {
        let public = private.public();
        Self { private, public }
    }

    /// The public half.
    pub fn public(&self) -> &NodePublic {
        &self.public
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?})", self.public)
    }
}

/// The symmetric key that two peers may share beside their public keys; all zero stands for none.
#[derive(Clone, Default)]
pub struct PresharedKey(Secret);

impl PresharedKey {
    /// Takes 32 bytes as a key.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey")
    }
}

/// The pieces of an initiation that the handshake makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedInitiation {
    /// The initiator's ephemeral public key.
    pub ephemeral: [u8; 32],
    /// The initiator's static public key, sealed.
    pub sealed_static: [u8; SEALED_STATIC],
    /// The timestamp, sealed.
    pub sealed_timestamp: [u8; SEALED_TIMESTAMP],
}

/// The pieces of a response that the handshake makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedResponse {
    /// The responder's ephemeral public key.
    pub ephemeral: [u8; 32],
    /// The tag over nothing.
    pub sealed_nothing: [u8; TAG],
}

/// The initiator's half of a handshake, between its message and the answer.
pub struct Initiator {
    symmetric: Symmetric,
    ephemeral: NodePrivate,
}

impl Initiator {
    /// Begins a handshake with `remote`.
    ///
    /// `timestamp` must be later than every one sent to that peer before, or the peer takes it for a replay.
    pub fn start(
        local: &Identity,
        remote: &NodePublic,
        timestamp: Tai64n,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, SealedInitiation), HandshakeError> {
        let symmetric = Symmetric::new(IDENTIFIER, remote);
        let mut sealed_timestamp = [0; SEALED_TIMESTAMP];
        let ephemeral = NodePrivate::generate(entropy);
        let (initiator, ephemeral, sealed_static) =
            Self::write(symmetric, ephemeral, local, remote, timestamp.as_bytes(), &mut sealed_timestamp)?;
        Ok((initiator, SealedInitiation { ephemeral, sealed_static, sealed_timestamp }))
    }

    /// Takes the answer and yields the session's keys; an answer that does not verify changes nothing.
    pub fn finish(
        &self,
        local: &Identity,
        preshared: &PresharedKey,
        response: &SealedResponse,
    ) -> Result<TransportKeys, HandshakeError> {
        let symmetric = self.read(local, preshared, &response.ephemeral, &response.sealed_nothing, &mut [])?;
        let [send, receive] = symmetric.split();
        Ok(TransportKeys::new(&send, &receive))
    }

    /// Noise's first message, `e, es, s, ss` and a payload.
    fn write(
        mut symmetric: Symmetric,
        ephemeral: NodePrivate,
        local: &Identity,
        remote: &NodePublic,
        payload: &[u8],
        sealed_payload: &mut [u8],
    ) -> Result<(Self, [u8; 32], [u8; SEALED_STATIC]), HandshakeError> {
        let ephemeral_public = *ephemeral.public().as_bytes();
        symmetric.mix_public(&ephemeral_public);
        let key = symmetric.mix_agreement(&ephemeral, remote.as_bytes())?;
        let mut sealed_static = [0; SEALED_STATIC];
        symmetric.seal(&key, local.public.as_bytes(), &mut sealed_static);
        let key = symmetric.mix_agreement(&local.private, remote.as_bytes())?;
        symmetric.seal(&key, payload, sealed_payload);
        Ok((Self { symmetric, ephemeral }, ephemeral_public, sealed_static))
    }

    /// Noise's second message, `e, ee, se, psk` and a payload.
    fn read(
        &self,
        local: &Identity,
        preshared: &PresharedKey,
        remote_ephemeral: &[u8; 32],
        sealed_payload: &[u8],
        payload: &mut [u8],
    ) -> Result<Symmetric, HandshakeError> {
        let mut symmetric = self.symmetric.clone();
        symmetric.mix_public(remote_ephemeral);
        symmetric.mix_agreement(&self.ephemeral, remote_ephemeral)?;
        symmetric.mix_agreement(&local.private, remote_ephemeral)?;
        let key = symmetric.mix_preshared(preshared);
        symmetric.open(&key, sealed_payload, payload)?;
        Ok(symmetric)
    }
}

impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Initiator")
    }
}

/// An initiation whose sender has named itself, and not proven it yet.
///
/// Opening costs one Diffie-Hellman; who asks may now decide whether that peer is worth another three.
pub struct OpenedInitiation {
    symmetric: Symmetric,
    claimed: NodePublic,
    remote_ephemeral: [u8; 32],
    sealed_timestamp: [u8; SEALED_TIMESTAMP],
}

impl OpenedInitiation {
    /// Opens the initiator's static key.
    pub fn open(local: &Identity, initiation: &SealedInitiation) -> Result<Self, HandshakeError> {
        let symmetric = Symmetric::new(IDENTIFIER, &local.public);
        Self::read(symmetric, local, initiation)
    }

    /// The public key that the sender claims as its own.
    pub fn claimed(&self) -> &NodePublic {
        &self.claimed
    }

    /// Verifies that the sender holds the private half of the key that it claims.
    pub fn authenticate(mut self, local: &Identity) -> Result<AuthenticInitiation, HandshakeError> {
        let mut timestamp = [0; 12];
        let sealed = self.sealed_timestamp;
        self.read_payload(local, &sealed, &mut timestamp)?;
        Ok(AuthenticInitiation { opened: self, timestamp: Tai64n::from_bytes(timestamp) })
    }

    fn read(mut symmetric: Symmetric, local: &Identity, initiation: &SealedInitiation) -> Result<Self, HandshakeError> {
        symmetric.mix_public(&initiation.ephemeral);
        let key = symmetric.mix_agreement(&local.private, &initiation.ephemeral)?;
        let mut claimed = [0; 32];
        symmetric.open(&key, &initiation.sealed_static, &mut claimed)?;
        Ok(Self {
            symmetric,
            claimed: NodePublic::from_bytes(claimed),
            remote_ephemeral: initiation.ephemeral,
            sealed_timestamp: initiation.sealed_timestamp,
        })
    }

    fn read_payload(&mut self, local: &Identity, sealed: &[u8], payload: &mut [u8]) -> Result<(), HandshakeError> {
        let key = self.symmetric.mix_agreement(&local.private, self.claimed.as_bytes())?;
        self.symmetric.open(&key, sealed, payload)
    }

    /// Noise's second message.
    fn write(
        mut self,
        preshared: &PresharedKey,
        ephemeral: &NodePrivate,
        payload: &[u8],
        sealed_payload: &mut [u8],
    ) -> Result<(Symmetric, [u8; 32]), HandshakeError> {
        let ephemeral_public = *ephemeral.public().as_bytes();
        self.symmetric.mix_public(&ephemeral_public);
        self.symmetric.mix_agreement(ephemeral, &self.remote_ephemeral)?;
        self.symmetric.mix_agreement(ephemeral, self.claimed.as_bytes())?;
        let key = self.symmetric.mix_preshared(preshared);
        self.symmetric.seal(&key, payload, sealed_payload);
        Ok((self.symmetric, ephemeral_public))
    }
}

impl fmt::Debug for OpenedInitiation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenedInitiation").field("claimed", &self.claimed).finish_non_exhaustive()
    }
}

/// An initiation from who it says; it may still be a replay, which its timestamp tells.
#[derive(Debug)]
pub struct AuthenticInitiation {
    opened: OpenedInitiation,
    timestamp: Tai64n,
}

impl AuthenticInitiation {
    /// The initiator's public key, proven.
    pub fn initiator(&self) -> &NodePublic {
        &self.opened.claimed
    }

    /// When the initiator says it made the message; later than any before it, or the message is a replay.
    pub fn timestamp(&self) -> Tai64n {
        self.timestamp
    }

    /// Answers, which completes the handshake on this side.
    ///
    /// The session is the initiator's word until something arrives under its keys: only then may this side send.
    pub fn respond(
        self,
        preshared: &PresharedKey,
        entropy: &mut dyn Entropy,
    ) -> Result<(SealedResponse, TransportKeys), HandshakeError> {
        let mut sealed_nothing = [0; TAG];
        let (symmetric, ephemeral) =
            self.opened.write(preshared, &NodePrivate::generate(entropy), &[], &mut sealed_nothing)?;
        let [receive, send] = symmetric.split();
        Ok((SealedResponse { ephemeral, sealed_nothing }, TransportKeys::new(&send, &receive)))
    }
}

/// The running hash and chaining key of a handshake (Noise, section 5.2).
#[derive(Clone)]
struct Symmetric {
    hash: [u8; 32],
    chaining_key: Secret,
}

impl Symmetric {
    fn new(prologue: &[u8], responder: &NodePublic) -> Self {
        let name = noise::hash(&[CONSTRUCTION]);
        let mut symmetric = Self { hash: name, chaining_key: Zeroizing::new(name) };
        symmetric.mix_hash(prologue);
        symmetric.mix_hash(responder.as_bytes());
        symmetric
    }

    fn mix_hash(&mut self, data: &[u8]) {
        self.hash = noise::hash(&[&self.hash, data]);
    }

    /// Mixes in an ephemeral public key, into the chaining key too: patterns with a preshared key ask for that.
    fn mix_public(&mut self, ephemeral: &[u8; 32]) {
        self.mix_hash(ephemeral);
        let [chaining_key] = noise::hkdf(&self.chaining_key, ephemeral);
        self.chaining_key = chaining_key;
    }

    /// Mixes in what two keys agree on and returns the key for the next sealed piece, which seals once, under nonce zero.
    fn mix_agreement(&mut self, private: &NodePrivate, public: &[u8; 32]) -> Result<Secret, HandshakeError> {
        let shared = private.agree(public).ok_or(HandshakeError::LowOrderPoint)?;
        let [chaining_key, key] = noise::hkdf(&self.chaining_key, &*shared);
        self.chaining_key = chaining_key;
        Ok(key)
    }

    fn mix_preshared(&mut self, preshared: &PresharedKey) -> Secret {
        let [chaining_key, hash, key] = noise::hkdf(&self.chaining_key, &*preshared.0);
        self.chaining_key = chaining_key;
        self.mix_hash(&*hash);
        key
    }

    /// Seals `text` into `sealed`, which is longer by a tag.
    fn seal(&mut self, key: &Secret, text: &[u8], sealed: &mut [u8]) {
        let mut out = Vec::with_capacity(sealed.len());
        noise::seal(&noise::cipher(key), [0; 12], &self.hash, text, &mut out);
        sealed.copy_from_slice(&out);
        self.mix_hash(sealed);
    }

    /// Opens `sealed` into `text`, which is shorter by a tag.
    fn open(&mut self, key: &Secret, sealed: &[u8], text: &mut [u8]) -> Result<(), HandshakeError> {
        let mut buffer = sealed.to_vec();
        let opened = noise::open(&noise::cipher(key), [0; 12], &self.hash, &mut buffer);
        text.copy_from_slice(opened.ok_or(HandshakeError::Verification)?);
        self.mix_hash(sealed);
        Ok(())
    }

    /// The keys from initiator to responder and back.
    fn split(self) -> [Secret; 2] {
        noise::hkdf(&self.chaining_key, &[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemEntropy;
    use crate::tunnel::CipherError;

    fn key(hex: &str) -> NodePrivate {
        NodePrivate::from_bytes(bytes(hex).try_into().unwrap())
    }

    fn bytes(text: &str) -> Vec<u8> {
        hex::decode(text).unwrap()
    }

    fn pair() -> (Identity, Identity) {
        let identity = || Identity::new(NodePrivate::generate(&mut SystemEntropy));
        (identity(), identity())
    }

    /// The vector of the name `Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s` in the collection of cacophony, a Haskell
    /// implementation of Noise: WireGuard is that protocol with another prologue and payload.
    #[test]
    fn the_handshake_is_the_noise_protocol_of_its_name() {
        let prologue = bytes("4a6f686e2047616c74");
        let preshared = PresharedKey::from_bytes(
            bytes("54686973206973206d7920417573747269616e20706572737065637469766521").try_into().unwrap(),
        );
        let initiator = Identity::new(key("e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1"));
        let responder = Identity::new(key("4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893"));
        let initiator_ephemeral = key("893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a");
        let responder_ephemeral = key("bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b");

        let start = || Symmetric::new(&prologue, responder.public());
        let mut sealed_payload = [0; 16 + TAG];
        let (half, ephemeral, sealed_static) = Initiator::write(
            start(),
            initiator_ephemeral,
            &initiator,
            responder.public(),
            &bytes("4c756477696720766f6e204d69736573"),
            &mut sealed_payload,
        )
        .unwrap();
        assert_eq!(
            hex::encode([&ephemeral[..], &sealed_static, &sealed_payload].concat()),
            "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944001e21de9f98ddd8e2ad57527207feb56253c9c94a9e\
             496782ecfcb2a75fbcaf1b52948cc48daefe660c62119ab5000980c84831215f2441eba616548e832985464cf17e51ee93109008399a\
             21f7e13f"
        );

        let initiation = SealedInitiation { ephemeral, sealed_static, sealed_timestamp: [0; SEALED_TIMESTAMP] };
        let mut opened = OpenedInitiation::read(start(), &responder, &initiation).unwrap();
        assert_eq!(opened.claimed(), initiator.public());
        let mut payload = [0; 16];
        opened.read_payload(&responder, &sealed_payload, &mut payload).unwrap();
        assert_eq!(&payload, b"Ludwig von Mises");

        let mut sealed_answer = [0; 15 + TAG];
        let (responder_end, ephemeral) = opened
            .write(&preshared, &responder_ephemeral, &bytes("4d757272617920526f746862617264"), &mut sealed_answer)
            .unwrap();
        assert_eq!(
            hex::encode([&ephemeral[..], &sealed_answer].concat()),
            "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843cb765f2caef0751b8f007572dab0322217755c0632f3\
             65717edbf34d33e87a"
        );

        let initiator_end = half.read(&initiator, &preshared, &ephemeral, &sealed_answer, &mut [0; 15]).unwrap();
        assert_eq!(initiator_end.hash, responder_end.hash);
        assert_eq!(hex::encode(initiator_end.hash), "f5191b875290abcd41347ac3622d9679688a7e980229cb937ef748336cfde0e5");
        let [to_responder, to_initiator] = initiator_end.split();
        let keys = TransportKeys::new(&to_responder, &to_initiator);
        for (cipher, counter, text, sealed) in [
            (&keys.send, 0, "462e20412e20486179656b", "8153ca9833bc3c1b91a7e66e5f4d4f5b59bf9e64c2f20d15f0bba7"),
            (&keys.receive, 0, "4361726c204d656e676572", "07af0c9c86e1b4e80f36b04ff7688d51141af3debd0332f0a705ef"),
            (
                &keys.send,
                1,
                "4a65616e2d426170746973746520536179",
                "6ab1467c0448cc78394494abaaf23afce0e234315d6e2624dcbfa8a21c1c4d073d",
            ),
        ] {
            let mut buffer = bytes(text);
            let tag = cipher.seal(counter, &mut buffer).unwrap();
            assert_eq!(hex::encode([&buffer[..], &tag].concat()), sealed);
        }
    }

    #[test]
    fn both_sides_end_with_matching_keys() {
        let (alice, bob) = pair();
        let preshared = PresharedKey::from_bytes([7; 32]);
        let stamp = Tai64n::from_unix(1_700_000_000, 0);
        let (half, initiation) = Initiator::start(&alice, bob.public(), stamp, &mut SystemEntropy).unwrap();
        let opened = OpenedInitiation::open(&bob, &initiation).unwrap();
        assert_eq!(opened.claimed(), alice.public());
        let authentic = opened.authenticate(&bob).unwrap();
        assert_eq!((authentic.initiator(), authentic.timestamp()), (alice.public(), stamp));
        let (response, bobs) = authentic.respond(&preshared, &mut SystemEntropy).unwrap();
        let alices = half.finish(&alice, &preshared, &response).unwrap();
        for (seal, open) in [(&alices.send, &bobs.receive), (&bobs.send, &alices.receive)] {
            let mut text = *b"hello...................";
            let tag = seal.seal(3, &mut text[..8]).unwrap();
            text[8..].copy_from_slice(&tag);
            assert_eq!(open.open(3, &mut text), Ok(8));
        }
        let mut text = [0; 20];
        let tag = alices.send.seal(0, &mut text[..4]).unwrap();
        text[4..].copy_from_slice(&tag);
        assert_eq!(alices.receive.open(0, &mut text), Err(CipherError));
    }

    #[test]
    fn another_preshared_key_completes_no_handshake() {
        let (alice, bob) = pair();
        let stamp = Tai64n::from_unix(1, 0);
        let (half, initiation) = Initiator::start(&alice, bob.public(), stamp, &mut SystemEntropy).unwrap();
        let authentic = OpenedInitiation::open(&bob, &initiation).unwrap().authenticate(&bob).unwrap();
        let (response, _) = authentic.respond(&PresharedKey::from_bytes([1; 32]), &mut SystemEntropy).unwrap();
        for wrong in [PresharedKey::default(), PresharedKey::from_bytes([2; 32])] {
            assert_eq!(half.finish(&alice, &wrong, &response).unwrap_err(), HandshakeError::Verification);
        }
        assert!(half.finish(&alice, &PresharedKey::from_bytes([1; 32]), &response).is_ok());
    }

    #[test]
    fn a_changed_initiation_is_refused_wherever_it_was_changed() {
        let (alice, bob) = pair();
        let stamp = Tai64n::from_unix(1, 0);
        let (_, initiation) = Initiator::start(&alice, bob.public(), stamp, &mut SystemEntropy).unwrap();
        let refused = |bad: SealedInitiation| {
            OpenedInitiation::open(&bob, &bad).and_then(|opened| opened.authenticate(&bob)).is_err()
        };
        for at in 0..32 {
            let mut bad = initiation;
            bad.ephemeral[at] ^= 1;
            assert!(refused(bad));
        }
        for at in 0..SEALED_STATIC {
            let mut bad = initiation;
            bad.sealed_static[at] ^= 1;
            assert!(refused(bad));
        }
        for at in 0..SEALED_TIMESTAMP {
            let mut bad = initiation;
            bad.sealed_timestamp[at] ^= 1;
            assert!(refused(bad));
        }
    }

    #[test]
    fn a_forged_response_leaves_the_handshake_as_it_was() {
        let (alice, bob) = pair();
        let stamp = Tai64n::from_unix(1, 0);
        let (half, initiation) = Initiator::start(&alice, bob.public(), stamp, &mut SystemEntropy).unwrap();
        let authentic = OpenedInitiation::open(&bob, &initiation).unwrap().authenticate(&bob).unwrap();
        let (response, _) = authentic.respond(&PresharedKey::default(), &mut SystemEntropy).unwrap();
        let mut forged = response;
        forged.sealed_nothing[0] ^= 1;
        assert_eq!(half.finish(&alice, &PresharedKey::default(), &forged).unwrap_err(), HandshakeError::Verification);
        forged.ephemeral = [0; 32];
        assert_eq!(half.finish(&alice, &PresharedKey::default(), &forged).unwrap_err(), HandshakeError::LowOrderPoint);
        assert!(half.finish(&alice, &PresharedKey::default(), &response).is_ok());
    }

    #[test]
    fn a_claim_without_the_private_key_does_not_authenticate() {
        let (alice, bob) = pair();
        let impostor = Identity { private: NodePrivate::generate(&mut SystemEntropy), public: *alice.public() };
        let (_, initiation) =
            Initiator::start(&impostor, bob.public(), Tai64n::from_unix(1, 0), &mut SystemEntropy).unwrap();
        let opened = OpenedInitiation::open(&bob, &initiation).unwrap();
        assert_eq!(opened.claimed(), alice.public());
        assert_eq!(opened.authenticate(&bob).unwrap_err(), HandshakeError::Verification);
    }

    #[test]
    fn a_low_order_peer_key_begins_no_handshake() {
        let (alice, _) = pair();
        let result = Initiator::start(&alice, &NodePublic::ZERO, Tai64n::from_unix(1, 0), &mut SystemEntropy);
        assert_eq!(result.map(|_| ()).unwrap_err(), HandshakeError::LowOrderPoint);
    }
}
