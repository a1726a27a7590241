use crypto::{ChallengePublic, MachinePublic};
use serde::{Deserialize, Serialize};

/// The server's keys, as `GET /key` answers them.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerKeys {
    /// The key of the protocol before Noise; zero, since no client of today uses it.
    pub legacy_public_key: MachinePublic,
    /// The Noise key.
    pub public_key: MachinePublic,
}

/// What the server says first inside the Noise channel, before HTTP/2 starts.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EarlyPayload {
    /// A key for nodes to prove their node key against.
    pub node_key_challenge: ChallengePublic,
}

/// Why an early payload can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EarlyPayloadError {
    /// It says that it is longer than any we take.
    #[error("the server's early payload claims {claimed} bytes, at most {limit} are read", limit = EarlyPayload::LIMIT)]
    TooLong {
        /// The length in its head.
        claimed: u32,
    },
    /// It is not the JSON that it should be.
    #[error("the server's early payload is not what the protocol says: {0}")]
    Json(String),
}

impl EarlyPayload {
    /// Bytes of its head: five of magic and four of length. HTTP/2 sends at least as many at its start.
    pub const HEAD: usize = 9;

    /// The longest payload that is read.
    pub const LIMIT: usize = 4096;

    /// What no HTTP/2 frame starts with: a frame of 16 MiB.
    const MAGIC: [u8; 5] = *b"\xff\xff\xffTS";

    /// The bytes to send: magic, length, JSON.
    pub fn encode(&self) -> Vec<u8> {
        let json = format!("{{\"nodeKeyChallenge\":\"{}\"}}", self.node_key_challenge);
        let mut out = Vec::with_capacity(Self::HEAD + json.len());
        out.extend_from_slice(&Self::MAGIC);
        out.extend_from_slice(&u32::try_from(json.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(json.as_bytes());
        out
    }

    /// Tells from the first nine bytes of the channel whether an early payload follows, and how long it is.
    ///
    /// `None` means that these bytes are HTTP/2's already.
    pub fn length(head: &[u8; Self::HEAD]) -> Result<Option<usize>, EarlyPayloadError> {
        let (magic, length) = head.split_at(Self::MAGIC.len());
        if magic != Self::MAGIC {
            return Ok(None);
        }
        let claimed = length.iter().fold(0, |sum, byte| (sum << 8) | u32::from(*byte));
        match usize::try_from(claimed) {
            Ok(length) if length <= Self::LIMIT => Ok(Some(length)),
            _ => Err(EarlyPayloadError::TooLong { claimed }),
        }
    }

    /// Reads what follows the head.
    pub fn decode(json: &[u8]) -> Result<Self, EarlyPayloadError> {
        serde_json::from_slice(json).map_err(|error| EarlyPayloadError::Json(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_early_payload_reads_back() {
        let payload = EarlyPayload { node_key_challenge: ChallengePublic::from_bytes([7; 32]) };
        let bytes = payload.encode();
        let length = EarlyPayload::length(bytes[..9].try_into().unwrap()).unwrap().unwrap();
        assert_eq!(length, bytes.len() - EarlyPayload::HEAD);
        assert_eq!(EarlyPayload::decode(&bytes[9..]).unwrap(), payload);
    }

    #[test]
    fn the_start_of_http2_is_no_early_payload() {
        assert_eq!(EarlyPayload::length(b"\0\0\x12\x04\0\0\0\0\0"), Ok(None));
    }

    #[test]
    fn a_payload_over_the_limit_is_refused_by_its_head() {
        let head = |length: u32| {
            let mut head = *b"\xff\xff\xffTS\0\0\0\0";
            head[5..].copy_from_slice(&length.to_be_bytes());
            EarlyPayload::length(&head)
        };
        assert_eq!(head(4096), Ok(Some(4096)));
        assert_eq!(head(4097), Err(EarlyPayloadError::TooLong { claimed: 4097 }));
        assert!(head(u32::MAX).unwrap_err().to_string().contains("at most 4096"));
    }

    #[test]
    fn the_keys_have_the_names_that_clients_read() {
        let keys = ServerKeys { public_key: MachinePublic::from_bytes([1; 32]), ..ServerKeys::default() };
        let text = serde_json::to_string(&keys).unwrap();
        assert!(text.starts_with(r#"{"legacyPublicKey":"mkey:000000"#), "{text}");
        assert!(text.contains(r#""publicKey":"mkey:0101"#), "{text}");
    }
}
