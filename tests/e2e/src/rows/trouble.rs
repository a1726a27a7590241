//! Row 17, as far as an operator has to do with it: what dies comes back as what it was.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::newcomer::Newcomer;
use super::restricted::pod_of;
use super::{egress, expose};
use crate::operator::{NAMESPACE, NODE};
use crate::promise::PROXY_BACK;
use crate::{Checks, Conversation, Marks, PATIENCE, Stage, Stopwatch, eventually};

/// New connections are answered at once too; on a busy machine the first attempt may be cut short.
const GOES_ON: Duration = Duration::from_secs(5);

/// Kills a proxy, the operator and the coordination server, one at a time, while connections are held open.
pub(super) fn play(stage: &Stage, checks: &mut Checks) {
    checks
        .timed("row 17: a proxy's pod is killed: other traffic goes on, and it is back as the same device", |marks| {
            without_a_proxy(stage, marks)
        });
    if stage.operator.habits.lets_flows_end {
        checks.timed(
            "row 17: a proxy's pod is deleted: a connection that is open goes on to its end, and it is back as the same device",
            |marks| with_an_end(stage, marks),
        );
    }
    checks.timed("row 17: all pods of the operator are killed: traffic goes on, and nothing is made twice", |marks| {
        without_the_operator(stage, marks)
    });
    checks.timed("row 17: the coordination server is killed: traffic goes on, and all devices come back", |marks| {
        without_the_server(stage, marks)
    });
}

fn without_a_proxy(stage: &Stage, marks: &Marks) -> Result<()> {
    let (service, device) = expose::EXPOSED[0];
    let before = devices(stage)?;
    let name = service.trim_start_matches("service/");
    let mut other = egress::conversation(stage)?;
    let killed = Stopwatch::start();
    let labels = format!("tailscale.com/parent-resource={name},tailscale.com/parent-resource-ns=home");
    replace_pods(stage, &labels, || {
        other.goes_on(marks)?;
        egress::answers(stage, GOES_ON)
    })?;
    expose::answers(stage, device, 2 * PATIENCE)?;
    let took = killed.stop();
    settled(stage, &before)?;
    other.goes_on(marks)?;
    other.end()?;
    PROXY_BACK.judge_ours(stage.operator.habits.ready_is_ready, took, marks)
}

/// The pod is asked to end, as for any change of it, and not killed.
fn with_an_end(stage: &Stage, marks: &Marks) -> Result<()> {
    let (service, device) = expose::EXPOSED[0];
    let before = devices(stage)?;
    let mut open = expose::conversation(stage, device)?;
    let name = service.trim_start_matches("service/");
    let pod = pod_of(stage, name)?;
    let (own, uid) = (pod["metadata"]["name"].as_str().context("it has no name")?, &pod["metadata"]["uid"]);
    let mut log = stage.cluster.kubectl(["-n", NAMESPACE, "logs", "--follow", own]).spawn()?;
    stage.cluster.kubectl(["-n", NAMESPACE, "delete", "pod", own, "--wait=false"]).run()?;
    log.wait_for("waiting for flows that are open", PATIENCE)?;
    marks.reached("ending after");
    open.goes_on(marks)?;
    let late = ["curl", "-sS", "--max-time", "3", &format!("http://{device}/")].map(str::to_owned);
    let late = stage.tailnet.laptop.lab_box().command(late).finish()?;
    ensure!(!late.ended.is_success(), "a proxy that ends lets somebody in: {}", late.stdout);
    open.goes_on(marks)?;
    open.end()?;
    log.wait_for("the proxy has ended", PATIENCE)?;
    marks.reached("ended after");
    let said = log.output().stdout;
    ensure!(!said.contains("flows were still open and are cut"), "{said}");
    eventually("another pod in its place", 4 * PATIENCE, || {
        let pod = pod_of(stage, name)?;
        let ready = pod["status"]["containerStatuses"][0]["ready"] == true;
        ensure!(ready && pod["metadata"]["uid"] != *uid, "{}", pod["status"]);
        Ok(())
    })?;
    expose::answers(stage, device, 2 * PATIENCE)?;
    settled(stage, &before)
}

fn without_the_operator(stage: &Stage, marks: &Marks) -> Result<()> {
    let before = devices(stage)?;
    let sets = managed(stage, "statefulsets")?;
    let mut held = Held::open(stage)?;
    replace_pods(stage, "!tailscale.com/parent-resource", || held.goes_on(marks))?;
    marks.reached("running after");
    exposes(stage, "journal")?;
    settled(stage, &before)?;
    let now = managed(stage, "statefulsets")?;
    ensure!(now == sets, "there were {sets:?} and are {now:?}");
    held.end(marks)
}

