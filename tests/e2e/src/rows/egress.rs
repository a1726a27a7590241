//! Rows 7 and 8: a Service that leads pods to a device of the tailnet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::restricted;
use crate::conversation::call;
use crate::operator::NAMESPACE;
use crate::stage::ONE_CONNECTION;
use crate::{Checks, Conversation, PATIENCE, Stage, TAILNET_DOMAIN, eventually};

const MANIFEST: &str = include_str!("../../../../examples/egress-service.yaml");
pub(super) const SERVICE: &str = "service/tailscale-robbinsdale";
/// The device that the proxy becomes: namespace and name of the Service.
pub(super) const DEVICE: &str = "home-tailscale-robbinsdale";
/// What pods call robbinsdale.
const NAME: &str = "tailscale-robbinsdale.home";
/// The name of a Service that names ports of robbinsdale.
const BY_PORT: &str = "by-port";

/// Applies the article's Service, looks at what comes of it, and uses it from a pod.
pub(super) fn play(stage: &Stage, checks: &mut Checks) {
    checks.timed("row 7: the egress Service gets a proxy, which is a device, and says when it works", |marks| {
        stage.cluster.apply(MANIFEST)?;
        stage.cluster.wait("home", SERVICE, "condition=TailscaleProxyReady", 4 * PATIENCE)?;
        marks.reached("condition after");
        answers_as_promised(stage, NAME)?;
        marks.reached("first page after");
        objects(stage)?;
        let peer = stage.tailnet.laptop.sees(DEVICE, PATIENCE)?;
        ensure!(peer["Tags"] == serde_json::json!(["tag:k8s"]), "{peer}");
        Ok(())
    });
    checks.check("row 7: the proxy's Secret holds what operators read: device, pod and what its client can do", || {
        tells_of_itself(stage)
    });
    checks.check("row 8: a pod reaches robbinsdale's web server", || answers(stage, PATIENCE));
    checks.check("row 7: a Service by robbinsdale's address leads there too", || by_address(stage));
    checks.check("row 8: a pod pings robbinsdale", || {
        let said = in_shell(stage, &format!("ping -c 2 -W 3 {NAME}"))?;
        ensure!(said.contains(" 2 received"), "{said}");
        Ok(())
    });
    checks.check("row 8: a pod logs in to robbinsdale by ssh", || {
        let key = stage.tailnet.world.ssh_key()?.private;
        let write = "umask 077; cat > /tmp/key";
        stage.cluster.kubectl(["-n", "home", "exec", "-i", "shell", "--", "bash", "-c", write]).input(key).run()?;
        let options = "-i /tmp/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=5";
        let said = in_shell(stage, &format!("ssh {options} root@{NAME} hostname"))?;
        ensure!(said.trim() == "robbinsdale", "{said}");
        Ok(())
    });
    if stage.operator.habits.forwards_in_user_space {
        checks.check(
            "row 8: a pod reaches the ports that a Service names, by TCP and UDP, through a restricted pod",
            || by_port(stage),
        );
    }
}

/// Robbinsdale's web server answers a pod.
pub(super) fn answers(stage: &Stage, limit: Duration) -> Result<()> {
    answers_as(stage, NAME, limit)
}

fn answers_as(stage: &Stage, name: &str, limit: Duration) -> Result<()> {
    let what = format!("robbinsdale's page from {name} in a pod");
    eventually(&what, limit, || gets(stage, name, Duration::from_secs(3)))
}

/// Robbinsdale answers a pod right after a condition has said so: at the first try, where conditions mean what they say.
fn answers_as_promised(stage: &Stage, name: &str) -> Result<()> {
    match stage.operator.habits.ready_is_ready {
        true => gets(stage, name, ONE_CONNECTION).context("the condition says that traffic flows"),
        false => answers_as(stage, name, stage.grace()),
    }
}

/// A pod gets robbinsdale's page in one try.
fn gets(stage: &Stage, name: &str, limit: Duration) -> Result<()> {
    let page = in_shell(stage, &format!("curl -sS --max-time {} http://{name}/", limit.as_secs()))?;
    ensure!(page.contains("robbinsdale: hello"), "{page:?}");
    Ok(())
}

/// A connection from a pod to robbinsdale that stays open.
pub(super) fn conversation(stage: &Stage) -> Result<Conversation> {
    let exec = ["-n", "home", "exec", "-i", "shell", "--"].map(str::to_owned);
    let caller = stage.cluster.kubectl(exec.into_iter().chain(call(NAME)));
    Conversation::with(&stage.tailnet.robbinsdale, caller).context("from a pod to robbinsdale")
}

/// A Service that names robbinsdale by its address does the same, and goes with its device.
fn by_address(stage: &Stage) -> Result<()> {
    let peer = stage.tailnet.laptop.peer("robbinsdale")?.context("the laptop does not see robbinsdale")?;
    let annotations = serde_json::json!({"tailscale.com/tailnet-ip": peer["TailscaleIPs"][0]});
    let service = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "by-address", "namespace": "home", "annotations": annotations},
        "spec": {"type": "ExternalName", "externalName": "placeholder"},
    });
    stage.cluster.apply(&service.to_string())?;
    stage.cluster.wait("home", "service/by-address", "condition=TailscaleProxyReady", 4 * PATIENCE)?;
    answers_as_promised(stage, "by-address.home")?;
    stage.cluster.kubectl(["--namespace", "home", "delete", "service/by-address"]).run()?;
    stage.tailnet.laptop.misses("home-by-address", 2 * PATIENCE)
}

