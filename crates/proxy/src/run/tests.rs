use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::*;
use crate::config::Pod;
use kubeapi::NodeConfig;

use crate::fake_api_server::{kept, present, serve};

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct NoNames;

impl Resolve for NoNames {
    fn resolve<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        std::future::ready(Err(io::Error::other("no names here"))).boxed()
    }
}

fn config(folder: &Path) -> Config {
    Config {
        pod: Pod { name: "p-0".to_owned(), uid: "pod-1".to_owned(), addresses: vec!["127.0.0.1".parse().unwrap()] },
        state_secret: "p-0".to_owned(),
        config_folder: folder.to_owned(),
        purpose: Purpose::Ingress(Destination::Addresses { v4: Some([10, 1, 0, 9].into()), v6: None }),
        user_space: true,
        app: "test".to_owned(),
        certificates: None,
        metrics: None,
        api_server: None,
    }
}

/// Writes a configuration with a coordination server where nobody listens.
fn configure(folder: &Path, key: Option<&str>) {
    let mut config = NodeConfig::of_proxy("http://127.0.0.1:9", "home-web");
    config.auth_key = key.map(str::to_owned);
    std::fs::write(folder.join("new"), config.write()).unwrap();
    std::fs::rename(folder.join("new"), folder.join("cap-95.hujson")).unwrap();
}

/// Runs a proxy in a cluster of a test's own.
fn begin(
    config: Config,
    run_folder: &Path,
    client: kube::Client,
    shutdown: &Shutdown,
) -> impl Future<Output = anyhow::Result<()>> + Send + use<> {
    let (run_folder, resolver) = (run_folder.to_owned(), Arc::new(NoNames));
    let surroundings = Surroundings { run_folder, resolver, health: Health::new(), shutdown: shutdown.clone() };
    let cluster = (client, "tailscale".to_owned());
    run_with(config, surroundings, |member, surroundings| Membership::open_in(cluster, member, surroundings))
}

async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let looks = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            // tidy: sleep, what is waited for happens in a server and a file that tell nobody
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looks).await.unwrap()
}

async fn probe(folder: &Path, alive: bool) -> Result<(), String> {
    let socket = health_socket(folder);
    tokio::task::spawn_blocking(move || health::ask(&socket, alive)).await.unwrap().map_err(|error| error.to_string())
}

async fn until_probe_says(folder: &Path, part: &str) {
    let looks = async {
        while !probe(folder, false).await.is_err_and(|said| said.contains(part)) {
            // tidy: sleep, a probe can only be asked again
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looks).await.unwrap_or_else(|_| panic!("the probe never said {part}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_without_a_key_asks_for_one_and_goes_on_with_it_while_control_is_away() {
    let (folder, run_folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut server = present();
    // What an earlier pod said.
    for (name, value) in [("device_fqdn", "b2xk"), ("reissue_authkey", "b2xk"), ("device_id", "bjE=")] {
        server.data.insert(name.to_owned(), value.to_owned());
    }
    let (api, client) = serve(server).await;
    let shutdown = Shutdown::new(Duration::from_secs(5));
    let proxy = tokio::spawn(begin(config(folder.path()), run_folder.path(), client, &shutdown));

    until(|| (kept(&api, "pod_uid").as_deref() == Some("pod-1")).then_some(())).await;
    assert_eq!(kept(&api, "device_fqdn"), None);
    assert_eq!(kept(&api, "device_id").as_deref(), Some("n1"));
    until_probe_says(run_folder.path(), "configuration: there is none in").await;
    assert_eq!(probe(run_folder.path(), true).await, Ok(()));

    configure(folder.path(), None);
    until(|| (kept(&api, "reissue_authkey").as_deref() == Some("no-authkey")).then_some(())).await;
    until_probe_says(run_folder.path(), "login: waiting for another auth key: there is no auth key").await;

    configure(folder.path(), Some("tskey-auth-1"));
    until_probe_says(run_folder.path(), "login: the coordination server is not reached").await;
    assert!(kept(&api, "_machinekey").is_some_and(|key| key.starts_with("privkey:")));

    shutdown.request();
    tokio::time::timeout(PATIENCE, proxy).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_can_never_start_its_node_says_why_and_stays() {
    let (folder, run_folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_api, client) = serve(present()).await;
    let mut broken = NodeConfig::of_proxy("control", "home-web");
    broken.auth_key = Some("tskey-auth-1".to_owned());
    std::fs::write(folder.path().join("cap-95.hujson"), broken.write()).unwrap();
    let shutdown = Shutdown::new(Duration::from_secs(5));
    let proxy = tokio::spawn(begin(config(folder.path()), run_folder.path(), client, &shutdown));
    until_probe_says(run_folder.path(), "is not the URL of a coordination server").await;
    shutdown.request();
    tokio::time::timeout(PATIENCE, proxy).await.unwrap().unwrap().unwrap();
}
