//! Whoever reads what a task prints may have enough before its end.

use std::process::{Command, Stdio};

#[test]
fn a_task_whose_reader_has_gone_does_its_work_and_complains_of_nothing() {
    for arguments in [["test", "--list"], ["bench", "--list"], ["up", "--help"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let task = Command::new(env!("CARGO_BIN_EXE_xtask")).args(arguments).stdout(writer).output().unwrap();
        let said = String::from_utf8_lossy(&task.stderr);
        assert!(task.status.success() && said.is_empty(), "{arguments:?} ended with {}: {said}", task.status);
    }
}

#[test]
fn an_error_that_nobody_reads_still_fails_the_task() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut task = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let status = task.args(["test", "no-such-stage"]).stdout(Stdio::null()).stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(1));
}
