//! Rows 4, 5 and 6: kubectl through the API server's proxy, as the administrator and as the member.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Command, Output};

use crate::operator::{Habits, NODE};
use crate::stage::POLICY;
use crate::{ADMIN, Checks, MEMBER, Marks, PATIENCE, Stage, TAILNET_DOMAIN, WEB_PAGE, eventually};

const BINDING: &str = include_str!("../../../../examples/readers-cluster-role-binding.yaml");
/// The certificates that programs of a box trust.
const STORE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// A pod that says what it hears.
const PARROT: &str = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "parrot", "namespace": "home"},
    "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
        "name": "parrot", "image": "docker.io/towline/userland:1", "stdin": true,
        "command": ["bash", "-c", "echo parrot listens; while read -r line; do echo \"parrot says $line\"; done"]}]}}"#;

/// How kubectl keeps a session open in both directions.
struct Way {
    name: &'static str,
    /// What its environment says about WebSockets.
    web_sockets: &'static str,
}

const WAYS: [Way; 2] = [Way { name: "WebSocket", web_sockets: "true" }, Way { name: "SPDY", web_sockets: "false" }];

/// Why an operator can't be played with.
pub(super) fn excuse(habits: &Habits) -> Option<&'static str> {
    let why = "it is our operator's proxy that shows a certificate of the tailnet's own: it needs --operator towline";
    (!habits.proxies_the_api_server).then_some(why)
}

/// Uses the cluster from the laptop by nothing but the tailnet.
pub(super) fn play(stage: &Stage, checks: &mut Checks) {
    checks.timed("row 4: kubectl gets a context that verifies TLS", |marks| {
        configure(stage)?;
        marks.reached("configured after");
        ensure!(say(stage, &["config", "current-context"])?.trim() == full_name(), "another context");
        eventually("the API server", PATIENCE, || say(stage, &["get", "--raw", "/readyz"]).map(drop))
    });
    checks.check("row 5: the admin may do everything, and gets, creates and deletes", || everything(stage));
    checks.check("row 5: a watch shows what happens, as it happens", || watch(stage));
    checks.check("row 5: logs are followed while others attach", || parrot(stage));
    for way in &WAYS {
        checks.check(&format!("row 5: exec with a terminal, by {}", way.name), || terminal(stage, way));
        checks.check(&format!("row 5: cp there and back, by {}", way.name), || copies(stage, way));
        checks.check(&format!("row 5: port-forward, by {}", way.name), || forwards(stage, way));
    }
    checks.check("row 6: the member reads, and RBAC refuses the rest by name", || reads(stage));
    checks
        .check("row 6: the cluster knows the member and the groups, and nobody acts as somebody else", || known(stage));
    checks.timed("row 6: a stream ends when the grant goes", |marks| loses_the_grant(stage, marks));
    checks.check("row 6: the laptop is the administrator's again", || become_user(stage, ADMIN));
}

fn everything(stage: &Stage) -> Result<()> {
    ensure!(say(stage, &["auth", "can-i", "*", "*"])?.trim() == "yes", "the admin may not do everything");
    ensure!(say(stage, &["-n", "home", "get", "pods"])?.contains("web"), "the pods are not shown");
    say(stage, &["-n", "home", "create", "configmap", "parcel", "--from-literal=content=stamps"])?;
    let content = ["-n", "home", "get", "configmap", "parcel", "-o", "jsonpath={.data.content}"];
    ensure!(say(stage, &content)? == "stamps", "the ConfigMap does not hold what was put there");
    say(stage, &["-n", "home", "delete", "configmap", "parcel"]).map(drop)
}

fn watch(stage: &Stage) -> Result<()> {
    let mut watch = kubectl(stage, &["-n", "home", "get", "configmaps", "--watch"]).spawn()?;
    watch.wait_for("kube-root-ca.crt", PATIENCE)?;
    say(stage, &["-n", "home", "create", "configmap", "news"])?;
    watch.wait_for("news", PATIENCE)?;
    say(stage, &["-n", "home", "delete", "configmap", "news"]).map(drop)
}