/// A Service that names ports gets a proxy that any namespace takes. It leads to these ports, and to no others.
fn by_port(stage: &Stage) -> Result<()> {
    let robbinsdale = stage.tailnet.robbinsdale.lab_box();
    let echo = robbinsdale.daemon("echo", ["socat", "UDP4-RECVFROM:7,fork", "EXEC:cat"]).start()?;
    let name = format!("{BY_PORT}.home");
    let service = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": BY_PORT, "namespace": "home",
            "annotations": {"tailscale.com/tailnet-fqdn": format!("robbinsdale.{TAILNET_DOMAIN}")},
        },
        "spec": {
            "type": "ExternalName", "externalName": "placeholder",
            "ports": [{"name": "http", "port": 80}, {"name": "echo", "port": 7, "protocol": "UDP"}],
        },
    });
    stage.cluster.apply(&service.to_string())?;
    stage.cluster.wait("home", &format!("service/{BY_PORT}"), "condition=TailscaleProxyReady", 4 * PATIENCE)?;
    answers_as_promised(stage, &name)?;
    eventually("robbinsdale's echo of a pod's datagrams", PATIENCE, || {
        let said = in_shell(stage, &format!("printf 'is it you' | socat -t2 - UDP4:{name}:7"))?;
        ensure!(said == "is it you", "it sends back {said:?}");
        Ok(())
    })?;
    let other = in_shell(stage, &format!("curl -sS --max-time 5 telnet://{name}:22 < /dev/null || echo ended by $?"))?;
    ensure!(other.trim() == "ended by 7", "a port that the Service does not name is not refused: {other}");
    restricted::takes(stage, &restricted::pod_of(stage, BY_PORT)?)?;
    // What forwards every port needs rights, and is what the namespace would say no to.
    restricted::refuses(stage, &restricted::pod_of(stage, "tailscale-robbinsdale")?)?;
    stage.cluster.kubectl(["--namespace", "home", "delete", "service", BY_PORT]).run()?;
    echo.stop()?;
    stage.tailnet.laptop.misses(&format!("home-{BY_PORT}"), 2 * PATIENCE)
}

/// The keys of the state Secret that every operator reads, our own and the stock one.
fn tells_of_itself(stage: &Stage) -> Result<()> {
    let pod = restricted::pod_of(stage, "tailscale-robbinsdale")?;
    let name = pod["metadata"]["name"].as_str().context("it has no name")?;
    let lines = r#"go-template={{range $key, $value := .data}}{{$key}}={{$value | base64decode}}{{"\n"}}{{end}}"#;
    let said = stage.cluster.kubectl(["-n", NAMESPACE, "get", "secret", name, "--output", lines]).run()?.stdout;
    let state: BTreeMap<&str, &str> = said.lines().filter_map(|line| line.split_once('=')).collect();
    let told = |key: &str| state.get(key).copied().with_context(|| format!("no {key} among {:?}", state.keys()));
    let device = stage.tailnet.installation.device(DEVICE)?.context("the server lists no such device")?;
    ensure!(device["nodeId"] == told("device_id")?, "{} of {device}", told("device_id")?);
    // A name with the dot at its end is the same.
    ensure!(device["name"] == told("device_fqdn")?.trim_end_matches('.'), "{} of {device}", told("device_fqdn")?);
    let addresses: BTreeSet<String> = serde_json::from_str(told("device_ips")?).context("its addresses")?;
    let known = device["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str);
    ensure!(known.map(str::to_owned).collect::<BTreeSet<_>>() == addresses, "{addresses:?} of {device}");
    ensure!(pod["metadata"]["uid"] == told("pod_uid")?, "{}", told("pod_uid")?);
    // Operators count on what clients of 109 and later do.
    let version = told("tailscale_capver")?;
    ensure!(version.parse::<u32>().is_ok_and(|version| version >= 109), "{version}");
    ensure!(!state.contains_key("reissue_authkey"), "it wants another key");
    Ok(())
}

/// The proxy's StatefulSet and its headless Service, to which the name leads.
fn objects(stage: &Stage) -> Result<()> {
    let selector = "tailscale.com/parent-resource=tailscale-robbinsdale,tailscale.com/parent-resource-ns=home,\
                    tailscale.com/parent-resource-type=svc";
    let one = |kind: &str| -> Result<Value> {
        let found = stage.cluster.list(NAMESPACE, kind, selector)?;
        ensure!(found.len() == 1, "{} objects {kind} belong to the Service", found.len());
        found.into_iter().next().context("just counted")
    };
    let set = one("statefulsets")?;
    let name = set["metadata"]["name"].as_str().context("it has no name")?;
    let ready = "jsonpath={.status.readyReplicas}=1";
    stage.cluster.wait(NAMESPACE, &format!("statefulset/{name}"), ready, stage.grace())?;
    let headless = one("services")?;
    ensure!(headless["spec"]["clusterIP"] == "None", "{}", headless["spec"]);
    let name = headless["metadata"]["name"].as_str().context("it has no name")?;
    ensure!(name.starts_with("ts-tailscale-robbinsdale-"), "{name}");
    let service = stage.cluster.get("home", SERVICE)?;
    let leads = format!("{name}.{NAMESPACE}.svc.cluster.local");
    ensure!(service["spec"]["externalName"] == leads.as_str(), "{}", service["spec"]);
    Ok(())
}

/// Runs a line of shell in the pod `shell`.
fn in_shell(stage: &Stage, line: &str) -> Result<String> {
    let exec = ["-n", "home", "exec", "shell", "--", "bash", "-c", line];
    Ok(stage.cluster.kubectl(exec).within(PATIENCE).run()?.stdout)
}
