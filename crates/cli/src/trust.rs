//! The tailnet's own certificate authority: fetched, shown, and made one that this machine trusts.

mod store;

use std::io::{BufRead, IsTerminal, Write};

use anyhow::Context;
use clap::{Args, Subcommand};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::json;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use crate::node::{Session, query_value};
use crate::output::note;
use crate::web::{self, Trust};
use crate::{Failure, Output};

use store::SystemStore;

/// Where our coordination server tells its root.
const PATH: &str = "/trust.pem";

/// What can be done about trust.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Let this machine's programs trust certificates of the tailnet's authority
    Install(Install),
    /// Show the tailnet's authority
    Show(Show),
}

/// Fetches the tailnet's authority from its coordination server, shows it, and installs it.
///
/// The server is the daemon's, or the one that --server names. Its answer is believed because of its own certificate; a
/// server without TLS is believed only with --fingerprint. What is installed can sign names of the tailnet and no others.
#[derive(Debug, Args)]
pub struct Install {
    /// The SHA-256 fingerprint that the root must have, as `towline trust show` or an admin tells it
    #[arg(long, value_name = "HEX")]
    fingerprint: Option<String>,
    /// The tailnet's domain, where the server that --server names has several; otherwise the daemon's
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,
    /// Say what would be done, and stop
    #[arg(long)]
    dry_run: bool,
    /// Don't ask
    #[arg(long)]
    yes: bool,
}

/// Fetches the tailnet's authority from its coordination server, and shows it.
#[derive(Debug, Args)]
pub struct Show {
    /// The tailnet's domain, where the server that --server names has several; otherwise the daemon's
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,
    /// Print the certificate itself, in PEM
    #[arg(long)]
    pem: bool,
}

/// A root certificate with what people know it by.
pub(crate) struct Root {
    pem: String,
    der: CertificateDer<'static>,
    name: String,
    until: String,
    /// The domains that it can sign names of; all when empty.
    domains: Vec<String>,
}

impl Root {
    /// Reads a server's answer: one certificate, of an authority.
    fn read(bytes: &[u8], origin: &str) -> anyhow::Result<Self> {
        let pem = std::str::from_utf8(bytes).with_context(|| format!("{origin} is no text"))?.trim().to_owned() + "\n";
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
        let mut certificates =
            certificates.ok().with_context(|| format!("{origin} holds no certificate in PEM form"))?;
        anyhow::ensure!(certificates.len() == 1, "{origin} holds {} certificates and not one", certificates.len());
        let der = certificates.remove(0);
        let problem = || format!("{origin} holds no certificate that can be read");
        let (_, read) = x509_parser::parse_x509_certificate(&der).with_context(problem)?;
        anyhow::ensure!(read.is_ca(), "{origin} holds no certificate of an authority");
        let name = read.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        let name = name.unwrap_or("without a name").to_owned();
        let domains = permitted(&read);
        let until = jiff::Timestamp::from_second(read.validity().not_after.timestamp()).with_context(problem)?;
        Ok(Self { pem, name, until: until.strftime("%Y-%m-%d").to_string(), domains, der })
    }

    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    pub(crate) fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The SHA-256 of the certificate, in hex digits.
    fn fingerprint(&self) -> String {
        hex::encode(ring::digest::digest(&ring::digest::SHA256, &self.der))
    }

    /// The same as people compare it: pairs of digits with colons between.
    fn shown_fingerprint(&self) -> String {
        let digits = self.fingerprint().to_ascii_uppercase();
        let pairs: Vec<&str> = (0..digits.len()).step_by(2).map(|at| &digits[at..at + 2]).collect();
        pairs.join(":")
    }

    fn describe(&self) -> String {
        format!(
            "Authority:    {}\nSigns:        {}\nValid until:  {}\nFingerprint:  {} (SHA-256)\n",
            self.name,
            match self.domains.is_empty() {
                true => "any name".to_owned(),
                false => format!("names of {} only", self.domains.join(", ")),
            },
            self.until,
            self.shown_fingerprint()
        )
    }

    fn answer(&self) -> serde_json::Value {
        json!({
            "name": self.name, "domains": self.domains, "validUntil": self.until, "fingerprint": self.fingerprint(),
            "pem": self.pem,
        })
    }
}

