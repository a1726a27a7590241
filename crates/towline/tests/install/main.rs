//! The guide's steps to services of systemd, played as root on a machine of their own, and what the units then start.
//!
//! No systemd runs there: the test does what its manual says of the settings that are about users, files and rights.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

mod machine;
mod steps;
mod unit;

use machine::{Machine, Service};

/// A machine on which the server's steps were played.
fn with_server() -> Machine {
    let machine = Machine::make();
    let services = machine.plays(&steps::below("server.md", "### The server"));
    assert_eq!(services, ["towline-control"]);
    machine
}

/// Starts the server; when this returns, it does its work.
fn serve(machine: &Machine) -> Service {
    let mut server = machine.starts("towline-control");
    let is_ready = || machine.answers(9090, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"));
    server.until("it is ready", is_ready);
    server
}

#[test]
fn a_server_that_root_has_set_up_runs_as_the_services_user() {
    let machine = with_server();
    let data = machine.file("/var/lib/towline/control");
    assert_eq!(fs::metadata(&data).unwrap().uid(), 0);
    let server = serve(&machine);
    let user = machine.types("id -u towline").trim().parse::<u32>().unwrap();
    assert_ne!(user, 0);
    for name in [".", "control.db", "noise.key", "authority/root.key", "relay.token"] {
        assert_eq!(fs::metadata(data.join(name)).unwrap().uid(), user, "{name}");
    }
    assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
    drop(server);
    // What changes a server that is not running leaves nothing behind that the service may not use.
    machine.types("runuser -u towline -- towline control reset-password --user admin@example.com");
    drop(serve(&machine));
}

#[test]
fn a_node_and_a_server_live_on_one_machine() {
    let machine = with_server();
    let server = serve(&machine);
    let services = machine.plays(&steps::below("devices.md", "### As a service"));
    assert_eq!(services, ["towline-node"]);
    let mut node = machine.starts("towline-node");
    node.until("it keeps its state", || machine.file("/var/lib/towline/node/node.state").exists());
    drop(server);
    drop(serve(&machine));
}

#[test]
fn a_relay_runs_with_the_token_that_the_server_has_printed() {
    let machine = with_server();
    assert_eq!(machine.plays(&steps::below("server.md", "### A relay")), ["towline-derp"]);
    let mut relay = machine.starts("towline-derp");
    let is_alive = || machine.answers(9091, "/healthz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"));
    relay.until("it is alive", is_alive);
}

#[test]
fn a_server_says_how_to_open_the_folder_that_an_earlier_version_has_closed() {
    let machine = with_server();
    machine.types("chmod 700 /var/lib/towline");
    let said = machine.starts("towline-control").fails();
    let cure = "chmod 755 /var/lib/towline";
    assert!(said.contains("may not enter the folder /var/lib/towline;") && said.matches(cure).count() == 1, "{said}");
    machine.types(cure);
    drop(serve(&machine));
}
