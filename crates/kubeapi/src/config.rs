use serde::{Deserialize, Serialize};

/// The capability version that a file for every client of today is named by.
const CAPABILITY: u32 = 95;

/// The name of the configuration file in the config Secret.
pub fn config_file_name() -> String {
    format!("cap-{CAPABILITY}.hujson")
}

/// A node's configuration, as clients read it from a file: `alpha0`, the only version there is.
///
/// Field names are spelled as clients spell them, two of them in another case than the rest; what is absent keeps the
/// client's default.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeConfig {
    /// Always `alpha0`.
    #[serde(rename = "version", alias = "Version")]
    version: String,
    /// Whether people may change these settings while the node runs.
    #[serde(rename = "Locked", default, with = "tri_state", skip_serializing_if = "Option::is_none")]
    pub locked: Option<bool>,
    /// The coordination server's URL.
    #[serde(rename = "ServerURL", default, skip_serializing_if = "Option::is_none")]
    pub server_url: Option<String>,
    /// The key that lets the node in; gone once it is in.
    #[serde(rename = "AuthKey", default, skip_serializing_if = "Option::is_none")]
    pub auth_key: Option<String>,
    /// The node's host name.
    #[serde(rename = "Hostname", default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Whether names of the tailnet are resolved on this node.
    #[serde(rename = "acceptDNS", default, with = "tri_state", skip_serializing_if = "Option::is_none")]
    pub accept_dns: Option<bool>,
    /// Whether routes of other nodes are taken.
    #[serde(rename = "acceptRoutes", default, with = "tri_state", skip_serializing_if = "Option::is_none")]
    pub accept_routes: Option<bool>,
    /// Routes that are offered; an exit node offers `0.0.0.0/0` and `::/0`.
    #[serde(rename = "AdvertiseRoutes", default, skip_serializing_if = "Option::is_none")]
    pub advertise_routes: Option<Vec<ipnet::IpNet>>,
    /// Whether packets that answer nothing are let through to routes.
    #[serde(rename = "NoStatefulFiltering", default, with = "tri_state", skip_serializing_if = "Option::is_none")]
    pub no_stateful_filtering: Option<bool>,
}

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is not the JSON that it should be.
    #[error("the configuration is not one: {0}")]
    Syntax(#[from] serde_json::Error),
    /// It has another version.
    #[error("the configuration has version {0:?}, and only alpha0 is known")]
    Version(String),
}

impl NodeConfig {
    /// What every proxy starts from: unlocked, no DNS and routes of others, forwards what it is asked to.
    pub fn of_proxy(server_url: &str, hostname: &str) -> Self {
        Self {
            version: "alpha0".to_owned(),
            locked: Some(false),
            server_url: Some(server_url.to_owned()),
            auth_key: None,
            hostname: Some(hostname.to_owned()),
            accept_dns: Some(false),
            accept_routes: Some(false),
            advertise_routes: None,
            no_stateful_filtering: Some(true),
        }
    }

    /// Reads a configuration; fields that are not known here are passed over. Comments are not understood: the operator
    /// writes none.
    pub fn read(text: &[u8]) -> Result<Self, ConfigError> {
        let config: Self = serde_json::from_slice(text)?;
        match config.version.as_str() {
            "alpha0" => Ok(config),
            _ => Err(ConfigError::Version(config.version)),
        }
    }

    /// Writes it as JSON.
    pub fn write(&self) -> Vec<u8> {
        // Strings, lists of networks and booleans always have a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl std::fmt::Debug for NodeConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeConfig")
            .field("hostname", &self.hostname)
            .field("server_url", &self.server_url)
            .field("auth_key", &self.auth_key.as_ref().map(|_| "…"))
            .field("advertise_routes", &self.advertise_routes)
            .field("accept_routes", &self.accept_routes)
            .finish_non_exhaustive()
    }
}

/// What a log says of it: what is set, and of the key only that there is one.
impl std::fmt::Display for NodeConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
        write!(f, "host name {}, server {}", text(&self.hostname), text(&self.server_url))?;
        f.write_str(if self.auth_key.is_some() { ", with an auth key" } else { ", without an auth key" })?;
        if let Some(routes) = self.advertise_routes.as_ref().filter(|routes| !routes.is_empty()) {
            let routes: Vec<String> = routes.iter().map(ToString::to_string).collect();
            write!(f, ", routes {}", routes.join(" "))?;
        }
        if self.accept_routes == Some(true) { f.write_str(", takes routes of others") } else { Ok(()) }
    }
}

/// A boolean that may be absent: written as the text `true` or `false`, read as text or boolean.
mod tri_state {
    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Boolean(bool),
        Text(String),
    }

    pub(super) fn serialize<S: Serializer>(value: &Option<bool>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(true) => serializer.serialize_str("true"),
            Some(false) => serializer.serialize_str("false"),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
        match Option::<Either>::deserialize(deserializer)? {
            None => Ok(None),
            Some(Either::Boolean(value)) => Ok(Some(value)),
            Some(Either::Text(text)) => match text.as_str() {
                "" => Ok(None),
                "true" => Ok(Some(true)),
                "false" => Ok(Some(false)),
                _ => Err(serde::de::Error::custom(format!("{text:?} is neither true nor false"))),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_spelled_as_clients_spell_it() {
        let mut config = NodeConfig::of_proxy("https://control.example.com", "home-web");
        config.auth_key = Some("tskey-auth-a".to_owned());
        config.advertise_routes = Some(vec!["10.0.0.0/16".parse().unwrap()]);
        let text = String::from_utf8(config.write()).unwrap();
        assert_eq!(
            text,
            r#"{"version":"alpha0","Locked":"false","ServerURL":"https://control.example.com","AuthKey":"tskey-auth-a","Hostname":"home-web","acceptDNS":"false","acceptRoutes":"false","AdvertiseRoutes":["10.0.0.0/16"],"NoStatefulFiltering":"true"}"#
        );
        assert_eq!(NodeConfig::read(text.as_bytes()).unwrap(), config);
    }

    #[test]
    fn booleans_and_unknown_fields_are_read() {
        let config =
            NodeConfig::read(br#"{"Version":"alpha0","acceptDNS":true,"Enabled":"true","Locked":""}"#).unwrap();
        assert_eq!((config.accept_dns, config.locked), (Some(true), None));
    }

    #[test]
    fn another_version_is_refused_by_name() {
        let error = NodeConfig::read(br#"{"version":"beta1"}"#).unwrap_err().to_string();
        assert!(error.contains("beta1") && error.contains("alpha0"), "{error}");
    }

    #[test]
    fn a_configuration_is_told_in_words_and_without_its_key() {
        let mut config = NodeConfig::of_proxy("https://control.example.com", "home-web");
        assert_eq!(config.to_string(), "host name home-web, server https://control.example.com, without an auth key");
        config.auth_key = Some("tskey-auth-secret".to_owned());
        config.advertise_routes = Some(vec!["10.0.0.0/16".parse().unwrap(), "fd00::/64".parse().unwrap()]);
        config.accept_routes = Some(true);
        assert_eq!(
            config.to_string(),
            "host name home-web, server https://control.example.com, with an auth key, routes 10.0.0.0/16 fd00::/64, \
             takes routes of others"
        );
        assert!(!format!("{config:?}").contains("secret"));
    }
}
