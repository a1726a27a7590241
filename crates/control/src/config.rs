use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use http::Uri;
use http::uri::Scheme;
use ipnet::IpNet;
use listen::CertificateFiles;
use serde::Deserialize;
use tailcfg::DerpMap;

use crate::files::{self, FileError};
use crate::origin::TrustedProxies;

/// Everything that the server needs to know to run, resolved: nothing is read or bound yet but the files it was made from.
#[derive(Debug, Clone)]
pub struct Config {
    /// The folder that the server keeps everything in.
    pub data: PathBuf,
    /// What nodes, people and programs call the server.
    pub url: ServerUrl,
    /// Where connections by TLS are accepted.
    pub https: Option<SocketAddr>,
    /// Where connections without TLS are accepted: of nodes, whose Noise channel needs none, and of trusted proxies.
    pub http: Option<SocketAddr>,
    /// Where health and metrics are told.
    pub admin: Option<SocketAddr>,
    /// The server's certificate; there when `https` is.
    pub certificate: Option<CertificateFiles>,
    /// Proxies in front of the server.
    pub proxies: TrustedProxies,
    /// The relays that nodes are told of.
    pub relays: DerpMap,
    /// The file with the token that relays show when they ask whom to admit; without it none is answered.
    pub relay_token: Option<PathBuf>,
}
/// The server's own URL: scheme, host and port, nothing behind them.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrl {
    scheme: Scheme,
    authority: String,
}

