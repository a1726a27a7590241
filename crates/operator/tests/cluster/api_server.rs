//! etcd and kube-apiserver on loopback ports.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use kube::Client;

/// The token of an administrator.
const TOKEN: &str = "admin-of-the-test";

pub(crate) struct ApiServer {
    etcd: Child,
    server: Child,
    folder: tempfile::TempDir,
    port: u16,
    authority: Vec<u8>,
}

impl ApiServer {
    pub(crate) async fn start() -> Self {
        let cache = cache();
        let programs = (cache.join("tree/usr/bin/etcd"), cache.join("bin/kube-apiserver"));
        for program in [&programs.0, &programs.1] {
            assert!(program.is_file(), "{} is not there: run `cargo xtask fetch`", program.display());
        }
        let folder = tempfile::tempdir().unwrap();
        let authority = certificates(folder.path());
        let (clients, peers, port) = (free_port(), free_port(), free_port());
        let etcd = spawn(
            &programs.0,
            folder.path(),
            "etcd",
            &[
                format!("--data-dir={}", folder.path().join("etcd").display()),
                format!("--listen-client-urls=http://127.0.0.1:{clients}"),
                format!("--advertise-client-urls=http://127.0.0.1:{clients}"),
                format!("--listen-peer-urls=http://127.0.0.1:{peers}"),
                format!("--initial-advertise-peer-urls=http://127.0.0.1:{peers}"),
                format!("--initial-cluster=default=http://127.0.0.1:{peers}"),
                "--unsafe-no-fsync".to_owned(),
            ],
        );
        let at = |name: &str| folder.path().join(name).display().to_string();
        let server = spawn(
            &programs.1,
            folder.path(),
            "kube-apiserver",
            &[
                format!("--etcd-servers=http://127.0.0.1:{clients}"),
                "--bind-address=127.0.0.1".to_owned(),
                "--advertise-address=127.0.0.1".to_owned(),
                format!("--secure-port={port}"),
                format!("--tls-cert-file={}", at("server.crt")),
                format!("--tls-private-key-file={}", at("server.key")),
                format!("--token-auth-file={}", at("tokens.csv")),
                "--authorization-mode=RBAC".to_owned(),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                format!("--service-account-signing-key-file={}", at("account.key")),
                format!("--service-account-key-file={}", at("account.pub")),
                // As clusters have it: what is privileged is for the policies under test to refuse.
                "--allow-privileged=true".to_owned(),
                "--service-cluster-ip-range=10.1.0.0/16".to_owned(),
                "--endpoint-reconciler-type=none".to_owned(),
            ],
        );
        let started = Self { etcd, server, folder, port, authority };
        started.ready().await;
        started
    }

    /// How to reach it, with a token; the administrator's when there is none.
    pub(crate) fn config(&self, token: Option<&str>) -> kube::Config {
        let mut config = kube::Config::new(format!("https://127.0.0.1:{}", self.port).parse().unwrap());
        config.root_cert = Some(vec![self.authority.clone()]);
        config.auth_info.token = Some(token.unwrap_or(TOKEN).to_owned().into());
        config
    }

    async fn ready(&self) {
        let client = Client::try_from(self.config(None)).unwrap();
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            let request = http::Request::get("/readyz").body(Vec::new()).unwrap();
            match client.request_text(request).await {
                Ok(_) => return,
                Err(error) if Instant::now() > deadline => {
                    let log = |name: &str| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
                    let (own, etcd) = (log("kube-apiserver.log"), log("etcd.log"));
                    let end: Vec<&str> = own.lines().rev().take(20).chain(etcd.lines().rev().take(5)).collect();
                    panic!("the API server does not start: {error}\n{}", end.join("\n"));
                }
                // tidy: sleep, the API server tells nobody when it is ready
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        for child in [&mut self.server, &mut self.etcd] {
            let _ended = child.kill().and_then(|()| child.wait());
        }
    }
}

/// The folder of programs, as the project's tasks fill it.
pub(crate) fn cache() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("TOWLINE_CACHE")
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("towline")))
        .or_else(|| Some(variable("HOME")?.join(".cache/towline")))
        .expect("HOME is set")
}

fn spawn(program: &Path, folder: &Path, name: &str, arguments: &[String]) -> Child {
    let log = fs::File::create(folder.join(format!("{name}.log"))).unwrap();
    // The children end with us, however we end.
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// A port that nobody has. It lies below those that the kernel gives to whoever connects, so that nobody gets it before the
/// program that it is for does.
fn free_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(31);
    let tries = std::iter::repeat_with(|| first.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % 20_000);
    let mut ports = tries.map(|offset| 10_000 + u16::try_from(offset).unwrap());
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

/// Writes the server's certificate, the key that signs accounts' tokens and the administrator's token; returns the
/// authority.
fn certificates(folder: &Path) -> Vec<u8> {
    let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    fs::write(folder.join("server.crt"), certified.cert.pem()).unwrap();
    fs::write(folder.join("server.key"), certified.signing_key.serialize_pem()).unwrap();
    let account = rcgen::KeyPair::generate().unwrap();
    fs::write(folder.join("account.key"), account.serialize_pem()).unwrap();
    fs::write(folder.join("account.pub"), account.public_key_pem()).unwrap();
    fs::write(folder.join("tokens.csv"), format!("{TOKEN},admin,admin,\"system:masters\"\n")).unwrap();
    certified.cert.der().to_vec()
}
