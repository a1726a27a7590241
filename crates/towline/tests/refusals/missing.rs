//! Servers and secrets that are not there at the start: each role says what it misses, waits with growing pauses, and ends by
//! no error of its own, so that nothing restarts it in a loop.

use std::fs;
use std::path::Path;

use loopback::free_port;

use crate::pod::Pod;
use crate::program::{Daemon, fetch, run, towline};
use crate::server::{node, status};

/// Nobody listens at the discard port.
const NOBODY: &str = "https://127.0.0.1:9";

/// An operator in no cluster, with or without the OAuth client's files, and the port of its probes.
pub(crate) fn operator(home: &Path, control: &str, credential: bool) -> (Daemon, u16) {
    let kubeconfig = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    fs::write(home.join("kubeconfig"), kubeconfig.to_string()).unwrap();
    if credential {
        give_credential(home);
    }
    let port = free_port().unwrap();
    let mut command = towline(home);
    command.args(["operator", "--proxy-image=towline:test", "--login-server", control]);
    command.args(["--admin-listen", &format!("127.0.0.1:{port}")]);
    command.arg("--kubeconfig").arg(home.join("kubeconfig"));
    command
        .arg("--client-id-file")
        .arg(home.join("client_id"))
        .arg("--client-secret-file")
        .arg(home.join("client_secret"));
    (Daemon::start(command, home.join("operator.log")), port)
}

/// The API server's proxy in a pod, with or without the OAuth client's files, and the port of its probes.
pub(crate) fn apiserver_proxy(home: &Path, pod: &Pod, control: &str, credential: bool) -> (Daemon, u16) {
    if credential {
        give_credential(home);
    }
    let port = free_port().unwrap();
    let mut command = pod.command(&["apiserver-proxy", "--login-server", control]);
    command.args(["--admin-listen", &format!("127.0.0.1:{port}")]);
    command
        .arg("--client-id-file")
        .arg(home.join("client_id"))
        .arg("--client-secret-file")
        .arg(home.join("client_secret"));
    (Daemon::start(command, home.join("apiserver-proxy.log")), port)
}

fn give_credential(home: &Path) {
    fs::write(home.join("client_id"), "kx\n").unwrap();
    fs::write(home.join("client_secret"), "tskey-client-kx-y\n").unwrap();
}

/// Waits until the readiness probe says something, and answers all that it says.
pub(crate) fn unready(daemon: &mut Daemon, port: u16, part: &str) -> String {
    daemon.until(&format!("the probe says {part:?}"), || {
        let said = fetch(port, "/readyz")?;
        (said.starts_with("HTTP/1.1 503 ") && said.contains(part)).then_some(said)
    })
}

#[test]
fn an_operator_without_secret_api_server_and_control_says_each_and_stays() {
    let home = tempfile::tempdir().unwrap();
    let (mut daemon, port) = operator(home.path(), NOBODY, false);
    let said = unready(&mut daemon, port, "the OAuth client's credential");
    assert!(
        said.contains("client_id can't be read")
            && said.contains("is the Secret operator-oauth there, with client_id and client_secret?"),
        "{said}"
    );
    daemon.until_says("the lease could not be looked at");
    // The Secret comes while it runs: now the server is what is missing.
    give_credential(home.path());
    let said = unready(&mut daemon, port, "can't be reached");
    assert!(said.contains(NOBODY), "{said}");
    assert!(fetch(port, "/healthz").unwrap().starts_with("HTTP/1.1 200 "), "it is alive, so nothing restarts it");
    // Every look is a line of the log; a loop without pauses would have written thousands.
    let tries = daemon.log().matches("the lease could not be looked at").count();
    assert!(tries < 60, "{tries} looks at the lease");
}

