//! What administrators see of keys and programs, whoever made them, and how they name a tailnet.

use serde_json::Value;

use crate::server::{ADMIN, Server};

fn ids(listed: &Value) -> Vec<&str> {
    listed.as_array().unwrap().iter().map(|key| key["id"].as_str().unwrap()).collect()
}

#[test]
fn an_administrator_sees_everybodys_auth_keys_with_owner_and_state_and_no_dead_clients() {
    let home = tempfile::tempdir().unwrap();
    let (server, _running) = Server::with_login(home.path());
    let made = server.must(&["keys", "create"]);
    let own = made["id"].as_str().unwrap();
    let revoked = server.must(&["keys", "create"])["id"].as_str().unwrap().to_owned();
    server.must(&["keys", "revoke", &revoked]);
    let client = |description: &str| {
        let made =
            server.must(&["oauth-clients", "create", "--scope", "devices:core:read", "--description", description]);
        made["id"].as_str().unwrap().to_owned()
    };
    let (kept, gone) = (client("kept"), client("gone"));
    server.must(&["oauth-clients", "delete", &gone]);
    assert_eq!(ids(&server.must(&["oauth-clients", "list"])), [kept]);

    // A colleague makes one too.
    let password = home.path().join("password");
    let (colleague, password) = ("colleague@example.com", password.to_str().unwrap());
    server.must(&["users", "create", colleague, "--role", "admin", "--password-file", password]);
    let second = tempfile::tempdir().unwrap();
    let login = ["admin", "login", "--server", &server.url, "--user", colleague, "--password-file", password];
    assert_eq!(crate::program::run(second.path(), login).code, Some(0));
    let theirs = crate::program::run(second.path(), ["-o", "json", "keys", "create"]);
    let theirs: Value = serde_json::from_str(&theirs.out).unwrap();
    let theirs = theirs["id"].as_str().unwrap();

    let mut listed = server.must(&["keys", "list"]);
    listed.as_array_mut().unwrap().sort_by_key(|key| key["id"].to_string());
    let mut both = [own, theirs];
    both.sort_unstable();
    assert_eq!(ids(&listed), both, "auth keys that work, and nothing else");
    let listed = server.must(&["keys", "list", "--all"]);
    assert_eq!(listed.as_array().unwrap().len(), 3, "{listed}");
    let table = server.ask(&["keys", "list", "--all"]).out;
    let row = |id: &str| table.lines().find(|line| line.contains(id)).unwrap().to_owned();
    assert!(row(own).contains(ADMIN) && row(own).contains("works"), "{table}");
    assert!(row(theirs).contains(colleague), "{table}");
    assert!(row(&revoked).contains("revoked"), "{table}");
    let tokens = server.must(&["keys", "list", "--tokens"]);
    assert!(tokens.as_array().unwrap().iter().all(|key| key["keyType"] == "api"), "{tokens}");
    assert!(tokens.as_array().unwrap().len() >= 2, "{tokens}");
}

#[test]
fn a_tailnet_gets_another_domain_once_it_was_shown_what_that_changes() {
    let home = tempfile::tempdir().unwrap();
    let (server, _running) = Server::with_login(home.path());
    assert_eq!(server.must(&["admin", "names"])["domain"], "test.ts.net");
    let asked = ["admin", "names", "--domain", "other.ts.net"];
    let shown = server.ask(&asked);
    assert_eq!(shown.code, Some(2), "{}", shown.err);
    assert!(shown.out.contains("domain: test.ts.net -> other.ts.net"), "{}", shown.out);
    assert!(shown.err.contains("nothing was changed: add --yes"), "{}", shown.err);
    assert_eq!(server.must(&["admin", "names"])["domain"], "test.ts.net");
    let renamed = server.must(&[&asked[..], &["--yes"]].concat());
    assert_eq!((&renamed["domain"], &renamed["name"]), (&"other.ts.net".into(), &"other.ts.net".into()), "{renamed}");
    assert_eq!(server.must(&["admin", "names"]), renamed);
    for bad in ["no domain", "-", ""] {
        let refused = server.ask(&["admin", "names", "--domain", bad, "--yes"]);
        assert_eq!(refused.code, Some(3), "{bad}: {} {}", refused.out, refused.err);
    }

    server.must(&["users", "rename", ADMIN, "The Boss"]);
    let users = server.must(&["users", "list"]);
    assert_eq!(users[0]["displayName"], "The Boss", "{users}");
}