/// The laptop becomes the member's, and stays so.
fn reads(stage: &Stage) -> Result<()> {
    let applied = kubectl(stage, &["apply", "-f", "-"]).input(BINDING).run()?.stdout;
    ensure!(applied.contains("tailnet-readers-view"), "{applied}");
    become_user(stage, MEMBER)?;
    eventually("the member's pods", 2 * PATIENCE, || {
        ensure!(say(stage, &["-n", "home", "get", "pods"])?.contains("web"), "the pods are not shown");
        Ok(())
    })?;
    refused(stage, &["-n", "home", "create", "configmap", "parcel"], &["forbidden", MEMBER, "cannot create"])?;
    refused(stage, &["-n", "home", "delete", "pod", "web"], &["forbidden", MEMBER, "cannot delete"])?;
    refused(stage, &["get", "secrets", "-A"], &["forbidden", MEMBER, "cannot list"])
}

fn known(stage: &Stage) -> Result<()> {
    let known = say(stage, &["auth", "whoami"])?;
    for name in [MEMBER, "tailnet-readers", "system:authenticated"] {
        ensure!(known.contains(name), "{name} is missing:\n{known}");
    }
    ensure!(!known.contains("system:masters"), "{known}");
    let words = ["towline", "--as"];
    refused(stage, &["get", "pods", "--as", "system:admin"], &words)?;
    refused(stage, &["get", "pods", "--as", ADMIN, "--as-group", "system:masters"], &words)
}

fn loses_the_grant(stage: &Stage, marks: &Marks) -> Result<()> {
    let mut watch = kubectl(stage, &["-n", "home", "get", "pods", "--watch"]).spawn()?;
    watch.wait_for("web", PATIENCE)?;
    stage.tailnet.installation.set_policy(&POLICY.replace("\"tailnet-readers\"", "\"nobody-here\""))?;
    marks.reached("taken after");
    let outcome = watch.finish(PATIENCE).map(drop).context("the watch went on");
    marks.reached("ended after");
    let then = refused(stage, &["-n", "home", "get", "pods"], &["towline"]);
    stage.tailnet.installation.set_policy(POLICY)?;
    outcome.and(then)?;
    eventually("the member's pods again", PATIENCE, || say(stage, &["-n", "home", "get", "pods"]).map(drop))
}

fn full_name() -> String {
    format!("{NODE}.{TAILNET_DOMAIN}")
}

/// Configures kubectl by the laptop's own command.
fn configure(stage: &Stage) -> Result<()> {
    let laptop = stage.tailnet.laptop.lab_box();
    stage.tailnet.laptop.sees(NODE, 2 * PATIENCE)?;
    let before = laptop.read(STORE)?;
    let configure = || stage.tailnet.laptop.cli(["configure", "kubeconfig", &full_name()]).run();
    if stage.tailnet.laptop.has_our_commands() {
        // It looks whether the proxy answers, and whose certificate it shows; the proxy gets that with its first connection.
        let said = eventually("the context for kubectl", PATIENCE, || Ok(configure()?))?;
        let elsewhere = stage.tailnet.laptop.cli(["configure", "kubeconfig", "http://robbinsdale"]).finish()?;
        ensure!(!elsewhere.ended.is_success() && elsewhere.stderr.contains("no API server"), "{}", elsewhere.stderr);
        ensure!(laptop.read(STORE)? == before, "the system's certificates are others than before: {}", said.stdout);
        let carried = say(stage, &["config", "view", "--raw", "-o", "jsonpath={.clusters[*].cluster}"])?;
        ensure!(carried.contains("certificate-authority-data"), "{carried}");
        return Ok(());
    }
    configure()?;
    let words = ["certificate signed by unknown authority"];
    eventually("kubectl's doubts", PATIENCE, || refused(stage, &["get", "namespaces"], &words))?;
    laptop.run(["towline", "trust", "install", "--yes"])?;
    ensure!(laptop.read(STORE)? != before, "the system's certificates are those of before");
    Ok(())
}

/// Logs in as somebody else, and waits until the laptop sees the cluster.
fn become_user(stage: &Stage, user: &str) -> Result<()> {
    stage.tailnet.laptop.cli(["logout"]).run()?;
    stage.tailnet.laptop.log_in(user, &lab::CAFE_ROUTER.to_string())?;
    stage.tailnet.laptop.sees(NODE, 2 * PATIENCE).map(drop)
}

/// Begins a kubectl command on the laptop.
fn kubectl<'a>(stage: &'a Stage, arguments: &[&str]) -> Command<'a> {
    stage.tailnet.laptop.lab_box().command(std::iter::once("kubectl").chain(arguments.iter().copied())).within(PATIENCE)
}

