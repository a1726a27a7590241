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

#[test]
fn a_question_about_a_capability_a_service_an_attribute_or_a_tag_is_answered_by_its_own_line() {
    let home = tempfile::tempdir().unwrap();
    let (server, _running) = Server::with_login(home.path());
    let policy = r#"{
    "tagOwners": {
        "tag:web": ["autogroup:admin"],
        "tag:k8s": ["tag:web"],
        "tag:none": [],
    },
    "grants": [
        {"src": ["autogroup:admin"], "dst": ["tag:web"], "app": {"example.com/cap/files": [{}]}},
    ],
    "nodeAttrs": [
        {"target": ["tag:web"], "attr": ["funnel"]},
    ],
    "autoApprovers": {
        "services": {"svc:shop": ["tag:web"]},
    },
}"#;
    let path = home.path().join("policy.hujson");
    fs::write(&path, policy).unwrap();
    server.must(&["policy", "set", path.to_str().unwrap(), "--yes"]);
    let join = |name: &str, more: &[&str]| {
        let made = server.must(&[&["keys", "create"], more].concat());
        let (mut daemon, socket) = node(home.path(), &server.url, name, made["key"].as_str());
        daemon.until("the node is in", || (status(home.path(), &socket)?["BackendState"] == "Running").then_some(()));
        daemon
    };
    let _devices = [join("laptop", &[]), join("web", &["--tag", "tag:web"])];
    for (asked, line) in [
        (["web", "--service", "svc:shop"].as_slice(), Some(14)),
        (&["laptop", "--service", "svc:shop"], None),
        (&["web", "--service", "svc:other"], None),
        (&["web", "--attribute", "funnel"], Some(11)),
        (&["laptop", "--attribute", "funnel"], None),
        (&["web", "--attribute", "other"], None),
        (&[ADMIN, "--tag", "tag:web"], Some(3)),
        (&["web", "--tag", "tag:k8s"], Some(4)),
        (&["web", "--tag", "tag:none"], None),
        (&["laptop", "web", "--app", "example.com/cap/files"], Some(8)),
        (&["laptop", "web", "--app", "example.com/cap/other"], None),
        (&["web", "laptop", "--app", "example.com/cap/files"], None),
    ] {
        let command = [&["why"], asked].concat();
        let answer = &server.must(&command)["answers"][0];
        let lines: Vec<_> = answer["allowedBy"].as_array().unwrap().iter().map(|rule| rule["line"].as_u64()).collect();
        assert_eq!(lines, line.map(Some).into_iter().collect::<Vec<_>>(), "{asked:?}: {answer}");
        let told = server.ask(&command).out;
        let first = line.map_or("no".to_owned(), |line| format!("yes, by line {line}"));
        assert_eq!(told.lines().next(), Some(first.as_str()), "{asked:?}");
    }
}

#[test]
fn check_and_diff_print_what_a_change_opens_and_closes_by_user_tag_and_port() {
    let home = tempfile::tempdir().unwrap();
    let (server, _running) = Server::with_login(home.path());
    let write = |name: &str, grants: &str| {
        let text =
            format!("{{\n  \"tagOwners\": {{\"tag:db\": [], \"tag:web\": []}},\n  \"grants\": [\n{grants}  ],\n}}\n");
        let path = home.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let web = "    {\"src\": [\"tag:web\"], \"dst\": [\"tag:db\"], \"ip\": [\"tcp:5432\"]},\n";
    let old = "    {\"src\": [\"autogroup:admin\"], \"dst\": [\"tag:db\"], \"ip\": [\"tcp:22\"]},\n";
    let new = "    {\"src\": [\"admin@example.com\"], \"dst\": [\"tag:web\"], \"ip\": [\"tcp:443\", \"udp:53\"]},\n";
    server.must(&["policy", "set", &write("old.hujson", &format!("{web}{old}")), "--yes"]);
    let changed = write("new.hujson", &format!("{web}{new}"));
    let effects = "It opens:\n  admin@example.com -> tag:web: tcp:443\n  admin@example.com -> tag:web: udp:53\n\
                   It closes:\n  admin@example.com -> tag:db: tcp:22\n";
    let checked = server.ask(&["policy", "check", &changed]);
    assert_eq!((checked.code, checked.out), (Some(0), format!("{changed} is fine.\n{effects}")), "{}", checked.err);
    let compared = server.ask(&["policy", "diff", &changed]);
    assert_eq!(compared.code, Some(0), "{}", compared.err);
    let (text, meaning) = compared.out.split_once("\n\n").unwrap();
    assert_eq!(meaning, effects, "{}", compared.out);
    assert!(text.contains(&format!("\n-{old}+{new}")) && !text.contains(&format!("-{web}")), "{text}");
}
