//! Logins that wait for a person, and keys that come to a node that is in.

use std::path::Path;

use crypto::NodePublic;
use node::{BackendState, Config, Node};
use serde_json::json;
use tailcfg::{MapResponse, RegisterResponse};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::daemon::{config, joined, peers, until};
use coordination::{Server, let_in, peer};

pub(crate) const FIRST: &str = "https://control.example/a/1";
pub(crate) const SECOND: &str = "https://control.example/a/2";

/// A node that was shown the first URL, and waits.
pub(crate) async fn asking(folder: &Path, server: &Server) -> Node {
    server.ask_at(FIRST);
    let node = Node::start(Config { auth_key: None, ..config(folder, &server.url) }).await.unwrap();
    node.log_in().await.unwrap();
    until_asked_at(&node, FIRST).await;
    node
}

/// A node that is in, and was shown the first URL for a new login; with the key that it is in by.
async fn asking_anew(folder: &Path, server: &Server) -> (Node, Option<NodePublic>) {
    let node = joined(folder, server).await;
    let key = node.snapshot().node_key;
    server.ask_at(FIRST);
    node.log_in().await.unwrap();
    until_asked_at(&node, FIRST).await;
    (node, key)
}

pub(crate) async fn until_asked_at(node: &Node, url: &str) {
    until(node, "the URL is shown", |now| (now.auth_url.as_deref() == Some(url)).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_waits_is_asked_for_anew_with_other_tags() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let node = asking(folder.path(), &server).await;
    server.ask_at(SECOND);
    let tags = json!({"AdvertiseTags": ["tag:web"], "AdvertiseTagsSet": true});
    node.edit_preferences(tags).await.unwrap();
    // As `up` does; what it is told is the new login.
    node.log_in().await.unwrap();
    until_asked_at(&node, SECOND).await;
    let told = |request: &tailcfg::RegisterRequest| request.hostinfo.as_ref().unwrap().request_tags.clone();
    let (last, count) = {
        let script = server.script.lock().unwrap();
        (told(script.registered.last().unwrap()), script.registered.iter().filter(|it| it.followup.is_empty()).count())
    };
    assert_eq!((last, count), (vec!["tag:web".to_owned()], 2));
    server.decide(SECOND, let_in());
    until(&node, "the node is in", |now| now.mesh.netmap().is_some().then_some(())).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_waits_is_forgotten_with_its_server() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let node = asking(folder.path(), &server).await;
    let other = Server::start().await;
    other.ask_at(SECOND);
    node.edit_preferences(json!({"ControlURL": other.url, "ControlURLSet": true})).await.unwrap();
    assert_ne!(node.snapshot().auth_url.as_deref(), Some(FIRST));
    node.log_in().await.unwrap();
    until_asked_at(&node, SECOND).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_login_in_force_goes_on_until_the_new_one_is_confirmed() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let (node, key) = asking_anew(folder.path(), &server).await;
    let told = node.snapshot();
    assert!(told.health.iter().any(|text| text.contains(FIRST)), "{:?}", told.health);
    assert_ne!(told.state, BackendState::NeedsLogin);
    // The map is followed all the while.
    server.send(MapResponse { peers_changed: vec![peer(3, "other")], ..MapResponse::default() });
    until(&node, "the new peer is there", |now| (peers(now) == [2, 3]).then_some(())).await;
    assert_eq!(node.snapshot().node_key, key);
    let mut bus = Bus::open(folder.path(), 0).await;
    server.decide(FIRST, let_in());
    bus.until("SelfChange").await;
    until(&node, "there is a new key", |now| (now.node_key != key && now.auth_url.is_none()).then_some(())).await;
    until(&node, "all is well", |now| now.health.iter().all(|text| !text.contains("login")).then_some(())).await;
    let old = server.script.lock().unwrap().registered.last().unwrap().old_node_key;
    assert_eq!(Some(old), key);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_new_login_is_told_and_leaves_the_one_in_force() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let (node, key) = asking_anew(folder.path(), &server).await;
    let mut bus = Bus::open(folder.path(), 2).await;
    let error = "ann@example.com refused it".to_owned();
    server.decide(FIRST, RegisterResponse { error, ..RegisterResponse::default() });
    let told = bus.until("ErrMessage").await;
    assert!(told.contains("ann@example.com refused it"), "{told}");
    until(&node, "nothing waits", |now| now.auth_url.is_none().then_some(())).await;
    server.send(MapResponse { peers_changed: vec![peer(3, "other")], ..MapResponse::default() });
    until(&node, "the new peer is there", |now| (peers(now) == [2, 3]).then_some(())).await;
    let now = node.snapshot();
    assert_eq!((now.node_key, &now.login_error), (key, &None));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_key_the_server_has_forgotten_needs_a_login() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    joined(folder.path(), &server).await.stop().await;
    server.ask_at(FIRST);
    let node = Node::start(Config { auth_key: None, ..config(folder.path(), &server.url) }).await.unwrap();
    until_asked_at(&node, FIRST).await;
    // It has the map of before, and is in nobody's network.
    assert_eq!((peers(&node.snapshot()), node.snapshot().state), (vec![2], BackendState::NeedsLogin));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_for_a_node_that_is_in_is_used_where_a_new_login_is_asked_for() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let node = joined(folder.path(), &server).await;
    let key = node.snapshot().node_key;
    let mut bus = Bus::open(folder.path(), 0).await;
    let started = post(folder.path(), "start", r#"{"AuthKey": "tskey-auth-y"}"#).await;
    assert!(started.starts_with("HTTP/1.1 204"), "{started}");
    // The stock command waits until it is told the state, also where that is the one of before.
    bus.until("\"State\":5").await;
    assert_eq!(server.script.lock().unwrap().registered.len(), 1);
    node.log_in().await.unwrap();
    until(&node, "there is a new key", |now| (now.node_key != key).then_some(())).await;
    let last = server.script.lock().unwrap().registered.last().unwrap().clone();
    assert_eq!((last.auth.unwrap().auth_key.as_str(), Some(last.old_node_key)), ("tskey-auth-y", key));
    node.stop().await;
}

/// Asks the node's socket as a command line does.
async fn post(folder: &Path, path: &str, body: &str) -> String {
    let mut stream = tokio::net::UnixStream::connect(folder.join("node.sock")).await.unwrap();
    let head = format!(
        "POST /localapi/v0/{path} HTTP/1.1\r\nHost: local-tailscaled.sock\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// What the node tells on its bus.
struct Bus {
    stream: tokio::net::UnixStream,
    read: String,
}

impl Bus {
    async fn open(folder: &Path, mask: u64) -> Self {
        let mut stream = tokio::net::UnixStream::connect(folder.join("node.sock")).await.unwrap();
        let path = format!("/localapi/v0/watch-ipn-bus?mask={mask}");
        let request = format!("GET {path} HTTP/1.1\r\nHost: local-tailscaled.sock\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bus = Self { stream, read: String::new() };
        bus.until("SessionID").await;
        bus
    }

    async fn until(&mut self, part: &str) -> String {
        while !self.read.contains(part) {
            let mut chunk = [0; 4096];
            let read = tokio::time::timeout(std::time::Duration::from_secs(20), self.stream.read(&mut chunk));
            let count = read.await.unwrap_or_else(|_| panic!("{part} is never told: {}", self.read)).unwrap();
            assert!(count > 0, "the bus ended: {}", self.read);
            self.read.push_str(&String::from_utf8_lossy(&chunk[..count]));
        }
        self.read.clone()
    }
}
