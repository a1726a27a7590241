use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

/// One label of a DNS name: 1 to 63 of lower-case letters, digits and hyphens, with no hyphen at either end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Label(String);

/// The longest label.
const LABEL_LIMIT: usize = 63;

/// A text is no name for a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given:?} is not a name for a device: use 1 to 63 lower-case letters, digits and hyphens, with no hyphen at either end"
)]
pub struct LabelError {
    /// The start of the text.
    pub given: String,
}

impl Label {
    /// Names that programs look up by themselves: a node that had one could answer in another's place.
    const UNUSABLE: [&str; 4] = ["wpad", "isatap", "localhost", "local"];

    /// Makes a label of whatever a machine calls itself.
    ///
    /// Letters become lower-case, everything else than letters, digits and hyphens becomes a hyphen, and suffixes that
    /// only mean "this network" go. A machine without a usable name is called `device`.
    pub fn from_hostname(hostname: &str) -> Self {
        let mut name = hostname.trim().trim_end_matches('.');
        for suffix in [".local", ".localdomain", ".lan", ".home"] {
            name = name.strip_suffix(suffix).unwrap_or(name);
        }
        let mut label = String::new();
        for character in name.chars() {
            match character.to_ascii_lowercase() {
                kept @ ('a'..='z' | '0'..='9') => label.push(kept),
                _ if label.is_empty() || label.ends_with('-') => {}
                _ => label.push('-'),
            }
            if label.len() == LABEL_LIMIT {
                break;
            }
        }
        let label = label.trim_end_matches('-');
        if label.is_empty() { Self("device".to_owned()) } else { Self(label.to_owned()) }
    }

    /// The label with a number behind it, cut so that both fit.
    pub fn numbered(&self, number: u64) -> Self {
        let suffix = format!("-{number}");
        let room = LABEL_LIMIT.saturating_sub(suffix.len());
        let stem = self.0.get(..room).unwrap_or(&self.0).trim_end_matches('-');
        Self(format!("{stem}{suffix}"))
    }

    /// Whether no device may have this name, because programs look it up for another meaning.
    pub fn is_unusable(&self) -> bool {
        Self::UNUSABLE.contains(&self.0.as_str())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let letters = text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        let edges = text.starts_with('-') || text.ends_with('-');
        if text.is_empty() || text.len() > LABEL_LIMIT || !letters || edges {
            return Err(LabelError { given: text.chars().take(80).collect() });
        }
        Ok(Self(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A DNS domain of one or more labels, without a trailing dot: where the names of a tailnet live.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Domain(String);

/// A text is no domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given:?} is not a domain: write labels of letters, digits and hyphens joined by dots, like \"corp.example.com\""
)]
pub struct DomainError {
    /// The start of the text.
    pub given: String,
}

impl Domain {
    /// The longest domain below which every label still makes a name of at most 253 bytes.
    const LIMIT: usize = 253 - LABEL_LIMIT - 1;

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether one of both is the other or lies below it.
    pub fn overlaps(&self, other: &Self) -> bool {
        let below = |low: &str, high: &str| low.strip_suffix(high).is_some_and(|rest| rest.ends_with('.'));
        self == other || below(&self.0, &other.0) || below(&other.0, &self.0)
    }

    /// The full name of a label in this domain, without a trailing dot.
    pub fn name(&self, label: &Label) -> String {
        format!("{label}.{self}")
    }
}

impl FromStr for Domain {
    type Err = DomainError;

    /// Takes upper-case letters and a trailing dot too.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lower = text.trim_end_matches('.').to_ascii_lowercase();
        let fits = lower.len() <= Self::LIMIT && lower.split('.').all(|label| label.parse::<Label>().is_ok());
        if fits { Ok(Self(lower)) } else { Err(DomainError { given: text.chars().take(80).collect() }) }
    }
}

impl<'de> Deserialize<'de> for Domain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whatever_a_machine_is_called_becomes_a_label() {
        for (hostname, label) in [
            ("laptop", "laptop"),
            ("Anna's MacBook Pro.local", "anna-s-macbook-pro"),
            ("node.corp.example.com", "node-corp-example-com"),
            ("a\"b\nc", "a-b-c"),
            ("-i", "i"),
            ("", "device"),
            ("..", "device"),
            ("日本", "device"),
            ("аpple", "pple"),
            ("pi.lan.", "pi"),
        ] {
            assert_eq!(Label::from_hostname(hostname).as_str(), label, "{hostname:?}");
        }
        assert_eq!(Label::from_hostname(&"x".repeat(300)).as_str().len(), 63);
    }

    #[test]
    fn a_numbered_label_stays_a_label() {
        let long = Label::from_hostname(&"x".repeat(63));
        assert_eq!(long.numbered(12).as_str().len(), 63);
        assert_eq!(Label::from_hostname("pi").numbered(1).as_str(), "pi-1");
        let cut_at_hyphen = Label::from_hostname(&format!("{}-y", "x".repeat(61)));
        assert!(!cut_at_hyphen.numbered(1).as_str().contains("--"));
    }

    #[test]
    fn what_is_no_label_is_refused_by_its_text() {
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "a b", &"x".repeat(64)] {
            assert!(bad.parse::<Label>().is_err(), "{bad:?}");
        }
        let error = "a b".parse::<Label>().unwrap_err().to_string();
        assert!(error.starts_with("\"a b\" is not a name for a device: use 1 to 63"), "{error}");
    }

    #[test]
    fn domains_overlap_when_one_lies_in_the_other() {
        let domain = |text: &str| text.parse::<Domain>().unwrap();
        assert!(domain("example.com").overlaps(&domain("a.example.com")));
        assert!(domain("a.Example.com.").overlaps(&domain("a.example.com")));
        assert!(!domain("aexample.com").overlaps(&domain("example.com")));
        assert!("exa mple.com".parse::<Domain>().is_err());
        assert!("a..b".parse::<Domain>().is_err());
        assert!("x.".repeat(96).parse::<Domain>().is_err());
    }

    proptest! {
        #[test]
        fn every_hostname_becomes_a_valid_label(hostname in ".*", number in any::<u64>()) {
            let label = Label::from_hostname(&hostname);
            prop_assert_eq!(label.as_str().parse::<Label>(), Ok(label.clone()));
            let numbered = label.numbered(number);
            prop_assert_eq!(numbered.as_str().parse::<Label>(), Ok(numbered.clone()));
        }
    }
}
