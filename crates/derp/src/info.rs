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
) -> Result<Vec<u8>, InfoError> {
    let json = serde_json::to_vec(document).expect("strings, numbers and booleans are always written as JSON");
    Ok(SharedBox::node(own, peer).ok_or(InfoError::UnusableKey)?.seal(&json, entropy))
}

/// Opens a document from `peer`, which proves that the peer holds its key.
pub(crate) fn open<T: for<'de> Deserialize<'de>>(
    sealed: &[u8],
    own: &NodePrivate,
    peer: &NodePublic,
) -> Result<T, InfoError> {
    let json = SharedBox::node(own, peer).ok_or(InfoError::UnusableKey)?.open(sealed)?;
    serde_json::from_slice(&json).map_err(|error| InfoError::Json(error.to_string()))
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
            seal(&ClientInfo { version: 2, ..Default::default() }, &client, &server.public(), &mut SystemEntropy)
                .unwrap();
        assert_eq!(open::<ClientInfo>(&sealed, &server, &client.public()).unwrap().version, 2);
        let other = open::<ClientInfo>(&sealed, &server, &keys().0.public()).err();
        assert_eq!(other, Some(InfoError::Box(crypto::BoxError)));
    }

    #[test]
    fn drp_02_a_box_under_a_key_of_low_order_proves_nothing() {
        let (_, server) = keys();
        let sealed = [7; 64];
        assert_eq!(open::<ClientInfo>(&sealed, &server, &NodePublic::ZERO).err(), Some(InfoError::UnusableKey));
        let one = NodePublic::from_bytes(std::array::from_fn(|at| u8::from(at == 0)));
        assert_eq!(seal(&ClientInfo::default(), &server, &one, &mut SystemEntropy).err(), Some(InfoError::UnusableKey));
    }

    #[test]
    fn an_application_name_is_short_printable_ascii() {
        let named = |name: &str| ClientInfo { app_name: name.to_owned(), ..Default::default() }.has_valid_app_name();
        assert!(named("") && named("towline 1.0") && named(&"x".repeat(32)));
        assert!(!named(&"x".repeat(33)) && !named("a\nb") && !named("é"));
    }
}
