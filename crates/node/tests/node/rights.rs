//! What other users of the machine see of the node, and how much of it they may take.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{Uid, set_thread_res_uid};
use serde_json::json;
use tempfile::TempDir;

use crate::daemon::{joined, until};
use crate::login::{FIRST, SECOND, asking, until_asked_at};
use coordination::{Server, let_in};

/// Nobody in particular.
const STRANGERS: [u32; 4] = [65_501, 65_502, 65_503, 65_504];
const ROOT: u32 = 0;
/// How many requests one user may have open, and how many those may have together who may only look.
const EACH: usize = 64;
const READERS: usize = 160;
const WATCH: &str = "watch-ipn-bus?mask=0";
const PATIENCE: Duration = Duration::from_secs(20);

/// A folder that everybody on the machine can look into.
fn open_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    folder
}

/// What a user asks of the daemon.
struct Request {
    stream: UnixStream,
    read: String,
}

impl Request {
    fn get(user: u32, folder: &Path, path: &str) -> Self {
        Self::send(user, folder, "GET", path, "")
    }

    fn send(user: u32, folder: &Path, method: &str, path: &str, body: &str) -> Self {
        let mut stream = connect(user, folder);
        let head = format!("{method} /localapi/v0/{path} HTTP/1.1\r\nHost: local-tailscaled.sock\r\nConnection: close");
        let request = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).unwrap();
        Self { stream, read: String::new() }
    }

    /// All that is told until there is this in it.
    fn until(&mut self, part: &str) -> &str {
        let mut chunk = [0; 4096];
        while !self.read.contains(part) {
            let count = self.stream.read(&mut chunk).unwrap_or_else(|error| panic!("{error}: {}", self.read));
            assert!(count > 0, "{part} was never told: {}", self.read);
            self.read.push_str(&String::from_utf8_lossy(&chunk[..count]));
        }
        &self.read
    }

    fn answer(mut self) -> String {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).unwrap();
        self.read + &String::from_utf8_lossy(&rest)
    }
}

/// Connects on a thread that is this user's: the kernel tells the daemon who connected.
fn connect(user: u32, folder: &Path) -> UnixStream {
    let socket = folder.join("node.sock");
    let connecting = thread::spawn(move || {
        let user = Uid::from_raw(user);
        set_thread_res_uid(user, user, user).expect("these tests ask as other users: run them as root");
        UnixStream::connect(socket).unwrap()
    });
    let stream = connecting.join().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn watch(user: u32, folder: &Path, count: usize) -> Vec<Request> {
    let watching = (0..count).map(|_| {
        let mut request = Request::get(user, folder, WATCH);
        request.until("SessionID");
        request
    });
    watching.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_login_waits_is_shown_to_those_who_may_change_the_node() {
    let (folder, server) = (open_folder(), Server::start().await);
    let node = asking(folder.path(), &server).await;
    let get = |user, path| Request::get(user, folder.path(), path);
    let (mut stranger, mut root) = (get(STRANGERS[0], "watch-ipn-bus?mask=2"), get(ROOT, "watch-ipn-bus?mask=2"));
    root.until(FIRST);
    assert!(stranger.until("\"State\":2").contains("SessionID"));
    assert!(get(ROOT, "status").answer().contains(FIRST));
    let status = get(STRANGERS[0], "status").answer();
    assert!(status.contains("\"AuthURL\":\"\"") && status.contains("NeedsLogin"), "{status}");

    server.ask_at(SECOND);
    node.edit_preferences(json!({"AdvertiseTags": ["tag:web"], "AdvertiseTagsSet": true})).await.unwrap();
    node.log_in().await.unwrap();
    until_asked_at(&node, SECOND).await;
    server.decide(SECOND, let_in());
    let told = root.until("LoginFinished");
    assert!(told.contains(SECOND) && told.contains("tag:web"), "{told}");
    let told = stranger.until("LoginFinished");
    assert!(![FIRST, SECOND, "BrowseToURL", "Prefs", "NetMap"].iter().any(|part| told.contains(part)), "{told}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_a_new_login_waits_is_told_to_everybody_and_where_is_not() {
    let (folder, server) = (open_folder(), Server::start().await);
    let node = joined(folder.path(), &server).await;
    let mut bus = watch(STRANGERS[0], folder.path(), 1).remove(0);
    server.ask_at(FIRST);
    node.log_in().await.unwrap();
    until_asked_at(&node, FIRST).await;
    let told = bus.until("a new login waits");
    assert!(!told.contains(FIRST), "{told}");
    let status = |user| Request::get(user, folder.path(), "status").answer();
    assert!(status(ROOT).contains(&format!("a new login waits for somebody to confirm it at {FIRST}; ")));
    let shown = status(STRANGERS[0]);
    assert!(shown.contains("a new login waits for somebody to confirm it; ") && !shown.contains(FIRST), "{shown}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_has_a_megabyte_at_most_and_one_that_breaks_off_is_told_so() {
    const MEGABYTE: usize = 1 << 20;
    let (folder, server) = (open_folder(), Server::start().await);
    let node = joined(folder.path(), &server).await;
    let check = |body: &str| Request::send(ROOT, folder.path(), "POST", "check-prefs", body);
    let padded = |length: usize| format!("{{}}{}", " ".repeat(length - 2));
    let told = check(&padded(MEGABYTE)).answer();
    assert!(told.starts_with("HTTP/1.1 200 ") && told.ends_with("{\"Error\":\"\"}"), "{told}");
    let mut longer = check(&padded(MEGABYTE + 1));
    assert!(longer.until("the request is longer than a megabyte").starts_with("HTTP/1.1 413 "), "{}", longer.read);

    let mut cut = connect(ROOT, folder.path());
    let head = "POST /localapi/v0/check-prefs HTTP/1.1\r\nHost: local-tailscaled.sock\r\nContent-Length: 9\r\n\r\n{";
    cut.write_all(head.as_bytes()).unwrap();
    cut.shutdown(std::net::Shutdown::Write).unwrap();
    let told = Request { stream: cut, read: String::new() }.answer();
    assert!(told.starts_with("HTTP/1.1 400 ") && told.contains("the request broke off: "), "{told}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_who_take_all_requests_that_they_may_keep_nobody_else_out() {
    let (folder, server) = (open_folder(), Server::start().await);
    let node = joined(folder.path(), &server).await;
    let [first, second, third, fourth] = STRANGERS;
    let held = watch(first, folder.path(), EACH);
    let status = |user| Request::get(user, folder.path(), "status?peers=false").answer();
    let told = status(first);
    assert!(told.starts_with("HTTP/1.1 429") && told.contains("this user has 64 requests open"), "{told}");
    assert!(status(second).starts_with("HTTP/1.1 200"));

    let _others = [watch(second, folder.path(), EACH), watch(third, folder.path(), READERS - 2 * EACH)];
    let told = status(fourth);
    assert!(told.starts_with("HTTP/1.1 503") && told.contains("the daemon has too many requests open"), "{told}");
    let down = r#"{"WantRunning": false, "WantRunningSet": true}"#;
    let told = Request::send(ROOT, folder.path(), "PATCH", "prefs", down).answer();
    assert!(told.starts_with("HTTP/1.1 200"), "{told}");
    until(&node, "the node is stopped", |now| (!now.mesh.preferences().want_running).then_some(())).await;

    drop(held);
    // The daemon notices by and by that they hung up.
    let begun = Instant::now();
    while !status(fourth).starts_with("HTTP/1.1 200") {
        assert!(begun.elapsed() < PATIENCE, "the places stay taken");
    }
    node.stop().await;
}
