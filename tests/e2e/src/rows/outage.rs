//! Row 17, the part without Kubernetes: the coordination server is away for a while.

use anyhow::{Context, Result, ensure};

use crate::{Checks, Conversation, Marks, PATIENCE, Tailnet, eventually};

/// Kills the coordination server and starts it again, while a connection is held open.
pub(super) fn play(tailnet: &Tailnet, checks: &mut Checks) {
    checks.timed("row 17: the server is killed: what they have goes on, and they find it again", |marks| {
        let before = ids(tailnet)?;
        let mut conversation = Conversation::begin(&tailnet.laptop, &tailnet.robbinsdale)?;
        tailnet.installation.start_control()?.kill()?;
        let without = goes_on(tailnet, &mut conversation, marks);
        tailnet.installation.start_control()?;
        without.context("while there was no server")?;
        eventually("both online at the server", PATIENCE, || online(tailnet))?;
        ensure!(ids(tailnet)? == before, "there were {before:?} and are {:?}", ids(tailnet)?);
        goes_on(tailnet, &mut conversation, marks)?;
        conversation.end()
    });
}

/// The connection that was there, and new ones.
fn goes_on(tailnet: &Tailnet, conversation: &mut Conversation, marks: &Marks) -> Result<()> {
    conversation.goes_on(marks)?;
    traffic(tailnet)?;
    conversation.goes_on(marks)
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