fn without_the_server(stage: &Stage, marks: &Marks) -> Result<()> {
    let before = devices(stage)?;
    let mut held = Held::open(stage)?;
    stage.tailnet.installation.start_control()?.kill()?;
    let without = held.goes_on(marks);
    marks.reached("answers without it after");
    stage.tailnet.installation.start_control()?;
    without?;
    // The server shows devices as it knew them until they had time to come back: only news prove that they are back.
    exposes(stage, "ledger")?;
    marks.reached("a new Service after");
    settled(stage, &before)?;
    held.end(marks)
}

/// A connection through each kind of proxy, held open while something else is killed.
struct Held<'a> {
    stage: &'a Stage,
    into_the_cluster: Conversation,
    out_of_it: Conversation,
}

impl<'a> Held<'a> {
    fn open(stage: &'a Stage) -> Result<Self> {
        let (_, device) = expose::EXPOSED[0];
        let into_the_cluster = expose::conversation(stage, device)?;
        Ok(Self { stage, into_the_cluster, out_of_it: egress::conversation(stage)? })
    }

    /// The connections that were there, and new ones.
    fn goes_on(&mut self, marks: &Marks) -> Result<()> {
        self.still_answers(marks)?;
        expose::answers(self.stage, expose::EXPOSED[0].1, GOES_ON)?;
        egress::answers(self.stage, GOES_ON)
    }

    fn still_answers(&mut self, marks: &Marks) -> Result<()> {
        self.into_the_cluster.goes_on(marks).context("through the exposed Service")?;
        self.out_of_it.goes_on(marks).context("through the egress Service")
    }

    /// They were never broken.
    fn end(mut self, marks: &Marks) -> Result<()> {
        self.still_answers(marks)?;
        self.into_the_cluster.end()?;
        self.out_of_it.end()
    }
}

/// The operator still exposes what is asked for, and takes it back.
fn exposes(stage: &Stage, name: &'static str) -> Result<()> {
    let newcomer = Newcomer::asks(stage, name)?;
    newcomer.answers()?;
    newcomer.goes()
}

/// Kills the pods with these labels, looks what goes on without them, and waits until as many others are ready in their place.
fn replace_pods(stage: &Stage, labels: &str, without: impl FnOnce() -> Result<()>) -> Result<()> {
    let pods = || stage.cluster.list(NAMESPACE, "pods", labels);
    let uid = |pod: &Value| pod["metadata"]["uid"].to_string();
    let killed: Vec<String> = pods()?.iter().map(uid).collect();
    ensure!(!killed.is_empty(), "there is no pod with {labels}");
    let kill = ["delete", "pod", "--selector", labels, "--grace-period=0", "--force"];
    stage.cluster.kubectl(["--namespace", NAMESPACE].into_iter().chain(kill)).run()?;
    without().context("traffic that has nothing to do with it")?;
    eventually("other pods in their place", 2 * PATIENCE, || {
        let pods = pods()?;
        let ready = |pod: &Value| pod["status"]["containerStatuses"][0]["ready"] == true;
        let others = pods.iter().all(|pod| ready(pod) && !killed.contains(&uid(pod)));
        ensure!(others && pods.len() == killed.len(), "there are {} pods, not all of them new and ready", pods.len());
        Ok(())
    })
}

/// Ids of the devices that are online, by name.
pub(super) fn devices(stage: &Stage) -> Result<BTreeMap<String, String>> {
    let devices = stage.tailnet.installation.ask(["devices", "list"])?;
    let online = devices.as_array().into_iter().flatten().filter(|device| device["connectedToControl"] == true);
    let text = |device: &Value, field: &str| -> Result<String> {
        device[field].as_str().map(str::to_owned).with_context(|| format!("no {field} in {device}"))
    };
    let devices: BTreeMap<_, _> =
        online.map(|device| Ok((text(device, "name")?, text(device, "nodeId")?))).collect::<Result<_>>()?;
    let is_there = devices.keys().any(|name| name.starts_with(NODE));
    ensure!(is_there, "the operator is not online: {devices:?}");
    Ok(devices)
}

/// Waits until the devices are those that were `before`, and no others.
pub(super) fn settled(stage: &Stage, before: &BTreeMap<String, String>) -> Result<()> {
    eventually("the same devices online", 2 * PATIENCE, || {
        let now = devices(stage)?;
        ensure!(now == *before, "there were {before:?} and are {now:?}");
        Ok(())
    })
}

/// The objects of a kind that the operator has made, by name.
pub(super) fn managed(stage: &Stage, kind: &str) -> Result<Vec<String>> {
    let found = stage.cluster.list(NAMESPACE, kind, "tailscale.com/managed=true")?;
    Ok(found.iter().map(|object| object["metadata"]["name"].to_string()).collect())
}
