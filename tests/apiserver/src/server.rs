//! The API server and its store.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use loopback::free_port;
use tempfile::TempDir;

use crate::credentials::{self, ADMINISTRATOR, User};
use crate::program::{Running, program};

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(120);

/// A kube-apiserver that answers, and its etcd.
#[derive(Debug)]
pub struct ApiServer {
    // In this order they are ended.
    _server: Running,
    _etcd: Running,
    folder: TempDir,
    port: u16,
    authority: Vec<u8>,
}

impl ApiServer {
    /// Starts one that knows these users besides the [`ADMINISTRATOR`], with more flags if need be, and waits for it.
    ///
    /// # Errors
    /// A program that is missing or does not start, with the end of its log.
    pub fn start(users: &[User<'_>], flags: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir().context("making a folder")?;
        let authority = credentials::write(folder.path(), users)?;
        let (etcd, store) = start_etcd(folder.path())?;
        let port = free_port()?;
        let server = start_server(folder.path(), &store, port, flags)?;
        let started = Self { _server: server, _etcd: etcd, folder, port, authority };
        started.wait()?;
        Ok(started)
    }

    /// Where it is reached.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The file of the certificate to trust, as PEM.
    pub fn certificate(&self) -> PathBuf {
        self.path("server.crt")
    }

    /// The same certificate as DER.
    pub fn authority(&self) -> &[u8] {
        &self.authority
    }

    /// A place in its folder, which goes with it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// kubectl as one of its users, without any configuration of this machine.
    ///
    /// # Errors
    /// When kubectl was not fetched.
    pub fn kubectl(&self, user: &User<'_>) -> Result<Command> {
        let mut command = Command::new(program("bin/kubectl")?);
        command.env("KUBECONFIG", "/dev/null").args(["--server", &self.url(), "--token", user.token]);
        command.arg("--certificate-authority").arg(self.certificate());
        Ok(command)
    }

    fn wait(&self) -> Result<()> {
        let began = Instant::now();
        loop {
            let answer = self.kubectl(&ADMINISTRATOR)?.args(["get", "--raw", "/readyz"]).output()?;
            if answer.status.success() {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                let said = String::from_utf8_lossy(&answer.stderr);
                bail!("the API server does not start: {said}\n{}\n{}", self.log("kube-apiserver"), self.log("etcd"));
            }
            // tidy: sleep, the API server tells nobody that it is ready
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The end of a program's log.
    fn log(&self, name: &str) -> String {
        let text = fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

/// Starts the store; returns where it is reached.
fn start_etcd(folder: &Path) -> Result<(Running, String)> {
    let url = || -> Result<String> { Ok(format!("http://127.0.0.1:{}", free_port()?)) };
    let (clients, peers) = (url()?, url()?);
    let arguments = [
        format!("--data-dir={}", folder.join("etcd").display()),
        format!("--listen-client-urls={clients}"),
        format!("--advertise-client-urls={clients}"),
        format!("--listen-peer-urls={peers}"),
        format!("--initial-advertise-peer-urls={peers}"),
        format!("--initial-cluster=default={peers}"),
        "--unsafe-no-fsync".to_owned(),
    ];
    let etcd = Running::start(&program("tree/usr/bin/etcd")?, &arguments, &folder.join("etcd.log"))?;
    Ok((etcd, clients))
}

fn start_server(folder: &Path, store: &str, port: u16, flags: &[&str]) -> Result<Running> {
    let file = |flag: &str, name: &str| format!("--{flag}={}", folder.join(name).display());
    let mut arguments = vec![
        format!("--etcd-servers={store}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--advertise-address=127.0.0.1".to_owned(),
        format!("--secure-port={port}"),
        file("tls-cert-file", "server.crt"),
        file("tls-private-key-file", "server.key"),
        file("token-auth-file", "tokens.csv"),
        "--authorization-mode=RBAC".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        file("service-account-signing-key-file", "account.key"),
        file("service-account-key-file", "account.pub"),
        "--service-cluster-ip-range=10.1.0.0/16".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
    ];
    arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
    Running::start(&program("bin/kube-apiserver")?, &arguments, &folder.join("kube-apiserver.log"))
}
