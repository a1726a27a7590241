//! What administrators do with devices, routes, users and the policy, and what of it is seen afterwards.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::program::{Daemon, Outcome, run, towline};
use crate::server::{ADMIN, Server, node, status};

const POLICY: &str = r#"{
    "tagOwners": {"tag:server": ["autogroup:admin"]},
    "grants": [{"src": ["autogroup:admin"], "dst": ["*"], "ip": ["*"]}],
}"#;
const MEMBER: &str = "member@example.com";

impl Server {
    /// Runs a command of the administrator's that must work; answers what it says.
    fn says(&self, arguments: &[&str]) -> String {
        let outcome = self.ask(arguments);
        assert_eq!(outcome.code, Some(0), "{arguments:?}: {}", outcome.err);
        outcome.out.trim_end().to_owned()
    }

    /// Runs one that must be refused; answers the reason.
    fn refuses(&self, arguments: &[&str], code: i32) -> String {
        let outcome = self.ask(arguments);
        assert_eq!(outcome.code, Some(code), "{arguments:?}: {}{}", outcome.out, outcome.err);
        outcome.err
    }

    /// All that there is of a device.
    fn device(&self, name: &str) -> Value {
        self.must(&["devices", "show", name])
    }

    /// What a line of a device's block says.
    fn line(&self, name: &str, what: &str) -> Option<String> {
        let block = self.says(&["devices", "show", name]);
        let line = block.lines().find_map(|line| line.strip_prefix(&format!("{what}:")).map(str::trim));
        line.map(str::to_owned)
    }

    /// Starts a device that joins by a key of its own, and waits until it is in.
    fn join(&self, name: &str, key: &[&str]) -> (Daemon, std::path::PathBuf) {
        let made = self.must(&[&["keys", "create"], key].concat());
        let (mut daemon, socket) = node(&self.home, &self.url, name, made["key"].as_str());
        until_it_is(&self.home, &mut daemon, &socket, "Running");
        (daemon, socket)
    }

    /// Tries to log a user in, in a home of its own.
    fn log_in_as(&self, home: &Path, user: &str, password: &str) -> Outcome {
        run(home, ["admin", "login", "--server", &self.url, "--user", user, "--password-file", password])
    }
}

fn until_it_is(home: &Path, daemon: &mut Daemon, socket: &Path, state: &str) {
    daemon.until(state, || (status(home, socket)?["BackendState"] == state).then_some(()));
}

