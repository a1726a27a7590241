use std::fmt;
use std::str::FromStr;

/// A tag of the tailnet, such as `tag:k8s`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

/// Why a text is no tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a tag: write tag: and a name of letters, digits and hyphens that starts with a letter, as in tag:k8s"
)]
pub struct TagError(String);

/// The longest tag that is taken.
const MAX_LENGTH: usize = 256;

impl Tag {
    /// Reads tags with commas between them; spaces around them don't count.
    pub fn list(text: &str) -> Result<Vec<Self>, TagError> {
        text.split(',').map(|part| part.trim().parse()).collect()
    }

    /// The tag with its `tag:`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = TagError;

    fn from_str(text: &str) -> Result<Self, TagError> {
        let wrong = || TagError(text.chars().take(80).collect());
        let name = text.strip_prefix("tag:").ok_or_else(wrong)?;
        let fine = name.starts_with(|first: char| first.is_ascii_alphabetic())
            && name.chars().all(|character| character.is_ascii_alphanumeric() || character == '-')
            && text.len() <= MAX_LENGTH;
        if fine { Ok(Self(text.to_owned())) } else { Err(wrong()) }
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
    fn tags_with_commas_are_a_list() {
        let tags = Tag::list("tag:k8s, tag:web-1").unwrap();
        assert_eq!(tags.iter().map(Tag::as_str).collect::<Vec<_>>(), ["tag:k8s", "tag:web-1"]);
    }

    #[test]
    fn what_is_no_tag_is_named() {
        for text in ["", "k8s", "tag:", "tag:1a", "tag:a b", "tag:a_b", "tag:ä", "tag:a,"] {
            let error = Tag::list(text).unwrap_err().to_string();
            assert!(error.contains("is not a tag"), "{text}: {error}");
        }
    }

    #[test]
    fn a_tag_that_is_too_long_is_refused_without_quoting_all_of_it() {
        let error = format!("tag:{}", "a".repeat(5000)).parse::<Tag>().unwrap_err();
        assert!(error.to_string().len() < 300);
    }
}
