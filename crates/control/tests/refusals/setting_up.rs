//! Setting a server up that was cut off, at each of its steps: the next run finishes it.

use std::path::Path;
use std::sync::Arc;

use control::Standing;
use http::StatusCode;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use crate::machine::Machine;
use crate::server::{Server, new_server, set_up};

/// What setting up leaves behind, in the order in which it comes to be. A run that is killed leaves a beginning of this.
const MADE: [&str; 11] = [
    "init.unfinished",
    "noise.key",
    "authority",
    "authority/root.key",
    "authority/root.crt",
    "relay.token",
    "relays.json",
    "control.toml",
    "control.db",
    "authority/tailnet-1.key",
    "authority/tailnet-1.test.ts.net.crt",
];

/// A folder with what was made before a run was killed after its first steps.
async fn killed_after(steps: usize) -> Arc<tempfile::TempDir> {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let data = folder.path().join("data");
    set_up(&data).await;
    std::fs::write(data.join("init.unfinished"), "").unwrap();
    let _ = std::fs::remove_file(data.join("authority/tailnet-1.test.ts.net.anchor.crt"));
    if MADE[..steps].contains(&"control.db") {
        take_tailnet_out(&data).await;
    }
    for name in MADE[steps..].iter().rev() {
        let path = data.join(name);
        if path.is_dir() { std::fs::remove_dir(path).unwrap() } else { std::fs::remove_file(path).unwrap() }
    }
    // What a file is written to before it has its name.
    std::fs::write(data.join(".noise.key.12345"), "half").unwrap();
    folder
}

/// Makes the database what it is before the tailnet is written to it.
async fn take_tailnet_out(data: &Path) {
    let path = data.join("control.db");
    std::fs::remove_file(&path).unwrap();
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let mut database = options.connect().await.unwrap();
    sqlx::migrate!("./migrations").run(&mut database).await.unwrap();
    database.close().await.unwrap();
}

#[tokio::test]
async fn a_run_that_was_killed_at_any_step_is_finished_by_the_next() {
    for steps in 1..=MADE.len() {
        let folder = killed_after(steps).await;
        let data = folder.path().join("data");
        let after = MADE[steps - 1];
        assert_eq!(control::standing(&data).await.unwrap(), Standing::Unfinished, "{after}");
        let refused = Server::run(folder.clone()).await.err().unwrap().to_string();
        assert!(refused.contains("towline control init"), "{after}: {refused}");

        let key = std::fs::read(data.join("noise.key")).ok();
        let made = control::init(new_server(&data)).await.unwrap();
        let kept = |name: &str| made.kept.contains(&data.join(name));
        for name in ["noise.key", "authority/root.crt", "relay.token", "relays.json", "control.toml"] {
            assert_eq!(kept(name), MADE[..steps].contains(&name), "{after}: {name}");
        }
        assert!(key.is_none_or(|key| std::fs::read(data.join("noise.key")).unwrap() == key), "{after}");
        assert!(!data.join("init.unfinished").exists() && !data.join(".noise.key.12345").exists(), "{after}");
        assert_eq!(control::standing(&data).await.unwrap(), Standing::Server { untold: false }, "{after}");

        let server = Server::run(folder).await.unwrap();
        let (_, text) = server.make_key(serde_json::json!({}), None).await;
        assert_eq!(Machine::new().register(server.address, "laptop", &text).await.error, "", "{after}");
        assert_eq!(server.get("/trust.pem").await.0, StatusCode::OK, "{after}");
        server.stop().await;
    }
}

#[tokio::test]
async fn a_server_is_left_as_it_is_running_or_not() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let data = folder.path().join("data");
    assert_eq!(control::standing(&data).await.unwrap(), Standing::Absent);
    set_up(&data).await;
    // Killed after the last write, before its words were read by anybody.
    std::fs::write(data.join("init.unfinished"), "").unwrap();
    assert_eq!(control::standing(&data).await.unwrap(), Standing::Server { untold: true });
    let refused = control::init(new_server(&data)).await.unwrap_err().to_string();
    assert!(refused.contains("there is a server in"), "{refused}");
    let server = Server::run(folder).await.unwrap();
    assert!(matches!(control::standing(&data).await.unwrap(), Standing::Server { .. }));
    server.stop().await;
}

#[tokio::test]
async fn keys_whose_database_is_gone_get_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    set_up(&data).await;
    for name in ["control.db", "control.db-wal", "control.db-shm"] {
        let _ = std::fs::remove_file(data.join(name));
    }
    let refused = control::init(new_server(&data)).await.unwrap_err().to_string();
    assert!(refused.contains("put back the one that belongs to it"), "{refused}");
}
