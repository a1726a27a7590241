//! Row 17, the part without Kubernetes: the coordination server is away for a while.

use anyhow::{Context, Result, ensure};

use crate::{Checks, PATIENCE, Tailnet, eventually};

/// Kills the coordination server and starts it again.
pub(super) fn play(tailnet: &Tailnet, checks: &mut Checks) {
    checks.check("row 17: the server is killed: what they have goes on, and they find it again", || {
        let before = ids(tailnet)?;
        tailnet.installation.start_control()?.kill()?;
        let without = traffic(tailnet);
        tailnet.installation.start_control()?;
        without.context("while there was no server")?;
        eventually("both online at the server", PATIENCE, || online(tailnet))?;
        ensure!(ids(tailnet)? == before, "there were {before:?} and are {:?}", ids(tailnet)?);
        traffic(tailnet)
    });
}

fn traffic(tailnet: &Tailnet) -> Result<()> {
    tailnet.laptop.ping("robbinsdale", "via ")?;
    tailnet.laptop.gets("http://robbinsdale/", "robbinsdale: hello", PATIENCE)
}

fn online(tailnet: &Tailnet) -> Result<()> {
    for name in ["laptop", "robbinsdale"] {
        let device = tailnet.installation.device(name)?.with_context(|| format!("the server lists no {name}"))?;
        ensure!(device["connectedToControl"] == true, "{device}");
    }
    Ok(())
}

fn ids(tailnet: &Tailnet) -> Result<Vec<String>> {
    let devices = tailnet.installation.ask(["devices", "list"])?;
    let mut ids: Vec<String> =
        devices.as_array().into_iter().flatten().map(|device| device["nodeId"].to_string()).collect();
    ids.sort();
    Ok(ids)
}
