use std::fmt;
use std::str::FromStr;

/// A whole name in the DNS: two labels or more, in lower case, without a dot at the end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainName(String);

/// Why a text is no whole name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a whole DNS name: {reason}; write it as in robbinsdale.example.ts.net")]
pub struct DomainNameError {
    text: String,
    reason: &'static str,
}

/// The longest name.
const MAX_LENGTH: usize = 253;

impl DomainName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its labels from left to right.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('.')
    }
}

impl FromStr for DomainName {
    type Err = DomainNameError;

    fn from_str(text: &str) -> Result<Self, DomainNameError> {
        let wrong = |reason| DomainNameError { text: text.chars().take(80).collect(), reason };
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if name.len() > MAX_LENGTH {
            return Err(wrong("it is longer than 253 characters"));
        }
        if name.parse::<std::net::IpAddr>().is_ok() {
            return Err(wrong("it is an address"));
        }
        if !name.contains('.') {
            return Err(wrong("it has only one label"));
        }
        if !name.split('.').all(crate::host_name::is_label) {
            return Err(wrong(
                "each part between dots is 1 to 63 letters, digits and hyphens, with no hyphen at either end",
            ));
        }
        Ok(Self(name))
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_domain_is_fine_and_case_and_the_last_dot_do_not_count() {
        for text in ["robbinsdale.taila31de.ts.net", "Robbinsdale.Mesh.Example.", "10-1-2-3-via-7.a.b"] {
            assert!(text.parse::<DomainName>().is_ok(), "{text}");
        }
        assert_eq!("A.B.".parse::<DomainName>().unwrap().as_str(), "a.b");
    }

    #[test]
    fn what_is_no_name_says_why() {
        for (text, reason) in [
            ("robbinsdale", "only one label"),
            ("", "only one label"),
            ("100.64.0.1", "an address"),
            ("a..b", "each part"),
            ("a_b.ts.net", "each part"),
            ("-a.ts.net", "each part"),
            ("a.ts.net/24", "each part"),
        ] {
            let error = text.parse::<DomainName>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
