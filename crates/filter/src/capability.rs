use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A JSON value kept as the text it came in: a capability's arguments are for the application, not for us.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RawJson(Arc<RawValue>);

/// Capabilities by name, each with its arguments.
///
/// The protocol tells a name with the value `null` (given, and nothing more to say) from one with an empty list; both are
/// given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CapMap(pub BTreeMap<String, Option<Vec<RawJson>>>);

impl RawJson {
    /// Takes a text that is one JSON value; gives the parser's error otherwise.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The value's text.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }
}

impl fmt::Debug for RawJson {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl PartialEq for RawJson {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for RawJson {}

impl CapMap {
    /// Whether no capability is given.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the capability is given, with arguments or without.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The arguments of a capability: `None` if it isn't given, empty if it is given without any.
    pub fn values(&self, name: &str) -> Option<&[RawJson]> {
        self.0.get(name).map(|values| values.as_deref().unwrap_or_default())
    }

    /// Gives a capability without arguments, leaving those that it may have.
    pub fn grant(&mut self, name: impl Into<String>) {
        self.0.entry(name.into()).or_insert(None);
    }

    /// Adds another map's capabilities; arguments of the same name are appended.
    pub fn merge(&mut self, other: &Self) {
        for (name, values) in &other.0 {
            let mine = self.0.entry(name.clone()).or_insert(None);
            if let Some(values) = values {
                mine.get_or_insert_default().extend(values.iter().cloned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(json: &str) -> CapMap {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn merging_appends_arguments() {
        let mut all = map(r#"{"a":[1],"b":null}"#);
        all.merge(&map(r#"{"a":[2],"b":[3],"c":null}"#));
        assert_eq!(all, map(r#"{"a":[1,2],"b":[3],"c":null}"#));
    }

    #[test]
    fn a_capability_without_arguments_is_given() {
        let all = map(r#"{"a":null}"#);
        assert!(all.has("a"));
        assert_eq!(all.values("a"), Some(&[][..]));
        assert!(!all.has("b") && !all.is_empty());
        assert_eq!(all.values("b"), None);
    }

    #[test]
    fn values_are_kept_and_compared_as_their_text() {
        let value = RawJson::parse("{\"a\": 1.0}").unwrap();
        assert_eq!(value.as_str(), "{\"a\": 1.0}");
        assert_eq!(format!("{value:?}"), "{\"a\": 1.0}");
        assert_eq!(value, RawJson::parse("{\"a\": 1.0}").unwrap());
        assert_ne!(value, RawJson::parse("{\"a\":1}").unwrap());
        assert!(RawJson::parse("{").is_err());
    }

    #[test]
    fn granting_again_keeps_the_arguments() {
        let mut all = map(r#"{"a":[1]}"#);
        all.grant("a");
        all.grant("b");
        assert_eq!(all, map(r#"{"a":[1],"b":null}"#));
        assert!(CapMap::default().is_empty());
    }
}