#[test]
fn what_an_administrator_does_with_a_device_is_told_shown_and_known_to_the_device() {
    let home = tempfile::tempdir().unwrap();
    let (server, _running) = Server::with_login(home.path());
    let policy = home.path().join("policy.hujson");
    fs::write(&policy, POLICY).unwrap();
    server.must(&["policy", "set", policy.to_str().unwrap(), "--yes"]);
    let (mut laptop, laptop_socket) = server.join("laptop", &[]);
    let (mut backend, backend_socket) = server.join("backend", &[]);
    let number = server.device("laptop")["nodeId"].as_str().unwrap().to_owned();
    let address = server.device("laptop")["addresses"][0].as_str().unwrap().to_owned();
    for name in ["laptop", "laptop.test.ts.net", &address, &number] {
        assert_eq!(server.line(name, "id"), Some(number.clone()), "{name}");
    }

    // A name.
    let renamed = server.says(&["devices", "rename", "laptop", "desk"]);
    assert_eq!(renamed, "laptop.test.ts.net is called desk.test.ts.net now.");
    assert_eq!(
        (server.device("desk")["nodeId"].as_str(), server.line("desk", "name").as_deref()),
        (Some(number.as_str()), Some("desk.test.ts.net"))
    );
    laptop.until("it knows its new name", || {
        (status(home.path(), &laptop_socket)?["Self"]["DNSName"] == "desk.test.ts.net.").then_some(())
    });
    assert!(server.refuses(&["devices", "rename", "desk", "backend"], 3).contains("the name backend is taken"));
    assert_eq!(server.must(&["devices", "rename", "desk"])["name"], "laptop.test.ts.net", "the one that it reports");

    // Tags.
    assert_eq!(server.line("backend", "owner").as_deref(), Some(ADMIN));
    let tagged = server.says(&["devices", "tag", "backend", "tag:server"]);
    assert_eq!(tagged, "backend.test.ts.net has tag:server now.");
    assert_eq!(server.device("backend")["tags"], json!(["tag:server"]));
    assert_eq!(server.line("backend", "owner").as_deref(), Some("tag:server"));
    assert!(server.refuses(&["devices", "tag", "backend", "tag:ghost"], 3).contains("tag:ghost is not in the policy"));
    assert_eq!(server.says(&["devices", "tag", "backend"]), "backend.test.ts.net has no tags now.");
    assert_eq!(server.line("backend", "owner").as_deref(), Some(ADMIN));

    // Whether its key expires.
    assert!(server.line("laptop", "key").unwrap().starts_with("expires "));
    let off = server.says(&["devices", "key-expiry", "laptop", "off"]);
    assert_eq!(off, "Key expiry of laptop.test.ts.net is off now.");
    assert_eq!(server.line("laptop", "key").as_deref(), Some("never expires"));
    assert_eq!(server.device("laptop")["keyExpiryDisabled"], true);
    server.must(&["devices", "key-expiry", "laptop", "on"]);
    assert_eq!(server.device("laptop")["keyExpiryDisabled"], false);

    // Whether it is let in.
    let kept_out = server.says(&["devices", "authorize", "laptop", "--revoke"]);
    assert_eq!(kept_out, "laptop.test.ts.net is kept out now.");
    assert_eq!(server.device("laptop")["authorized"], false);
    assert_eq!(server.line("laptop", "state").as_deref(), Some("waits for approval"));
    until_it_is(home.path(), &mut laptop, &laptop_socket, "NeedsMachineAuth");
    assert_eq!(server.says(&["devices", "authorize", "laptop"]), "laptop.test.ts.net is let in now.");
    assert_eq!(server.device("laptop")["authorized"], true);
    until_it_is(home.path(), &mut laptop, &laptop_socket, "Running");

    // Routes.
    let offer = ["--socket", backend_socket.to_str().unwrap(), "set", "--advertise-routes=10.9.0.0/24"];
    assert_eq!(run(home.path(), offer).code, Some(0));
    let routes = |server: &Server| server.must(&["routes", "list"]);
    let offered =
        json!({"route": "10.9.0.0/24", "device": "backend.test.ts.net", "advertised": true, "enabled": false});
    backend.until("its route is offered", || (routes(&server) == json!([offered])).then_some(()));
    let row = |server: &Server| server.says(&["routes", "list"]).lines().nth(1).unwrap().to_owned();
    assert!(row(&server).ends_with("waits for approval"), "{}", row(&server));
    let revoke = ["routes", "revoke", "backend", "10.9.0.0/24"];
    let said = server.refuses(&revoke, 3);
    assert!(said.contains("10.9.0.0/24 of backend.test.ts.net is not approved"), "{said}");
    let approved = server.says(&["routes", "approve", "backend", "10.9.0.0/24"]);
    assert_eq!(approved, "Routes of backend.test.ts.net that may be used now: 10.9.0.0/24.");
    assert!(row(&server).ends_with("in use"), "{}", row(&server));
    assert_eq!(server.says(&revoke), "No route of backend.test.ts.net may be used now.");
    assert_eq!(routes(&server), json!([offered]));
    server.must(&["routes", "approve", "backend", "10.9.0.0/24"]);
    assert_eq!(server.must(&revoke)["enabledRoutes"], json!([]));

    // Its key.
    let ended = server.says(&["devices", "expire", "laptop"]);
    assert_eq!(ended, "The key of laptop.test.ts.net has ended; its user must log in again.");
    assert!(server.line("laptop", "key").unwrap().starts_with("expired "));
    until_it_is(home.path(), &mut laptop, &laptop_socket, "NeedsLogin");
    assert_eq!(status(home.path(), &backend_socket).unwrap()["BackendState"], "Running", "the other one is as it was");
    assert!(server.refuses(&["devices", "show", "desk"], 3).contains("there is no device \"desk\""));
}

