use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::address::Addresses;
use crate::name::Label;
use crate::tag::Tag;

/// The name of a virtual service, `svc:` and a label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ServiceName(String);

/// A text is no service name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given:?} is not the name of a service: write \"svc:\" and lower-case letters, digits and hyphens, like \"svc:web\""
)]
pub struct ServiceNameError {
    /// The start of the text.
    pub given: String,
}

impl ServiceName {
    /// The text, with its prefix.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The label that the service has in the tailnet's domain.
    pub fn label(&self) -> Option<Label> {
        self.0.strip_prefix("svc:")?.parse().ok()
    }
}

impl FromStr for ServiceName {
    type Err = ServiceNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("svc:").map(str::parse::<Label>) {
            Some(Ok(_)) => Ok(Self(text.to_owned())),
            _ => Err(ServiceNameError { given: text.chars().take(80).collect() }),
        }
    }
}

impl<'de> Deserialize<'de> for ServiceName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A virtual service: a name and addresses that several devices can stand behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// Its addresses; they stay for as long as the service.
    pub addresses: Addresses,
    /// What it is for, in its maker's words.
    pub comment: String,
    /// What programs noted about it, kept as it is.
    pub annotations: BTreeMap<String, String>,
    /// Ports as `tcp:443`, or `do-not-validate`.
    pub ports: Vec<String>,
    /// Its tags.
    pub tags: BTreeSet<Tag>,
}
