//! What shells are given to complete commands with.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs the program, for what it prints.
fn towline(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_towline")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The names of all commands, as the help lists them.
fn commands() -> BTreeSet<String> {
    let help = towline(&["-h"]);
    let (_, list) = help.split_once("\nCommands:\n").unwrap();
    let (list, _) = list.split_once("\n\n").unwrap();
    // A description that goes on in the next line stands further to the right.
    let names = list.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let names: BTreeSet<String> = names.filter(|name| !name.is_empty()).map(str::to_owned).collect();
    for known in ["node", "up", "status", "policy", "completions"] {
        assert!(names.contains(known), "{known} is missing: {names:?}");
    }
    names
}

/// The script of a shell, in a file.
fn script(shell: &str, folder: &Path) -> PathBuf {
    let path = folder.join(shell);
    std::fs::write(&path, towline(&["completions", shell])).unwrap();
    path
}

/// Runs a shell, where this machine has it.
fn run(shell: &str, arguments: &[&str], script: &Path) -> Option<Output> {
    match Command::new(shell).args(arguments).arg(script).output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => panic!("{shell}: {error}"),
    }
}

#[test]
fn every_shell_is_told_all_commands_with_what_they_are_for() {
    let folder = tempfile::tempdir().unwrap();
    for (shell, entry) in [
        ("bash", "            towline,NAME)\n"),
        ("zsh", "\n'NAME:"),
        ("fish", "-n \"__fish_towline_needs_command\" -f -a \"NAME\" -d '"),
    ] {
        let script = std::fs::read_to_string(script(shell, folder.path())).unwrap();
        for name in commands() {
            assert!(script.contains(&entry.replace("NAME", &name)), "{shell} is not told of {name}");
        }
    }
}

#[test]
fn each_shell_that_is_here_reads_its_script() {
    let folder = tempfile::tempdir().unwrap();
    for (shell, only_read) in [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")] {
        let Some(read) = run(shell, &[only_read], &script(shell, folder.path())) else { continue };
        assert!(read.status.success() && read.stderr.is_empty(), "{shell}: {}", String::from_utf8_lossy(&read.stderr));
    }
}

#[test]
fn bash_completes_a_command_by_its_first_letters() {
    let folder = tempfile::tempdir().unwrap();
    let ask = "source \"$0\"; COMP_WORDS=(towline st); COMP_CWORD=1; _towline towline st towline; echo ${COMPREPLY[@]}";
    let completed = run("bash", &["--norc", "-c", ask], &script("bash", folder.path())).unwrap();
    let (said, wrong) = (String::from_utf8_lossy(&completed.stdout), String::from_utf8_lossy(&completed.stderr));
    let expected: Vec<String> = commands().into_iter().filter(|name| name.starts_with("st")).collect();
    assert!(!expected.is_empty() && completed.status.success() && wrong.is_empty(), "{expected:?}: {wrong}");
    let mut said: Vec<&str> = said.split_whitespace().collect();
    said.sort_unstable();
    assert_eq!(said, expected);
}
