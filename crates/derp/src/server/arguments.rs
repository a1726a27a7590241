use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;

use super::admission::AdmissionConfig;
use super::config::{Config, Limits, MeshConfig};
use super::mesh::MeshKey;
use crate::client::Relay;
use crate::https::ServerUrl;
use dial::{Resolve, Roots};
use listen::CertificateFiles;

/// Run a relay: it passes encrypted packets between nodes that can't reach each other directly.
#[derive(Debug, Clone, clap::Args)]
#[command(group = clap::ArgGroup::new("admission").required(true).args(["admission_url", "verify_client_url", "open"]))]
pub struct Arguments {
    /// Where TLS is served; may be repeated. `[::]` is every address of both families.
    #[arg(
        long,
        env = "TOWLINE_DERP_LISTEN",
        value_name = "ADDRESS",
        default_value = "[::]:443",
        value_delimiter = ','
    )]
    listen: Vec<SocketAddr>,

    /// Where plain HTTP answers captive-portal checks, for example `[::]:80`; may be repeated.
    #[arg(long, env = "TOWLINE_DERP_HTTP_LISTEN", value_name = "ADDRESS", value_delimiter = ',')]
    http_listen: Vec<SocketAddr>,

    /// Where STUN is answered; may be repeated.
    #[arg(
        long,
        env = "TOWLINE_DERP_STUN_LISTEN",
        value_name = "ADDRESS",
        default_value = "[::]:3478",
        value_delimiter = ','
    )]
    stun_listen: Vec<SocketAddr>,

    /// Do not answer STUN.
    #[arg(long, conflicts_with = "stun_listen")]
    no_stun: bool,

    /// Where /healthz, /readyz and /metrics are served; keep it to yourself.
    #[arg(long, env = "TOWLINE_DERP_ADMIN_LISTEN", value_name = "ADDRESS")]
    admin_listen: Option<SocketAddr>,

    /// The TLS certificate and its chain, in PEM; loaded again when it changes.
    #[arg(long, env = "TOWLINE_DERP_TLS_CERT", value_name = "FILE")]
    tls_cert: PathBuf,

    /// The TLS certificate's private key, in PEM.
    #[arg(long, env = "TOWLINE_DERP_TLS_KEY", value_name = "FILE")]
    tls_key: PathBuf,

    /// The directory with the relay's key and the kept admission set; made when it does not exist.
    #[arg(long, env = "TOWLINE_DERP_STATE_DIR", value_name = "DIRECTORY", default_value = "/var/lib/towline-derp")]
    state_dir: PathBuf,

    /// Admit the nodes that the coordination server tells at this URL, as they change.
    #[arg(long, env = "TOWLINE_DERP_ADMISSION_URL", value_name = "URL", requires = "admission_token_file")]
    admission_url: Option<String>,

    /// The file with the token that the admission URL wants.
    #[arg(long, env = "TOWLINE_DERP_ADMISSION_TOKEN_FILE", value_name = "FILE")]
    admission_token_file: Option<PathBuf>,

    /// Ask this URL about each node that connects, as stock relays do.
    #[arg(long, env = "TOWLINE_DERP_VERIFY_CLIENT_URL", value_name = "URL")]
    verify_client_url: Option<String>,

    /// Admit nodes when the URL to ask does not answer.
    #[arg(long, requires = "verify_client_url")]
    verify_client_url_fail_open: bool,

    /// Admit everybody: anybody on the internet may then send their traffic through this relay.
    #[arg(long)]
    open: bool,

    /// Believe these certificate authorities, in PEM, in place of the public ones and those of this machine, when asking
    /// about admission and connecting to other relays.
    #[arg(long, env = "TOWLINE_DERP_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,

    /// The secret that the relays of this region share: a file with 64 hex digits.
    #[arg(long, env = "TOWLINE_DERP_MESH_KEY_FILE", value_name = "FILE")]
    mesh_key_file: Option<PathBuf>,

    /// Another relay of this region, as host or host:port; may be repeated, and name this relay too.
    #[arg(
        long,
        env = "TOWLINE_DERP_MESH_WITH",
        value_name = "HOST",
        requires = "mesh_key_file",
        value_delimiter = ','
    )]
    mesh_with: Vec<String>,

    /// A name of this installation and its address, as name=address, for clients whose DNS is broken; may be repeated.
    #[arg(long, env = "TOWLINE_DERP_BOOTSTRAP_DNS", value_name = "NAME=ADDRESS", value_delimiter = ',')]
    bootstrap_dns: Vec<String>,

    /// How many connections the relay takes.
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().connections)]
    max_connections: usize,

    /// How many connections one address may hold that were not admitted as nodes.
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().connections_per_source)]
    max_connections_per_source: usize,

    /// How many new connections a second the relay takes; more wait.
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().accepts_per_second)]
    accept_rate: u32,

    /// How many new connections a second one address may open; more are turned away.
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().accepts_per_source)]
    accept_rate_per_source: u32,

    /// What one node may send, in megabits a second; 0 for no limit.
    #[arg(long, value_name = "MBIT", default_value_t = 50)]
    client_rate: u64,
}

