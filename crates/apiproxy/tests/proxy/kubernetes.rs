//! The real kube-apiserver behind the proxy, and the real kubectl in front of it.
//!
//! The programs come from the cache that `cargo xtask fetch` fills. There is no kubelet, so what needs a pod that runs is
//! tested with the whole cluster.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use apiproxy::{Allowed, Cluster, Config, Entrance, Limits, Server};
use apiserver::{ADMINISTRATOR, ApiServer, Running, User};
use telemetry::{Health, Shutdown};
use tokio::net::TcpListener;

use crate::people::{Everybody, alice};
use crate::world::{NAME, certificate, nobody, resolver};

/// Who the proxy is to the cluster.
const PROXY: User<'static> = User { name: "proxy", token: "proxy-token", group: None };

/// A kube-apiserver where `admin` may do everything and `proxy` may impersonate three groups.
struct Kubernetes(ApiServer);

impl Kubernetes {
    fn start() -> Self {
        // There is no controller that would make the accounts which that plug-in asks for.
        let server = ApiServer::start(&[PROXY], &["--disable-admission-plugins=ServiceAccount"]).unwrap();
        std::fs::write(server.path("token"), format!("{}\n", PROXY.token)).unwrap();
        let kubernetes = Self(server);
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

    fn admin(&self, arguments: &[&str]) -> Output {
        self.0.kubectl(&ADMINISTRATOR).unwrap().args(arguments).output().unwrap()
    }
}

/// The proxy before that API server, and kubectl in front of it.
struct Desk {
    kubernetes: Arc<Kubernetes>,
    everybody: Arc<Everybody>,
    address: SocketAddr,
    ca: PathBuf,
    shutdown: Shutdown,
    running: tokio::task::JoinHandle<anyhow::Result<()>>,
}

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Desk {
    async fn open() -> Self {
        // On this thread, with which its programs end, and which nothing else waits for.
        let kubernetes = Kubernetes::start();
        let (everybody, own) = (Everybody::new(Some(alice(&["tailnet-readers"]))), certificate(NAME));
        let ca = kubernetes.0.path("proxy.crt");
        std::fs::write(&ca, &own.pem).unwrap();
        let (api_server_ca, token) = (kubernetes.0.certificate(), kubernetes.0.path("token"));
        let config = Config {
            cluster: Cluster::new(&kubernetes.0.url(), &api_server_ca, token, nobody()).unwrap(),
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
        Self { kubernetes: Arc::new(kubernetes), everybody, address, ca, shutdown, running }
    }

    /// kubectl as somebody of the tailnet has it: the proxy's name and certificate, and no credentials that count.
    fn kubectl(&self) -> Command {
        let mut command = Command::new(apiserver::program("bin/kubectl").unwrap());
        command.env("KUBECONFIG", "/dev/null").args(["--token", "unused", "--tls-server-name", NAME]);
        command.arg(format!("--server=https://{}", self.address)).arg("--certificate-authority").arg(&self.ca);
        command
    }

    async fn say(&self, arguments: &str) -> Said {
        let mut command = self.kubectl();
        command.args(arguments.split_whitespace());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// A reader sees, and RBAC names them where they may not.
    async fn serves_a_reader(&self) {
        let whoami = self.say("auth whoami").await;
        assert_eq!(whoami.code, Some(0), "{}", whoami.err);
        for name in ["alice@example.com", "tailnet-readers", "system:authenticated"] {
            assert!(whoami.out.contains(name), "{}", whoami.out);
        }
        let pods = self.say("get pods --all-namespaces").await;
        assert_eq!(pods.code, Some(0), "{}", pods.err);
        let forbidden = self.say("create namespace home").await;
        assert_ne!(forbidden.code, Some(0));
        let says = |text: &str| forbidden.err.contains(text);
        assert!(says("(Forbidden)") && says("\"alice@example.com\""), "{}", forbidden.err);
        let as_other = self.say("get pods --as=system:admin --as-group=system:masters").await;
        assert_ne!(as_other.code, Some(0));
        assert!(as_other.err.contains("leave out --as"), "{}", as_other.err);
        let no_pod = self.say("exec nope -- true").await;
        assert!(no_pod.err.contains("\"nope\" not found") || no_pod.err.contains("orbidden"), "{}", no_pod.err);
    }

    async fn serves_an_administrator(&self) {
        let all = self.say("auth can-i * *").await;
        assert_eq!(all.out.trim(), "yes", "{}", all.err);
        assert_eq!(self.say("create namespace home").await.code, Some(0));
        let no_pod = self.say("exec nope -- true").await;
        assert!(no_pod.err.contains("\"nope\" not found"), "{}", no_pod.err);
    }

    async fn cuts_a_watch_with_its_grant(&self) {
        let (kubectl, kubernetes) = (self.kubectl(), self.kubernetes.clone());
        let watching = tokio::task::spawn_blocking(move || watch_config_maps(kubectl, &kubernetes)).await.unwrap();
        self.everybody.become_now(None);
        let ended = tokio::task::spawn_blocking(move || watching.wait_for_end()).await.unwrap();
        assert!(ended < Duration::from_secs(15), "the watch outlived the grant by {ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_acts_as_the_tailnet_identity() {
    let desk = Desk::open().await;
    desk.serves_a_reader().await;
    desk.everybody.become_now(Some(alice(&["system:masters"])));
    desk.serves_an_administrator().await;

    // The role of the proxy itself is the second bound: a group that only the proxy's list has is refused by the cluster.
    desk.everybody.become_now(Some(alice(&["unheard-of"])));
    let beyond = desk.say("get pods").await;
    assert!(beyond.err.contains("cannot impersonate resource \"groups\""), "{}", beyond.err);

    desk.everybody.become_now(Some(alice(&["tailnet-readers"])));
    desk.cuts_a_watch_with_its_grant().await;
    let nobody = desk.say("get pods").await;
    assert!(nobody.err.contains("no node of the tailnet has the address"), "{}", nobody.err);

    desk.shutdown.request();
    desk.running.await.unwrap().unwrap();
}

struct Watching {
    process: Running,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

/// Watches, and sees what is made while it does.
fn watch_config_maps(mut kubectl: Command, kubernetes: &Kubernetes) -> Watching {
    let mut child = kubectl
        .args(["get", "configmaps", "--namespace=home", "--watch", "--output=name"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let process = Running::from(child);
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
        self.process.wait().unwrap();
        began.elapsed()
    }
}
