//! Whoever reads what a command prints may have enough before its end, as in `towline … | head -1`.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::process::Command;

/// Runs a command whose answer nobody reads; answers its exit code and what it said beside it.
fn unread(arguments: &[&str]) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_towline")).args(arguments).stdout(writer).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_command_whose_reader_has_gone_ends_without_a_word() {
    for arguments in [["completions", "zsh"].as_slice(), &["version"], &["--help"]] {
        let (code, said) = unread(arguments);
        assert!(said.is_empty() && matches!(code, Some(0 | 1)), "{arguments:?} ended with {code:?}: {said}");
    }
}

#[test]
fn a_server_that_is_set_up_is_set_up_whoever_reads() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("control");
    let init = ["control", "init", "--url=https://c.example.com", "--domain=x.ts.net", "--relay=r.example.com"];
    let place = ["--admin=a@example.com", "--data", data.to_str().unwrap()];
    assert_eq!(unread(&[init.as_slice(), &place].concat()), (Some(0), String::new()));
    assert!(data.join("control.toml").is_file());
}
