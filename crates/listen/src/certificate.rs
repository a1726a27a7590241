use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Where a server's certificate and its key are, in PEM. They may be one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Why a server's certificate can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file can't be read, or holds something else.
    #[error("can't read the TLS {what} {path:?}: {reason}")]
    File {
        /// What the file should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system, or the parser, said.
        reason: pem::Error,
    },
    /// There is no certificate in the file.
    #[error("the file {0:?} holds no certificate in PEM form")]
    NoCertificate(PathBuf),
    /// The key is not that of the certificate, or of a kind that is not supported.
    #[error("the key in {key:?} does not fit the certificate in {certificate:?}: {reason}")]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What was wrong.
        reason: rustls::Error,
    },
}

/// A server's certificate, read again whenever its files change.
#[derive(Debug)]
pub struct ServerCertificate {
    files: CertificateFiles,
    appended: Vec<CertificateDer<'static>>,
    current: ArcSwap<CertifiedKey>,
    /// As the files were when they were first read.
    first: Stamps,
}

/// What tells one state of the two files from another.
type Stamps = [Option<(u64, i64, i64, u64)>; 2];

impl ServerCertificate {
    /// Reads the files.
    ///
    /// # Errors
    /// When they can't be used.
    pub fn load(files: CertificateFiles) -> Result<Arc<Self>, CertificateError> {
        Self::load_with(files, Vec::new())
    }

    /// Reads the files, and shows more certificates after those of the chain, whatever the files hold later.
    ///
    /// # Errors
    /// When the files can't be used.
    pub fn load_with(
        files: CertificateFiles,
        appended: Vec<CertificateDer<'static>>,
    ) -> Result<Arc<Self>, CertificateError> {
        // Looked at before they are read: a change in between is then read twice, not never.
        let first = stamps(&files);
        let current = ArcSwap::from_pointee(read(&files, &appended)?);
        Ok(Arc::new(Self { files, appended, current, first }))
    }

    /// TLS 1.2 and 1.3 with this certificate, whichever it is when a connection opens; offers HTTP/1.1.
    ///
    /// HTTP/2 is not offered: upgrades need 1.1, and requests of strangers need no more.
    pub fn server_config(self: &Arc<Self>) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring's provider has the cipher suites of TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config
    }

    /// The chain that connections get now.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.current.load().cert.clone()
    }

    /// Reads the files again whenever they change, for as long as it is polled. What can't be used leaves the old
    /// certificate in place, is told to `failed` and tried again at the next look.
    pub async fn keep_current(self: Arc<Self>, failed: impl Fn(&CertificateError) + Send) {
        let mut seen = self.first;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let stamps = stamps(&self.files);
            if stamps == seen {
                continue;
            }
            match self.reload() {
                Ok(()) => {
                    seen = stamps;
                    tracing::info!(file = %self.files.certificate.display(), "read the changed TLS certificate");
                }
                // The two files are rarely replaced at once; what is half done now is whole at the next look.
                Err(error) => {
                    tracing::warn!(%error, "the changed TLS certificate can't be used: the one from before stays in use");
                    failed(&error);
                }
            }
        }
    }

    fn reload(&self) -> Result<(), CertificateError> {
        self.current.store(Arc::new(read(&self.files, &self.appended)?));
        Ok(())
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn stamps(files: &CertificateFiles) -> Stamps {
    let stamp = |metadata: Metadata| (metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.size());
    [&files.certificate, &files.key].map(|file| std::fs::metadata(file).ok().map(stamp))
}

fn read(files: &CertificateFiles, appended: &[CertificateDer<'static>]) -> Result<CertifiedKey, CertificateError> {
    let (certificate, key) = (&files.certificate, &files.key);
    let file = |what, path: &PathBuf, reason| CertificateError::File { what, path: path.clone(), reason };
    let mut chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|reason| file("certificate", certificate, reason))?;
    if chain.is_empty() {
        return Err(CertificateError::NoCertificate(certificate.clone()));
    }
    chain.extend_from_slice(appended);
    // Who may read this key is its issuer's business: certificate tools have groups of their own for it.
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|reason| file("key", key, reason))?;
    CertifiedKey::from_der(chain, secret, &rustls::crypto::ring::default_provider())
        .map_err(|reason| CertificateError::Mismatch { certificate: certificate.clone(), key: key.clone(), reason })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn files(folder: &Path, name: &str) -> CertificateFiles {
        let files = CertificateFiles { certificate: folder.join("tls.crt"), key: folder.join("tls.key") };
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        std::fs::write(&files.certificate, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        files
    }

    #[test]
    fn a_changed_certificate_is_used_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let certificate = ServerCertificate::load(files(folder.path(), "one.example")).unwrap();
        let first = certificate.chain();
        let changed = files(folder.path(), "two.example");
        certificate.reload().unwrap();
        let second = certificate.chain();
        assert_ne!(first, second);

        std::fs::write(&changed.certificate, "half a certif").unwrap();
        let error = certificate.reload().unwrap_err().to_string();
        assert!(error.contains("tls.crt") && error.contains("holds no certificate"), "{error}");
        assert_eq!(certificate.chain(), second);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_since_the_first_reading_is_noticed_and_one_that_fails_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let certificate = ServerCertificate::load(files(folder.path(), "one.example")).unwrap();
        let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
        std::fs::write(folder.path().join("tls.key"), "nothing").unwrap();
        let tell = move |error: &CertificateError| told.send(error.to_string()).unwrap();
        let looking = tokio::spawn(certificate.clone().keep_current(tell));
        assert!(heard.recv().await.unwrap().contains("tls.key"));
        let first = certificate.chain();
        files(folder.path(), "two.example");
        let changed = async {
            while certificate.chain() == first {
                // tidy: sleep, the clock is paused: it moves only while all wait
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::time::timeout(10 * LOOK_EVERY, changed).await.unwrap();
        looking.abort();
    }

    #[test]
    fn what_is_appended_ends_every_chain() {
        let folder = tempfile::tempdir().unwrap();
        let more = rcgen::generate_simple_self_signed(vec!["more".to_owned()]).unwrap().cert.der().clone();
        let certificate =
            ServerCertificate::load_with(files(folder.path(), "one.example"), vec![more.clone()]).unwrap();
        files(folder.path(), "two.example");
        certificate.reload().unwrap();
        assert_eq!(certificate.chain().len(), 2);
        assert_eq!(certificate.chain()[1], more);
    }

    #[test]
    fn what_is_wrong_with_the_files_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let missing = CertificateFiles { certificate: folder.path().join("no.crt"), key: folder.path().join("no.key") };
        let error = ServerCertificate::load(missing).unwrap_err().to_string();
        assert!(error.starts_with("can't read the TLS certificate") && error.contains("no.crt"), "{error}");

        let files = files(folder.path(), "one.example");
        let other = rcgen::KeyPair::generate().unwrap();
        std::fs::write(&files.key, other.serialize_pem()).unwrap();
        let error = ServerCertificate::load(files.clone()).unwrap_err().to_string();
        assert!(error.contains("does not fit the certificate"), "{error}");

        std::fs::write(&files.key, "nothing").unwrap();
        let error = ServerCertificate::load(files).unwrap_err().to_string();
        assert!(error.starts_with("can't read the TLS key") && error.contains("tls.key"), "{error}");
    }
}
