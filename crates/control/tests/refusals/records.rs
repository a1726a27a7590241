//! What the server writes down: all that was acknowledged, and no more than it has room for, whatever devices say.

use std::path::Path;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tailcfg::{Hostinfo, MapRequest, RegisterRequest};

use crate::machine::Machine;
use crate::server::Server;

/// What a device says of itself: nearly as much as is taken, and something else each time.
fn talk(number: u32) -> Hostinfo {
    let (hostname, os) = ("laptop".to_owned(), number.to_string());
    Hostinfo { hostname, os, os_version: "x".repeat(60_000), ..Hostinfo::default() }
}

/// How large the database is, what is still in the write-ahead log counted.
async fn size(data: &Path) -> i64 {
    let options = SqliteConnectOptions::new().filename(data.join("control.db"));
    let mut connection = options.connect().await.unwrap();
    let query = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()";
    let size = sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    size
}

#[tokio::test]
async fn a_device_that_talks_without_end_fills_no_disk_and_loses_nothing_that_was_taken() {
    let server = Server::start().await;
    let (_, key) = server.make_key(json!({}), None).await;
    let device = Machine::new();
    assert_eq!(device.register(server.address, "laptop", &key).await.error, "");
    let before = size(&server.data()).await;
    let mut line = device.call(server.address).await;
    let mut register = async |number| {
        let request = RegisterRequest { hostinfo: Some(talk(number)), ..device.registration("laptop", "") };
        let (status, answer) = line.ask("/machine/register", serde_json::to_vec(&request).unwrap()).await;
        assert_eq!((status, &answer["Error"]), (StatusCode::OK, &json!("")), "who is in is let in");
    };
    for number in 0..30 {
        register(number).await;
    }
    let mut line = device.call(server.address).await;
    let (mut last, mut refused) = (29, 0);
    for number in 30..90 {
        let request: MapRequest = serde_json::from_slice(&device.map_request(&device.node)).unwrap();
        let endpoints = vec![format!("203.0.113.7:{}", 1000 + number).parse().unwrap()];
        let request = MapRequest { hostinfo: Some(talk(number)), endpoints, ..request };
        match line.ask("/machine/map", serde_json::to_vec(&request).unwrap()).await {
            (StatusCode::OK, _) => last = number,
            (status, answer) => {
                assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{answer}");
                assert!(answer.as_str().unwrap().contains(" says something new of itself too often: "), "{answer}");
                refused += 1;
            }
        }
    }
    assert!(last >= 59 && refused > 20, "taken until {last}, {refused} refused");
    let grown = size(&server.data()).await - before;
    // What is known of the device, twice while it is written anew; each time that it spoke would be 3.6 MiB.
    assert!(grown < 512 << 10, "the database grew by {grown} bytes");

    let (_, list) = server.ask(Method::GET, "/tailnet/-/devices?fields=all", "").await;
    let connectivity = &list["devices"][0]["clientConnectivity"];
    assert_eq!(connectivity["endpoints"], json!(["203.0.113.7:1089"]), "where it is counts all the same");
    let server = server.restart().await;
    let (_, list) = server.ask(Method::GET, "/tailnet/-/devices", "").await;
    assert_eq!(list["devices"][0]["os"], json!(last.to_string()), "what was taken is kept");
}

