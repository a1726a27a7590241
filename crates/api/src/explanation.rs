use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ApiError;
use crate::query::{Parameter, Query, value};

/// A question of why something is allowed or not. Names are as people write them; what is empty isn't asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WhyQuery {
    /// Who: a device, an address, a user, a group, a tag or an autogroup.
    pub source: String,
    /// Where to: the same with a port (`db:5432`), or without one for who knows whom.
    pub destination: String,
    /// The protocol of packets; TCP where there is a port and no protocol.
    pub protocol: String,
    /// Whether the source may log in by SSH as this account.
    pub ssh: String,
    /// Whether an application gives the source this capability.
    pub capability: String,
    /// Whether this route of a device is approved at once; `exit-node` for that of an exit node.
    pub route: String,
    /// Whether a device may host this service at once.
    pub service: String,
    /// Whether a device has this node attribute.
    pub attribute: String,
    /// Whether the source may give this tag.
    pub tag: String,
}

impl WhyQuery {
    fn fields(&self) -> [(&'static str, &String); 9] {
        [
            ("src", &self.source),
            ("dst", &self.destination),
            ("proto", &self.protocol),
            ("ssh", &self.ssh),
            ("app", &self.capability),
            ("route", &self.route),
            ("service", &self.service),
            ("attribute", &self.attribute),
            ("tag", &self.tag),
        ]
    }
}

const fn optional(name: &'static str) -> Parameter {
    Parameter { name, required: false, values: &[] }
}

impl Query for WhyQuery {
    const PARAMETERS: &'static [Parameter] = &[
        Parameter { name: "src", required: true, values: &[] },
        optional("dst"),
        optional("proto"),
        optional("ssh"),
        optional("app"),
        optional("route"),
        optional("service"),
        optional("attribute"),
        optional("tag"),
    ];

    fn read(pairs: &[(String, String)]) -> Result<Self, ApiError> {
        let text = |name| value(pairs, name).unwrap_or_default().to_owned();
        let query = Self {
            source: text("src"),
            destination: text("dst"),
            protocol: text("proto"),
            ssh: text("ssh"),
            capability: text("app"),
            route: text("route"),
            service: text("service"),
            attribute: text("attribute"),
            tag: text("tag"),
        };
        if query.source.is_empty() {
            return Err(ApiError::bad_request("src names a device, an address, a user, a group or a tag"));
        }
        Ok(query)
    }

    fn write(&self) -> Vec<(String, String)> {
        let fields = self.fields().into_iter().filter(|(_, text)| !text.is_empty());
        fields.map(|(name, text)| (name.to_owned(), text.clone())).collect()
    }
}

/// Why something is allowed or not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct PolicyExplanation {
    /// One for all devices that are answered the same.
    pub answers: Vec<PolicyAnswer>,
}

/// What holds for some devices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct PolicyAnswer {
    /// For whom.
    pub parties: Vec<PolicyParties>,
    /// Whether it is allowed.
    pub allowed: bool,
    /// How many seconds a check holds that must come first; absent where none is asked for, zero for every time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check_period: Option<u64>,
    /// The answer in a line.
    pub summary: String,
    /// The parts of the policy that allow it.
    pub allowed_by: Vec<PolicyCitation>,
    /// The parts that come nearest, where it is not allowed.
    pub nearest: Vec<PolicyCitation>,
    /// What else matters.
    pub notes: Vec<String>,
}

/// Whom an answer is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PolicyParties {
    /// Who.
    pub source: String,
    /// Where to, if the question has a destination.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub destination: String,
}

/// A part of the policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PolicyCitation {
    /// Its line; 0 for what holds without any.
    pub line: u32,
    /// Where it is, such as `grants[0]`.
    pub place: String,
    /// Its text without comments.
    pub text: String,
    /// What of it doesn't fit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<String>,
}

/// Which of the policies that were in force are asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HistoryQuery {
    /// This one with its text; none for all of them without.
    pub version: Option<u64>,
}

impl Query for HistoryQuery {
    const PARAMETERS: &'static [Parameter] = &[optional("version")];

    fn read(pairs: &[(String, String)]) -> Result<Self, ApiError> {
        let version = match value(pairs, "version").filter(|text| !text.is_empty()) {
            None => None,
            Some(text) => {
                Some(text.parse().map_err(|_| ApiError::bad_request("version is a number from the history"))?)
            }
        };
        Ok(Self { version })
    }

    fn write(&self) -> Vec<(String, String)> {
        self.version.iter().map(|version| ("version".to_owned(), version.to_string())).collect()
    }
}

/// The policies that were in force, the newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PolicyHistory {
    /// Each as it was set.
    pub versions: Vec<PolicyVersion>,
}

/// A policy as it was set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PolicyVersion {
    /// Its number; each has one more than the one before it.
    pub version: u64,
    /// Who set it.
    pub who: String,
    /// Why, in their words.
    pub why: String,
    /// When.
    #[schemars(with = "Option<String>")]
    pub when: Option<Timestamp>,
    /// The text, where one version is asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub policy: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_reads_back_as_it_is_written() {
        let query = WhyQuery {
            source: "ann@example.com".to_owned(),
            destination: "db:22".to_owned(),
            ssh: "root".to_owned(),
            ..WhyQuery::default()
        };
        assert_eq!(WhyQuery::read(&query.write()).ok(), Some(query));
        assert!(WhyQuery::read(&[("dst".to_owned(), "db".to_owned())]).is_err(), "nobody asks");
    }
}
