//! What an administrator is told whose command could not work: what is wrong, and the next step.

use crate::program::run;
use crate::server::Server;

#[test]
fn commands_without_a_login_name_one_that_can_be_typed() {
    let home = tempfile::tempdir().unwrap();
    let nobody = run(home.path(), ["users", "list"]);
    assert_eq!(nobody.code, Some(2), "{nobody:?}");
    assert!(nobody.err.contains("`towline admin login --server URL --user NAME`"), "{nobody:?}");
    let elsewhere = run(home.path(), ["--server", "https://c.example.com", "users", "list"]);
    let login = "`towline admin login --server https://c.example.com --user NAME`";
    assert!(elsewhere.code == Some(2) && elsewhere.err.contains(login), "{elsewhere:?}");
}

#[test]
fn what_is_not_there_is_told_with_the_list_that_has_it() {
    let home = tempfile::tempdir().unwrap();
    let (server, _running) = Server::with_login(home.path());
    for (command, says) in [
        (["keys", "revoke", "nope"], "there is no key \"nope\"; `towline keys list` shows the ids of those that work"),
        (
            ["oauth-clients", "delete", "nope"],
            "there is no OAuth client \"nope\"; `towline oauth-clients list` shows all",
        ),
    ] {
        let refused = server.ask(&command);
        assert!(refused.code == Some(3) && refused.err.contains(says), "{refused:?}");
    }
    let missing = server.ask(&["policy", "check", "/nonexistent"]);
    assert!(missing.code == Some(1) && missing.err.contains("`towline policy get > policy.hujson`"), "{missing:?}");
}

#[test]
fn users_are_listed_by_name_and_a_change_of_policy_as_other_tools_show_it() {
    let home = tempfile::tempdir().unwrap();
    let (server, _running) = Server::with_login(home.path());
    let password = home.path().join("password");
    for name in ["zoe@example.com", "bob@example.com"] {
        server.must(&["users", "create", name, "--password-file", password.to_str().unwrap()]);
    }
    let users = server.must(&["users", "list"]);
    let names: Vec<_> = users.as_array().unwrap().iter().map(|user| user["loginName"].as_str().unwrap()).collect();
    assert_eq!(names, ["admin@example.com", "bob@example.com", "zoe@example.com"]);

    let policy = home.path().join("policy.hujson");
    std::fs::write(&policy, "{\"grants\": [{\"src\": [\"*\"], \"dst\": [\"*\"], \"ip\": [\"tcp:443\"]}]}\n").unwrap();
    let shown = server.ask(&["policy", "diff", policy.to_str().unwrap()]);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    let has_hunk = shown.out.starts_with("@@ -") && shown.out.contains("\n+{\"grants\"");
    assert!(has_hunk && !shown.out.contains('\u{1b}'), "{shown:?}");
}
