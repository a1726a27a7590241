//! The real kube-apiserver behind the proxy, and the real kubectl in front of it.
//!
//! The programs come from the cache that `cargo xtask fetch` fills. There is no kubelet, so what needs a pod that runs is
//! tested with the whole cluster.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use apiproxy::{Allowed, Cluster, Config, Entrance, Limits, Server};
use telemetry::{Health, Shutdown};
use tokio::net::TcpListener;

use crate::world::{Everybody, NAME, alice, certificate, nobody, resolver};

/// A program of the cache; its absence is a failure, not a reason to pass.
fn program(name: &str) -> PathBuf {
    let cache = std::env::var_os("TOWLINE_CACHE")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/towline"));
    let path = cache.join(name);
    assert!(path.exists(), "{} is not there: run `cargo xtask fetch`", path.display());
    path
}

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(command: &mut Command, log: &Path) -> Running {
    let log = std::fs::File::create(log).unwrap();
    Running(command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap())
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A kube-apiserver with its store, where `admin` may do everything and `proxy` may impersonate three groups.
struct Kubernetes {
    folder: tempfile::TempDir,
    url: String,
    _apiserver: Running,
    _etcd: Running,
}

impl Kubernetes {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let (client, peer, port) = (free_port(), free_port(), free_port());
        let etcd_url = format!("http://127.0.0.1:{client}");
        let etcd = start(
            Command::new(program("tree/usr/bin/etcd")).arg("--data-dir").arg(path("etcd")).args([
                format!("--listen-client-urls={etcd_url}"),
                format!("--advertise-client-urls={etcd_url}"),
                format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-cluster=default=http://127.0.0.1:{peer}"),
            ]),
            &path("etcd.log"),
        );
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(path("ca.crt"), made.cert.pem()).unwrap();
        std::fs::write(path("server.key"), made.signing_key.serialize_pem()).unwrap();
        std::fs::write(path("server.pub"), made.signing_key.public_key_pem()).unwrap();
        std::fs::write(path("tokens.csv"), "admin-token,admin,1,\"system:masters\"\nproxy-token,proxy,2\n").unwrap();
        std::fs::write(path("token"), "proxy-token\n").unwrap();
        let file = |flag: &str, name: &str| format!("--{flag}={}", path(name).display());
        let apiserver = start(
            Command::new(program("bin/kube-apiserver")).args([
                format!("--etcd-servers={etcd_url}"),
                format!("--secure-port={port}"),
                "--bind-address=127.0.0.1".to_owned(),
                "--advertise-address=127.0.0.1".to_owned(),
                "--authorization-mode=RBAC".to_owned(),
                "--service-cluster-ip-range=10.1.0.0/24".to_owned(),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                "--disable-admission-plugins=ServiceAccount".to_owned(),
                file("cert-dir", "certificates"),
                file("tls-cert-file", "ca.crt"),
                file("tls-private-key-file", "server.key"),
                file("service-account-key-file", "server.pub"),
                file("service-account-signing-key-file", "server.key"),
                file("token-auth-file", "tokens.csv"),
            ]),
            &path("kube-apiserver.log"),
        );
        let kubernetes = Self { url: format!("https://127.0.0.1:{port}"), folder, _apiserver: apiserver, _etcd: etcd };
        let began = Instant::now();
        while !kubernetes.admin(&["get", "--raw", "/readyz"]).status.success() {
            let log = std::fs::read_to_string(kubernetes.path("kube-apiserver.log")).unwrap();
            assert!(began.elapsed() < Duration::from_secs(120), "{log}");
            // tidy: sleep, the API server tells nobody that it is ready
            std::thread::sleep(Duration::from_millis(500));
        }
        kubernetes.grant();
        kubernetes
    }

    /// What the chart gives the proxy, and the article the readers.
    fn grant(&self) {
        for arguments in [
            "create clusterrole proxy-users --verb=impersonate --resource=users",
            "create clusterrolebinding proxy-users --clusterrole=proxy-users --user=proxy",
            "create clusterrole proxy-groups --verb=impersonate --resource=groups \
             --resource-name=tailnet-readers --resource-name=system:masters",
            "create clusterrolebinding proxy-groups --clusterrole=proxy-groups --user=proxy",
            // Not the cluster's own role "view": a controller that does not run here fills it.
            "create clusterrole readers --verb=get,list,watch --resource=pods,configmaps",
            "create clusterrolebinding readers --clusterrole=readers --group=tailnet-readers",
        ] {
            let arguments: Vec<&str> = arguments.split_whitespace().collect();
            let done = self.admin(&arguments);
            assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn admin(&self, arguments: &[&str]) -> Output {
        Command::new(program("bin/kubectl"))
            .env("KUBECONFIG", "/dev/null")
            .args(["--server", &self.url, "--token", "admin-token", "--certificate-authority"])
            .arg(self.path("ca.crt"))
            .args(arguments)
            .output()
            .unwrap()
    }
}

/// kubectl as somebody of the tailnet has it: the proxy's name and certificate, and no credentials that count.
fn kubectl(address: SocketAddr, ca: &Path) -> Command {
    let mut command = Command::new(program("bin/kubectl"));
    command.env("KUBECONFIG", "/dev/null").args(["--token", "unused", "--tls-server-name", NAME]);
    command.arg(format!("--server=https://{address}")).arg("--certificate-authority").arg(ca);
    command
}

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_acts_as_the_tailnet_identity() {
    let kubernetes = tokio::task::spawn_blocking(Kubernetes::start).await.unwrap();
    let (everybody, own) = (Everybody::new(Some(alice(&["tailnet-readers"]))), certificate(NAME));
    let ca = kubernetes.path("proxy.crt");
    std::fs::write(&ca, &own.pem).unwrap();
    let config = Config {
        cluster: Cluster::new(&kubernetes.url, &kubernetes.path("ca.crt"), kubernetes.path("token"), nobody()).unwrap(),
        allowed: Allowed::groups(["tailnet-readers", "system:masters", "unheard-of"].map(str::to_owned)),
        admin_listen: None,
        limits: Limits::default(),
    };
    let shutdown = Shutdown::new(Duration::from_millis(500));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let entrance = Entrance { identify: everybody.clone(), certificates: resolver(&own), listener };
    let proxy = Server::new(config, Health::new(), &shutdown).await.unwrap();
    let running = tokio::spawn(proxy.serve(entrance, shutdown.clone()));
    let kubernetes = Arc::new(kubernetes);

    let say = |arguments: &'static str| {
        let ca = ca.clone();
        async move {
            let output = tokio::task::spawn_blocking(move || {
                kubectl(address, &ca).args(arguments.split_whitespace()).output().unwrap()
            });
            let output = output.await.unwrap();
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
        }
    };

    let whoami = say("auth whoami").await;
    assert_eq!(whoami.code, Some(0), "{}", whoami.err);
    assert!(whoami.out.contains("alice@example.com"), "{}", whoami.out);
    assert!(whoami.out.contains("tailnet-readers") && whoami.out.contains("system:authenticated"), "{}", whoami.out);

    let pods = say("get pods --all-namespaces").await;
    assert_eq!(pods.code, Some(0), "{}", pods.err);
    let forbidden = say("create namespace home").await;
    assert_ne!(forbidden.code, Some(0));
    assert!(
        forbidden.err.contains("(Forbidden)") && forbidden.err.contains("\"alice@example.com\""),
        "{}",
        forbidden.err
    );
    let as_other = say("get pods --as=system:admin --as-group=system:masters").await;
    assert_ne!(as_other.code, Some(0));
    assert!(as_other.err.contains("leave out --as"), "{}", as_other.err);
    let no_pod = say("exec nope -- true").await;
    assert!(no_pod.err.contains("\"nope\" not found") || no_pod.err.contains("orbidden"), "{}", no_pod.err);

    everybody.become_now(Some(alice(&["system:masters"])));
    let all = say("auth can-i * *").await;
    assert_eq!(all.out.trim(), "yes", "{}", all.err);
    assert_eq!(say("create namespace home").await.code, Some(0));
    let no_pod = say("exec nope -- true").await;
    assert!(no_pod.err.contains("\"nope\" not found"), "{}", no_pod.err);

    // The role of the proxy itself is the second bound: a group that only the proxy's list has is refused by the cluster.
    everybody.become_now(Some(alice(&["unheard-of"])));
    let beyond = say("get pods").await;
    assert!(beyond.err.contains("cannot impersonate resource \"groups\""), "{}", beyond.err);

    everybody.become_now(Some(alice(&["tailnet-readers"])));
    let watched = {
        let (ca, kubernetes) = (ca.clone(), kubernetes.clone());
        tokio::task::spawn_blocking(move || watch_config_maps(address, &ca, &kubernetes)).await.unwrap()
    };
    everybody.become_now(None);
    let ended = tokio::task::spawn_blocking(move || watched.wait_for_end()).await.unwrap();
    assert!(ended < Duration::from_secs(15), "the watch outlived the grant by {ended:?}");
    let nobody = say("get pods").await;
    assert!(nobody.err.contains("no node of the tailnet has the address"), "{}", nobody.err);

    shutdown.request();
    running.await.unwrap().unwrap();
}

struct Watching {
    process: Running,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

/// Watches, and sees what is made while it does.
fn watch_config_maps(address: SocketAddr, ca: &Path, kubernetes: &Kubernetes) -> Watching {
    let mut child = kubectl(address, ca)
        .args(["get", "configmaps", "--namespace=home", "--watch", "--output=name"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let process = Running(child);
    for name in ["first", "second"] {
        assert!(kubernetes.admin(&["create", "configmap", name, "--namespace=home"]).status.success());
        let line = lines.next().unwrap().unwrap();
        assert_eq!(line, format!("configmap/{name}"));
    }
    Watching { process, lines }
}

impl Watching {
    /// How long it still took to end.
    fn wait_for_end(mut self) -> Duration {
        let began = Instant::now();
        while self.lines.next().is_some() {}
        self.process.0.wait().unwrap();
        began.elapsed()
    }
}
