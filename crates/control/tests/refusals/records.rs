//! What the server writes down: all that was acknowledged, and no more than it has room for, whatever devices say.

use std::path::Path;

use http::{Method, StatusCode};
use serde_json::json;
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