impl Arguments {
    /// Checks the arguments and reads the files that they name; opens nothing.
    pub fn resolve(self, resolver: Arc<dyn Resolve>) -> anyhow::Result<Config> {
        let roots = match &self.ca_file {
            Some(file) => Roots::from_file(file)?,
            None => Roots::system()?,
        };
        Ok(Config {
            admission: self.admission()?,
            mesh: self.mesh()?,
            limits: self.limits(),
            bootstrap_dns: bootstrap_dns(&self.bootstrap_dns)?,
            listen: self.listen,
            http_listen: self.http_listen,
            stun_listen: if self.no_stun { Vec::new() } else { self.stun_listen },
            admin_listen: self.admin_listen,
            certificate: CertificateFiles { certificate: self.tls_cert, key: self.tls_key },
            key_file: self.state_dir.join("derp.key"),
            resolver,
            roots,
        })
    }

    fn admission(&self) -> anyhow::Result<AdmissionConfig> {
        if let (Some(url), Some(token_file)) = (&self.admission_url, &self.admission_token_file) {
            return Ok(AdmissionConfig::Follow {
                url: ServerUrl::parse_for_secret(url).context("--admission-url")?,
                token_file: token_file.clone(),
                state_file: self.state_dir.join("admission.json"),
            });
        }
        if let Some(url) = &self.verify_client_url {
            let url = ServerUrl::parse(url).context("--verify-client-url")?;
            return Ok(AdmissionConfig::Ask { url, fail_open: self.verify_client_url_fail_open });
        }
        anyhow::ensure!(self.open, "say whom to admit: --admission-url, --verify-client-url or --open");
        Ok(AdmissionConfig::Open)
    }

    fn mesh(&self) -> anyhow::Result<Option<MeshConfig>> {
        let Some(file) = &self.mesh_key_file else { return Ok(None) };
        let text = std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
        let key = MeshKey::from_text(&text).with_context(|| format!("{}", file.display()))?;
        let relays: Result<Vec<Relay>, anyhow::Error> = self.mesh_with.iter().map(|text| relay(text)).collect();
        Ok(Some(MeshConfig { key, relays: relays? }))
    }

    fn limits(&self) -> Limits {
        Limits {
            connections: self.max_connections,
            connections_per_source: self.max_connections_per_source,
            accepts_per_second: self.accept_rate.max(1),
            accepts_per_source: self.accept_rate_per_source,
            client_rate: NonZeroU64::new(self.client_rate.saturating_mul(1_000_000 / 8)),
            ..Limits::default()
        }
    }
}

/// Reads host or host:port.
fn relay(text: &str) -> anyhow::Result<Relay> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Relay::named(address.ip().to_string(), address.port()));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Relay::named(address.to_string(), 443));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, port.parse().with_context(|| format!("--mesh-with {text}: {port:?} is no port"))?),
        None => (text, 443),
    };
    anyhow::ensure!(!host.is_empty(), "--mesh-with {text:?} names no host");
    Ok(Relay::named(host, port))
}

