//! Certificates for the node's own name, signed by its tailnet's authority.
//!
//! The key is made here and never leaves the node; the authority gets a request over the control connection. What it
//! answers is kept in the node's state, key and chain in one value, and used again after a restart.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};
use zeroize::Zeroizing;

use crate::store::StoreError;

mod certifier;
mod keeper;

pub(crate) use certifier::Certifier;
pub use keeper::{CertificateStanding, NodeCertificate};

/// The most certificates that a chain may have: the node's own, and authorities between it and a root.
const MAX_CHAIN: usize = 8;

/// A certificate with its key.
#[derive(Clone)]
pub(crate) struct Certificate {
    kept: Arc<Kept>,
    key: Arc<CertifiedKey>,
    not_before: Timestamp,
    not_after: Timestamp,
}

/// A certificate as the store keeps it: all of it in PEM.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Kept {
    /// The node's full name, without a dot at its end.
    name: String,
    /// The node's certificate, then those above it.
    chain: String,
    /// What vouches for the chain.
    root: String,
    #[serde(with = "secret")]
    key: Zeroizing<String>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    /// Nobody has told the node its name.
    #[error("this node has no name yet: it has not joined a tailnet")]
    NoName,
    /// A name of somebody else's.
    #[error("this node's name is {own}, and a certificate for {asked} is not its to have")]
    Foreign {
        /// The name that was asked for.
        asked: String,
        /// The node's own.
        own: String,
    },
    /// No coordination server is there to sign.
    #[error("the node is not connected to its coordination server, which signs certificates")]
    NotConnected,
    /// The coordination server did not sign.
    #[error("the coordination server does not sign a certificate: {reason}")]
    Refused {
        /// In its own words.
        reason: String,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// What was signed is not what was asked for.
    #[error("the certificate can't be used: {0}")]
    Unusable(String),
    /// The request can't be made.
    #[error("the key can't be made: {0}")]
    Key(#[from] rcgen::Error),
    /// The state can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The node has ended.
    #[error("the node has stopped")]
    Stopped,
}

impl Certificate {
    /// Understands a chain and its key, and checks that they are for each other and for this name.
    fn new(kept: Kept) -> Result<Self, CertificateError> {
        let unusable = |reason: String| CertificateError::Unusable(reason);
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(kept.chain.as_bytes()).collect();
        let chain = chain.map_err(|error| unusable(format!("its chain is not in PEM form: {error:?}")))?;
        let first = chain.first().filter(|_| chain.len() <= MAX_CHAIN);
        let first = first.ok_or_else(|| unusable(format!("its chain has {} certificates", chain.len())))?;
        let (not_before, not_after) = read(first, &kept.name).map_err(unusable)?;
        let key = PrivateKeyDer::from_pem_slice(kept.key.as_bytes())
            .map_err(|_| unusable("its key is not in PEM form".to_owned()))?;
        let key = CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())
            .map_err(|error| unusable(error.to_string()))?;
        Ok(Self { kept: Arc::new(kept), key: Arc::new(key), not_before, not_after })
    }

    /// What a TLS server shows.
    pub(crate) fn key(&self) -> Arc<CertifiedKey> {
        self.key.clone()
    }

    /// The end of its validity.
    pub(crate) fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// The chain in PEM, the node's own certificate first.
    pub(crate) fn chain_pem(&self) -> &str {
        &self.kept.chain
    }

    /// The private key in PEM.
    pub(crate) fn key_pem(&self) -> &str {
        &self.kept.key
    }

    /// Whether it is for this name, and within its time.
    pub(crate) fn holds(&self, name: &str, now: Timestamp) -> bool {
        self.kept.name == name && self.not_before <= now && now < self.not_after
    }

    /// How long it is valid from now.
    pub(crate) fn left(&self, now: Timestamp) -> Duration {
        Duration::try_from(self.not_after.duration_since(now)).unwrap_or_default()
    }

    /// How long it lives as a whole.
    pub(crate) fn life(&self) -> Duration {
        self.left(self.not_before)
    }

    /// When to renew it: after two thirds of its life, or up to a tenth of it earlier, so that nodes that were certified
    /// together don't come back together. For one certificate it is always the same moment.
    pub(crate) fn due(&self) -> Timestamp {
        // The last byte of a signature is as good as random, and outlives restarts with the certificate.
        let byte = self.key.cert.first().and_then(|first| first.last()).copied().unwrap_or_default();
        let life = self.life();
        let early = life / 10 * u32::from(byte) / 255;
        self.not_before + (life * 2 / 3).saturating_sub(early)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Certificate");
        shown.field("name", &self.kept.name).field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// A text that is wiped when it is no longer needed.
mod secret {
    use serde::{Deserialize as _, Deserializer, Serializer};
    use zeroize::Zeroizing;

    pub(super) fn serialize<S: Serializer>(text: &Zeroizing<String>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
        String::deserialize(deserializer).map(Zeroizing::new)
    }
}

/// Reads a certificate's time, and makes sure that it is for a name.
fn read(certificate: &CertificateDer<'_>, name: &str) -> Result<(Timestamp, Timestamp), String> {
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
    let names = certificate.subject_alternative_name().map_err(|error| error.to_string())?;
    let names = names.map(|names| &names.value.general_names);
    let is_own =
        |other: &GeneralName<'_>| matches!(other, GeneralName::DNSName(other) if other.eq_ignore_ascii_case(name));
    if !names.is_some_and(|names| names.iter().any(is_own)) {
        return Err(format!("it is not for {name}"));
    }
    let time =
        |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).map_err(|error| error.to_string());
    let validity = certificate.validity();
    let (not_before, not_after) = (time(validity.not_before)?, time(validity.not_after)?);
    if not_before >= not_after {
        return Err("it ends before it begins".to_owned());
    }
    Ok((not_before, not_after))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    const NAME: &str = "laptop.example.ts.net";
    const DAY: i64 = 86_400;

    fn kept(name: &str, days: i64, key: Option<&KeyPair>) -> Kept {
        let own = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2030, 1, 1);
        params.not_after = params.not_before + Duration::from_secs((days * DAY) as u64);
        let certificate = params.self_signed(&own).unwrap();
        Kept {
            name: name.to_owned(),
            chain: certificate.pem(),
            root: certificate.pem(),
            key: Zeroizing::new(key.unwrap_or(&own).serialize_pem()),
        }
    }

    #[test]
    fn a_certificate_is_renewed_well_before_its_end_and_always_at_the_same_moment() {
        let certificate = Certificate::new(kept(NAME, 90, None)).unwrap();
        let (start, end) = (certificate.not_before, certificate.not_after());
        assert_eq!(end.duration_since(start).as_secs(), 90 * DAY);
        let after = certificate.due().duration_since(start).as_secs();
        assert!((51 * DAY..=60 * DAY).contains(&after), "{after}");
        assert_eq!(certificate.due(), certificate.clone().due());
        assert!(certificate.holds(NAME, start) && !certificate.holds("other.example.ts.net", start));
        assert!(!certificate.holds(NAME, end) && certificate.left(end).is_zero());
    }

    #[test]
    fn what_is_not_for_the_node_is_not_used() {
        let reason = |kept| Certificate::new(kept).unwrap_err().to_string();
        let foreign = reason(kept("other.example.ts.net", 90, None));
        assert!(foreign.contains("it is not for other.example.ts.net"), "{foreign}");
        let other_key = reason(kept(NAME, 90, Some(&KeyPair::generate().unwrap())));
        assert!(other_key.starts_with("the certificate can't be used"), "{other_key}");
        let empty = reason(Kept { chain: String::new(), ..kept(NAME, 90, None) });
        assert!(empty.contains("has 0 certificates"), "{empty}");
        let long = Kept { chain: kept(NAME, 90, None).chain.repeat(9), ..kept(NAME, 90, None) };
        assert!(reason(long).contains("has 9 certificates"));
    }

    #[test]
    fn a_certificate_does_not_show_its_key() {
        let certificate = Certificate::new(kept(NAME, 90, None)).unwrap();
        assert!(!format!("{certificate:?}").contains("PRIVATE"));
    }
}
