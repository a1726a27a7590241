//! Noise IK as the control protocol (ts2021) speaks it: one handshake, then records in both directions.
//!
//! `Noise_IK_25519_ChaChaPoly_BLAKE2s` with the prologue `Tailscale Control Protocol v` and the version in decimal.
//! Two things differ from textbook Noise: messages carry a header of their own, and the transport nonce counts in
//! big-endian. The handshake is two fixed-size messages, so there is nothing to negotiate and nothing to allocate by a
//! peer's word.
//!
//! ```text
//! client                                        server
//! ClientHandshake::start ── Initiation (101) ──▶ ServerHandshake::accept
//!            ::finish  ◀── Response (51) ──────
//! Transport ◀──────────── records (≤ 4096) ────▶ Transport
//! ```

use zeroize::Zeroizing;

use crate::noise::{self, Secret, TAG};
use crate::{Entropy, MachinePrivate, MachinePublic};

mod reader;
mod transport;
mod writer;

pub use reader::RecordReader;
pub use transport::{
    MAX_PLAINTEXT, MAX_RECORD, OpenHalf, RECORD_HEADER, RecordError, SealHalf, Transport, record_length,
};
pub use writer::RecordWriter;

const PROTOCOL: &[u8] = b"Noise_IK_25519_ChaChaPoly_BLAKE2s";
const PROLOGUE: &str = "Tailscale Control Protocol v";

const INITIATION: u8 = 1;
const RESPONSE: u8 = 2;
const ERROR: u8 = 3;

/// Bytes of the client's first message: version, type, length, ephemeral key, sealed machine key, tag.
pub const INITIATION_SIZE: usize = 2 + 1 + 2 + 32 + (32 + TAG) + TAG;
/// Bytes of the server's answer: type, length, ephemeral key, tag.
pub const RESPONSE_SIZE: usize = 1 + 2 + 32 + TAG;
/// The longest error text that a server sends in place of its answer; longer ones are cut.
pub const MAX_ERROR_TEXT: usize = 1024;

/// Why a handshake came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The message does not have the size, type or length field of a handshake message.
    #[error("the handshake message is malformed")]
    Malformed,
    /// A Diffie-Hellman result was all zero: the other side sent a low-order point.
    #[error("the other side's key is a low-order point")]
    LowOrderPoint,
    /// A tag did not verify: the message was changed, or was meant for another key.
    #[error("the handshake does not verify: it was changed on the way or made for another server key")]
    Verification,
}

/// The client's half of a handshake, between its message and the server's.
pub struct ClientHandshake {
    symmetric: Symmetric,
    machine: MachinePrivate,
    ephemeral: MachinePrivate,
}

impl ClientHandshake {
    /// Begins a handshake with the server that owns `server`, announcing capability `version`.
    pub fn start(
        machine: &MachinePrivate,
        server: &MachinePublic,
        version: u16,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, [u8; INITIATION_SIZE]), HandshakeError> {
        let ephemeral = MachinePrivate::generate(entropy);
        let mut symmetric = Symmetric::new(version, server);

        let mut message = Vec::with_capacity(INITIATION_SIZE);
        message.extend_from_slice(&version.to_be_bytes());
        message.push(INITIATION);
        message.extend_from_slice(&((INITIATION_SIZE - 5) as u16).to_be_bytes());

        let ephemeral_public = ephemeral.public();
        symmetric.mix_hash(ephemeral_public.as_bytes());
        message.extend_from_slice(ephemeral_public.as_bytes());
        let key = symmetric.mix_key(&ephemeral, server)?;
        symmetric.seal(&key, machine.public().as_bytes(), &mut message);
        let key = symmetric.mix_key(machine, server)?;
        symmetric.seal(&key, &[], &mut message);

        let message = message.try_into().expect("the pieces add up to the size of an initiation");
        Ok((Self { symmetric, machine: machine.clone(), ephemeral }, message))
    }

    /// Takes the server's answer and opens the channel.
    pub fn finish(mut self, response: &[u8; RESPONSE_SIZE]) -> Result<Transport, HandshakeError> {
        if response[0] != RESPONSE || response[1..3] != ((RESPONSE_SIZE - 3) as u16).to_be_bytes() {
            return Err(HandshakeError::Malformed);
        }
        let server_ephemeral = public(&response[3..35]);
        self.symmetric.mix_hash(server_ephemeral.as_bytes());
        self.symmetric.mix_key(&self.ephemeral, &server_ephemeral)?;
        let key = self.symmetric.mix_key(&self.machine, &server_ephemeral)?;
        self.symmetric.open(&key, &response[35..])?;
        let [to_server, to_client] = self.symmetric.split();
        Ok(Transport::new(to_server, to_client))
    }
}