#[test]
fn a_device_that_joined_by_an_ephemeral_key_is_shown_as_such_and_goes_when_it_logs_out() {
    let home = tempfile::tempdir().unwrap();
    let (server, _running) = Server::with_login(home.path());
    let (mut guest, socket) = server.join("guest", &["--ephemeral"]);
    let (_lasting, lasting_socket) = server.join("lasting", &[]);
    assert_eq!(server.device("guest")["isEphemeral"], true);
    assert_eq!(server.line("guest", "ephemeral").as_deref(), Some("removed once it has been away for a while"));
    assert_eq!((&server.device("lasting")["isEphemeral"], server.line("lasting", "ephemeral")), (&json!(false), None));
    for socket in [&socket, &lasting_socket] {
        assert_eq!(run(home.path(), ["--socket", socket.to_str().unwrap(), "logout"]).code, Some(0));
    }
    guest.until("it is gone", || {
        let listed = server.must(&["devices", "list"]);
        let names: Vec<&Value> = listed.as_array().unwrap().iter().map(|device| &device["name"]).collect();
        (names == ["lasting.test.ts.net"]).then_some(())
    });
}

#[test]
fn what_an_administrator_does_with_a_user_is_told_shown_and_felt_by_the_user() {
    let (home, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (server, _running) = Server::with_login(home.path());
    let passwords = ["first", "second"].map(|name| {
        let path = home.path().join(name);
        fs::write(&path, format!("the {name} password of a member\n")).unwrap();
        path.to_str().unwrap().to_owned()
    });
    let [first, second] = passwords.each_ref().map(String::as_str);
    let user = |server: &Server| {
        let listed = server.must(&["users", "list"]);
        listed.as_array().unwrap().iter().find(|user| user["loginName"] == MEMBER).cloned()
    };
    let row = |server: &Server| {
        let table = server.says(&["users", "list"]);
        let row = table.lines().find(|line| line.starts_with(MEMBER)).unwrap().to_owned();
        row.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let logs_in = |password| server.log_in_as(theirs.path(), MEMBER, password);
    server.must(&["users", "create", MEMBER, "--password-file", first]);
    let refused = logs_in(first);
    assert_eq!(refused.code, Some(3), "{}", refused.err);
    assert!(refused.err.contains("this user has no right to the API"), "{}", refused.err);

    // What they may do.
    assert_eq!(server.says(&["users", "role", MEMBER, "auditor"]), "member@example.com has the role auditor now.");
    assert_eq!((user(&server).unwrap()["role"].as_str(), row(&server)[1].as_str()), (Some("auditor"), "auditor"));
    assert_eq!(logs_in(first).code, Some(0));
    assert_eq!(run(theirs.path(), ["devices", "list"]).code, Some(0), "an auditor looks at everything");
    assert_eq!(run(theirs.path(), ["keys", "create", "--tag", "tag:x"]).code, Some(3), "and makes nothing");
    assert_eq!(server.must(&["users", "role", MEMBER, "it-admin"]), json!({"role": "it-admin"}));

    // How they prove who they are.
    assert_eq!(
        server.says(&["users", "password", MEMBER, "--password-file", second]),
        "member@example.com has a new password."
    );
    assert_eq!(logs_in(first).code, Some(3));
    assert_eq!(logs_in(second).code, Some(0));
    assert_eq!(run(theirs.path(), ["users", "list"]).code, Some(0));

    // Whether they are let in.
    assert_eq!(server.says(&["users", "suspend", MEMBER]), "member@example.com and their devices are kept out now.");
    assert_eq!((user(&server).unwrap()["status"].as_str(), row(&server)[2].as_str()), (Some("suspended"), "suspended"));
    assert_eq!(run(theirs.path(), ["users", "list"]).code, Some(3), "the token of before");
    assert_eq!(logs_in(second).code, Some(3));
    assert_eq!(server.says(&["users", "restore", MEMBER]), "member@example.com may use the tailnet again.");
    assert_eq!((user(&server).unwrap()["status"].as_str(), row(&server)[2].as_str()), (Some("active"), "active"));
    assert_eq!(logs_in(second).code, Some(0));

    // Whether there is such a user.
    let warned = server.refuses(&["users", "delete", MEMBER], 2);
    assert!(warned.contains("this removes member@example.com with 0 devices and all their keys, for good"), "{warned}");
    assert!(user(&server).is_some());
    assert_eq!(server.says(&["users", "delete", MEMBER, "--yes"]), "Removed member@example.com.");
    assert_eq!(user(&server), None);
    assert_eq!(run(theirs.path(), ["users", "list"]).code, Some(3));
    assert!(server.refuses(&["users", "restore", MEMBER], 3).contains("there is no user \"member@example.com\""));
}

#[test]
fn whoever_has_a_role_logs_in_does_what_the_role_may_and_logs_out() {
    let home = tempfile::tempdir().unwrap();
    let (server, _running) = Server::with_login(home.path());
    let policy = home.path().join("policy.hujson");
    fs::write(&policy, POLICY).unwrap();
    let (policy, password) = (policy.to_str().unwrap(), home.path().join("password"));
    let commands: [&[&str]; 9] = [
        &["users", "list"],
        &["admin", "names"],
        &["devices", "list"],
        &["oauth-clients", "list"],
        &["policy", "get"],
        &["policy", "set", policy, "--yes"],
        &["keys", "create"],
        &["users", "rename", MEMBER, "A Member"],
        &["oauth-clients", "create", "--scope", "dns:read"],
    ];
    server.must(&["users", "create", MEMBER, "--password-file", password.to_str().unwrap()]);
    for (role, may) in [
        ("admin", "+++++++++"),
        ("it-admin", "+++++-++-"),
        ("network-admin", "++++++---"),
        ("auditor", "+++++----"),
        ("billing-admin", "++-------"),
    ] {
        let (theirs, login) = (tempfile::tempdir().unwrap(), format!("the-{role}@example.com"));
        server.must(&["users", "create", &login, "--role", role, "--password-file", password.to_str().unwrap()]);
        let logged_in = server.log_in_as(theirs.path(), &login, password.to_str().unwrap());
        assert_eq!(logged_in.code, Some(0), "{role}: {}", logged_in.err);
        let did = commands.map(|command| match run(theirs.path(), command) {
            Outcome { code: Some(0), .. } => '+',
            Outcome { code: Some(3), err, .. } if err.contains("this needs the scope") => '-',
            outcome => panic!("{role}: {command:?}: {:?} {}", outcome.code, outcome.err),
        });
        assert_eq!(String::from_iter(did), may, "{role}");
        let own = run(theirs.path(), ["-o", "json", "keys", "list", "--tokens"]);
        assert!(own.out.contains(&format!("towline admin login of {login}")), "{role}: {} {}", own.out, own.err);
        let out = run(theirs.path(), ["admin", "logout"]);
        assert_eq!((out.code, out.out), (Some(0), format!("Logged {login} out of {}.\n", server.url)), "{}", out.err);
        let tokens = server.must(&["keys", "list", "--tokens", "--all"]);
        let ended =
            tokens.as_array().unwrap().iter().find(|token| token["description"].as_str().unwrap().ends_with(&login));
        assert!(ended.unwrap()["revoked"].is_string(), "{role}: {tokens}");
    }
}

#[test]
fn a_policy_that_was_edited_is_in_force_and_its_draft_is_gone() {
    let home = tempfile::tempdir().unwrap();
    let (server, _running) = Server::with_login(home.path());
    let policy = home.path().join("policy.hujson");
    fs::write(&policy, POLICY).unwrap();
    server.must(&["policy", "set", policy.to_str().unwrap(), "--yes"]);
    let drafts = home.path().join("drafts");
    fs::create_dir(&drafts).unwrap();
    let edit = |editor: &str, more: &[&str]| {
        let mut edit = towline(home.path());
        edit.args(["policy", "edit"]).args(more).env("TMPDIR", &drafts).env("EDITOR", editor);
        Outcome::from(edit.output().unwrap())
    };
    let edited = edit("sed -i s/tag:server/tag:web/", &["-m", "the servers are web servers"]);
    assert_eq!((edited.code, edited.out.trim()), (Some(0), "The policy is in force."), "{}", edited.err);
    assert!(edited.err.contains("-    \"tagOwners\": {\"tag:server\": [\"autogroup:admin\"]},"), "{}", edited.err);
    assert_eq!(server.ask(&["policy", "get"]).out.trim(), POLICY.replace("tag:server", "tag:web"));
    let newest = &server.must(&["policy", "history"])["versions"][0];
    assert_eq!((&newest["why"], &newest["who"]), (&json!("the servers are web servers"), &json!(ADMIN)), "{newest}");
    assert_eq!(fs::read_dir(&drafts).unwrap().count(), 0, "it is in force, so nothing has to be kept");

    let failed = edit("false", &[]);
    assert_eq!(failed.code, Some(3), "{}", failed.err);
    assert!(failed.err.contains("the editor ended with exit status: 1; the policy in force stays"), "{}", failed.err);
    assert_eq!(server.ask(&["policy", "get"]).out.trim(), POLICY.replace("tag:server", "tag:web"));
}
