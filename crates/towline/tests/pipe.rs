//! Whoever reads what a command prints may have enough before its end, as in `towline … | head -1`.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

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

/// The arguments that set a server up in a folder.
fn init(data: &Path) -> Vec<String> {
    let fixed = ["control", "init", "--url=https://c.example.com", "--domain=x.ts.net", "--relay=r.example.com"];
    let place = ["--admin=a@example.com".to_owned(), format!("--data={}", data.display())];
    fixed.into_iter().map(str::to_owned).chain(place).collect()
}

fn read(arguments: &[String]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_towline")).args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn again(data: &Path) -> (Option<i32>, String) {
    read(&[init(data), vec!["--if-absent".to_owned()]].concat())
}

#[test]
fn a_password_that_nobody_reads_is_a_failure_and_the_next_run_tells_how_to_make_another() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("control");
    let arguments = init(&data);
    let (code, said) = unread(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let advice = format!("towline control reset-password --data {} --user a@example.com", data.display());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the password of a@example.com could not be printed") && said.contains(&advice), "{said}");
    assert!(data.join("control.toml").is_file(), "the server is set up all the same");

    let (code, said) = again(&data);
    assert!(code == Some(0) && said.contains(&advice), "{said}");
    let reset: Vec<String> = advice.split(' ').skip(1).map(str::to_owned).collect();
    let (code, said) = unread(&reset.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(code == Some(1) && said.contains(&advice), "{said}");
    let (code, said) = again(&data);
    assert!(code == Some(0) && said.contains(&advice), "nobody has read the other one either: {said}");
    let (code, said) = read(&reset);
    assert!(code == Some(0) && said.contains("The password of a@example.com, shown only now:"), "{said}");
    let (code, said) = again(&data);
    assert!(code == Some(0) && !said.contains("reset-password"), "{said}");
}

#[test]
fn a_password_of_ones_own_needs_no_reader() {
    let folder = tempfile::tempdir().unwrap();
    let (data, password) = (folder.path().join("control"), folder.path().join("password"));
    std::fs::write(&password, "a password that is long enough").unwrap();
    let arguments = [init(&data), vec![format!("--password-file={}", password.display())]].concat();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    assert_eq!(unread(&arguments), (Some(0), String::new()));
    assert!(!again(&data).1.contains("reset-password"));
}

#[test]
fn a_run_that_is_killed_before_its_password_was_read_is_told_of_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("control");
    // Nobody empties the pipe, so that the run waits where it prints.
    let (reader, writer) = std::io::pipe().unwrap();
    let mut filler = writer.try_clone().unwrap();
    let filling = std::thread::spawn(move || filler.write_all(&vec![b'.'; 4 << 20]));
    let mut run = Command::new(env!("CARGO_BIN_EXE_towline")).args(init(&data)).stdout(writer).spawn().unwrap();
    let waits = |what: &str, until: &dyn Fn() -> bool| {
        let began = Instant::now();
        while !until() {
            assert!(began.elapsed() < Duration::from_secs(60), "{what}");
            // tidy: sleep, as whoever watches another process has to
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    waits("it began", &|| data.join("init.unfinished").is_file());
    waits("it comes to its end", &|| again(&data).1.contains("towline control reset-password"));
    assert!(run.try_wait().unwrap().is_none(), "it waits for a reader");
    run.kill().unwrap();
    run.wait().unwrap();
    drop(reader);
    assert!(filling.join().unwrap().is_err(), "the pipe was never full");
    let (code, said) = again(&data);
    assert!(code == Some(0) && said.contains("if the password was never shown, make another"), "{said}");
}
