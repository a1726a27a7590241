//! Row 17: the operator's leader dies alone, and the replica that stood by leads.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::newcomer::Newcomer;
use super::trouble::{devices, managed, settled};
use crate::operator::{Habits, NAMESPACE};
use crate::{Checks, Marks, PATIENCE, Promise, Stage, Stopwatch, eventually};

/// How often a replica that stands by looks at the Lease.
const LOOK: Duration = Duration::from_secs(2);
/// A leader that is asked to end gives the Lease up; the other sees it when it looks next.
const HANDED_OVER: Promise = Promise::new("the other leads", Duration::from_secs(5));

/// Why an operator's leader can't be played with.
pub(super) fn excuse(habits: &Habits) -> Option<&'static str> {
    (!habits.stands_by).then_some("the stock operator runs as one replica: there is nobody to take over")
}

/// Ends the leader alone, once without a word and once by deleting its pod.
pub(super) fn play(stage: &Stage, checks: &mut Checks) {
    checks.timed("row 17: the leader's process is killed, and the other replica leads and exposes", |marks| {
        let lease = Lease::read(stage)?;
        // Nobody gave it up: it holds until its end, counted from when the other saw it renewed last, and seen by a look.
        let promise = Promise::new("the other leads", lease.duration + 2 * LOOK);
        let heir = falls(stage, &lease, "heir", promise, marks, || kill_process(stage, &lease))?;
        let stood_by = lease.others.iter().any(|other| heir.is(other));
        ensure!(stood_by, "{} leads, which did not stand by: {:?}", heir.holder, names(&lease.others));
        Ok(())
    });
    checks.timed("row 17: the leader's pod is deleted, and another replica leads and exposes", |marks| {
        let lease = Lease::read(stage)?;
        let delete = ["--namespace", NAMESPACE, "delete", "pod", name(&lease.leader), "--wait=false"];
        falls(stage, &lease, "successor", HANDED_OVER, marks, || Ok(stage.cluster.kubectl(delete).run().map(drop)?))?;
        whole(stage, 1 + lease.others.len())
    });
}

/// Who leads, and who stands by.
struct Lease {
    holder: String,
    duration: Duration,
    leader: Value,
    others: Vec<Value>,
}

impl Lease {
    fn read(stage: &Stage) -> Result<Self> {
        let lease = stage.cluster.get(NAMESPACE, &format!("lease/{}-lease", stage.operator.deployment))?;
        let spec = &lease["spec"];
        let holder = spec["holderIdentity"].as_str().filter(|holder| !holder.is_empty());
        let holder = holder.with_context(|| format!("nobody holds the Lease: {spec}"))?.to_owned();
        let duration = spec["leaseDurationSeconds"].as_u64().context("the Lease has no duration")?;
        let pods = stage.cluster.list(NAMESPACE, "pods", "app.kubernetes.io/component=operator")?;
        let (leaders, others): (Vec<Value>, Vec<Value>) = pods.into_iter().partition(|pod| is_identity(&holder, pod));
        let leader = leaders.into_iter().next();
        let leader =
            leader.with_context(|| format!("{holder} holds the Lease, and is none of {:?}", names(&others)))?;
        ensure!(!others.is_empty(), "no replica stands by");
        Ok(Self { holder, duration: Duration::from_secs(duration), leader, others })
    }

    fn is(&self, pod: &Value) -> bool {
        is_identity(&self.holder, pod)
    }
}

/// A replica calls itself by its pod's name and uid.
fn is_identity(holder: &str, pod: &Value) -> bool {
    let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
    holder.strip_prefix(name(pod)).and_then(|rest| rest.strip_prefix('_')) == Some(uid)
}

fn name(pod: &Value) -> &str {
    pod["metadata"]["name"].as_str().unwrap_or_default()
}

fn names(pods: &[Value]) -> Vec<&str> {
    pods.iter().map(name).collect()
}

/// Ends the leader, asks for a Service at once, and sees another replica take over and expose it; answers who leads then.
fn falls(
    stage: &Stage,
    before: &Lease,
    service: &'static str,
    promise: Promise,
    marks: &Marks,
    end: impl FnOnce() -> Result<()>,
) -> Result<Lease> {
    let (devices, sets) = (devices(stage)?, managed(stage, "statefulsets")?);
    let fallen = Stopwatch::start();
    end()?;
    let newcomer = Newcomer::asks(stage, service)?;
    let now = eventually("another replica that holds the Lease", promise.limit().max(2 * PATIENCE), || {
        let now = Lease::read(stage)?;
        ensure!(now.holder != before.holder, "{} still holds the Lease", now.holder);
        Ok(now)
    })?;
    let took = fallen.stop();
    newcomer.answers()?;
    marks.reached("first byte of the Service that was asked for meanwhile after");
    newcomer.goes()?;
    settled(stage, &devices)?;
    let left = managed(stage, "statefulsets")?;
    ensure!(left == sets, "there were {sets:?} and are {left:?}");
    promise.judge(took, marks)?;
    Ok(now)
}

/// Kills the leader's process as the kernel does when memory is short; its pod stays.
fn kill_process(stage: &Stage, lease: &Lease) -> Result<()> {
    let place = lease.leader["spec"]["nodeName"].as_str().context("the leader is on no node")?;
    let node = stage.cluster.nodes().into_iter().find(|node| node.name() == place);
    let uid = lease.leader["metadata"]["uid"].as_str().context("the leader has no uid")?;
    node.with_context(|| format!("there is no node {place}"))?.kill_pod_processes(uid)?;
    Ok(())
}

/// Waits until the operator has so many replicas that are ready again.
fn whole(stage: &Stage, replicas: usize) -> Result<()> {
    let deployment = format!("deployment/{}", stage.operator.deployment);
    let ready = format!("jsonpath={{.status.readyReplicas}}={replicas}");
    stage.cluster.wait(NAMESPACE, &deployment, &ready, 2 * PATIENCE)
}