impl std::fmt::Debug for ClientHandshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientHandshake").field("machine", &self.machine.public()).finish_non_exhaustive()
    }
}

/// What a server knows once it has accepted a client's first message.
#[derive(Debug)]
pub struct Accepted {
    /// The client's machine key, proven: it is who holds that key.
    pub client: MachinePublic,
    /// The capability version that the client announced.
    pub version: u16,
    /// The answer to send first.
    pub response: [u8; RESPONSE_SIZE],
    /// The channel.
    pub transport: Transport,
}

/// Answers a client's first message with `machine`, the server's key.
///
/// Nothing is kept for a client whose message does not verify.
pub fn accept(
    machine: &MachinePrivate,
    initiation: &[u8],
    entropy: &mut dyn Entropy,
) -> Result<Accepted, HandshakeError> {
    let initiation: &[u8; INITIATION_SIZE] = initiation.try_into().map_err(|_| HandshakeError::Malformed)?;
    let version = u16::from_be_bytes([initiation[0], initiation[1]]);
    if initiation[2] != INITIATION || initiation[3..5] != ((INITIATION_SIZE - 5) as u16).to_be_bytes() {
        return Err(HandshakeError::Malformed);
    }
    let mut symmetric = Symmetric::new(version, &machine.public());

    let client_ephemeral = public(&initiation[5..37]);
    symmetric.mix_hash(client_ephemeral.as_bytes());
    let key = symmetric.mix_key(machine, &client_ephemeral)?;
    let client = public(&symmetric.open(&key, &initiation[37..85])?);
    let key = symmetric.mix_key(machine, &client)?;
    symmetric.open(&key, &initiation[85..])?;

    let ephemeral = MachinePrivate::generate(entropy);
    let ephemeral_public = ephemeral.public();
    let mut response = Vec::with_capacity(RESPONSE_SIZE);
    response.push(RESPONSE);
    response.extend_from_slice(&((RESPONSE_SIZE - 3) as u16).to_be_bytes());
    symmetric.mix_hash(ephemeral_public.as_bytes());
    response.extend_from_slice(ephemeral_public.as_bytes());
    symmetric.mix_key(&ephemeral, &client_ephemeral)?;
    let key = symmetric.mix_key(&ephemeral, &client)?;
    symmetric.seal(&key, &[], &mut response);

    let [to_server, to_client] = symmetric.split();
    let response = response.try_into().expect("the pieces add up to the size of a response");
    Ok(Accepted { client, version, response, transport: Transport::new(to_client, to_server) })
}

/// Says in the clear why the server does not go on; clients print the text and trust it with nothing.
pub fn refusal(text: &str) -> Vec<u8> {
    let text = &text.as_bytes()[..text.floor_char_boundary(MAX_ERROR_TEXT)];
    let mut message = vec![ERROR];
    message.extend_from_slice(&(text.len() as u16).to_be_bytes());
    message.extend_from_slice(text);
    message
}

fn public(bytes: &[u8]) -> MachinePublic {
    MachinePublic::from_bytes(bytes.try_into().expect("the caller cuts 32 bytes"))
}

/// The running hash and chaining key of a handshake (Noise, section 5.2).
struct Symmetric {
    hash: [u8; 32],
    chaining_key: Secret,
}

impl Symmetric {
    fn new(version: u16, server: &MachinePublic) -> Self {
        let name = noise::hash(&[PROTOCOL]);
        let mut symmetric = Self { hash: name, chaining_key: Zeroizing::new(name) };
        symmetric.mix_hash(format!("{PROLOGUE}{version}").as_bytes());
        symmetric.mix_hash(server.as_bytes());
        symmetric
    }

    fn mix_hash(&mut self, data: &[u8]) {
        self.hash = noise::hash(&[&self.hash, data]);
    }

    /// Mixes in what `private` and `public` agree on and returns the key for the next sealed piece.
    ///
    /// IK mixes a fresh key before everything that it seals, so each key seals once, under nonce zero.
    fn mix_key(&mut self, private: &MachinePrivate, public: &MachinePublic) -> Result<Secret, HandshakeError> {
        let shared = private.agree(public.as_bytes()).ok_or(HandshakeError::LowOrderPoint)?;
        let [chaining_key, key] = noise::hkdf(&self.chaining_key, &*shared);
        self.chaining_key = chaining_key;
        Ok(key)
    }

    fn seal(&mut self, key: &Secret, plaintext: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        noise::seal(&noise::cipher(key), [0; 12], &self.hash, plaintext, out);
        self.mix_hash(&out[start..]);
    }