impl ServerUrl {
    /// Reads `https://control.example.com` and the like.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let unusable = |reason| ConfigError::Url { url: text.to_owned(), reason };
        let parts = text.parse::<Uri>().map_err(|_| unusable("it is not a URL"))?.into_parts();
        let authority = parts.authority.ok_or_else(|| unusable("it names no host"))?;
        let scheme = parts.scheme.filter(|scheme| *scheme == Scheme::HTTPS || *scheme == Scheme::HTTP);
        let scheme = scheme.ok_or_else(|| unusable("it starts with neither https:// nor http://"))?;
        if parts.path_and_query.is_some_and(|path| path.as_str() != "/") {
            return Err(unusable("nodes expect the server at the root, so there can be nothing behind the host"));
        }
        if authority.as_str().contains('@') {
            return Err(unusable("it holds a user name"));
        }
        Ok(Self { scheme, authority: authority.as_str().to_ascii_lowercase() })
    }

    /// The URL of something below the server's root; `path` starts with a slash.
    pub fn join(&self, path: &str) -> String {
        format!("{self}{path}")
    }

    /// Whether people reach the server by TLS.
    pub fn is_https(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// Host and port, as a browser's `Host` and `Origin` headers have them.
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why the server can't run as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file can't be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The configuration does not parse.
    #[error("the configuration {path:?} can't be used: {reason}")]
    Toml {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        reason: String,
    },
    /// The server's URL can't be one.
    #[error("the server's URL {url:?} can't be used: {reason}")]
    Url {
        /// The URL as given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Two settings contradict, or one lacks another.
    #[error("the configuration {path:?} can't be used: {reason}")]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// Which, and what to do.
        reason: &'static str,
    },
    /// The relay map does not parse, or can't work.
    #[error("the relay map {path:?} can't be used: {reason}")]
    Relays {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl ConfigError {
    /// Whether a file is not there at all.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::File(error) if error.is_missing())
    }
}

/// The configuration file as it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    url: String,
    #[serde(default)]
    listen: Listen,
    tls: Option<Tls>,
    relays: Relays,
    #[serde(default)]
    proxies: Proxies,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Listen {
    https: Option<SocketAddr>,
    http: Option<SocketAddr>,
    admin: Option<SocketAddr>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Tls {
    certificate: PathBuf,
    key: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Relays {
    map: PathBuf,
    token: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Proxies {
    #[serde(default)]
    trusted: Vec<IpNet>,
}

impl Config {
    /// Reads the configuration file; relative paths in it start where it stands.
    pub fn load(data: &Path, path: &Path) -> Result<Self, ConfigError> {
        let bytes = files::read_public(path)?;
        let toml_error = |reason| ConfigError::Toml { path: path.to_owned(), reason };
        let text = std::str::from_utf8(&bytes).map_err(|error| toml_error(error.to_string()))?;
        let file: File = toml::from_str(text).map_err(|error| toml_error(error.to_string()))?;
        file.resolve(data, path)
    }
}

impl File {
    fn resolve(self, data: &Path, path: &Path) -> Result<Config, ConfigError> {
        let contradiction = |reason| ConfigError::Contradiction { path: path.to_owned(), reason };
        let folder = path.parent().unwrap_or(Path::new("."));
        let certificate = self
            .tls
            .map(|tls| CertificateFiles { certificate: folder.join(tls.certificate), key: folder.join(tls.key) });
        if self.listen.https.is_none() && self.listen.http.is_none() {
            return Err(contradiction("listen.https or listen.http must say where to listen"));
        }
        if self.listen.https.is_some() != certificate.is_some() {
            return Err(contradiction("listen.https and the [tls] section go together: give both or neither"));
        }
        let map = folder.join(self.relays.map);
        Ok(Config {
            data: data.to_owned(),
            url: ServerUrl::parse(&self.url)?,
            https: self.listen.https,
            http: self.listen.http,
            admin: self.listen.admin,
            certificate,
            proxies: TrustedProxies(self.proxies.trusted),
            relays: read_relays(&map)?,
            relay_token: self.relays.token.map(|token| folder.join(token)),
        })
    }
}

/// Reads a relay map and checks what clients stumble over: they would stay without a relay, and say little about it.
fn read_relays(path: &Path) -> Result<DerpMap, ConfigError> {
    let unusable = |reason: String| ConfigError::Relays { path: path.to_owned(), reason };
    let map: DerpMap =
        serde_json::from_slice(&files::read_public(path)?).map_err(|error| unusable(error.to_string()))?;
    let regions = map.regions.as_ref().filter(|regions| !regions.is_empty());
    let regions =
        regions.ok_or_else(|| unusable("it has no region, and clients do not start without a relay".to_owned()))?;
    let mut names = std::collections::BTreeSet::new();
    for (id, region) in regions {
        if id.is_none() || region.region_id != *id {
            return Err(unusable(format!("region {id} has the RegionID {}", region.region_id)));
        }
        if region.nodes.is_empty() {
            return Err(unusable(format!("region {id} has no nodes")));
        }
        for node in &region.nodes {
            if node.region_id != *id {
                return Err(unusable(format!(
                    "node {:?} of region {id} has the RegionID {}",
                    node.name, node.region_id
                )));
            }
            if node.host_name.is_empty() {
                return Err(unusable(format!("node {:?} of region {id} has no HostName", node.name)));
            }
            if !names.insert(node.name.as_str()) {
                return Err(unusable(format!("two nodes have the name {:?}", node.name)));
            }
        }
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELAYS: &str = r#"{"Regions":{"900":{"RegionID":900,"RegionCode":"a","RegionName":"A",
        "Nodes":[{"Name":"900a","RegionID":900,"HostName":"relay.example.com"}]}}}"#;

    fn load(toml: &str, relays: &str) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("relays.json"), relays).unwrap();
        let path = folder.path().join("control.toml");
        std::fs::write(&path, toml).unwrap();
        Config::load(Path::new("/data"), &path)
    }

    #[test]
    fn a_short_configuration_is_enough() {
        let config = load(
            "url = \"http://10.0.0.1:8080\"\nlisten.http = \"10.0.0.1:8080\"\nrelays.map = \"relays.json\"\n",
            RELAYS,
        )
        .unwrap();
        assert_eq!(config.url.join("/a/1"), "http://10.0.0.1:8080/a/1");
        assert_eq!(config.relays.regions.unwrap().len(), 1);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let base = "url = \"https://c.example.com\"\nrelays.map = \"relays.json\"\n";
        let http = format!("{base}listen.http = \"127.0.0.1:80\"\n");
        for (toml, relays, message) in [
            (base.to_owned(), RELAYS, "listen.https or listen.http must say"),
            (format!("{base}listen.https = \"127.0.0.1:443\"\n"), RELAYS, "the [tls] section go together"),
            (format!("{http}listne = 1\n"), RELAYS, "unknown field `listne`"),
            (http.clone(), "{}", "it has no region"),
            (
                http.clone(),
                &RELAYS.replace("\"RegionID\":900,\"HostName\"", "\"RegionID\":901,\"HostName\""),
                "has the RegionID 901",
            ),
            (http.clone(), &RELAYS.replace("relay.example.com", ""), "has no HostName"),
            (http.replace("https://c.example.com", "https://c.example.com/x"), RELAYS, "nothing behind the host"),
            (http.replace("https://c.example.com", "c.example.com"), RELAYS, "neither https:// nor http://"),
        ] {
            let error = load(&toml, relays).unwrap_err().to_string();
            assert!(error.contains(message), "{toml}: {error}");
        }
    }
}
