use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateSigningRequestParams, CidrSubnet, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType,
    SerialNumber,
};

use tailnet::TailnetId;

use crate::files::{self, FileError};

/// How long certificates live, and how far their start lies back for clocks that are behind.
const ROOT_LIFE: Duration = Duration::from_secs(20 * 365 * 86_400);
const INTERMEDIATE_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);
const LEAF_LIFE: Duration = Duration::from_secs(90 * 86_400);
const CLOCK_SLACK: Duration = Duration::from_secs(3600);

/// The largest request that is read: a key of any kind that we sign is far below it.
const REQUEST_LIMIT: usize = 16 << 10;

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// One of the authority's files can't be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// One of the authority's files is not what it should be.
    #[error("the file {path:?} is not a {what} in PEM form: {reason}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What the parser said.
        reason: String,
    },
    /// The node's request can't be signed.
    #[error("the certificate request can't be used: {0}")]
    Request(String),
    /// The name is not one of the tailnet's.
    #[error("the name {name:?} is not within {domain:?}")]
    Foreign {
        /// The name.
        name: String,
        /// The tailnet's domain.
        domain: String,
    },
    /// Signing failed.
    #[error("signing failed: {0}")]
    Signing(#[from] rcgen::Error),
}

/// The installation's root: it signs an authority for each tailnet, and is needed for nothing else.
///
/// Its key may be kept elsewhere once the tailnets have theirs.
pub(crate) struct RootAuthority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// A tailnet's own authority, which by its certificates can only sign names within the tailnet's domain.
///
/// One key, two certificates for each domain that the tailnet has had: one that the root has signed, and the anchor, signed
/// by the key itself. People trust the anchor, so that even who has the root's key can't sign for anything but names of the
/// tailnet. The key's file has the tailnet's number in its name, which stays whatever the tailnet is called.
pub(crate) struct TailnetAuthority {
    domain: String,
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    anchor_pem: String,
}

/// Where the files of a tailnet's authority are.
struct TailnetFiles<'a> {
    folder: &'a Path,
    tailnet: TailnetId,
    domain: &'a str,
}

impl RootAuthority {
    /// Makes a root in a folder that has none.
    pub(crate) fn create(folder: &Path, now: Timestamp) -> Result<Self, AuthorityError> {
        files::private_folder(folder)?;
        let key = KeyPair::generate()?;
        let mut params = lasting(now, ROOT_LIFE);
        params.distinguished_name = name(&format!("Towline root {}", &hex::encode(serial())[..8]));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        save(&folder.join("root.key"), &folder.join("root.crt"), &certificate, &key)?;
        Ok(Self { folder: folder.to_owned(), issuer: Issuer::new(params, key) })
    }

    /// Reads the root of a folder, or makes it where that was begun and cut off, or never begun.
    pub(crate) fn complete(folder: &Path, now: Timestamp) -> Result<Self, AuthorityError> {
        if folder.join("root.crt").exists() {
            return Self::load(folder);
        }
        // The certificate comes last: a key without one has signed nothing.
        files::remove_if_there(&folder.join("root.key"))?;
        Self::create(folder, now)
    }

    /// Reads the root of a folder; an error when its key is kept elsewhere.
    pub(crate) fn load(folder: &Path) -> Result<Self, AuthorityError> {
        let path = folder.join("root.crt");
        let key = read_key(&folder.join("root.key"))?;
        Ok(Self { folder: folder.to_owned(), issuer: issuer(&path, &read_text(&path)?, key)? })
    }

    /// Makes the authority of a tailnet that is about to be made. What lies there under its number is from an attempt that
    /// was cut off: no tailnet has had the number.
    pub(crate) fn create_tailnet(
        &self,
        tailnet: TailnetId,
        domain: &str,
        now: Timestamp,
    ) -> Result<TailnetAuthority, AuthorityError> {
        let files = TailnetFiles { folder: &self.folder, tailnet, domain };
        for path in [files.key(), files.certificate(), files.anchor()] {
            files::remove_if_there(&path)?;
        }
        let key = KeyPair::generate()?;
        let certificate = constrained(domain, now).signed_by(&key, &self.issuer)?;
        save(&files.key(), &files.certificate(), &certificate, &key)?;
        TailnetAuthority::load(&self.folder, tailnet, domain, now)
    }
}

