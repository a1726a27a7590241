//! The coordination server and a relay in the cluster, by the manifests and the commands at their heads, as an administrator
//! has them who changes what is to be changed.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use lab::{LabBox, Output, Ready, Subject};
use serde_json::{Value, json};

use crate::operator::Habits;
use crate::{ADMIN, Checks, Marks, PATIENCE, Parts, Stage, eventually};

const CONTROL: &str = include_str!("../../../../deploy/manifests/control.yaml");
const RELAY: &str = include_str!("../../../../deploy/manifests/relay.yaml");
/// What the manifests say for the image, the server and the relay.
const IMAGE: &str = "registry.example.com/towline/towline:0.1.0";
const SERVER: &str = "control.example.com";
const RELAY_NAME: &str = "relay.example.com";
/// Where a device is commanded that runs beside the relay, and the administrator's password beside it.
const SOCKET: &str = "/run/member.sock";
const PASSWORD: &str = "/root/password";
/// What the home's load balancer gives the server.
const BALANCED: Ipv4Addr = Ipv4Addr::new(10, 69, 0, 8);
/// Where the administrator works, on the first machine of the cluster.
const FOLDER: &str = "/root/manifests";
/// The server's volume, on the second machine.
const VOLUME: &str = "/var/lib/towline-volume";
/// The folder of the relay on its machine.
const RELAY_STATE: &str = "/var/lib/towline-derp";
/// Where the administrator's login is kept on the machine that the device runs on.
const LOGIN: &str = "/root/.config/towline";

/// Why an operator can't be played with.
pub(super) fn excuse(habits: &Habits) -> Option<&'static str> {
    (!habits.ready_is_ready).then_some("the manifests start our programs, and are played with our operator")
}

/// Sets the server up and starts it, lets its pod go and come back, starts a relay that asks it whom to admit, and lets a
/// device in.
pub(super) fn play(stage: &Stage, checks: &mut Checks) {
    let Some(before) = checks.timed("the cluster has neither a server nor a relay", |_| whats_there(stage)) else {
        return;
    };
    let made = checks
        .timed("the manifest of the coordination server sets one up, and it is ready by its probes", |marks| {
            server(stage, marks)
        });
    if made.is_some() {
        checks.check("its pod comes back on the same volume as the same server", || same_server(stage));
        let title = "the manifest of the relay starts one that has the server's admission set";
        let made = checks.timed(title, |marks| relay(stage, marks));
        if made.is_some() {
            checks.check("a device joins that server, and is at home at that relay", || device(stage));
        }
    }
    checks.check("server and relay go with their namespaces, and the cluster is as it was", || {
        removed(stage)?;
        let now = whats_there(stage)?;
        ensure!(now == before, "there was {before}, and is {now}");
        Ok(())
    });
}

fn server(stage: &Stage, marks: &Marks) -> Result<()> {
    let [first, second] = stage.cluster.nodes();
    let (folder, authority) = (format!("{FOLDER}/"), stage.tailnet.world.public_authority()?);
    let credential = authority.issue(SERVER, &Subject::server(SERVER))?;
    first.write(&format!("{folder}control.crt"), credential.certificate, 0o644)?;
    first.write(&format!("{folder}control.key"), credential.key, 0o600)?;
    first.write(&format!("{folder}control.yaml"), CONTROL.replace(IMAGE, &image(stage)?), 0o644)?;
    second.run(["mkdir", "--parents", VOLUME])?;
    stage.cluster.apply(&volume().to_string())?;
    let commands = commands(CONTROL);
    let (before, _) = commands.split_at(commands.len() - 1);
    for command in before {
        by_hand(first, command)?;
    }
    stage.cluster.assign_load_balancer("towline", "control", BALANCED)?;
    stage.tailnet.world.add_name(SERVER, BALANCED)?;
    stage.cluster.wait("towline", "pod/control-0", "condition=Ready", 4 * PATIENCE)?;
    marks.reached("ready after");
    key(stage).map(drop)
}

