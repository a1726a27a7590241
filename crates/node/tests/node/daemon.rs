//! A node in user space against a coordination server that does what the test says, and against the stock command line.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coordination::{Server, bomb, peer};
use node::{AuthKey, BackendState, Config, DeviceConfig, FileStore, Node, Snapshot, StateStore, Wishes};
use tailcfg::{MapResponse, NodeId, PingRequest, RegisterResponse};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[derive(Debug)]
pub(crate) struct NoNames;

impl node::Resolve for NoNames {
    fn resolve<'a>(
        &'a self,
        _: &'a str,
    ) -> futures_util::future::BoxFuture<'a, std::io::Result<Vec<std::net::IpAddr>>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

pub(crate) fn config(folder: &Path, url: &str) -> Config {
    Config {
        store: Arc::new(FileStore::open(&folder.join("node.state")).unwrap()),
        netmap_cache: Some(folder.join("node.netmap")),
        device: DeviceConfig::UserSpace,
        wishes: Wishes {
            control_url: Some(url.parse().unwrap()),
            hostname: Some("laptop".to_owned()),
            running: Some(true),
            ..Wishes::default()
        },
        auth_key: Some(AuthKey::new("tskey-auth-x")),
        ephemeral: false,
        port: 0,
        mark_sockets: false,
        local_api: Some(folder.join("node.sock")),
        roots: node::Roots::none(),
        resolver: Arc::new(NoNames),
        app: String::new(),
    }
}