impl TailnetAuthority {
    /// Reads the authority of a tailnet, and makes what it lacks for the domain that the tailnet has now: after it was given
    /// another, both certificates.
    ///
    /// The root's key may be kept elsewhere by then. The anchor stands in for the certificate that it would sign: those who
    /// trust the anchor need no other.
    pub(crate) fn load(
        folder: &Path,
        tailnet: TailnetId,
        domain: &str,
        now: Timestamp,
    ) -> Result<Self, AuthorityError> {
        let files = TailnetFiles { folder, tailnet, domain };
        files.take_over()?;
        let key = read_key(&files.key())?;
        if !files.anchor().exists() {
            let anchor = constrained(domain, now).self_signed(&key)?;
            files::write_new_private(&files.anchor(), anchor.pem().as_bytes())?;
        }
        if !files.certificate().exists() && folder.join("root.key").exists() {
            let root = RootAuthority::load(folder)?;
            let certificate = constrained(domain, now).signed_by(&key, &root.issuer)?;
            files::write_new_private(&files.certificate(), certificate.pem().as_bytes())?;
        }
        let anchor_pem = read_text(&files.anchor())?;
        let shown = if files.certificate().exists() { files.certificate() } else { files.anchor() };
        let certificate_pem = read_text(&shown)?;
        let issuer = issuer(&shown, &certificate_pem, key)?;
        Ok(Self { domain: domain.to_owned(), issuer, certificate_pem, anchor_pem })
    }

    /// The domain that it can sign names in.
    pub(crate) fn domain(&self) -> &str {
        &self.domain
    }

    /// The certificate to trust for this tailnet's names, and by itself for no others.
    pub(crate) fn anchor_pem(&self) -> &str {
        &self.anchor_pem
    }

    /// Signs a certificate for one name, whatever names the request asks for; of the request only the key counts.
    ///
    /// Answers the certificate and this authority's, in PEM.
    pub(crate) fn sign(&self, name: &str, request: &[u8], now: Timestamp) -> Result<String, AuthorityError> {
        let label = name.strip_suffix(&self.domain).and_then(|name| name.strip_suffix('.'));
        if label.is_none_or(str::is_empty) {
            return Err(AuthorityError::Foreign { name: name.to_owned(), domain: self.domain.clone() });
        }
        if request.len() > REQUEST_LIMIT {
            return Err(AuthorityError::Request(format!("it is larger than {REQUEST_LIMIT} bytes")));
        }
        let mut request = CertificateSigningRequestParams::from_der(&request.into())
            .map_err(|error| AuthorityError::Request(error.to_string()))?;
        let dns = name.try_into().map_err(|error: rcgen::Error| AuthorityError::Request(error.to_string()))?;
        request.params = lasting(now, LEAF_LIFE);
        request.params.distinguished_name = self::name(name);
        request.params.subject_alt_names = vec![SanType::DnsName(dns)];
        request.params.is_ca = IsCa::ExplicitNoCa;
        request.params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        request.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        request.params.use_authority_key_identifier_extension = true;
        let certificate = request.signed_by(&self.issuer)?;
        Ok(format!("{}{}", certificate.pem(), self.certificate_pem))
    }
}

impl TailnetFiles<'_> {
    fn key(&self) -> PathBuf {
        self.folder.join(format!("tailnet-{}.key", self.tailnet))
    }

    fn certificate(&self) -> PathBuf {
        self.folder.join(format!("tailnet-{}.{}.crt", self.tailnet, self.domain))
    }

    fn anchor(&self) -> PathBuf {
        self.folder.join(format!("tailnet-{}.{}.anchor.crt", self.tailnet, self.domain))
    }

    /// Takes over files that are named after the domain alone, as they once were. The key is the last: until it is there,
    /// this is done again.
    fn take_over(&self) -> Result<(), AuthorityError> {
        let old = |suffix: &str| self.folder.join(format!("{}.{suffix}", self.domain));
        if self.key().exists() || !old("key").exists() {
            return Ok(());
        }
        for (from, to) in
            [(old("anchor.crt"), self.anchor()), (old("crt"), self.certificate()), (old("key"), self.key())]
        {
            if from.exists() {
                files::rename(&from, &to)?;
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for RootAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RootAuthority").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for TailnetAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TailnetAuthority").field("domain", &self.domain).finish_non_exhaustive()
    }
}