fn same_server(stage: &Stage) -> Result<()> {
    let before = key(stage)?;
    stage.cluster.kubectl(["-n", "towline", "delete", "pod", "control-0"]).within(4 * PATIENCE).run()?;
    stage.cluster.wait("towline", "pod/control-0", "condition=Ready", 4 * PATIENCE)?;
    let init = stage.cluster.kubectl(["-n", "towline", "logs", "control-0", "--container=init"]).run()?.stdout;
    ensure!(init.contains("There is a server in /var/lib/towline/control already"), "{init}");
    let now = key(stage)?;
    ensure!(now == before, "its key was {before} and is {now}");
    Ok(())
}

fn relay(stage: &Stage, marks: &Marks) -> Result<()> {
    let [first, second] = stage.cluster.nodes();
    let authority = stage.tailnet.world.public_authority()?;
    let credential = authority.issue(RELAY_NAME, &Subject::server(RELAY_NAME))?;
    let token = commands(CONTROL).pop().context("the manifest does not say how a relay gets its token")?;
    by_hand(first, &token)?;
    first.write(&format!("{FOLDER}/relay.crt"), credential.certificate, 0o644)?;
    first.write(&format!("{FOLDER}/relay.key"), credential.key, 0o600)?;
    // The laboratory's authority is none that the public web believes.
    let option = "            - --ca-file=/etc/towline/ca/ca.crt\n";
    let mount = "            - {name: ca, mountPath: /etc/towline/ca, readOnly: true}\n";
    let source = "        - name: ca\n          configMap: {name: ca}\n";
    let manifest = RELAY.replace(IMAGE, &image(stage)?);
    let manifest = after(&manifest, "            - --admission-token-file=/etc/towline/token/token\n", option)?;
    let manifest = after(&manifest, "          volumeMounts:\n", mount)?;
    let manifest = after(&manifest, "      volumes:\n", source)?;
    first.write(&format!("{FOLDER}/relay.yaml"), manifest, 0o644)?;
    for command in commands(RELAY) {
        by_hand(first, &command.replace("NODE", second.name()))?;
        if command.contains("create namespace") {
            let data = json!({"ca.crt": authority.certificate()});
            let metadata = json!({"name": "ca", "namespace": "towline-relay"});
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data});
            stage.cluster.apply(&map.to_string())?;
        }
    }
    let status = ["rollout", "status", "daemonset/relay", "--timeout=120s"];
    stage.cluster.kubectl(["-n", "towline-relay"].into_iter().chain(status)).within(5 * PATIENCE).run()?;
    marks.reached("ready after");
    stage.tailnet.world.add_name(RELAY_NAME, second.address())?;
    let probe = format!("https://{RELAY_NAME}/derp/probe");
    second.run(["curl", "-fsS", "--max-time", "10", "--output", "/dev/null", &probe])?;
    ensure!(second.has(&format!("{RELAY_STATE}/admission.json")), "it keeps no admission set");
    Ok(())
}

fn device(stage: &Stage) -> Result<()> {
    let [_, second] = stage.cluster.nodes();
    let told = "go-template={{.data.password | base64decode}}";
    let secret = ["-n", "towline", "get", "secret", "control-admin", "--output", told];
    let password = stage.cluster.kubectl(secret).run()?.stdout;
    second.write(PASSWORD, password, 0o600)?;
    let server = format!("https://{SERVER}");
    second.run(["towline", "admin", "login", "--server", &server, "--user", ADMIN, "--password-file", PASSWORD])?;
    let key = second.run(["towline", "-o", "json", "keys", "create"])?.stdout;
    let key: Value = serde_json::from_str(&key).with_context(|| format!("reading {key:?}"))?;
    let key = key["key"].as_str().context("no key was made")?;

    let node = ["towline", "node", "--socket", SOCKET, "--state=mem:", "--port=0", "--tun=userspace-networking"];
    let daemon = second.daemon("member", node).ready(Ready::File(SOCKET.to_owned())).start()?;
    let joined = joins(second, &server, key);
    daemon.stop()?;
    joined
}

