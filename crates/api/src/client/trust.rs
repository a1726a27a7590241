use std::path::PathBuf;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::ClientError;

/// Where systems keep the certificates that they trust, in the order in which they are looked for.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why certificates to trust could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file can't be read.
    #[error("the certificates in {path:?} can't be read: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// The text is not PEM, or holds no certificate.
    #[error("{0} holds no certificate in PEM form")]
    Empty(String),
}

/// Reads all certificates of a PEM text; `origin` names it in the error.
pub fn certificates_in_pem(pem: &[u8], origin: &str) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(TrustError::Empty(origin.to_owned())),
    }
}

/// The certificates that this machine trusts: of the file that `SSL_CERT_FILE` names, or of the system's bundle.
///
/// Nothing is found in an image that holds only our binary; then the public web's roots, which are built in, are all.
pub fn system_certificates() -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let named = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
    let (path, required) = match named {
        Some(path) => (path, true),
        None => match BUNDLES.iter().map(PathBuf::from).find(|path| path.is_file()) {
            Some(path) => (path, false),
            None => return Ok(Vec::new()),
        },
    };
    let pem = std::fs::read(&path).map_err(|source| TrustError::File { path: path.clone(), source })?;
    match certificates_in_pem(&pem, &path.display().to_string()) {
        Err(error) if required => Err(error),
        found => Ok(found.unwrap_or_default()),
    }
}

/// TLS that trusts the public web's roots and these.
pub(super) fn tls(extra_roots: Vec<CertificateDer<'static>>) -> Result<ClientConfig, ClientError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    // A system's bundle may hold certificates that rustls can't use; one good is enough, unless none was.
    let given = extra_roots.len();
    let (added, _) = roots.add_parsable_certificates(extra_roots);
    if given > 0 && added == 0 {
        return Err(ClientError::Root(format!("none of {given} can be used as a root")));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ClientError::Root(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_without_certificates_is_named() {
        let error = certificates_in_pem(b"hello", "ca.pem").unwrap_err();
        assert_eq!(error.to_string(), "ca.pem holds no certificate in PEM form");
    }

    #[test]
    fn a_broken_root_is_refused_when_it_is_the_only_one() {
        assert!(matches!(tls(vec![CertificateDer::from(vec![1, 2, 3])]), Err(ClientError::Root(_))));
        assert!(tls(Vec::new()).is_ok());
    }
}
