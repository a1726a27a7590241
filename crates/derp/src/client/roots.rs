use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// The authorities whose certificates are believed.
#[derive(Debug, Clone)]
pub struct Roots(Arc<RootCertStore>);

/// Why a file gave no trusted roots.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// It can't be read, or is no PEM.
    #[error("the certificates in {} can't be read: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// There is no certificate in it.
    #[error("{} holds no certificate; it should hold at least one, in PEM", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

impl Roots {
    /// The public web's authorities, as they were when this was built.
    pub fn public() -> Self {
        Self(Arc::new(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }))
    }

    /// The certificates of a PEM file, and no others: a system's bundle, or a private authority.
    pub fn from_file(path: &Path) -> Result<Self, RootsError> {
        Self::read(path, RootCertStore::empty())
    }

    /// These roots and the certificates of a PEM file.
    pub fn and_file(&self, path: &Path) -> Result<Self, RootsError> {
        Self::read(path, self.0.as_ref().clone())
    }

    fn read(path: &Path, mut store: RootCertStore) -> Result<Self, RootsError> {
        let unreadable = |reason: String| RootsError::Unreadable { path: path.to_owned(), reason };
        let certificates = CertificateDer::pem_file_iter(path).map_err(|error| unreadable(error.to_string()))?;
        let before = store.len();
        for certificate in certificates {
            let certificate = certificate.map_err(|error| unreadable(error.to_string()))?;
            store.add(certificate).map_err(|error| unreadable(error.to_string()))?;
        }
        if store.len() == before {
            return Err(RootsError::Empty { path: path.to_owned() });
        }
        Ok(Self(Arc::new(store)))
    }

    pub(super) fn store(&self) -> Arc<RootCertStore> {
        self.0.clone()
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
}