/// Waits until a node stands as the check wants.
pub(crate) async fn until<T>(node: &Node, what: &str, check: impl Fn(&Snapshot) -> Option<T>) -> T {
    let mut watch = node.watch();
    let wait = async {
        loop {
            if let Some(found) = check(&watch.borrow_and_update()) {
                return found;
            }
            watch.changed().await.unwrap();
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(20), wait).await;
    found.unwrap_or_else(|_| panic!("waited in vain until {what}: {:?}", node.snapshot()))
}

pub(crate) fn peers(snapshot: &Snapshot) -> Vec<u64> {
    snapshot.mesh.netmap().map(|map| map.peers().keys().map(|id| id.0).collect()).unwrap_or_default()
}

pub(crate) async fn joined(folder: &Path, server: &Server) -> Node {
    server.script.lock().unwrap().peers = vec![peer(2, "server")];
    let node = Node::start(config(folder, &server.url)).await.unwrap();
    until(&node, "there is a map", |now| (!peers(now).is_empty()).then_some(())).await;
    node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_with_a_key_and_follows_the_map() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let node = joined(folder.path(), &server).await;
    {
        let script = server.script.lock().unwrap();
        assert_eq!(script.registered[0].auth.as_ref().unwrap().auth_key, "tskey-auth-x");
        assert_eq!(script.registered[0].hostinfo.as_ref().unwrap().hostname, "laptop");
        assert!(script.registered[0].old_node_key.is_zero());
    }
    assert_eq!(node.whois("100.64.0.2".parse().unwrap()).unwrap().user.login_name, "a@example.com");
    assert!(node.whois("100.64.0.9".parse().unwrap()).is_none());
    server.send(MapResponse { peers_changed: vec![peer(3, "other")], ..MapResponse::default() });
    until(&node, "the new peer is there", |now| (peers(now) == [2, 3]).then_some(())).await;
    server.send(MapResponse { peers_removed: vec![NodeId(2)], ..MapResponse::default() });
    until(&node, "the old peer is gone", |now| (peers(now) == [3]).then_some(())).await;
    // The disco key is known once the data plane runs, and the server hears of it.
    let disco = server.until("the server knows the disco key", |script| {
        script.maps.iter().find(|map| !map.stream && !map.disco_key.is_zero()).map(|map| map.disco_key)
    });
    assert!(!disco.await.is_zero());
    node.stop().await;
    assert!(!folder.path().join("node.sock").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_map_that_contradicts_itself_is_asked_for_again_and_changes_nothing() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let node = joined(folder.path(), &server).await;
    let before = server.script.lock().unwrap().maps.iter().filter(|map| map.stream).count();
    server.send(MapResponse { peers_changed: vec![peer(4, "a"), peer(4, "b")], ..MapResponse::default() });
    server
        .until("the map is asked for again", |script| {
            (script.maps.iter().filter(|map| map.stream).count() > before).then_some(())
        })
        .await;
    assert_eq!(peers(&node.snapshot()), [2]);
    node.stop().await;
}

/// Memory that this process may come to need while a map inflates: the bound of one, twice where it grows, and what other
/// tests take beside it.
const FOR_ONE_MAP: u64 = 512 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_map_that_is_a_bomb_is_told_and_given_up_and_the_one_of_before_counts_until_another_comes() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let node = joined(folder.path(), &server).await;
    let before = most_memory();
    // Out of proportion, and too large whatever the proportion.
    for (mebibytes, says) in
        [(4 << 10, "inflates more than 200-fold"), (16 << 10, "inflates to more than 67108864 bytes")]
    {
        let streams = |script: &coordination::Script| script.maps.iter().filter(|map| map.stream).count();
        let opened = streams(&server.script.lock().unwrap());
        server.script.lock().unwrap().bomb = Some(bomb(mebibytes));
        server.send_frame(bomb(mebibytes));
        until(&node, "the bomb is told", |now| now.health.iter().any(|text| text.contains(says)).then_some(())).await;
        let asked_again = |script: &_| (streams(script) > opened + 1).then_some(());
        server.until("the map is asked for again, and once more", asked_again).await;
        assert_eq!(peers(&node.snapshot()), [2]);
        server.script.lock().unwrap().bomb = None;
        until(&node, "all is well", |now| now.control_error.is_none().then_some(())).await;
    }
    let grown = most_memory() - before;
    assert!(grown < FOR_ONE_MAP, "inflating bombs took {} MiB", grown >> 20);
    server.send(MapResponse { peers_changed: vec![peer(3, "other")], ..MapResponse::default() });
    until(&node, "the new peer is there", |now| (peers(now) == [2, 3]).then_some(())).await;
    node.stop().await;
}

/// The most memory that this process ever held, in bytes.
fn most_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    most.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_starts_without_its_server_and_comes_back_by_itself() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let node = joined(folder.path(), &server).await;
    let key = node.snapshot().node_key;
    node.stop().await;
    server.stop();
    let node = Node::start(Config { auth_key: None, ..config(folder.path(), &server.url) }).await.unwrap();
    until(&node, "the map of before is there", |now| (peers(now) == [2]).then_some(())).await;
    until(&node, "the user is told", |now| now.control_error.clone()).await;
    let server = server.restart().await;
    server.script.lock().unwrap().peers = vec![peer(5, "new")];
    until(&node, "the new map is there", |now| (peers(now) == [5]).then_some(())).await;
    assert_eq!(node.snapshot().node_key, key);
    assert!(server.script.lock().unwrap().registered[0].auth.is_none());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_key_is_changed_for_a_new_one_and_a_person_asked_to_log_in() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    {
        let mut script = server.script.lock().unwrap();
        script.answers.push_back(RegisterResponse { node_key_expired: true, ..RegisterResponse::default() });
        let auth_url = "https://control.example/login/1".to_owned();
        script.answers.push_back(RegisterResponse { auth_url, ..RegisterResponse::default() });
        script.peers = vec![peer(2, "server")];
    }
    let node = Node::start(config(folder.path(), &server.url)).await.unwrap();
    until(&node, "the map is there", |now| (peers(now) == [2]).then_some(())).await;
    let registered = server.script.lock().unwrap().registered.clone();
    let [first, second, third] = registered.as_slice() else { panic!("{registered:?}") };
    assert_ne!(first.node_key, second.node_key);
    assert_eq!(second.node_key, third.node_key);
    assert_eq!(third.followup, "https://control.example/login/1");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_key_is_told_and_not_tried_again() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let error = "this key has been used".to_owned();
    server.script.lock().unwrap().answers.push_back(RegisterResponse { error, ..RegisterResponse::default() });
    let node = Node::start(config(folder.path(), &server.url)).await.unwrap();
    let told = until(&node, "the refusal is told", |now| now.login_error.clone()).await;
    assert_eq!(told, "this key has been used");
    assert_eq!(node.snapshot().state, BackendState::NeedsLogin);
    assert_eq!(server.script.lock().unwrap().registered.len(), 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_pings_the_node_once_for_each_url() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let node = joined(folder.path(), &server).await;
    let ping = |url: &str, types: &str, payload: &[u8]| MapResponse {
        ping_request: Some(PingRequest {
            url: url.to_owned(),
            url_is_noise: true,
            types: types.to_owned(),
            payload: payload.to_vec(),
            ..PingRequest::default()
        }),
        ..MapResponse::keep_alive()
    };
    server.send(ping("https://unused/pong/1", "", b""));
    server.send(ping("https://unused/pong/1", "", b""));
    server.send(ping("https://unused/c2n/2", "c2n", b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\nhello"));
    let answer = server.until("the request is answered", |script| {
        script.pongs.iter().find(|(path, _)| path == "/c2n/2").map(|(_, body)| body.clone())
    });
    assert!(String::from_utf8(answer.await).unwrap().ends_with("hello"));
    server
        .until("the ping is answered", |script| script.pongs.iter().any(|(path, _)| path == "/pong/1").then_some(()))
        .await;
    assert_eq!(server.script.lock().unwrap().pongs.len(), 2);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_tells_the_server_and_forgets_the_key() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let node = joined(folder.path(), &server).await;
    node.log_out().await.unwrap();
    let last = server.script.lock().unwrap().registered.last().cloned().unwrap();
    assert!(last.expiry.get().unwrap() < jiff::Timestamp::now());
    until(&node, "a login is needed", |now| (now.state == BackendState::NeedsLogin).then_some(())).await;
    node.stop().await;
    assert!(!folder.path().join("node.netmap").exists());
    let store = FileStore::open(&folder.path().join("node.state")).unwrap();
    let profile = store.read("_current-profile").await.unwrap().unwrap();
    let profile = store.read(std::str::from_utf8(&profile).unwrap()).await.unwrap().unwrap();
    let profile: serde_json::Value = serde_json::from_slice(&profile).unwrap();
    assert_eq!(profile["Config"]["PrivateNodeKey"], format!("privkey:{}", "0".repeat(64)));
    assert_eq!(profile["LoggedOut"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_daemon_at_the_same_socket_is_refused_by_name() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let node = joined(folder.path(), &server).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let second = Config { local_api: Some(folder.path().join("node.sock")), ..config(elsewhere.path(), &server.url) };
    let error = Node::start(second).await.unwrap_err().to_string();
    assert!(error.contains("Towline's node runs already"), "{error}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_is_its_nodes_until_that_has_stopped_also_where_handles_of_it_are_left() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let node = joined(folder.path(), &server).await;
    let state = folder.path().join("node.state");
    let error = FileStore::open(&state).unwrap_err().to_string();
    assert!(error.starts_with(&format!("another daemon uses the state in {}: ", state.display())), "{error}");
    let certificate = node.certificate();
    node.stop().await;
    FileStore::open(&state).unwrap();
    drop((node, certificate));
}

/// Runs the stock command line against the node's socket.
pub(crate) async fn stock(folder: &Path, arguments: &[&str]) -> (bool, String) {
    let cache = std::env::var_os("TOWLINE_CACHE").map(std::path::PathBuf::from);
    let cache = cache.unwrap_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cache/towline"));
    let program = cache.join("bin/tailscale");
    assert!(program.exists(), "{} is missing: run `cargo xtask fetch`", program.display());
    let socket = folder.join("node.sock");
    let output =
        tokio::process::Command::new(&program).arg("--socket").arg(&socket).args(arguments).kill_on_drop(true).output();
    let output = tokio::time::timeout(Duration::from_secs(30), output).await;
    let output = output.unwrap_or_else(|_| panic!("tailscale {arguments:?} does not end")).unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.success(), text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_connection_to_the_server_is_among_the_flows() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let node = joined(folder.path(), &server).await;
    let address = server.url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let told = flows(folder.path()).await;
    let [control] = told.as_slice() else { panic!("one flow, not {told:?}") };
    assert_eq!((&control["kind"], &control["service"]), (&"physical".into(), &"control".into()));
    assert_eq!((&control["protocol"], &control["remote"]), (&"http".into(), &address.clone().into()));
    // A registration and a map request, with the Noise handshake before them.
    assert!(control["sent"]["bytes"].as_u64() > Some(500), "{control}");
    assert!(control["received"]["bytes"].as_u64() > Some(200), "{control}");
    assert_eq!(control["open"].as_array().map(Vec::len), Some(1), "{control}");
    let time = |text: &serde_json::Value| text.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(time(&control["open"][0]["since"]) >= time(&control["first"]), "{control}");
    node.stop().await;
}

/// What the node tells of its flows over its socket.
async fn flows(folder: &Path) -> Vec<serde_json::Value> {
    let mut stream = tokio::net::UnixStream::connect(folder.join("node.sock")).await.unwrap();
    let request = b"GET /towline/v0/flows HTTP/1.1\r\nHost: local-tailscaled.sock\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let body = answer.find('{').map(|start| &answer[start..]).unwrap_or_else(|| panic!("{answer}"));
    let told: serde_json::Value = serde_json::Deserializer::from_str(body).into_iter().next().unwrap().unwrap();
    told["flows"].as_array().cloned().unwrap_or_else(|| panic!("{answer}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stock_command_line_drives_the_node() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let node = joined(folder.path(), &server).await;
    let run = async |arguments: &[&str]| stock(folder.path(), arguments).await;

    let (_, text) = run(&["status", "--json"]).await;
    let start = text.find('{').unwrap_or_else(|| panic!("{text}"));
    let mut status = serde_json::Deserializer::from_str(&text[start..]).into_iter::<serde_json::Value>();
    let status = status.next().unwrap().unwrap();
    assert_eq!(status["Self"]["DNSName"], "laptop.example.ts.net.");
    assert_eq!(status["MagicDNSSuffix"], "example.ts.net");

    let (done, text) = run(&["ip", "-4", "server"]).await;
    assert!(done && text.contains("100.64.0.2"), "{text}");
    let (done, text) = run(&["whois", "100.64.0.2"]).await;
    assert!(done && text.contains("a@example.com") && text.contains("server.example.ts.net"), "{text}");
    let (done, text) = run(&["ping", "-c", "1", "--timeout", "1s", "100.64.0.1"]).await;
    assert!(done && text.contains("is this node's own address"), "{text}");
    let (done, text) = run(&["ping", "-c", "1", "--timeout", "1s", "server"]).await;
    assert!(!done, "{text}");

    let (done, text) = run(&["set", "--accept-routes", "--hostname", "renamed"]).await;
    assert!(done, "{text}");
    assert_eq!((node.preferences().route_all, node.preferences().hostname.as_str()), (true, "renamed"));
    let (done, text) = run(&["set", "--ssh"]).await;
    assert!(!done && text.contains("RunSSH can't be turned on"), "{text}");
    let (done, text) = run(&["debug", "prefs"]).await;
    assert!(done && text.contains("\"Hostname\": \"renamed\""), "{text}");

    let (done, text) = run(&["down"]).await;
    assert!(done, "{text}");
    until(&node, "the node is stopped", |now| (now.state == BackendState::Stopped).then_some(())).await;
    let (done, text) = run(&["status"]).await;
    assert!(!done && text.contains("stopped"), "{text}");
    let (done, text) = run(&["logout"]).await;
    assert!(done, "{text}");
    until(&node, "a login is needed", |now| (now.state == BackendState::NeedsLogin).then_some(())).await;
    node.stop().await;
}
