//! A second tailnet on a server, from the command that adds it to the one that resets a password in it.

use std::path::Path;

use serde_json::Value;

use crate::program::{Outcome, run, towline};
use crate::server::{ADMIN, Server};

/// A command that changes the server in a home.
fn control(home: &Path, arguments: &[&str]) -> Outcome {
    let mut command = towline(home);
    command.arg("control").args(arguments);
    command.arg("--config").arg(home.join("control.toml")).arg("--data").arg(home.join("data"));
    Outcome::from(command.output().unwrap())
}

/// The password that a command has shown.
fn shown(outcome: &Outcome) -> &str {
    assert_eq!(outcome.code, Some(0), "{}", outcome.err);
    let after = outcome.out.split(&format!("The password of {ADMIN}, shown only now:")).nth(1).unwrap();
    after.split_whitespace().next().unwrap()
}

/// Logs the administrator in by a password in a home of its own; answers the domain of the tailnet.
fn domain(server: &Server, password: &str) -> String {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("password");
    std::fs::write(&file, password).unwrap();
    let login = ["admin", "login", "--server", &server.url, "--user", ADMIN, "--password-file"];
    let login = run(home.path(), login.into_iter().chain([file.to_str().unwrap()]));
    assert_eq!(login.code, Some(0), "{}", login.err);
    let names: Value = serde_json::from_str(&run(home.path(), ["-o", "json", "admin", "names"]).out).unwrap();
    names["domain"].as_str().unwrap().to_owned()
}

#[test]
fn a_tailnet_that_is_added_has_an_administrator_a_password_and_an_authority_of_its_own() {
    let home = tempfile::tempdir().unwrap();
    let (server, running) = Server::with_login(home.path());
    let add = ["add-tailnet", "--domain=other.ts.net", "--admin", ADMIN];
    let refused = control(home.path(), &add);
    assert_eq!(refused.code, Some(1), "{}", refused.out);
    assert!(refused.err.contains("another server uses the folder"), "the server runs: {}", refused.err);
    drop(running);
    let added = control(home.path(), &add);
    assert!(added.out.contains("The tailnet other.ts.net is made; start the server again to use it."), "{added:?}");
    let password = shown(&added);
    let refused = control(home.path(), &["add-tailnet", "--domain=deep.other.ts.net", "--admin", ADMIN]);
    assert_eq!(refused.code, Some(1), "{}", refused.out);
    assert!(refused.err.contains("deep.other.ts.net"), "{}", refused.err);

    let running = server.start();
    assert_eq!(domain(&server, password), "other.ts.net");
    assert_eq!(server.must(&["admin", "names"])["domain"], "test.ts.net", "the login of before goes on");
    let trust = |more: &[&str]| server.ask(&[&["trust", "show", "--pem", "--server", &server.url], more].concat());
    let refused = trust(&[]);
    assert_eq!(refused.code, Some(3), "{}", refused.out);
    assert!(
        refused.err.contains("has several tailnets, or none of this domain: name yours with --domain"),
        "{refused:?}"
    );
    let anchors = ["test.ts.net", "other.ts.net"].map(|domain| trust(&["--domain", domain]).out);
    assert!(anchors[0] != anchors[1] && anchors.iter().all(|pem| pem.starts_with("-----BEGIN CERTIFICATE-----")));
    drop(running);

    let refused = control(home.path(), &["reset-password", "--user", ADMIN]);
    assert_eq!(refused.code, Some(1), "{}", refused.out);
    assert!(
        refused.err.contains("in each of the tailnets test.ts.net, other.ts.net: name one with --domain"),
        "{refused:?}"
    );
    let reset = control(home.path(), &["reset-password", "--user", ADMIN, "--domain", "other.ts.net"]);
    let new = shown(&reset);
    assert_ne!(new, password);
    let _running = server.start();
    assert_eq!(domain(&server, new), "other.ts.net");
    server.log_in();
    assert_eq!(server.must(&["admin", "names"])["domain"], "test.ts.net", "its password is what it was");
}
