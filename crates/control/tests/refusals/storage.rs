//! A database that can't be written: nothing changes, the answer says so, and it mends itself.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use crate::machine::Machine;
use crate::server::Server;

const SAYS: &str = "the server can't write right now, so nothing was changed; it is tried again by itself";

#[tokio::test]
async fn while_another_holds_the_database_nothing_is_acknowledged_and_afterwards_all_is_well() {
    let server = Server::start().await;
    let (before, text) = server.make_key(json!({"reusable": true}), None).await;
    let device = Machine::new();
    assert_eq!(device.register(server.address, "laptop", &text).await.error, "");

    let mut other = SqliteConnectOptions::new().filename(server.data().join("control.db")).connect().await.unwrap();
    let held = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let wanted = json!({"capabilities": {"devices": {"create": {}}}}).to_string();
    let began = tokio::time::Instant::now();
    let (status, answer) = server.ask(Method::POST, "/tailnet/-/keys", wanted.clone()).await;
    assert_eq!((status, answer["message"].as_str()), (StatusCode::SERVICE_UNAVAILABLE, Some(SAYS)));
    assert!(began.elapsed() < Duration::from_secs(10), "a caller is not left waiting: {:?}", began.elapsed());
    let newcomer = Machine::new();
    let request = serde_json::to_vec(&newcomer.registration("newcomer", &text)).unwrap();
    let mut line = newcomer.call(server.address).await;
    let (status, answer) = line.ask("/machine/register", request.clone()).await;
    assert_eq!((status, answer.as_str()), (StatusCode::SERVICE_UNAVAILABLE, Some(SAYS)));
    let (status, _) = device.call(server.address).await.ask("/machine/map", device.map_request(&device.node)).await;
    assert_eq!(status, StatusCode::OK, "who is in is still served");
    assert_eq!(server.devices().await, ["laptop.test.ts.net"]);

    held.rollback().await.unwrap();
    other.close().await.unwrap();
    let (status, after) = server.ask(Method::POST, "/tailnet/-/keys", wanted).await;
    assert_eq!(status, StatusCode::OK, "it goes on by itself: {after}");
    let (status, answer) = line.ask("/machine/register", request).await;
    assert_eq!((status, &answer["Error"]), (StatusCode::OK, &json!("")));

    let server = server.restart().await;
    let keys = server.keys().await;
    assert!(keys.contains_key(&before) && keys.contains_key(after["id"].as_str().unwrap()), "{keys:?}");
    let mut devices = server.devices().await;
    devices.sort();
    assert_eq!(devices, ["laptop.test.ts.net", "newcomer.test.ts.net"]);
}

#[tokio::test]
async fn readiness_says_that_the_database_can_not_be_written_and_when_it_can_again() {
    let server = Server::start().await;
    assert_eq!(server.probe("/readyz").await, (StatusCode::OK, "ready\n".to_owned()));
    let mut other = SqliteConnectOptions::new().filename(server.data().join("control.db")).connect().await.unwrap();
    let held = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let wanted = json!({"capabilities": {"devices": {"create": {}}}}).to_string();
    assert_eq!(server.ask(Method::POST, "/tailnet/-/keys", wanted.clone()).await.0, StatusCode::SERVICE_UNAVAILABLE);
    let (status, reason) = until(&server, StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(reason.starts_with("database: no write succeeds: the database is locked by another process"), "{reason}");
    assert_eq!(server.probe("/healthz").await.0, StatusCode::OK, "the process is well");
    held.rollback().await.unwrap();
    assert_eq!(until(&server, StatusCode::OK).await.0, StatusCode::OK, "nobody had to write anything");
    assert_eq!(server.ask(Method::POST, "/tailnet/-/keys", wanted).await.0, StatusCode::OK);
}

/// Asks until readiness is as it should be, or for too long.
async fn until(server: &Server, wanted: StatusCode) -> (StatusCode, String) {
    let began = tokio::time::Instant::now();
    loop {
        let (status, text) = server.probe("/readyz").await;
        if status == wanted || began.elapsed() > Duration::from_secs(20) {
            return (status, text);
        }
        // tidy: sleep, as probes do
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_server_that_finds_its_database_held_says_so_and_starts_once_it_is_free() {
    let server = Server::start().await;
    let (key, _) = server.make_key(json!({}), None).await;
    let folder = server.stop().await;
    let database = folder.path().join("data/control.db");
    let mut other = SqliteConnectOptions::new().filename(&database).connect().await.unwrap();
    let held = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let refused = Server::run(folder.clone()).await.err().unwrap().to_string();
    assert_eq!(refused, "the database is locked by another process; trying again helps once that is done");
    held.rollback().await.unwrap();
    let server = Server::run(folder).await.unwrap();
    assert!(server.keys().await.contains_key(&key));
}
