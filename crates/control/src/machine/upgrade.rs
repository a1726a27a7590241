use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crypto::control::INITIATION_SIZE;
use http::{HeaderMap, Method, header};

/// The protocol that a client asks to upgrade to.
pub(crate) const UPGRADE_PROTOCOL: &str = "tailscale-control-protocol";

/// The header in which the client's first Noise message comes along.
const HANDSHAKE: &str = "x-tailscale-handshake";

/// Why a request to `/ts2021` is no upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UpgradeError {
    /// Another method than POST.
    #[error("/ts2021 is reached by POST with an upgrade")]
    Method,
    /// The `Upgrade` header is missing or names something else; a proxy on the way may have dropped it.
    #[error("the request asks for no upgrade to {UPGRADE_PROTOCOL}; does a proxy on the way drop the Upgrade header?")]
    Protocol,
    /// The first Noise message is missing or not of its one size.
    #[error("the header X-Tailscale-Handshake must hold {INITIATION_SIZE} bytes in base64")]
    Handshake,
}

/// A client's first Noise message, of the right size and otherwise unproven.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Initiation(pub [u8; INITIATION_SIZE]);

impl Initiation {
    /// Finds the message in the request that carries it.
    pub(crate) fn from_request(method: &Method, headers: &HeaderMap) -> Result<Self, UpgradeError> {
        if method != Method::POST {
            return Err(UpgradeError::Method);
        }
        let upgrade = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !upgrade.eq_ignore_ascii_case(UPGRADE_PROTOCOL) {
            return Err(UpgradeError::Protocol);
        }
        Self::from_base64(headers.get(HANDSHAKE).ok_or(UpgradeError::Handshake)?.as_bytes())
    }

    /// Finds the message in the query of a WebSocket's URL.
    pub(crate) fn from_query(query: &str) -> Result<Self, UpgradeError> {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let (_, text) = pairs.find(|(name, _)| name.eq_ignore_ascii_case(HANDSHAKE)).ok_or(UpgradeError::Handshake)?;
        // Base64 of this size is `+`, `/` and `=` besides letters and digits; URLs carry these three escaped.
        let text = text.replace("%2B", "+").replace("%2b", "+").replace("%2F", "/").replace("%2f", "/");
        Self::from_base64(text.replace("%3D", "=").replace("%3d", "=").as_bytes())
    }

    fn from_base64(text: &[u8]) -> Result<Self, UpgradeError> {
        let mut bytes = [0; INITIATION_SIZE];
        match STANDARD.decode_slice(text, &mut bytes) {
            Ok(INITIATION_SIZE) => Ok(Self(bytes)),
            _ => Err(UpgradeError::Handshake),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(upgrade: &'static str, handshake: &[u8]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::UPGRADE, HeaderValue::from_static(upgrade));
        headers.insert(HANDSHAKE, HeaderValue::from_str(&STANDARD.encode(handshake)).unwrap());
        headers
    }

    #[test]
    fn an_upgrade_carries_the_first_message() {
        let sent = std::array::from_fn::<u8, INITIATION_SIZE, _>(|at| at as u8);
        let got = Initiation::from_request(&Method::POST, &headers("Tailscale-Control-Protocol", &sent)).unwrap();
        assert_eq!(got.0, sent);
    }

    #[test]
    fn a_websocket_carries_the_first_message_in_its_url() {
        let sent = std::array::from_fn::<u8, INITIATION_SIZE, _>(|at| (at * 5) as u8);
        let text = STANDARD.encode(sent).replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        assert_eq!(Initiation::from_query(&format!("a=b&X-Tailscale-Handshake={text}")).unwrap().0, sent);
        assert_eq!(Initiation::from_query("a=b").unwrap_err(), UpgradeError::Handshake);
    }

    #[test]
    fn what_is_no_upgrade_is_told_why() {
        let whole = [0; INITIATION_SIZE];
        let of = |method, headers: HeaderMap| Initiation::from_request(&method, &headers).unwrap_err();
        assert_eq!(of(Method::GET, headers(UPGRADE_PROTOCOL, &whole)), UpgradeError::Method);
        assert_eq!(of(Method::POST, headers("websocket", &whole)), UpgradeError::Protocol);
        assert_eq!(of(Method::POST, HeaderMap::new()), UpgradeError::Protocol);
        assert_eq!(of(Method::POST, headers(UPGRADE_PROTOCOL, &whole[1..])), UpgradeError::Handshake);
        assert_eq!(of(Method::POST, headers(UPGRADE_PROTOCOL, &[0; 4000])), UpgradeError::Handshake);
    }
}
