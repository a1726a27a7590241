use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;

/// Where a connection ends at this server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    /// The other end of the TCP connection.
    pub(crate) peer: SocketAddr,
    /// Whether it came by TLS.
    pub(crate) tls: bool,
}

/// Proxies in front of this server whose word on their clients is believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(pub Vec<IpNet>);

impl TrustedProxies {
    /// Whether an address is one of theirs.
    pub(crate) fn trust(&self, address: IpAddr) -> bool {
        self.0.iter().any(|net| net.contains(&address.to_canonical()))
    }

    /// Finds out for whom a request was sent, and whether all of its way was encrypted.
    ///
    /// `X-Forwarded-For` is read from its end, where the proxy nearest to us has written; the first address that is no
    /// trusted proxy's is the client's. Headers of anybody else say nothing.
    pub(crate) fn client(&self, arrival: Arrival, headers: &HeaderMap) -> api::Peer {
        let source = arrival.peer.ip().to_canonical();
        if !self.trust(source) {
            return api::Peer { source, encrypted: arrival.tls };
        }
        let mut client = source;
        'values: for value in headers.get_all("x-forwarded-for").iter().rev() {
            for address in value.to_str().unwrap_or("").rsplit(',') {
                let Ok(address) = address.trim().parse::<IpAddr>() else { break 'values };
                client = address.to_canonical();
                if !self.trust(client) {
                    break 'values;
                }
            }
        }
        let scheme = headers.get("x-forwarded-proto").map(|value| value.as_bytes().eq_ignore_ascii_case(b"https"));
        api::Peer { source: client, encrypted: scheme.unwrap_or(arrival.tls) }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn client(peer: &str, forwarded: &[&str], proto: Option<&str>) -> api::Peer {
        let proxies = TrustedProxies(vec!["10.0.0.0/8".parse().unwrap()]);
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", HeaderValue::from_str(value).unwrap());
        }
        if let Some(proto) = proto {
            headers.insert("x-forwarded-proto", HeaderValue::from_str(proto).unwrap());
        }
        proxies.client(Arrival { peer: peer.parse().unwrap(), tls: false }, &headers)
    }

    #[test]
    fn strangers_can_not_say_who_they_are() {
        let client = client("203.0.113.9:1", &["192.0.2.1"], Some("https"));
        assert_eq!(client.source, "203.0.113.9".parse::<IpAddr>().unwrap());
        assert!(!client.encrypted);
    }

    #[test]
    fn a_trusted_proxy_is_believed_up_to_the_first_stranger() {
        for (forwarded, source) in [
            (vec!["192.0.2.1"], "192.0.2.1"),
            (vec!["6.6.6.6, 192.0.2.1, 10.1.1.1"], "192.0.2.1"),
            (vec!["6.6.6.6", "192.0.2.1"], "192.0.2.1"),
            (vec!["nonsense, 192.0.2.1"], "192.0.2.1"),
            (vec!["nonsense"], "10.0.0.1"),
            (vec![], "10.0.0.1"),
        ] {
            let client = client("10.0.0.1:1", &forwarded, Some("https"));
            assert_eq!(client.source, source.parse::<IpAddr>().unwrap(), "{forwarded:?}");
            assert!(client.encrypted);
        }
        assert!(!client("10.0.0.1:1", &[], Some("http")).encrypted);
        assert!(!client("10.0.0.1:1", &[], None).encrypted);
    }

    #[test]
    fn an_ipv4_client_of_an_ipv6_socket_is_the_same_client() {
        let client = client("[::ffff:10.0.0.1]:1", &["::ffff:192.0.2.1"], None);
        assert_eq!(client.source, "192.0.2.1".parse::<IpAddr>().unwrap());
    }
}
