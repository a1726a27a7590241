//! `towline policy`, and policies that do not do what their author means.

use std::fs;

use crate::program::{Outcome, towline};
use crate::server::{ADMIN, Server, node, status};

const OPEN: &str = r#"{
    "tagOwners": {"tag:server": ["autogroup:admin"]},
    "grants": [{"src": ["autogroup:admin"], "dst": ["*"], "ip": ["*"]}],
}"#;

#[test]
fn a_broken_policy_is_refused_by_line_and_reason_and_one_that_locks_out_wants_yes() {
    let home = tempfile::tempdir().unwrap();
    let (server, _running) = Server::with_login(home.path());
    let write = |name: &str, text: &str| {
        let path = home.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let open = write("open.hujson", OPEN);
    server.must(&["policy", "set", &open, "--yes"]);

    for (text, says) in [
        ("{\n  \"grants\": [,]\n}\n", "line 2"),
        (
            "{\n  \"grants\": [{\"src\": [\"group:ghosts\"], \"dst\": [\"*\"], \"ip\": [\"*\"]}],\n}\n",
            "line 2, column 23: src=group not found: \"group:ghosts\"",
        ),
        (
            "{\n  \"grants\": [{\"src\": [\"*\"], \"dst\": [\"tag:ghost\"], \"ip\": [\"*\"]}],\n}\n",
            "tag not found: \"tag:ghost\"",
        ),
    ] {
        let outcome = server.ask(&["policy", "set", &write("broken.hujson", text), "--yes"]);
        assert_eq!(outcome.code, Some(3), "{}", outcome.err);
        assert!(outcome.err.contains(says) && outcome.err.contains("the policy in force stays"), "{}", outcome.err);
        let outcome = server.ask(&["policy", "check", &write("broken.hujson", text)]);
        assert_eq!(outcome.code, Some(3), "{}", outcome.err);
        assert!(outcome.out.contains(says), "{}", outcome.out);
    }

    let mut edit = towline(home.path());
    // An editor that spoils the text: it is not lost.
    edit.args(["policy", "edit"]).env("TMPDIR", home.path()).env("EDITOR", "sed -i s/grants/gants/");
    let edited = Outcome::from(edit.output().unwrap());
    assert_eq!(edited.code, Some(3), "{}", edited.err);
    let kept = edited.err.split("Your text is in ").nth(1).unwrap().split(".hujson").next().unwrap();
    assert!(fs::read_to_string(format!("{kept}.hujson")).unwrap().contains("gants"), "{}", edited.err);

    let key = |more: &[&str]| {
        let made = server.must(&[&["keys", "create"], more].concat());
        made["key"].as_str().unwrap().to_owned()
    };
    let (mut laptop, laptop_socket) = node(home.path(), &server.url, "laptop", Some(&key(&[])));
    let (mut backend, backend_socket) = node(home.path(), &server.url, "backend", Some(&key(&["--tag", "tag:server"])));
    for (daemon, socket) in [(&mut laptop, &laptop_socket), (&mut backend, &backend_socket)] {
        daemon.until("the node is in", || (status(home.path(), socket)?["BackendState"] == "Running").then_some(()));
    }

    let lockout = write("lockout.hujson", r#"{"tagOwners": {"tag:server": []}, "grants": []}"#);
    let warned = server.ask(&["policy", "set", &lockout]);
    assert_eq!(warned.code, Some(3), "{}", warned.err);
    let warning = format!("warning: this policy cuts {ADMIN} off: none of their devices could reach anything");
    assert!(warned.err.contains(&warning), "{}", warned.err);
    assert!(warned.err.contains("read the warnings above, and add --yes to set it"), "{}", warned.err);
    assert_eq!(server.ask(&["policy", "get"]).out.trim(), OPEN.trim());
    let set = server.ask(&["policy", "set", &lockout, "--yes"]);
    assert_eq!((set.code, set.out.trim()), (Some(0), "The policy is in force."), "{}", set.err);
}

#[test]
fn a_key_that_was_used_keeps_a_node_out_and_its_user_reads_why() {
    let home = tempfile::tempdir().unwrap();
    let (server, _running) = Server::with_login(home.path());
    let made = server.must(&["keys", "create"]);
    let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    let (mut first, socket) = node(home.path(), &server.url, "first", Some(key));
    first.until("the node is in", || (status(home.path(), &socket)?["BackendState"] == "Running").then_some(()));
    let (mut second, socket) = node(home.path(), &server.url, "second", Some(key));
    let says = format!("auth key {id} was already used and works only once");
    second.until("the refusal is told", || status(home.path(), &socket)?.to_string().contains(&says).then_some(()));
    assert!(second.is_alive());
}
