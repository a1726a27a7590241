use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// Where systems keep the certificates that they trust: Debian, Fedora, openSUSE, RHEL, Alpine.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The certificate authorities that are believed.
#[derive(Clone)]
pub struct Roots(Arc<RootCertStore>);

/// A file of certificates that is none.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// It can't be read, or one of its certificates is no authority's.
    #[error("the certificates in {} can't be read: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It holds none.
    #[error("{} holds no certificate; it should hold at least one, in PEM", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

impl Roots {
    /// None at all: to be extended by what is to be believed.
    pub fn none() -> Self {
        Self(Arc::new(RootCertStore::empty()))
    }

    /// Those of the public web, which are built in.
    pub fn public() -> Self {
        Self(Arc::new(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }))
    }

    /// Those of the public web and those that this machine trusts: of the file that `SSL_CERT_FILE` names, or of the
    /// system's bundle. An image that holds only our binary has no bundle, and then the public ones are all.
    pub fn system() -> Result<Self, RootsError> {
        match std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()) {
            Some(path) => Self::public().and_file(Path::new(&path)),
            None => match BUNDLES.iter().map(Path::new).find(|path| path.is_file()) {
                Some(bundle) => Self::public().and_bundle(bundle),
                None => Ok(Self::public()),
            },
        }
    }

    /// Those in a PEM file, and no others.
    pub fn from_file(path: &Path) -> Result<Self, RootsError> {
        Self::none().and_file(path)
    }

    /// These and those in a PEM file. One certificate in it that can't be used refuses the file.
    pub fn and_file(&self, path: &Path) -> Result<Self, RootsError> {
        let unreadable = |reason: String| RootsError::Unreadable { path: path.to_owned(), reason };
        let pem = std::fs::read(path).map_err(|error| unreadable(error.to_string()))?;
        let mut store = self.0.as_ref().clone();
        let before = store.len();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| unreadable(error.to_string()))?;
            store.add(certificate).map_err(|error| unreadable(error.to_string()))?;
        }
        match store.len() == before {
            true => Err(RootsError::Empty { path: path.to_owned() }),
            false => Ok(Self(Arc::new(store))),
        }
    }

    /// These and those in a bundle that somebody else keeps: a few certificates of old that can't be used don't matter.
    fn and_bundle(&self, path: &Path) -> Result<Self, RootsError> {
        let unreadable = |reason: String| RootsError::Unreadable { path: path.to_owned(), reason };
        let pem = std::fs::read(path).map_err(|error| unreadable(error.to_string()))?;
        let mut store = self.0.as_ref().clone();
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect();
        let (added, _) = store.add_parsable_certificates(certificates);
        match added {
            0 => Err(RootsError::Empty { path: path.to_owned() }),
            _ => Ok(Self(Arc::new(store))),
        }
    }

    /// What verifiers take.
    pub fn store(&self) -> Arc<RootCertStore> {
        self.0.clone()
    }

    /// TLS 1.2 or 1.3 with servers whose certificate leads to one of these.
    pub fn tls(&self) -> ClientConfig {
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring serves the default versions")
            .with_root_certificates(self.0.clone())
            .with_no_client_auth()
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        assert!(matches!(Roots::from_file(&path), Err(RootsError::Unreadable { .. })));
        std::fs::write(&path, "nothing").unwrap();
        let error = Roots::from_file(&path).unwrap_err().to_string();
        assert!(error.ends_with("ca.pem holds no certificate; it should hold at least one, in PEM"), "{error}");
    }

    #[test]
    fn the_public_roots_can_be_extended() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        let authority = rcgen::generate_simple_self_signed(vec!["ca".to_owned()]).unwrap();
        std::fs::write(&path, authority.cert.pem()).unwrap();
        let public = Roots::public();
        assert_eq!(public.and_file(&path).unwrap().0.len(), public.0.len() + 1);
        assert_eq!(Roots::from_file(&path).unwrap().0.len(), 1);
    }

    #[test]
    fn a_broken_certificate_refuses_a_named_file_and_is_passed_over_in_a_bundle() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        let broken = "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n";
        let authority = rcgen::generate_simple_self_signed(vec!["ca".to_owned()]).unwrap();
        std::fs::write(&path, format!("{broken}{}", authority.cert.pem())).unwrap();
        assert!(matches!(Roots::from_file(&path), Err(RootsError::Unreadable { .. })));
        assert_eq!(Roots::none().and_bundle(&path).unwrap().0.len(), 1);
        std::fs::write(&path, broken).unwrap();
        assert!(matches!(Roots::none().and_bundle(&path), Err(RootsError::Empty { .. })));
    }
}