#[test]
fn an_api_servers_proxy_without_api_server_secret_and_control_says_each_and_stays() {
    let home = tempfile::tempdir().unwrap();
    let pod = Pod::new(home.path(), NOBODY, None);
    let (mut daemon, port) = apiserver_proxy(home.path(), &pod, NOBODY, false);
    unready(&mut daemon, port, "state Secret: the API server does not answer");
    unready(&mut daemon, port, &format!("api-server: the API server {} can't be reached", pod.api_server()));
    // It comes while the proxy runs: now the Secret with the credential is what is missing.
    pod.start_api_server();
    let said = unready(&mut daemon, port, "the OAuth client's credential");
    for named in ["client_id can't be read", "operator-oauth", "its own namespace, door"] {
        assert!(said.contains(named), "{named}: {said}");
    }
    assert!(!said.contains("state Secret:"), "{said}");
    // That comes too: now the coordination server is what is missing.
    give_credential(home.path());
    unready(&mut daemon, port, &format!("{NOBODY} can't be reached"));
    assert!(fetch(port, "/healthz").unwrap().starts_with("HTTP/1.1 200 "), "it is alive, so nothing restarts it");
    // Every try for a key is a line of the log; a loop without pauses would have written thousands.
    let tries = daemon.log().matches("there is no auth key; it is asked for again").count();
    assert!((2..60).contains(&tries), "{tries} tries for a key:\n{}", daemon.log());
}

#[test]
fn an_api_servers_proxy_outside_of_a_pod_names_what_it_runs_in() {
    let home = tempfile::tempdir().unwrap();
    let outcome = run(home.path(), ["apiserver-proxy", "--login-server", NOBODY]);
    assert_eq!(outcome.code, Some(2), "a pod without its variables is a mistake of who made it: {}", outcome.err);
    assert!(outcome.err.contains("POD_UID"), "{}", outcome.err);
}

#[test]
fn an_operator_that_can_not_be_right_ends_and_names_the_setting() {
    let home = tempfile::tempdir().unwrap();
    for (arguments, says) in [
        (&["operator"][..], "no coordination server: set OPERATOR_LOGIN_SERVER (chart value loginServer)"),
        (&["operator", "--login-server", NOBODY], "no image for proxies: set PROXY_IMAGE"),
        (
            &["operator", "--login-server", NOBODY, "--proxy-image", "i"],
            "no credential: set CLIENT_ID_FILE and CLIENT_SECRET_FILE to the files of the Secret operator-oauth",
        ),
        (
            &[
                "operator",
                "--login-server",
                NOBODY,
                "--proxy-image",
                "i",
                "--client-id-file=a",
                "--client-secret-file=b",
            ],
            "the pod has no account: this runs in a pod, or with OPERATOR_KUBECONFIG",
        ),
    ] {
        let outcome = run(home.path(), arguments);
        assert_eq!(outcome.code, Some(1), "{}", outcome.err);
        assert!(outcome.err.contains(says), "{}", outcome.err);
    }
    fs::write(home.path().join("kubeconfig"), "hello: [").unwrap();
    let kubeconfig = home.path().join("kubeconfig");
    let kubeconfig = kubeconfig.to_str().unwrap();
    let arguments = [
        "operator",
        "--login-server",
        NOBODY,
        "--proxy-image=i",
        "--client-id-file=a",
        "--client-secret-file=b",
        "--kubeconfig",
        kubeconfig,
    ];
    let outcome = run(home.path(), arguments);
    assert_eq!(outcome.code, Some(1), "{}", outcome.err);
    assert!(outcome.err.contains(&format!("the kubeconfig {kubeconfig}")), "{}", outcome.err);
}

#[test]
fn a_node_without_its_server_says_so_and_stays() {
    let home = tempfile::tempdir().unwrap();
    let (mut daemon, socket) = node(home.path(), NOBODY, "laptop", None);
    let health = daemon.until("the status tells why", || {
        let health = status(home.path(), &socket)?["Health"].to_string();
        health.contains("can't be reached").then_some(health)
    });
    assert!(health.contains(NOBODY), "{health}");
    assert!(daemon.is_alive());
}

#[test]
fn a_proxy_outside_of_a_cluster_names_what_it_runs_in() {
    let home = tempfile::tempdir().unwrap();
    let outcome = run(home.path(), ["proxy"]);
    assert_eq!(outcome.code, Some(2), "a pod without its variables is a mistake of who made it: {}", outcome.err);
    assert!(outcome.err.contains("TS_KUBE_SECRET") || outcome.err.contains("POD_NAME"), "{}", outcome.err);
}

#[test]
fn a_control_server_that_was_never_set_up_says_how_to() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    fs::create_dir(&data).unwrap();
    let data = data.to_str().unwrap();
    let outcome = run(home.path(), ["control", "--data", data]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.err.contains(data), "{}", outcome.err);
    assert!(outcome.err.contains("towline control init"), "{}", outcome.err);
}
