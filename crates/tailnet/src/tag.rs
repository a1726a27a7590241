use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

/// A tag, `tag:server`: what a device is, in place of whose it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Tag(String);

/// A text is no tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not a tag: write \"tag:\" and a letter, then letters, digits and hyphens, like \"tag:server\"")]
pub struct TagError {
    /// The start of the text.
    pub given: String,
}

impl Tag {
    /// The longest tag, prefix included.
    const LIMIT: usize = 128;

    /// The text, with its prefix.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = TagError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.strip_prefix("tag:").unwrap_or_default();
        let good = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && text.len() <= Self::LIMIT;
        if good { Ok(Self(text.to_owned())) } else { Err(TagError { given: text.chars().take(80).collect() }) }
    }
}

impl<'de> Deserialize<'de> for Tag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_strictly() {
        assert_eq!("tag:k8s-operator".parse::<Tag>().unwrap().as_str(), "tag:k8s-operator");
        for bad in ["", "k8s", "tag:", "tag:8s", "tag:a b", "Tag:a", "tag:a:b", &format!("tag:{}", "x".repeat(200))] {
            let error = bad.parse::<Tag>().unwrap_err().to_string();
            assert!(error.contains("is not a tag: write \"tag:\""), "{error}");
        }
    }
}