/// The parameters that every certificate of ours has.
fn lasting(now: Timestamp, life: Duration) -> CertificateParams {
    let start = Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0)).saturating_sub(CLOCK_SLACK);
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.not_before = epoch + start;
    params.not_after = epoch + start + life;
    params.serial_number = Some(SerialNumber::from_slice(&serial()));
    params
}

/// The parameters of an authority that can sign names within a domain and nothing else.
fn constrained(domain: &str, now: Timestamp) -> CertificateParams {
    let mut params = lasting(now, INTERMEDIATE_LIFE);
    params.distinguished_name = name(&format!("Towline authority of {domain}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    // A kind of name without a constraint would be free, so addresses are closed as a whole.
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName(domain.to_owned())],
        excluded_subtrees: vec![
            GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([0; 4], 0)),
            GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix([0; 16], 0)),
        ],
    });
    params
}

/// 16 random bytes that read as a positive number.
fn serial() -> [u8; 16] {
    let mut serial = [0; 16];
    crypto::Entropy::fill(&mut crypto::SystemEntropy, &mut serial);
    serial[0] = serial[0] & 0x7f | 0x40;
    serial
}

/// A common name; X.520 allows 64 characters, and the name that counts stands elsewhere.
fn name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text.chars().take(64).collect::<String>());
    name
}

fn save(key_path: &Path, path: &Path, certificate: &Certificate, key: &KeyPair) -> Result<(), AuthorityError> {
    let key = zeroize::Zeroizing::new(key.serialize_pem());
    files::write_new_private(key_path, key.as_bytes())?;
    files::write_new_private(path, certificate.pem().as_bytes())?;
    Ok(())
}

fn read_key(path: &Path) -> Result<KeyPair, AuthorityError> {
    let broken = |reason: String| AuthorityError::Pem { path: path.to_owned(), what: "private key", reason };
    let key = zeroize::Zeroizing::new(files::read_private(path)?);
    let key = std::str::from_utf8(&key).map_err(|error| broken(error.to_string()))?;
    KeyPair::from_pem(key).map_err(|error| broken(error.to_string()))
}

fn issuer(path: &Path, pem: &str, key: KeyPair) -> Result<Issuer<'static, KeyPair>, AuthorityError> {
    Issuer::from_ca_cert_pem(pem, key).map_err(|error| AuthorityError::Pem {
        path: path.to_owned(),
        what: "certificate",
        reason: error.to_string(),
    })
}

