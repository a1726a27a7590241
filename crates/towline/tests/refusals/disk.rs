//! A disk that is full, and a database that another process holds.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::program::clean;
use crate::server::Server;

const SAYS: &str = "the server can't write right now, so nothing was changed; it is tried again by itself";

/// A small file system of its own, in a mount namespace that a process holds open.
struct SmallDisk {
    holder: Child,
    folder: PathBuf,
}

impl SmallDisk {
    fn mount(home: &Path) -> Self {
        let folder = home.join("disk");
        fs::create_dir(&folder).unwrap();
        let script = "mount -t tmpfs -o size=6m towline-test \"$0\" && echo mounted && read _";
        let mut command = clean(Command::new("unshare"), home);
        command.args(["--mount", "--propagation=private", "sh", "-c", script]).arg(&folder);
        let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = [0; 7];
        holder.stdout.as_mut().unwrap().read_exact(&mut said).expect("mounting needs root");
        assert_eq!(&said, b"mounted");
        Self { holder, folder }
    }

    /// The folder as this process sees it.
    fn seen(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.folder.strip_prefix("/").unwrap())
    }

    /// Leaves no byte free.
    fn fill(&self) {
        let mut file = File::create(self.seen().join("ballast")).unwrap();
        for size in [64 << 10, 4 << 10, 1] {
            let piece = vec![b'x'; size];
            while file.write_all(&piece).is_ok() {}
        }
    }

    fn empty(&self) {
        fs::remove_file(self.seen().join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// The ids of all auth keys.
fn keys(server: &Server) -> Vec<String> {
    let listed = server.must(&["keys", "list"]);
    let mut ids: Vec<String> = listed
        .as_array()
        .unwrap()
        .iter()
        .filter(|key| key["keyType"] == "auth")
        .map(|key| key["id"].as_str().unwrap().to_owned())
        .collect();
    ids.sort();
    ids
}

#[test]
fn on_a_full_disk_nothing_is_acknowledged_nothing_is_lost_and_it_goes_on_by_itself() {
    let home = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(home.path());
    let server = Server::set_up(home.path(), &disk.folder.join("data"), Some(disk.holder.id()));
    let mut running = server.start();
    server.log_in();
    let make = || server.ask(&["-o", "json", "keys", "create", "--reusable", "--description", &"d".repeat(400)]);
    let mut made: Vec<String> = Vec::new();
    let id = |out: &str| serde_json::from_str::<serde_json::Value>(out).unwrap()["id"].as_str().unwrap().to_owned();
    let first = make();
    assert_eq!(first.code, Some(0), "{}", first.err);
    made.push(id(&first.out));

    disk.fill();
    // What is left of the last page may still take a write or two.
    let refused = (0..200).find_map(|_| {
        let outcome = make();
        if outcome.code == Some(0) {
            made.push(id(&outcome.out));
            return None;
        }
        Some(outcome)
    });
    let refused = refused.expect("a full disk takes no more");
    assert_eq!(refused.code, Some(3), "{}", refused.err);
    assert!(refused.err.contains(SAYS), "{}", refused.err);
    assert!(running.log().contains("the disk of the database is full: make room in"), "{}", running.log());
    made.sort();
    assert_eq!(keys(&server), made, "it still answers, and what it refused is not there");

    disk.empty();
    let after = make();
    assert_eq!(after.code, Some(0), "{}", after.err);
    made.push(id(&after.out));
    made.sort();
    assert_eq!(keys(&server), made);
    // Killed at once: what was acknowledged is there.
    running.child.kill().unwrap();
    running.child.wait().unwrap();
    let _again = server.start();
    assert_eq!(keys(&server), made);
}
