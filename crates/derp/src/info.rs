//! The two sealed JSON documents of a DERP connection's start.

use crypto::{Entropy, NodePrivate, NodePublic, SharedBox};
use serde::{Deserialize, Serialize};

/// The version that both sides of this crate speak.
pub(crate) const VERSION: u32 = packet::derp::PROTOCOL_VERSION;

/// The longest name that a client may give its application.
const MOST_APP_NAME: usize = 32;

/// What a client says about itself.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct ClientInfo {
    /// 64 hex digits, from relays of a mesh only.
    #[serde(rename = "meshKey", default, skip_serializing_if = "String::is_empty")]
    pub(crate) mesh_key: String,
    /// The protocol version; old clients send none.
    #[serde(default)]
    pub(crate) version: u32,
    /// Whether the client answers pings.
    #[serde(rename = "CanAckPings", default)]
    pub(crate) can_answer_pings: bool,
    /// Whether the client only measures.
    #[serde(rename = "IsProber", default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_prober: bool,
    /// What runs there, for statistics.
    #[serde(rename = "AppName", default, skip_serializing_if = "String::is_empty")]
    pub(crate) app_name: String,
}

impl ClientInfo {
    /// Whether the application's name is at most 32 printable ASCII characters.
    pub(crate) fn has_valid_app_name(&self) -> bool {
        self.app_name.len() <= MOST_APP_NAME && self.app_name.bytes().all(|byte| matches!(byte, b' '..=b'~'))
    }
}

/// What a relay says about itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServerInfo {
    /// The protocol version.
    #[serde(default)]
    pub(crate) version: u32,
    /// What a client should send at most; 0 for no limit.
    #[serde(rename = "TokenBucketBytesPerSecond", default, skip_serializing_if = "is_zero")]
    pub(crate) bytes_per_second: u64,
    /// What a client may send at once.
    #[serde(rename = "TokenBucketBytesBurst", default, skip_serializing_if = "is_zero")]
    pub(crate) burst_bytes: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Why a sealed document could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InfoError {
    /// The key is none that a secret can be shared with: all zero, or another point of low order.
    #[error("the other side's key is not a usable public key")]
    UnusableKey,
    /// The box does not open.
    #[error(transparent)]
    Box(#[from] crypto::BoxError),
    /// What is in the box is no such document.
    #[error("the sealed document is not the JSON that it should be: {0}")]
    Json(String),
}

/// Seals a document to `peer`: nonce and box.
pub(crate) fn seal<T: Serialize>(
    document: &T,
    own: &NodePrivate,
    peer: &NodePublic,
    entropy: &mut dyn Entropy,
) -> Vec<u8> {
    let json = serde_json::to_vec(document).expect("strings, numbers and booleans are always written as JSON");
    SharedBox::node(own, peer).seal(&json, entropy)
}

/// Opens a document from `peer`, which proves that the peer holds its key.
pub(crate) fn open<T: for<'de> Deserialize<'de>>(
    sealed: &[u8],
    own: &NodePrivate,
    peer: &NodePublic,
) -> Result<T, InfoError> {
    if has_low_order(peer) {
        return Err(InfoError::UnusableKey);
    }
    let json = SharedBox::node(own, peer).open(sealed)?;
    serde_json::from_slice(&json).map_err(|error| InfoError::Json(error.to_string()))
}

/// Whether a public key is one of the few points of low order.
///
/// With such a key a handful of secrets are all that any private key can agree on: everybody knows them, so a box under
/// one proves nothing. (The list is that of <https://cr.yp.to/ecdh.html>; X25519 ignores the highest bit.)
fn has_low_order(key: &NodePublic) -> bool {
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
    let mut point = *key.as_bytes();
    point[31] &= 0x7f;
    LOW_ORDER.contains(&point)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crypto::SystemEntropy;

    fn keys() -> (NodePrivate, NodePrivate) {
        (NodePrivate::generate(&mut SystemEntropy), NodePrivate::generate(&mut SystemEntropy))
    }

    #[test]
    fn infos_are_the_json_that_stock_clients_and_relays_write() {
        let info = ClientInfo { version: 2, can_answer_pings: true, ..Default::default() };
        assert_eq!(serde_json::to_string(&info).unwrap(), r#"{"version":2,"CanAckPings":true}"#);
        let info = ServerInfo { version: 2, ..Default::default() };
        assert_eq!(serde_json::to_string(&info).unwrap(), r#"{"version":2}"#);
        let stock = r#"{"meshKey":"ab","version":2,"CanAckPings":false,"IsProber":true,"AppName":"x","Later":1}"#;
        let info: ClientInfo = serde_json::from_str(stock).unwrap();
        assert!(info.is_prober && info.mesh_key == "ab" && info.app_name == "x");
    }

    #[test]
    fn an_info_opens_only_with_the_right_keys() {
        let (client, server) = keys();
        let sealed =
            seal(&ClientInfo { version: 2, ..Default::default() }, &client, &server.public(), &mut SystemEntropy);
        assert_eq!(open::<ClientInfo>(&sealed, &server, &client.public()).unwrap().version, 2);
        let other = open::<ClientInfo>(&sealed, &server, &keys().0.public()).err();
        assert_eq!(other, Some(InfoError::Box(crypto::BoxError)));
    }

    #[test]
    fn drp_02_a_box_under_a_key_of_low_order_proves_nothing() {
        let (_, server) = keys();
        let mut last = [0xff; 32];
        last[31] = 0x7f;
        let point = |first: u8, rest: [u8; 32]| {
            let mut point = rest;
            point[0] = first;
            point
        };
        let eighth = hex::decode("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800").unwrap();
        let other = hex::decode("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157").unwrap();
        let points = [
            [0; 32],
            point(1, [0; 32]),
            eighth.try_into().unwrap(),
            other.try_into().unwrap(),
            point(0xec, last),
            point(0xed, last),
            point(0xee, last),
        ];
        for mut point in points {
            for high_bit in [0, 0x80] {
                point[31] = point[31] & 0x7f | high_bit;
                let point = NodePublic::from_bytes(point);
                // The forger holds no private key for the point; some of all keys agree on what this relay does.
                for _ in 0..8 {
                    let sealed = seal(&ClientInfo::default(), &keys().0, &point, &mut SystemEntropy);
                    assert_eq!(open::<ClientInfo>(&sealed, &server, &point).err(), Some(InfoError::UnusableKey));
                }
            }
        }
        assert!(!has_low_order(&keys().0.public()));
    }

    #[test]
    fn an_application_name_is_short_printable_ascii() {
        let named = |name: &str| ClientInfo { app_name: name.to_owned(), ..Default::default() }.has_valid_app_name();
        assert!(named("") && named("towline 1.0") && named(&"x".repeat(32)));
        assert!(!named(&"x".repeat(33)) && !named("a\nb") && !named("é"));
    }
}
