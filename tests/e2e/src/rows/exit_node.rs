//! Row 15: a Connector by which the laptop reaches the internet.

use anyhow::{Result, ensure};

use crate::{Checks, PATIENCE, Stage, eventually};

pub(super) const MANIFEST: &str = include_str!("../../manifests/exit-node.yaml");
pub(super) const OBJECT: &str = "connector/way-out";
pub(super) const DEVICE: &str = "way-out";

/// Leaves by the exit node, and without it again.
pub(super) fn play(stage: &Stage, checks: &mut Checks) {
    checks.timed(
        "row 15: the laptop leaves by the exit node, and by its own router again, with its routes as they were",
        |marks| {
            stage.cluster.apply(MANIFEST)?;
            stage.cluster.wait("", OBJECT, "condition=ConnectorReady", 4 * PATIENCE)?;
            marks.reached("condition after");
            eventually("the offer", 2 * PATIENCE, || {
                let peer = stage.tailnet.laptop.peer(DEVICE)?;
                ensure!(peer.as_ref().is_some_and(|peer| peer["ExitNodeOption"] == true), "{peer:?}");
                Ok(())
            })?;
            marks.reached("offered after");
            let before = network(stage)?;
            stage.tailnet.laptop.cli(["set", &format!("--exit-node={DEVICE}")]).run()?;
            let away = seen_from(stage, &lab::HOME_ROUTER.to_string()).and_then(|()| {
                ensure!(network(stage)? != before, "the exit node changes nothing in the laptop's network");
                Ok(())
            });
            stage.tailnet.laptop.cli(["set", "--exit-node="]).run()?;
            away?;
            seen_from(stage, &lab::CAFE_ROUTER.to_string())?;
            eventually("the laptop's network as it was", PATIENCE, || {
                let now = network(stage)?;
                ensure!(now == before, "{}", difference(&before, &now));
                Ok(())
            })
        },
    );
}

/// Where the laptop sends what, what it lets through, and whom it asks for names.
fn network(stage: &Stage) -> Result<String> {
    let questions = [
        "ip -4 rule",
        "ip -6 rule",
        "ip -4 route show table all",
        "ip -6 route show table all",
        "nft --stateless list ruleset",
        "cat /etc/resolv.conf",
    ];
    let told = questions.map(|question| -> Result<String> {
        Ok(format!("# {question}\n{}", stage.tailnet.laptop.lab_box().shell(question)?.stdout))
    });
    told.into_iter().collect()
}

/// The lines that only one of two texts has.
fn difference(before: &str, now: &str) -> String {
    let only = |one: &str, other: &str, sign: &str| -> String {
        let missing = one.lines().filter(|line| !other.lines().any(|known| known == *line));
        missing.map(|line| format!("{sign} {line}\n")).collect()
    };
    let lines = only(before, now, "-") + &only(now, before, "+");
    if lines.is_empty() { format!("the same lines in another order:\n{now}") } else { lines }
}

/// The address by which the rest of the internet sees the laptop.
fn seen_from(stage: &Stage, address: &str) -> Result<()> {
    stage.tailnet.laptop.gets(&format!("http://{}/", lab::ECHO_NAME), address, PATIENCE)
}