fn by<'a>(command: Command<'a>, way: &Way) -> Command<'a> {
    let names = ["KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "KUBECTL_PORT_FORWARD_WEBSOCKETS"];
    names.into_iter().fold(command, |command, name| command.env(name, way.web_sockets))
}

fn say(stage: &Stage, arguments: &[&str]) -> Result<String> {
    Ok(kubectl(stage, arguments).run()?.stdout)
}

/// Runs a command that must fail, with these words.
fn refused(stage: &Stage, arguments: &[&str], words: &[&str]) -> Result<()> {
    let Output { ended, stdout, stderr } = kubectl(stage, arguments).finish()?;
    ensure!(!ended.is_success(), "kubectl {arguments:?} is not refused: {stdout}");
    for word in words {
        ensure!(stderr.contains(word), "{word:?} is missing: {stderr}");
    }
    Ok(())
}

/// One kubectl follows a pod's log while others speak to it, each by another way.
fn parrot(stage: &Stage) -> Result<()> {
    kubectl(stage, &["apply", "-f", "-"]).input(PARROT).run()?;
    let ready = ["-n", "home", "wait", "pod/parrot", "--for=condition=Ready", "--timeout=60s"];
    kubectl(stage, &ready).within(3 * PATIENCE).run()?;
    let mut log = kubectl(stage, &["-n", "home", "logs", "-f", "parrot"]).spawn()?;
    log.wait_for("parrot listens", PATIENCE)?;
    for way in &WAYS {
        let attach = kubectl(stage, &["-n", "home", "attach", "-i", "parrot"]).with_more_input();
        let mut attached = by(attach, way).spawn()?;
        attached.say(format!("hello by {}\n", way.name), PATIENCE)?;
        let heard = format!("parrot says hello by {}", way.name);
        attached.wait_for(&heard, PATIENCE)?;
        log.wait_for(&heard, PATIENCE)?;
    }
    say(stage, &["-n", "home", "delete", "pod", "parrot", "--wait=false"]).map(drop)
}

/// A shell with a terminal: what is typed is heard, and the size of the window is known.
fn terminal(stage: &Stage, way: &Way) -> Result<()> {
    let inside = "tty; while read -r word; do [ $word = enough ] && exit 7; stty size; echo heard $word; done";
    let line = format!("stty cols 91 rows 37; kubectl -n home exec -it shell -- bash -c '{inside}'");
    let command = ["script", "--quiet", "--return", "--command", &line, "/dev/null"];
    let command = stage.tailnet.laptop.lab_box().command(command).with_more_input();
    let mut session = by(command, way).spawn()?;
    session.wait_for("/dev/pts/", PATIENCE)?;
    session.say("swallow\n", PATIENCE)?;
    session.wait_for("heard swallow", PATIENCE)?;
    // The size follows the session's begin by a message of its own, whenever it comes.
    eventually("the window's size in the pod", PATIENCE, || {
        session.say("again\n", PATIENCE)?;
        Ok(session.wait_for("37 91", Duration::from_secs(1))?)
    })?;
    session.say("enough\n", PATIENCE)?;
    let ended = session.finish(PATIENCE)?.ended;
    ensure!(ended.to_string().contains('7'), "the shell's own exit status is lost: {ended}");
    Ok(())
}

/// A file of some megabytes goes into a pod and comes back as it was.
fn copies(stage: &Stage, way: &Way) -> Result<()> {
    let laptop = stage.tailnet.laptop.lab_box();
    laptop.shell("head -c 3000000 /dev/urandom > /root/there; rm -f /root/back")?;
    let copy = |from: &str, to: &str| by(kubectl(stage, &["cp", from, to]), way).within(2 * PATIENCE).run();
    copy("/root/there", "home/shell:/tmp/there")?;
    copy("home/shell:/tmp/there", "/root/back")?;
    laptop.run(["cmp", "/root/there", "/root/back"])?;
    Ok(())
}

/// A port of a pod becomes one of the laptop, for one connection after another.
fn forwards(stage: &Stage, way: &Way) -> Result<()> {
    let mut forward = by(kubectl(stage, &["-n", "home", "port-forward", "pod/web", "8080:80"]), way).spawn()?;
    forward.wait_for("Forwarding from 127.0.0.1:8080", PATIENCE)?;
    for _ in 0..3 {
        stage.tailnet.laptop.gets("http://127.0.0.1:8080/", WEB_PAGE, Duration::from_secs(10))?;
    }
    Ok(())
}