fn bootstrap_dns(pairs: &[String]) -> anyhow::Result<BTreeMap<String, Vec<IpAddr>>> {
    let mut names: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for pair in pairs {
        let parsed = pair.split_once('=').and_then(|(name, address)| Some((name, address.parse().ok()?)));
        let (name, address) = parsed
            .with_context(|| format!("--bootstrap-dns {pair:?} should look like control.example=203.0.113.10"))?;
        names.entry(name.to_owned()).or_default().push(address);
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args, Command, FromArgMatches};
    use futures_util::future::BoxFuture;

    #[derive(Debug)]
    struct NoNames;

    impl Resolve for NoNames {
        fn resolve<'a>(&'a self, _name: &'a str) -> BoxFuture<'a, std::io::Result<Vec<IpAddr>>> {
            Box::pin(async { Ok(Vec::new()) })
        }
    }

    fn resolve(arguments: &str) -> Result<Config, String> {
        let command = Arguments::augment_args(Command::new("derp"));
        let words = format!("derp --tls-cert c --tls-key k {arguments}");
        let matches = command.try_get_matches_from(words.split_whitespace()).map_err(|error| error.to_string())?;
        let arguments = Arguments::from_arg_matches(&matches).map_err(|error| error.to_string())?;
        arguments.resolve(Arc::new(NoNames)).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn drp_01_a_relay_is_not_open_unless_it_is_said() {
        let error = resolve("").unwrap_err();
        assert!(error.contains("--open") && error.contains("--admission-url"), "{error}");
        assert!(matches!(resolve("--open").unwrap().admission, AdmissionConfig::Open));
        assert!(resolve("--open --verify-client-url https://a/").is_err());
        let asked = resolve("--verify-client-url http://control.example/verify").unwrap().admission;
        assert!(matches!(asked, AdmissionConfig::Ask { fail_open: false, .. }));
    }

    #[test]
    fn an_admission_token_is_not_sent_in_the_clear() {
        let error = resolve("--admission-url http://control.example/ --admission-token-file t").unwrap_err();
        assert!(error.contains("would send a secret in the clear"), "{error}");
        assert!(resolve("--admission-url https://control.example/").is_err());
        assert!(resolve("--admission-url https://control.example/ --admission-token-file t").is_ok());
    }

    #[test]
    fn limits_are_on_unless_they_are_turned_off() {
        let limits = resolve("--open").unwrap().limits;
        assert_eq!(limits, Limits::default());
        assert_eq!(limits.client_rate.map(NonZeroU64::get), Some(6_250_000));
        assert_eq!(resolve("--open --client-rate 0").unwrap().limits.client_rate, None);
    }

    #[test]
    fn names_and_relays_that_cannot_be_meant_are_refused_by_name() {
        let error = resolve("--open --bootstrap-dns control.example").unwrap_err();
        assert!(error.contains("should look like control.example=203.0.113.10"), "{error}");
        let names = resolve("--open --bootstrap-dns a=1.2.3.4,a=::1").unwrap().bootstrap_dns;
        assert_eq!(names["a"].len(), 2);
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("mesh.key");
        std::fs::write(&file, "short").unwrap();
        let error = resolve(&format!("--open --mesh-key-file {}", file.display())).unwrap_err();
        assert!(error.contains("64 hex digits"), "{error}");
        std::fs::write(&file, "ab".repeat(32)).unwrap();
        let error = resolve(&format!("--open --mesh-key-file {} --mesh-with a:b", file.display())).unwrap_err();
        assert!(error.contains("is no port"), "{error}");
        let mesh = resolve(&format!("--open --mesh-key-file {} --mesh-with a,b:8443", file.display())).unwrap().mesh;
        assert_eq!(mesh.unwrap().relays, [Relay::named("a", 443), Relay::named("b", 8443)]);
    }
}
