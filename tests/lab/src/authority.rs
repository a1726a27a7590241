//! Certificate authorities of the laboratory: the one that stands for the public web's, and the cluster's own.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

use crate::folder::write_whole;

/// An authority whose certificate and key lie in a folder of the world's records.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, both PEM.
#[derive(Clone)]
pub struct Credential {
    /// The certificate, without its issuer's.
    pub certificate: String,
    /// The private key, PKCS#8.
    pub key: String,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// Whom a certificate names.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// Common name; for a Kubernetes client this is the user.
    pub common_name: String,
    /// Organizations; for a Kubernetes client these are the groups.
    pub organizations: Vec<String>,
    /// DNS names that it serves.
    pub names: Vec<String>,
    /// Addresses that it serves.
    pub addresses: Vec<IpAddr>,
}

impl Subject {
    /// A server reached by one DNS name.
    pub fn server(name: &str) -> Self {
        Self { common_name: name.to_owned(), names: vec![name.to_owned()], ..Self::default() }
    }
}

impl Authority {
    /// Opens the authority in `folder`, making one of that name when there is none yet.
    ///
    /// # Errors
    /// When the folder cannot be read or written, or holds something else.
    pub(crate) fn open(folder: &Path, name: &str) -> Result<Self> {
        let (certificate_path, key_path) = (folder.join("root.pem"), folder.join("root.key"));
        if !certificate_path.exists() {
            let key = KeyPair::generate().context("making a key")?;
            let certificate = root_params(name)?.self_signed(&key).context("signing a root certificate")?;
            // The key first: a certificate that is there has its key.
            write_whole(&key_path, key.serialize_pem().as_bytes(), 0o600)?;
            write_whole(&certificate_path, certificate.pem().as_bytes(), 0o644)?;
        }
        let read = |path: &Path| fs::read_to_string(path).with_context(|| format!("reading {}", path.display()));
        let (certificate, key) = (read(&certificate_path)?, read(&key_path)?);
        let key = KeyPair::from_pem(&key).with_context(|| format!("reading {}", key_path.display()))?;
        let issuer = Issuer::from_ca_cert_pem(&certificate, key)
            .with_context(|| format!("reading {}", certificate_path.display()))?;
        Ok(Self { folder: folder.to_owned(), certificate, issuer })
    }

    /// The authority's own certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Path on the machine of the authority's certificate, for `caBundle` and images.
    pub fn certificate_path(&self) -> PathBuf {
        self.folder.join("root.pem")
    }

    /// The authority's private key, PEM: for a program that signs by itself.
    pub(crate) fn key(&self) -> Result<String> {
        let path = self.folder.join("root.key");
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// The public half of the authority's key, PEM.
    pub(crate) fn public_key(&self) -> String {
        self.issuer.key().public_key_pem()
    }

    /// The certificate kept under `file`, issued now when there is none yet.
    ///
    /// # Errors
    /// When it cannot be signed, read or written.
    pub fn issue(&self, file: &str, subject: &Subject) -> Result<Credential> {
        let (certificate_path, key_path) =
            (self.folder.join(format!("{file}.crt")), self.folder.join(format!("{file}.key")));
        if certificate_path.exists() {
            let read = |path: &Path| fs::read_to_string(path).with_context(|| format!("reading {}", path.display()));
            return Ok(Credential { certificate: read(&certificate_path)?, key: read(&key_path)? });
        }
        let key = KeyPair::generate().context("making a key")?;
        let params = leaf_params(subject).with_context(|| format!("certificate for {subject:?}"))?;
        let certificate = params.signed_by(&key, &self.issuer).context("signing a certificate")?;
        let credential = Credential { certificate: certificate.pem(), key: key.serialize_pem() };
        write_whole(&key_path, credential.key.as_bytes(), 0o600)?;
        write_whole(&certificate_path, credential.certificate.as_bytes(), 0o644)?;
        Ok(credential)
    }
}

fn root_params(name: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2045, 1, 1);
    Ok(params)
}

fn leaf_params(subject: &Subject) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(subject.names.clone())?;
    params.subject_alt_names.extend(subject.addresses.iter().map(|address| SanType::IpAddress(*address)));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject.common_name.as_str());
    for organization in &subject.organizations {
        params.distinguished_name.push(DnType::OrganizationName, organization.as_str());
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2045, 1, 1);
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_and_what_it_issued_are_the_same_when_opened_again() {
        let folder = std::env::temp_dir().join(format!("lab-authority-{}", std::process::id()));
        let first = Authority::open(&folder, "Test Root").unwrap();
        let issued = first.issue("server", &Subject::server("a.test")).unwrap();
        let second = Authority::open(&folder, "Test Root").unwrap();
        assert_eq!(first.certificate(), second.certificate());
        assert_eq!(issued.certificate, second.issue("server", &Subject::server("a.test")).unwrap().certificate);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_key_is_not_shown_by_debug() {
        let folder = std::env::temp_dir().join(format!("lab-credential-{}", std::process::id()));
        let issued = Authority::open(&folder, "Test Root").unwrap().issue("a", &Subject::server("a.test")).unwrap();
        assert!(!format!("{issued:?}").contains("PRIVATE KEY"));
        fs::remove_dir_all(&folder).unwrap();
    }
}