fn joins(lab_box: &LabBox, server: &str, key: &str) -> Result<()> {
    let command = |words: &[&str]| {
        lab_box.command(["towline", "--socket", SOCKET].iter().chain(words).copied()).within(2 * PATIENCE)
    };
    command(&["up", "--login-server", server, "--auth-key", key, "--hostname=member"]).run()?;
    // As the map in the server's manifest calls the relay's region.
    eventually("the device's home at the relay", 2 * PATIENCE, || {
        let status: Value = serde_json::from_str(&command(&["status", "--json"]).run()?.stdout)?;
        ensure!(status["BackendState"] == "Running" && status["Self"]["Relay"] == "home", "{status}");
        ensure!(status["Health"].as_array().is_none_or(Vec::is_empty), "{}", status["Health"]);
        Ok(())
    })
}

fn removed(stage: &Stage) -> Result<()> {
    let [first, second] = stage.cluster.nodes();
    let delete = ["delete", "--ignore-not-found", "namespace/towline", "namespace/towline-relay"];
    stage.cluster.kubectl(delete.into_iter().chain(["persistentvolume/control"])).within(4 * PATIENCE).run()?;
    stage.cluster.kubectl(["label", "node", second.name(), "towline.dev/relay-"]).run()?;
    first.run(["rm", "-rf", FOLDER])?;
    second.run(["rm", "-rf", VOLUME, RELAY_STATE, PASSWORD, LOGIN])?;
    Ok(())
}

/// Namespaces and volumes of the cluster, and the labels of its machines.
fn whats_there(stage: &Stage) -> Result<String> {
    let kinds = "namespaces,persistentvolumes,nodes";
    let told = "custom-columns=KIND:.kind,NAME:.metadata.name,LABELS:.metadata.labels";
    Ok(stage.cluster.kubectl(["get", kinds, "--no-headers", "--output", told]).run()?.stdout)
}

/// Our image, as the cluster's registry has it.
fn image(stage: &Stage) -> Result<String> {
    let (pushed, digest) = stage.tailnet.world.push_packed(&Parts::of_the_test()?.image)?;
    Ok(format!("{}@{digest}", pushed.repository))
}

/// The commands at a manifest's head, each a line.
fn commands(manifest: &str) -> Vec<String> {
    let head = manifest.lines().take_while(|line| line.starts_with('#'));
    head.filter_map(|line| line.strip_prefix("#   ")).map(str::to_owned).collect()
}

/// Runs a command as it stands there.
fn by_hand(lab_box: &LabBox, command: &str) -> Result<Output> {
    let shell = lab_box.command(["bash", "-c", command]).directory(FOLDER).within(4 * PATIENCE);
    shell.run().with_context(|| command.to_owned())
}

/// A text with something put after the one place where `place` stands.
fn after(text: &str, place: &str, added: &str) -> Result<String> {
    ensure!(text.matches(place).count() == 1, "the manifest does not have {place:?} once");
    Ok(text.replace(place, &format!("{place}{added}")))
}

/// A volume on the second machine, whose rights kubelet sets as those of any other.
fn volume() -> Value {
    let node = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": ["node2"]});
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "control"},
        "spec": {
            "capacity": {"storage": "5Gi"},
            "accessModes": ["ReadWriteOncePod"],
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"namespace": "towline", "name": "data-control-0"},
            "local": {"path": VOLUME},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [node]}]}},
        },
    })
}

/// The server's key, which it gives to whoever asks under its public name.
fn key(stage: &Stage) -> Result<String> {
    let [_, second] = stage.cluster.nodes();
    let url = format!("https://{SERVER}/key?v=109");
    // The machines hear a little later than the probe that there is somebody.
    eventually("the server under its name", PATIENCE, || {
        Ok(second.run(["curl", "-fsS", "--max-time", "10", &url])?.stdout)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heads_of_the_manifests_say_what_to_do_in_this_order() {
        let told = |manifest: &str| -> Vec<String> {
            commands(manifest).iter().map(|line| line.split(" -").next().unwrap_or_default().to_owned()).collect()
        };
        assert_eq!(told(CONTROL)[0], "kubectl create namespace towline");
        assert!(commands(CONTROL).last().is_some_and(|last| last.ends_with("control relay-token > relay-token")));
        assert_eq!(told(RELAY).last().map(String::as_str), Some("kubectl apply"));
    }
}
