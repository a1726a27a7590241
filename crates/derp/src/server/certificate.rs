//! The relay's TLS: a certificate from files, and behind it one that tells the relay's key.

use std::sync::Arc;

use anyhow::Context as _;
use crypto::NodePublic;
use listen::{CertificateFiles, ServerCertificate};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SerialNumber};
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;

/// Loads the files; `relay` is the key that the second certificate tells.
pub(crate) fn load(files: CertificateFiles, relay: &NodePublic) -> anyhow::Result<Arc<ServerCertificate>> {
    Ok(ServerCertificate::load_with(files, vec![meta_certificate(relay)?])?)
}

/// How TLS is spoken with this certificate.
pub(crate) fn server_config(certificate: &Arc<ServerCertificate>) -> Arc<ServerConfig> {
    let mut config = certificate.server_config();
    // Connections last for days, so few would ever be resumed; tickets would cost each two messages and memory.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Arc::new(config)
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

    #[test]
    fn the_chain_ends_with_the_certificate_of_fast_starts() {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["derp.example".to_owned()]).unwrap();
        let files = CertificateFiles { certificate: folder.path().join("tls.crt"), key: folder.path().join("tls.key") };
        std::fs::write(&files.certificate, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        let chain = load(files, &NodePublic::from_bytes([0xab; 32])).unwrap().chain();
        assert_eq!(chain.len(), 2);
        let name = format!("derpkey{}", "ab".repeat(32));
        assert!(chain[1].windows(name.len()).any(|window| window == name.as_bytes()));
    }
}
