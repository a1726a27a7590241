use std::fmt;
use std::str::FromStr;

/// A host name in the tailnet: one DNS label of lower-case letters, digits and hyphens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(String);

/// Why a text is no host name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a host name: write 1 to 63 lower-case letters, digits and hyphens, with no hyphen at either end and no dot"
)]
pub struct HostNameError(String);

/// The longest DNS label.
pub(crate) const MAX_LABEL: usize = 63;

impl HostName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host name of an object that asks for none: its parts with hyphens between, made to fit.
    pub fn of_parts(parts: &[&str]) -> Self {
        Self(crate::name::fit(&parts.join("-").replace('.', "-"), MAX_LABEL))
    }
}

impl FromStr for HostName {
    type Err = HostNameError;

    fn from_str(text: &str) -> Result<Self, HostNameError> {
        if is_label(text) { Ok(Self(text.to_owned())) } else { Err(HostNameError(text.chars().take(80).collect())) }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether the text is a DNS label in lower case.
pub(crate) fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=MAX_LABEL).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_label_is_refused() {
        for text in ["", "-a", "a-", "a.b", "A", "a_b", &"a".repeat(64)] {
            let error = text.parse::<HostName>().unwrap_err().to_string();
            assert!(error.contains("is not a host name"), "{error}");
        }
        assert!("a".repeat(63).parse::<HostName>().is_ok());
        assert!("robbinsdale-connector".parse::<HostName>().is_ok());
    }

    #[test]
    fn the_name_of_an_object_is_made_to_fit() {
        assert_eq!(HostName::of_parts(&["home", "web"]).as_str(), "home-web");
        assert_eq!(HostName::of_parts(&["a.b"]).as_str(), "a-b");
        let long = HostName::of_parts(&[&"a".repeat(60), &"b".repeat(60)]);
        assert!(is_label(long.as_str()), "{long}");
    }
}
