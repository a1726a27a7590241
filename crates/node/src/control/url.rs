use std::fmt;
use std::str::FromStr;

use http::Uri;

/// The address of a coordination server: scheme, host and port, nothing behind them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlUrl {
    host: String,
    port: u16,
    tls: bool,
}

/// Why a text is not the URL of a coordination server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the URL of a coordination server; it should look like https://control.example.com")]
pub struct ControlUrlError(String);

impl ControlUrl {
    /// The host's name or address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether the server is reached by TLS. Without it the Noise channel still proves and hides everything, once the
    /// server's key is known; that key comes in the clear then.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Host and port as HTTP's Host header has them: the port only when it is not the scheme's own.
    pub(crate) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let usual = if self.tls { 443 } else { 80 };
        if self.port == usual { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for ControlUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

impl FromStr for ControlUrl {
    type Err = ControlUrlError;

    fn from_str(text: &str) -> Result<Self, ControlUrlError> {
        let wrong = || ControlUrlError(text.to_owned());
        let uri: Uri = text.trim().parse().map_err(|_| wrong())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
        let plain = uri.path_and_query().is_none_or(|path| path.as_str() == "/");
        let userinfo = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        if !plain || userinfo {
            return Err(wrong());
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }), tls })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_the_server_is() {
        let url: ControlUrl = "https://control.example.com".parse().unwrap();
        assert_eq!((url.host(), url.port(), url.is_tls()), ("control.example.com", 443, true));
        assert_eq!(url.to_string(), "https://control.example.com");
        let url: ControlUrl = "http://[::1]:8080/".parse().unwrap();
        assert_eq!((url.host(), url.port(), url.is_tls()), ("::1", 8080, false));
        assert_eq!(url.to_string(), "http://[::1]:8080");
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for text in ["", "control.example.com", "ftp://a", "https://", "https://a/path", "https://a?x", "https://u@a"] {
            assert!(text.parse::<ControlUrl>().is_err(), "{text}");
        }
    }
}