    fn open(&mut self, key: &Secret, sealed: &[u8]) -> Result<Vec<u8>, HandshakeError> {
        let mut buffer = sealed.to_vec();
        let plaintext = noise::open(&noise::cipher(key), [0; 12], &self.hash, &mut buffer)
            .ok_or(HandshakeError::Verification)?
            .to_vec();
        self.mix_hash(sealed);
        Ok(plaintext)
    }

    fn split(self) -> [Secret; 2] {
        noise::hkdf(&self.chaining_key, &[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemEntropy;

    fn shake() -> (MachinePrivate, Transport, Accepted) {
        let (client, server) =
            (MachinePrivate::generate(&mut SystemEntropy), MachinePrivate::generate(&mut SystemEntropy));
        let (handshake, initiation) =
            ClientHandshake::start(&client, &server.public(), 145, &mut SystemEntropy).unwrap();
        let accepted = accept(&server, &initiation, &mut SystemEntropy).unwrap();
        let transport = handshake.finish(&accepted.response).unwrap();
        (client, transport, accepted)
    }

    #[test]
    fn the_server_learns_who_called_and_at_which_version() {
        let (client, _, accepted) = shake();
        assert_eq!((accepted.client, accepted.version), (client.public(), 145));
    }

    #[test]
    fn records_pass_both_ways() {
        let (_, client, accepted) = shake();
        let (mut client_seal, mut client_open) = client.split();
        let (mut server_seal, mut server_open) = accepted.transport.split();
        for round in 0..300u32 {
            let text = vec![round as u8; (round as usize * 37) % (MAX_PLAINTEXT + 1)];
            for (seal, open) in [(&mut client_seal, &mut server_open), (&mut server_seal, &mut client_open)] {
                let mut record = Vec::new();
                seal.seal(&text, &mut record).unwrap();
                let length = record_length(record[..RECORD_HEADER].try_into().unwrap()).unwrap();
                assert_eq!(length, record.len() - RECORD_HEADER);
                assert_eq!(open.open(&mut record[RECORD_HEADER..]).unwrap(), text);
            }
        }
    }

    #[test]
    fn a_changed_initiation_is_refused_wherever_it_was_changed() {
        let (client, server) =
            (MachinePrivate::generate(&mut SystemEntropy), MachinePrivate::generate(&mut SystemEntropy));
        let (_, initiation) = ClientHandshake::start(&client, &server.public(), 145, &mut SystemEntropy).unwrap();
        for at in 0..initiation.len() {
            let mut bad = initiation;
            bad[at] ^= 1;
            assert!(accept(&server, &bad, &mut SystemEntropy).is_err(), "byte {at}");
            assert_eq!(accept(&server, &initiation[..at], &mut SystemEntropy).unwrap_err(), HandshakeError::Malformed);
        }
    }

    #[test]
    fn a_changed_response_is_refused_wherever_it_was_changed() {
        let (client, server) =
            (MachinePrivate::generate(&mut SystemEntropy), MachinePrivate::generate(&mut SystemEntropy));
        for at in 0..RESPONSE_SIZE {
            let (handshake, initiation) =
                ClientHandshake::start(&client, &server.public(), 145, &mut SystemEntropy).unwrap();
            let mut response = accept(&server, &initiation, &mut SystemEntropy).unwrap().response;
            response[at] ^= 1;
            assert!(handshake.finish(&response).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_message_for_another_server_is_refused() {
        let (client, server) =
            (MachinePrivate::generate(&mut SystemEntropy), MachinePrivate::generate(&mut SystemEntropy));
        let (_, initiation) = ClientHandshake::start(&client, &client.public(), 145, &mut SystemEntropy).unwrap();
        assert_eq!(accept(&server, &initiation, &mut SystemEntropy).unwrap_err(), HandshakeError::Verification);
    }

    #[test]
    fn a_low_order_ephemeral_is_refused() {
        let (client, server) =
            (MachinePrivate::generate(&mut SystemEntropy), MachinePrivate::generate(&mut SystemEntropy));
        let (_, mut initiation) = ClientHandshake::start(&client, &server.public(), 145, &mut SystemEntropy).unwrap();
        initiation[5..37].fill(0);
        assert_eq!(accept(&server, &initiation, &mut SystemEntropy).unwrap_err(), HandshakeError::LowOrderPoint);
    }

    #[test]
    fn a_refusal_is_cut_at_a_character() {
        let message = refusal(&"é".repeat(MAX_ERROR_TEXT));
        assert_eq!(message.len(), 3 + MAX_ERROR_TEXT);
        assert!(std::str::from_utf8(&message[3..]).is_ok());
    }
}
