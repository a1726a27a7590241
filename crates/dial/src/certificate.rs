use std::error::Error;
use std::fmt;
use std::io;

use rustls::CertificateError;

/// Why a server's certificate is not believed. Its text says what is wrong and what helps, and continues a sentence that
/// has named the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateFault {
    /// Nobody whom we trust has signed it.
    UnknownAuthority,
    /// It is for other names.
    OtherName {
        /// For which.
        names: Vec<String>,
    },
    /// Its time is over.
    Expired,
    /// Its time has not come.
    NotYetValid,
    /// Something else.
    Other(String),
}

impl CertificateFault {
    /// Finds the fault that a connection failed by, however deep it lies in `error`; nothing when it failed by something else.
    pub fn find(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            // An I/O error leaves the very error that it was made from out of the chain of sources.
            let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            match error.downcast_ref::<rustls::Error>() {
                Some(rustls::Error::InvalidCertificate(error)) => return Some(Self::of(error)),
                Some(_) => return None,
                None => cause = inner.map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source()),
            }
        }
        None
    }

    fn of(error: &CertificateError) -> Self {
        match error {
            CertificateError::UnknownIssuer => Self::UnknownAuthority,
            CertificateError::NotValidForName => Self::OtherName { names: Vec::new() },
            CertificateError::NotValidForNameContext { presented, .. } => Self::OtherName { names: presented.clone() },
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            CertificateError::Other(other) => Self::Other(words(&other.0.to_string())),
            other => Self::Other(other.to_string()),
        }
    }
}

/// What the verifier found, in words: it tells it as the name of a value of Rust, such as `CaUsedAsEndEntity`.
fn words(found: &str) -> String {
    if found == "CaUsedAsEndEntity" {
        return "it is an authority's own, not a server's".to_owned();
    }
    let mut words = String::new();
    for letter in found.chars() {
        if letter.is_ascii_uppercase() && !words.is_empty() && !words.ends_with(' ') {
            words.push(' ');
        }
        words.push(letter.to_ascii_lowercase());
    }
    words
}

impl fmt::Display for CertificateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownAuthority => f.write_str(
                "its certificate is signed by nobody who is trusted here; if that is an authority of your own, name its \
                 certificate with --ca-file or TOWLINE_CA_FILE (on a relay TOWLINE_DERP_CA_FILE, in the chart caBundle)",
            ),
            Self::OtherName { names } if names.is_empty() => {
                f.write_str("its certificate is for another name; call the server by the name in its certificate")
            }
            // A hostile server writes these names.
            Self::OtherName { names } => {
                let shown: Vec<String> = names.iter().take(4).map(|name| name.escape_debug().take(80).collect()).collect();
                write!(f, "its certificate is for {} only; call the server by a name in its certificate", shown.join(", "))
            }
            Self::Expired => {
                f.write_str("its certificate has expired; renew it on the server, or check the clock of this machine")
            }
            Self::NotYetValid => f.write_str("its certificate is not valid yet; check the clocks of both machines"),
            Self::Other(reason) => write!(f, "its certificate can't be believed ({reason}); replace it on the server"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(error: CertificateError) -> io::Error {
        io::Error::other(io::Error::new(io::ErrorKind::InvalidData, rustls::Error::InvalidCertificate(error)))
    }

    #[test]
    fn a_fault_is_found_within_other_errors_and_says_what_helps() {
        for (error, says) in [
            (CertificateError::UnknownIssuer, "name its certificate with --ca-file"),
            (CertificateError::Expired, "renew it on the server"),
            (CertificateError::NotValidYet, "check the clocks"),
            (CertificateError::NotValidForName, "by the name in its certificate"),
            (CertificateError::BadEncoding, "replace it on the server"),
        ] {
            let said = CertificateFault::find(&wrapped(error)).unwrap().to_string();
            assert!(said.starts_with("its certificate ") && said.contains(says), "{said}");
        }
    }

    #[test]
    fn what_the_verifier_found_is_told_in_words() {
        let told = |found: &'static str| {
            let other = rustls::OtherError(std::sync::Arc::new(io::Error::other(found)));
            CertificateFault::find(&wrapped(CertificateError::Other(other))).unwrap().to_string()
        };
        assert!(told("CaUsedAsEndEntity").contains("(it is an authority's own, not a server's)"));
        assert!(told("MalformedExtensions").contains("(malformed extensions)"));
    }

    #[test]
    fn names_of_a_certificate_are_bounded_and_can_not_steer_a_terminal() {
        let names = vec![format!("DnsName(\"\u{1b}[2J{}\")", "x".repeat(500)); 50];
        let said = CertificateFault::OtherName { names }.to_string();
        assert!(said.len() < 600 && !said.contains('\u{1b}'), "{said}");
    }

    #[test]
    fn what_is_no_fault_of_a_certificate_is_none() {
        assert_eq!(CertificateFault::find(&io::Error::from(io::ErrorKind::ConnectionRefused)), None);
        assert_eq!(CertificateFault::find(&io::Error::other(rustls::Error::DecryptError)), None);
    }
}