#[tokio::test]
async fn changes_of_settings_that_come_at_once_all_stay() {
    let server = Server::start().await;
    let mut other = SqliteConnectOptions::new().filename(server.data().join("control.db")).connect().await.unwrap();
    // The first one waits for the database, and the others wait for the first.
    let held = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let release = async {
        // tidy: sleep, nobody tells that a request waits
        tokio::time::sleep(Duration::from_millis(300)).await;
        held.rollback().await.unwrap();
    };
    let send = async |method: Method, path: &str, body: Value| {
        let (status, answer) = server.ask(method, &format!("/tailnet/-/{path}"), body.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
    };
    tokio::join!(
        send(Method::POST, "dns/nameservers", json!({"dns": ["9.9.9.9"]})),
        send(Method::POST, "dns/searchpaths", json!({"searchPaths": ["corp.example"]})),
        send(Method::PATCH, "dns/split-dns", json!({"a.example": ["10.0.0.1"]})),
        send(Method::PATCH, "dns/split-dns", json!({"b.example": ["10.0.0.2"]})),
        send(Method::POST, "dns/preferences", json!({"magicDNS": false})),
        send(Method::PATCH, "names", json!({"name": "corp"})),
        send(Method::PATCH, "names", json!({"domain": "mesh.corp"})),
        release,
    );
    let (_, dns) = server.ask(Method::GET, "/tailnet/-/dns/configuration", "").await;
    let resolver = |address: &str| json!([{"address": address, "useWithExitNode": false}]);
    assert_eq!(dns["nameservers"], resolver("9.9.9.9"));
    assert_eq!(dns["searchPaths"], json!(["corp.example"]));
    assert_eq!(dns["splitDNS"], json!({"a.example": resolver("10.0.0.1"), "b.example": resolver("10.0.0.2")}));
    assert_eq!(dns["preferences"]["magicDNS"], json!(false));
    let (_, names) = server.ask(Method::GET, "/tailnet/-/names", "").await;
    assert_eq!(names, json!({"name": "corp", "domain": "mesh.corp"}));
}

#[tokio::test]
async fn a_route_that_was_taken_back_by_hand_stays_so_over_a_restart_and_another_policy() {
    let server = Server::start().await;
    let policy = |more: &str| {
        format!(
            r#"{{"tagOwners": {{"tag:router": []}}, "grants": [],
                "autoApprovers": {{"routes": {{"10.0.0.0/8": ["tag:router"]}}}}}}{more}"#
        )
    };
    let (status, answer) = server.ask(Method::POST, "/tailnet/-/acl", policy("")).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let (_, key) = server.make_key(json!({"tags": ["tag:router"]}), None).await;
    let router = Machine::new();
    let register = async |server: &Server| {
        let answer = router.register_router(server.address, "router", &key, &["10.1.0.0/16", "10.2.0.0/16"]).await;
        assert_eq!(answer.error, "");
    };
    register(&server).await;
    let why = async |server: &Server| {
        let (status, told) = server.ask(Method::GET, "/tailnet/-/acl/why?src=router&route=10.1.0.0%2F16", "").await;
        assert_eq!(status, StatusCode::OK, "{told}");
        (told["answers"][0]["summary"].clone(), told["answers"][0]["notes"].clone())
    };
    let (_, list) = server.ask(Method::GET, "/tailnet/-/devices", "").await;
    let path = format!("/device/{}/routes", list["devices"][0]["nodeId"].as_str().unwrap());
    assert_eq!(why(&server).await, (json!("yes, by line 2"), json!(["router serves it now"])));
    let (_, routes) = server.ask(Method::GET, &path, "").await;
    assert_eq!(routes["enabledRoutes"], json!(["10.1.0.0/16", "10.2.0.0/16"]), "{routes}");
    let (_, routes) = server.ask(Method::POST, &path, json!({"routes": ["10.2.0.0/16"]}).to_string()).await;
    assert_eq!(routes["enabledRoutes"], json!(["10.2.0.0/16"]), "{routes}");

    let server = server.restart().await;
    register(&server).await;
    let (status, answer) = server.ask(Method::POST, "/tailnet/-/acl", policy(" // another")).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let (_, routes) = server.ask(Method::GET, &path, "").await;
    assert_eq!(routes["enabledRoutes"], json!(["10.2.0.0/16"]), "{routes}");
    assert_eq!(routes["advertisedRoutes"], json!(["10.1.0.0/16", "10.2.0.0/16"]), "{routes}");
    let waits = json!(["router offers it, and it waits for approval by hand"]);
    assert_eq!(why(&server).await, (json!("no"), waits));
}