fn read_text(path: &Path) -> Result<String, AuthorityError> {
    String::from_utf8(files::read_public(path)?).map_err(|error| AuthorityError::Pem {
        path: path.to_owned(),
        what: "certificate",
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

    use super::*;

    const DOMAIN: &str = "taila31de.ts.net";
    const TAILNET: TailnetId = TailnetId(1);

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn authority() -> (tempfile::TempDir, TailnetAuthority) {
        let folder = tempfile::tempdir().unwrap();
        let root = RootAuthority::create(&folder.path().join("authority"), now()).unwrap();
        let authority = root.create_tailnet(TAILNET, DOMAIN, now()).unwrap();
        (folder, authority)
    }

    fn request(names: &[&str]) -> Vec<u8> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = CertificateParams::new(names).unwrap();
        params.serialize_request(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn verify(root_pem: &str, chain: &str, name: &str) -> Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(root_pem.as_bytes()).unwrap()).unwrap();
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let name = ServerName::try_from(name).unwrap();
        let at = UnixTime::since_unix_epoch(Duration::from_secs(now().as_second() as u64 + 60));
        verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], at).map(|_| ())
    }

    #[test]
    fn a_nodes_certificate_verifies_for_its_own_name_only() {
        let (_folder, authority) = authority();
        let name = "tailscale-operator.taila31de.ts.net";
        let chain = authority.sign(name, &request(&["*.taila31de.ts.net", "example.com"]), now()).unwrap();
        verify(authority.anchor_pem(), &chain, name).unwrap();
        for other in ["example.com", "other.taila31de.ts.net", "taila31de.ts.net"] {
            assert!(verify(authority.anchor_pem(), &chain, other).is_err(), "{other}");
        }
    }

    /// A certificate for any name, signed with the authority's key whatever its certificates say, and the chain to show.
    fn forge(authority: &TailnetAuthority, name: &str) -> String {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        let forged = params.signed_by(&KeyPair::generate().unwrap(), &authority.issuer).unwrap();
        format!("{}{}", forged.pem(), authority.certificate_pem)
    }

    const OUTSIDE: [&str; 5] =
        ["google.com", "taila31de.ts.net.evil.com", "xtaila31de.ts.net", "192.0.2.1", "2001:db8::1"];

    #[test]
    fn a_tailnets_authority_can_sign_nothing_outside_its_domain() {
        let (folder, authority) = authority();
        let root = std::fs::read_to_string(folder.path().join("authority/root.crt")).unwrap();
        for name in OUTSIDE {
            let chain = forge(&authority, name);
            let only_the_leaf = chain.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap();
            for (trusted, chain) in
                [(authority.anchor_pem(), &*chain), (authority.anchor_pem(), only_the_leaf), (&root, &chain)]
            {
                let error = verify(trusted, chain, name).unwrap_err().to_string();
                assert!(error.contains("NameConstraintViolation"), "{name}: {error}");
            }
        }
    }

    #[test]
    fn who_trusts_the_anchor_trusts_nothing_else_that_the_root_signs() {
        let (folder, authority) = authority();
        let root = RootAuthority::load(&folder.path().join("authority")).unwrap();
        let other = root.create_tailnet(TailnetId(7), "other.ts.net", now()).unwrap();
        let chain = other.sign("a.other.ts.net", &request(&[]), now()).unwrap();
        verify(other.anchor_pem(), &chain, "a.other.ts.net").unwrap();
        assert!(verify(authority.anchor_pem(), &chain, "a.other.ts.net").is_err());
    }

    /// Runs `openssl verify` as a program does that trusts the anchor alone.
    fn openssl(authority: &TailnetAuthority, chain: &str, name: &str) -> (bool, String) {
        let folder = tempfile::tempdir().unwrap();
        let file = |file: &str, text: &str| {
            let path = folder.path().join(file);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (leaf, rest) = chain.split_once("-----END CERTIFICATE-----\n").unwrap();
        let leaf = file("leaf.pem", &format!("{leaf}-----END CERTIFICATE-----\n"));
        let kind = if name.parse::<std::net::IpAddr>().is_ok() { "-verify_ip" } else { "-verify_hostname" };
        let verified = std::process::Command::new("openssl")
            .args(["verify", "-no-CAfile", "-no-CApath", "-purpose", "sslserver", kind, name])
            .args(["-attime", &(now().as_second() + 60).to_string()])
            .arg("-CAfile")
            .arg(file("anchor.pem", authority.anchor_pem()))
            .arg("-untrusted")
            .arg(file("rest.pem", rest))
            .arg(leaf)
            .output()
            .expect("openssl is installed wherever ca-certificates is");
        let said = [verified.stdout, verified.stderr].concat();
        (verified.status.success(), String::from_utf8(said).unwrap())
    }

    #[test]
    fn openssl_agrees_about_the_anchor() {
        let (_folder, authority) = authority();
        let name = "a.taila31de.ts.net";
        let (good, said) = openssl(&authority, &authority.sign(name, &request(&[]), now()).unwrap(), name);
        assert!(good, "{said}");
        for name in OUTSIDE {
            let (good, said) = openssl(&authority, &forge(&authority, name), name);
            assert!(!good && said.contains("subtree violation"), "{name}: {said}");
        }
    }

    #[test]
    fn an_authority_from_before_there_were_anchors_gets_one_and_keeps_it() {
        let (folder, authority) = authority();
        let folder = folder.path().join("authority");
        std::fs::remove_file(folder.join(format!("tailnet-1.{DOMAIN}.anchor.crt"))).unwrap();
        let made = TailnetAuthority::load(&folder, TAILNET, DOMAIN, now()).unwrap();
        assert_ne!(made.anchor_pem(), authority.anchor_pem());
        assert_eq!(TailnetAuthority::load(&folder, TAILNET, DOMAIN, now()).unwrap().anchor_pem(), made.anchor_pem());
        let chain = authority.sign("a.taila31de.ts.net", &request(&[]), now()).unwrap();
        verify(made.anchor_pem(), &chain, "a.taila31de.ts.net").unwrap();
    }

    #[test]
    fn another_domain_has_certificates_of_its_own_by_the_same_key_with_or_without_the_root() {
        let (folder, authority) = authority();
        let folder = folder.path().join("authority");
        let moved = TailnetAuthority::load(&folder, TAILNET, "mesh.corp", now()).unwrap();
        let chain = moved.sign("a.mesh.corp", &request(&[]), now()).unwrap();
        verify(moved.anchor_pem(), &chain, "a.mesh.corp").unwrap();
        verify(&std::fs::read_to_string(folder.join("root.crt")).unwrap(), &chain, "a.mesh.corp").unwrap();
        assert!(verify(authority.anchor_pem(), &chain, "a.mesh.corp").is_err(), "the old anchor is for the old domain");
        assert!(moved.sign(&format!("a.{DOMAIN}"), &request(&[]), now()).is_err());

        std::fs::remove_file(folder.join("root.key")).unwrap();
        let last = TailnetAuthority::load(&folder, TAILNET, "third.corp", now()).unwrap();
        let chain = last.sign("a.third.corp", &request(&[]), now()).unwrap();
        verify(last.anchor_pem(), &chain, "a.third.corp").unwrap();
        let back = TailnetAuthority::load(&folder, TAILNET, DOMAIN, now()).unwrap();
        assert_eq!(back.anchor_pem(), authority.anchor_pem(), "who trusted the first anchor still does");
    }

    #[test]
    fn files_named_after_the_domain_alone_are_taken_over_also_when_that_was_cut_off() {
        for moved in 0..3 {
            let (folder, authority) = authority();
            let folder = folder.path().join("authority");
            let names = [
                (format!("tailnet-1.{DOMAIN}.anchor.crt"), format!("{DOMAIN}.anchor.crt")),
                (format!("tailnet-1.{DOMAIN}.crt"), format!("{DOMAIN}.crt")),
                ("tailnet-1.key".to_owned(), format!("{DOMAIN}.key")),
            ];
            for (new, old) in &names[moved..] {
                std::fs::rename(folder.join(new), folder.join(old)).unwrap();
            }
            let again = TailnetAuthority::load(&folder, TAILNET, DOMAIN, now()).unwrap();
            assert_eq!(again.anchor_pem(), authority.anchor_pem());
            assert!(names.iter().all(|(new, old)| folder.join(new).exists() && !folder.join(old).exists()));
        }
    }

    #[test]
    fn a_root_that_was_cut_off_before_its_certificate_is_made_anew_and_a_whole_one_stays() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("authority");
        RootAuthority::create(&folder, now()).unwrap();
        let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        let before = text("root.key");
        RootAuthority::complete(&folder, now()).unwrap();
        assert_eq!(text("root.key"), before);
        std::fs::remove_file(folder.join("root.crt")).unwrap();
        RootAuthority::complete(&folder, now()).unwrap();
        assert_ne!(text("root.key"), before);
    }

    #[test]
    fn a_name_outside_the_tailnet_is_refused() {
        let (_folder, authority) = authority();
        for name in ["example.com", "taila31de.ts.net", ".taila31de.ts.net", "xtaila31de.ts.net"] {
            let error = authority.sign(name, &request(&[]), now()).unwrap_err().to_string();
            assert!(error.contains("is not within"), "{name}: {error}");
        }
    }

    #[test]
    fn a_request_that_does_not_prove_its_key_is_refused() {
        let (_folder, authority) = authority();
        let mut forged = request(&[]);
        let last = forged.len() - 1;
        forged[last] ^= 1;
        for request in [forged, Vec::new(), vec![0x30; 100], vec![0; REQUEST_LIMIT + 1]] {
            let error = authority.sign("a.taila31de.ts.net", &request, now()).unwrap_err();
            assert!(matches!(error, AuthorityError::Request(_)), "{error}");
        }
    }

    #[test]
    fn a_tailnets_authority_works_without_the_roots_key() {
        let (folder, _) = authority();
        let folder = folder.path().join("authority");
        std::fs::remove_file(folder.join("root.key")).unwrap();
        let authority = TailnetAuthority::load(&folder, TAILNET, DOMAIN, now()).unwrap();
        assert!(authority.sign("a.taila31de.ts.net", &request(&[]), now()).is_ok());
        assert!(RootAuthority::load(&folder).unwrap_err().to_string().contains("root.key"));
    }

    #[test]
    fn an_authority_is_never_made_over() {
        let (folder, _) = authority();
        assert!(RootAuthority::create(&folder.path().join("authority"), now()).is_err());
    }
}
