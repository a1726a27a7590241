//! Row 15: a Connector by which the laptop reaches the internet.

use anyhow::{Result, ensure};

use crate::{Checks, NetworkSettings, PATIENCE, Stage, eventually};

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
            let network = || NetworkSettings::of(stage.tailnet.laptop.lab_box());
            let before = network()?;
            stage.tailnet.laptop.cli(["set", &format!("--exit-node={DEVICE}")]).run()?;
            let away = seen_from(stage, &lab::HOME_ROUTER.to_string()).and_then(|()| {
                ensure!(network()? != before, "the exit node changes nothing in the laptop's network");
                Ok(())
            });
            stage.tailnet.laptop.cli(["set", "--exit-node="]).run()?;
            away?;
            seen_from(stage, &lab::CAFE_ROUTER.to_string())?;
            eventually("the laptop's network as it was", PATIENCE, || network()?.ensure_same(&before))
        },
    );
}

/// The address by which the rest of the internet sees the laptop.
fn seen_from(stage: &Stage, address: &str) -> Result<()> {
    stage.tailnet.laptop.gets(&format!("http://{}/", lab::ECHO_NAME), address, PATIENCE)
}
