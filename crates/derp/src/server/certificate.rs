//! The relay's TLS certificate: from files, loaded again when they change, with a second one that tells the relay's key.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use crypto::NodePublic;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SerialNumber};
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use telemetry::Shutdown;

use super::metrics::RelayMetrics;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Where certificate and key are, in PEM. They may be one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, the relay's own certificate first.
    pub chain: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// The certificate that new connections get.
#[derive(Debug)]
pub(crate) struct Certificate {
    files: CertificateFiles,
    meta: CertificateDer<'static>,
    current: ArcSwap<CertifiedKey>,
}

impl Certificate {
    /// Loads the files; `relay` is the key that the second certificate tells.
    pub(crate) fn load(files: CertificateFiles, relay: &NodePublic) -> anyhow::Result<Arc<Self>> {
        let meta = meta_certificate(relay)?;
        let current = ArcSwap::from_pointee(read(&files, &meta)?);
        Ok(Arc::new(Self { files, meta, current }))
    }

    /// How TLS is spoken with this certificate.
    pub(crate) fn server_config(self: &Arc<Self>) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring's provider has the cipher suites of TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Connections last for days, so few would ever be resumed; tickets would cost each two messages and memory.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Arc::new(config)
    }

    /// Loads the files again whenever they change, until shutdown. What can't be loaded leaves the old one in place.
    pub(crate) async fn keep_current(self: Arc<Self>, metrics: RelayMetrics, shutdown: Shutdown) {
        let mut seen = self.stamps();
        loop {
            tokio::select! {
                () = shutdown.requested() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let stamps = self.stamps();
            if stamps == seen {
                continue;
            }
            match self.reload() {
                Ok(()) => {
                    seen = stamps;
                    tracing::info!(file = %self.files.chain.display(), "loaded the changed TLS certificate");
                }
                // The two files are rarely replaced at once; what is half done now is whole at the next look.
                Err(error) => {
                    metrics.certificate_failures.inc();
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "the changed TLS certificate can't be used: keeping the old one"
                    );
                }
            }
        }
    }

    pub(crate) fn reload(&self) -> anyhow::Result<()> {
        self.current.store(Arc::new(read(&self.files, &self.meta)?));
        Ok(())
    }

    fn stamps(&self) -> [Option<(u64, i64, i64, u64)>; 2] {
        let stamp = |metadata: Metadata| (metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.size());
        [&self.files.chain, &self.files.key].map(|file| std::fs::metadata(file).ok().map(stamp))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn read(files: &CertificateFiles, meta: &CertificateDer<'static>) -> anyhow::Result<CertifiedKey> {
    let of = |what: &str, path: &Path| format!("the TLS {what} in {}", path.display());
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(&files.chain).with_context(|| of("certificate", &files.chain))?.collect();
    let mut chain = chain.with_context(|| of("certificate", &files.chain))?;
    anyhow::ensure!(!chain.is_empty(), "{} holds no certificate in PEM", files.chain.display());
    let key = PrivateKeyDer::from_pem_file(&files.key).with_context(|| of("key", &files.key))?;
    chain.push(meta.clone());
    let signer = rustls::crypto::ring::sign::any_supported_type(&key).with_context(|| of("key", &files.key))?;
    let certified = CertifiedKey::new(chain, signer);
    certified
        .keys_match()
        .with_context(|| format!("{} is not the key of {}", files.key.display(), files.chain.display()))?;
    Ok(certified)
}

/// The certificate that allows a fast start: signed by nobody, named `derpkey` and the relay's key, with the protocol
/// version as its serial number. Clients that don't know it ignore it, as they do any that leads to no root.
fn meta_certificate(relay: &NodePublic) -> anyhow::Result<CertificateDer<'static>> {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, format!("derpkey{}", relay.to_hex()));
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params.serial_number = Some(SerialNumber::from(u64::from(crate::info::VERSION)));
    let key =
        KeyPair::generate_for(&rcgen::PKCS_ED25519).context("can't make a key for the certificate of fast starts")?;
    Ok(params.self_signed(&key).context("can't make the certificate of fast starts")?.der().clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, name: &str) -> CertificateFiles {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let files = CertificateFiles { chain: directory.join("tls.crt"), key: directory.join("tls.key") };
        std::fs::write(&files.chain, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        files
    }

    #[test]
    fn the_chain_ends_with_the_certificate_of_fast_starts() {
        let directory = tempfile::tempdir().unwrap();
        let relay = NodePublic::from_bytes([0xab; 32]);
        let certificate = Certificate::load(write(directory.path(), "derp.example"), &relay).unwrap();
        let chain = certificate.current.load().cert.clone();
        assert_eq!(chain.len(), 2);
        let name = format!("derpkey{}", "ab".repeat(32));
        assert!(chain[1].windows(name.len()).any(|window| window == name.as_bytes()));
    }

    #[test]
    fn a_changed_certificate_is_used_and_a_broken_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let relay = NodePublic::from_bytes([0xab; 32]);
        let certificate = Certificate::load(write(directory.path(), "one.example"), &relay).unwrap();
        let first = certificate.current.load().cert[0].clone();
        let stamps = certificate.stamps();
        let files = write(directory.path(), "two.example");
        assert_ne!(certificate.stamps(), stamps);
        certificate.reload().unwrap();
        let second = certificate.current.load().cert[0].clone();
        assert_ne!(first, second);
        std::fs::write(&files.chain, "half a certif").unwrap();
        let error = certificate.reload().unwrap_err().to_string();
        assert!(error.contains("holds no certificate"), "{error}");
        assert_eq!(certificate.current.load().cert[0], second);
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let mut files = write(directory.path(), "one.example");
        files.key = write(other.path(), "two.example").key;
        let error = Certificate::load(files, &NodePublic::from_bytes([1; 32])).unwrap_err().to_string();
        assert!(error.contains("is not the key of"), "{error}");
    }
}