/// The domains that a certificate may sign names of; none when it says nothing about them.
fn permitted(certificate: &X509Certificate<'_>) -> Vec<String> {
    let constraints = certificate.name_constraints().ok().flatten();
    let permitted = constraints.and_then(|found| found.value.permitted_subtrees.as_ref());
    let names = permitted.into_iter().flatten().filter_map(|subtree| match &subtree.base {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    names.collect()
}

/// Fetches the root from the coordination server by a channel that can be believed.
pub(crate) async fn fetch(session: &Session) -> Result<Root, Failure> {
    let (root, believed) = fetch_any(session, None).await?;
    match believed {
        Belief::Certain => Ok(root),
        Belief::Plain(server) => Err(unbelievable(&server)),
    }
}

fn unbelievable(server: &str) -> Failure {
    Failure::refused(format!(
        "{server} is reached without TLS, so anybody could have answered: compare the fingerprint that `towline trust show` \
         tells with an admin's, and give it with --fingerprint"
    ))
}

/// Why a root may be believed.
enum Belief {
    /// The server proved who it is, or is this machine.
    Certain,
    /// The server proved nothing.
    Plain(String),
}

async fn fetch_any(session: &Session, domain: Option<&str>) -> Result<(Root, Belief), Failure> {
    let (server, domain) = match session.connection().named_server() {
        Some(server) => (server, domain.map(str::to_owned)),
        None => {
            let own = session.domain().await?;
            (session.control_url().await?, domain.map(str::to_owned).or(own))
        }
    };
    let query = domain.map(|domain| format!("?domain={}", query_value(&domain))).unwrap_or_default();
    let url = format!("{}{PATH}{query}", server.trim_end_matches('/'));
    let trust = Trust::new(&session.connection().roots()?);
    let bytes = match web::get(&url, session.connection().resolver(), &trust).await {
        Err(web::WebError::Refused(_, status)) if status == http::StatusCode::NOT_FOUND => {
            return Err(Failure::refused(format!("{server} has no authority of its own: only towline's servers do")));
        }
        Err(web::WebError::Refused(_, status)) if status == http::StatusCode::BAD_REQUEST => {
            return Err(Failure::refused(format!(
                "{server} has several tailnets, or none of this domain: name yours with --domain, as in --domain example.ts.net"
            )));
        }
        Err(error @ (web::WebError::Unreachable(..) | web::WebError::TimedOut(_) | web::WebError::Name(..))) => {
            return Err(Failure::unreachable(error));
        }
        bytes => bytes.map_err(anyhow::Error::from)?,
    };
    let root = Root::read(&bytes, &url)?;
    let is_certain = url.starts_with("https://") || is_loopback(&url);
    Ok((root, if is_certain { Belief::Certain } else { Belief::Plain(server) }))
}

fn is_loopback(url: &str) -> bool {
    let host =
        url.parse::<http::Uri>().ok().and_then(|uri| uri.host().map(|host| host.trim_matches(['[', ']']).to_owned()));
    host.and_then(|host| host.parse::<std::net::IpAddr>().ok()).is_some_and(|address| address.is_loopback())
}

pub(crate) async fn run<W: Write>(command: Command, session: &Session, output: &mut Output<W>) -> Result<(), Failure> {
    match command {
        Command::Show(show) => {
            let (root, _) = fetch_any(session, show.domain.as_deref()).await?;
            output.print(&root.answer(), |_| if show.pem { root.pem.clone() } else { root.describe() })?;
            Ok(())
        }
        Command::Install(install) => install.run(session, output).await,
    }
}

impl Install {
    async fn run<W: Write>(self, session: &Session, output: &mut Output<W>) -> Result<(), Failure> {
        let (root, belief) = fetch_any(session, self.domain.as_deref()).await?;
        match (&self.fingerprint, belief) {
            (Some(wanted), _) if normal(wanted) != root.fingerprint() => {
                let found = root.shown_fingerprint();
                return Err(Failure::refused(format!(
                    "the server's authority has the fingerprint {found}, which is not the one given: nothing was installed"
                )));
            }
            (None, Belief::Plain(server)) if !self.dry_run => return Err(unbelievable(&server)),
            _ => {}
        }
        let store = SystemStore::find()?;
        if !output.is_json() {
            note(&root.describe());
        }
        let steps = store.steps(&root.fingerprint());
        let mut answer = root.answer();
        answer["steps"] = json!(steps);
        if self.dry_run {
            let steps: String = steps.iter().map(|step| format!("Would {step}.\n")).collect();
            output.print(&answer, |_| steps)?;
            return Ok(());
        }
        if !self.yes {
            confirm()?;
        }
        let file = store.install(root.pem(), &root.fingerprint())?;
        output.print(&answer, |_| {
            format!(
                "This machine trusts the authority now. To take that back, remove {} and {}.",
                file.display(),
                store.refresh_hint()
            )
        })?;
        Ok(())
    }
}

/// A fingerprint as typed, without colons and in small letters.
fn normal(fingerprint: &str) -> String {
    fingerprint.chars().filter(char::is_ascii_hexdigit).collect::<String>().to_ascii_lowercase()
}

fn confirm() -> Result<(), Failure> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        return Err(Failure::usage("nobody can be asked here: compare the fingerprint, and give --yes to install it"));
    }
    eprint!("Every program of this machine will believe what it signs. Install it? [y/N] ");
    let mut line = String::new();
    input.lock().read_line(&mut line).context("reading the answer")?;
    match line.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::refused("nothing was installed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "Towline root 1");
        params.self_signed(&key).unwrap().pem()
    }

    #[test]
    fn a_root_is_shown_by_name_and_fingerprint() {
        let root = Root::read(authority().as_bytes(), "test").unwrap();
        assert_eq!(root.name, "Towline root 1");
        assert_eq!(normal(&root.shown_fingerprint()), root.fingerprint());
        assert_eq!(root.fingerprint().len(), 64);
    }

    #[test]
    fn what_an_authority_can_sign_is_shown() {
        let any = Root::read(authority().as_bytes(), "test").unwrap();
        assert!(any.describe().contains("Signs:        any name\n"), "{}", any.describe());
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
        params.name_constraints = Some(rcgen::NameConstraints {
            permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName("tail.ts.net".to_owned())],
            excluded_subtrees: Vec::new(),
        });
        let one = Root::read(params.self_signed(&key).unwrap().pem().as_bytes(), "test").unwrap();
        assert!(one.describe().contains("Signs:        names of tail.ts.net only\n"), "{}", one.describe());
    }

    #[test]
    fn what_is_no_authority_is_refused() {
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
        for answer in [leaf.as_str(), "hello", "", &(authority() + &authority())] {
            assert!(Root::read(answer.as_bytes(), "test").is_err());
        }
    }

    #[test]
    fn only_this_machine_is_believed_without_tls() {
        assert!(is_loopback("http://127.0.0.1:8080/trust.pem"));
        assert!(is_loopback("http://[::1]:8080/trust.pem"));
        assert!(!is_loopback("http://192.0.2.1/trust.pem"));
        assert!(!is_loopback("http://localhost.example.com/trust.pem"));
    }
}
