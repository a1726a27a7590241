use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::files::{self, FileError};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(10);

/// Where the server's certificate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain in PEM, the server's own certificate first.
    pub certificate: PathBuf,
    /// Its private key in PEM.
    pub key: PathBuf,
}

/// Why the server's certificate can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file is not what it should be.
    #[error("the file {path:?} holds no {what} in PEM form: {reason}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What the parser said.
        reason: String,
    },
    /// The key is not that of the certificate, or of a kind that is not supported.
    #[error("the key in {key:?} does not fit the certificate in {certificate:?}: {reason}")]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What was wrong.
        reason: String,
    },
}

/// The server's certificate, read again whenever its files change.
pub(crate) struct ServerCertificate {
    files: CertificateFiles,
    current: ArcSwap<CertifiedKey>,
}

impl ServerCertificate {
    /// Reads the files.
    pub(crate) fn load(files: CertificateFiles) -> Result<Arc<Self>, TlsError> {
        let current = ArcSwap::from_pointee(read(&files)?);
        Ok(Arc::new(Self { files, current }))
    }

    /// TLS with this certificate, whichever it is when a connection opens; offers HTTP/1.1.
    ///
    /// HTTP/2 is not offered: upgrades need 1.1, and requests of strangers need no more.
    pub(crate) fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Looks at the files again and again, for as long as the server runs.
    pub(crate) async fn keep_current(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            match self.reload() {
                Ok(true) => tracing::info!("the server's certificate was read anew"),
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(%error, "the server's certificate can't be read anew; the one from before stays in use");
                }
            }
        }
    }

    /// Reads the files; true when there is a new certificate in them.
    fn reload(&self) -> Result<bool, TlsError> {
        let read = read(&self.files)?;
        if read.cert == self.current.load().cert {
            return Ok(false);
        }
        self.current.store(Arc::new(read));
        Ok(true)
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate").field("files", &self.files).finish_non_exhaustive()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn read(files: &CertificateFiles) -> Result<CertifiedKey, TlsError> {
    let pem = |path: &Path, what, reason: String| TlsError::Pem { path: path.to_owned(), what, reason };
    let chain = files::read_public(&files.certificate)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<_, _>>()
        .map_err(|error| pem(&files.certificate, "certificate", error.to_string()))?;
    if chain.is_empty() {
        return Err(pem(&files.certificate, "certificate", "there is none in it".to_owned()));
    }
    // Who may read this key is its issuer's business: certificate tools have groups of their own for it.
    let key = zeroize::Zeroizing::new(files::read_public(&files.key)?);
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| pem(&files.key, "private key", error.to_string()))?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| TlsError::Mismatch {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(files: &CertificateFiles, name: &str) {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        std::fs::write(&files.certificate, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    }

    fn files(folder: &Path) -> CertificateFiles {
        CertificateFiles { certificate: folder.join("tls.crt"), key: folder.join("tls.key") }
    }

    #[test]
    fn a_changed_certificate_is_taken_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        write(&files, "a.example.com");
        let certificate = ServerCertificate::load(files.clone()).unwrap();
        let first = certificate.current.load_full();
        assert!(!certificate.reload().unwrap());

        write(&files, "b.example.com");
        assert!(certificate.reload().unwrap());
        let second = certificate.current.load_full();
        assert_ne!(first.cert, second.cert);

        std::fs::write(&files.certificate, "nothing").unwrap();
        assert!(certificate.reload().is_err());
        assert_eq!(certificate.current.load_full().cert, second.cert);
    }

    #[test]
    fn what_is_wrong_with_the_files_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        let error = ServerCertificate::load(files.clone()).unwrap_err().to_string();
        assert!(error.contains("can't read the file") && error.contains("tls.crt"), "{error}");

        write(&files, "a.example.com");
        let other = rcgen::KeyPair::generate().unwrap();
        std::fs::write(&files.key, other.serialize_pem()).unwrap();
        let error = ServerCertificate::load(files.clone()).unwrap_err().to_string();
        assert!(error.contains("does not fit the certificate"), "{error}");

        std::fs::write(&files.key, "nothing").unwrap();
        let error = ServerCertificate::load(files).unwrap_err().to_string();
        assert!(error.contains("holds no private key"), "{error}");
    }
}
