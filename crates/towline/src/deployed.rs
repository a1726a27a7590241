//! What `deploy` starts is what this program takes, and each unit of systemd has its user and a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{CommandFactory, Parser};
use serde::Deserialize;
use serde_json::Value;

use crate::Arguments;
use unit::Unit;

#[path = "../tests/install/unit.rs"]
mod unit;

const BINARY: &str = "/usr/local/bin/towline";

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(deploy(path)).unwrap()
}

/// All units, by name.
fn units() -> Vec<(String, Unit)> {
    let entries = fs::read_dir(deploy("systemd")).unwrap().map(|entry| entry.unwrap().file_name());
    let names = entries.map(|name| name.into_string().unwrap()).filter(|name| name.ends_with(".service"));
    let units: Vec<_> = names.map(|name| (name.clone(), Unit::parse(&read(&format!("systemd/{name}"))))).collect();
    assert!(units.len() >= 3, "{units:?}");
    units
}

/// What a file of variables stands for, as arguments of a role.
fn arguments_of(variables: &str, role: &str) -> Vec<String> {
    let program = Arguments::command();
    let role = program.find_subcommand(role).unwrap();
    let lines = variables.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.split_once('=').unwrap();
            let argument = role.get_arguments().find(|argument| argument.get_env().is_some_and(|env| env == name));
            let argument = argument.unwrap_or_else(|| panic!("nobody reads {name}"));
            format!("--{}={value}", argument.get_long().unwrap())
        })
        .collect()
}

fn take(place: &str, words: impl IntoIterator<Item = String>) {
    let words: Vec<String> = words.into_iter().collect();
    if let Err(error) = Arguments::try_parse_from(&words) {
        panic!("{place}: {}: {error}", words.join(" "));
    }
}

#[test]
fn every_unit_starts_what_this_program_takes() {
    for (name, unit) in units() {
        let words = unit.words("ExecStart");
        assert_eq!(words[0], BINARY, "{name}");
        let variables = unit.one("EnvironmentFile").map(|path| {
            let file = Path::new(path).file_name().unwrap().to_str().unwrap();
            arguments_of(&read(&format!("systemd/{file}")), words[1])
        });
        take(&name, words.into_iter().map(str::to_owned).chain(variables.unwrap_or_default()));
    }
}

#[test]
fn every_units_user_is_one_that_is_made() {
    let users = read("systemd/towline.sysusers");
    let made: Vec<&str> = users.lines().filter_map(|line| line.strip_prefix("u ")?.split_whitespace().next()).collect();
    for (name, unit) in units() {
        let user = unit.one("User").unwrap_or("root");
        assert!(user == "root" || made.contains(&user), "{name} runs as {user}");
        assert_eq!(unit.one("Group").unwrap_or("root"), user, "{name}");
    }
}

#[test]
fn every_unit_keeps_what_it_writes_in_a_folder_that_is_no_others_way() {
    let units = units();
    for (name, unit) in &units {
        let own = unit.state_folders();
        assert_eq!((own.len(), unit.one("StateDirectoryMode")), (1, Some("0700")), "{name}");
        let written = unit.words("ExecStart").into_iter().filter(|word| word.starts_with("/var/"));
        assert!(written.clone().count() > 0, "{name}");
        for path in written {
            assert!(Path::new(path).starts_with(&own[0]), "{name}: {path} is not in {}", own[0]);
        }
        for (other_name, other) in units.iter().filter(|(other, _)| other != name) {
            for folder in other.state_folders() {
                let is_way = Path::new(&folder).starts_with(&own[0]);
                assert!(!is_way, "{name} closes {}, the way of {other_name}", own[0]);
            }
        }
    }
}

#[test]
fn a_unit_uses_the_devices_that_it_may() {
    for (name, unit) in units() {
        let makes_devices = unit.words("CapabilityBoundingSet").contains(&"CAP_MKNOD");
        let may_make = unit.words("DeviceAllow").get(1).is_some_and(|rights| rights.contains('m'));
        assert_eq!(makes_devices, may_make, "{name}");
    }
}

/// The one that is there does not run beside the other, and is not ended for it.
#[test]
fn the_nodes_unit_takes_nothing_from_the_stock_daemon() {
    let (_, node) = units().into_iter().find(|(name, _)| name == "towline-node.service").unwrap();
    assert_eq!(node.one("Conflicts"), None);
    let shares = node.words("RuntimeDirectory").contains(&"tailscale");
    assert!(!shares || node.one("RuntimeDirectoryPreserve") == Some("yes"));
}

/// Not every machine that builds this has systemd; on those that have, it has no complaint.
#[test]
fn systemd_has_no_complaint() {
    let folder = tempfile::tempdir().unwrap();
    for (name, _) in units() {
        // The program is not installed where the tests run.
        let text = read(&format!("systemd/{name}")).replace(BINARY, "/bin/true");
        let path = folder.path().join(&name);
        fs::write(&path, text).unwrap();
        let mut analyze = Command::new("systemd-analyze");
        let Ok(output) = analyze.args(["verify", "--man=no", "--recursive-errors=no"]).arg(&path).output() else {
            return;
        };
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // Known from version 254 on.
        let newer = ["'RestartSteps'", "'RestartMaxDelaySec'"];
        let complaints: Vec<&str> =
            said.lines().filter(|line| !newer.iter().any(|setting| line.contains(setting))).collect();
        assert!(complaints.is_empty(), "{name}: {complaints:?}");
    }
}

/// The containers of an object's pods.
fn containers(object: &Value) -> Vec<Value> {
    let pod = &object["spec"]["template"]["spec"];
    let lists = ["initContainers", "containers"].map(|list| pod[list].as_array().cloned().unwrap_or_default());
    lists.concat()
}

#[test]
fn every_manifest_starts_what_this_program_takes() {
    let mut count = 0;
    for entry in fs::read_dir(deploy("manifests")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        for document in serde_yaml_ng::Deserializer::from_str(&text) {
            let object = Value::deserialize(document).unwrap();
            for container in containers(&object) {
                let arguments = container["args"].as_array().unwrap().iter();
                let words = arguments.map(|word| word.as_str().unwrap().to_owned());
                take(
                    &format!("{}: {}", path.display(), container["name"]),
                    ["towline".to_owned()].into_iter().chain(words),
                );
                count += 1;
            }
        }
    }
    assert_eq!(count, 3);
}
