//! One file of a node's state, and who has it.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::program::{Daemon, Outcome, towline};
use crate::server::status;

/// A daemon in user space that keeps its state in a file, and joins nobody.
fn daemon(home: &Path, state: &Path, socket: &Path) -> Command {
    let mut command = towline(home);
    command.args(["node", "--tun=userspace-networking", "--port=0"]);
    command.arg("--state").arg(state).arg("--socket").arg(socket);
    command
}

#[test]
fn a_state_is_one_daemons_until_that_has_ended_however_it_ends() {
    let home = tempfile::tempdir().unwrap();
    let (state, socket, other) =
        (home.path().join("kept/node.state"), home.path().join("a.sock"), home.path().join("b.sock"));
    let start = |socket: &Path| Daemon::start(daemon(home.path(), &state, socket), home.path().join("node.log"));
    let mut first = start(&socket);
    first.until("it answers", || status(home.path(), &socket));
    let kept = fs::read(&state).unwrap();

    let refused = Outcome::from(daemon(home.path(), &state, &other).output().unwrap());
    let says = format!("another daemon uses the state in {}: ", state.display());
    assert_eq!(refused.code, Some(1), "{}{}", refused.out, refused.err);
    assert!(
        refused.err.contains(&says) && refused.err.contains("give this one a --state of its own"),
        "{}",
        refused.err
    );
    assert!(!other.exists(), "it has a socket");
    assert_eq!(fs::read(&state).unwrap(), kept);
    assert!(first.is_alive() && status(home.path(), &socket).is_some());
    // One that has nothing of its own is told of all that it needs, not of the state only.
    let refused = Outcome::from(daemon(home.path(), &state, &socket).output().unwrap());
    assert_eq!(refused.code, Some(1), "{}{}", refused.out, refused.err);
    assert!(refused.err.contains("Towline's node runs already and answers at "), "{}", refused.err);

    // As the kernel ends it when memory is short: nothing is left that is in the way of the next.
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    let mut next = start(&other);
    next.until("it answers", || status(home.path(), &other));
    let key = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).unwrap()["_machinekey"].clone();
    assert!(key(&kept).is_string() && key(&fs::read(&state).unwrap()) == key(&kept), "it is another machine");
}
