//! Beside the rows: a device leaves the network of its computer as it found it, however it ends.

use anyhow::{Context, Result, ensure};
use lab::LabBox;

use crate::{CONTROL_URL, Checks, Client, Marks, NetworkSettings, PATIENCE, Tailnet, eventually};

/// A computer that is no device otherwise, and what it is called as one.
const COMPUTER: &str = "echo";
const DEVICE: &str = "guest";
/// A network that the laptop offers meanwhile, which the policy approves.
const OFFERED: &str = "10.69.0.0/16";
/// What our daemon keeps of the computer's own name servers while it runs.
const KEPT: &str = "/etc/resolv.conf.before-towline";
/// Where our daemon keeps who it is.
const STATE: &str = "/var/lib/towline/node";

/// Has our node come and go on a computer; once, where both devices have our programs too.
pub(super) fn play(tailnet: &Tailnet, checks: &mut Checks) {
    let Tailnet { laptop, robbinsdale, .. } = tailnet;
    if !(laptop.has_our_commands() && robbinsdale.has_our_commands()) {
        return;
    }
    checks.timed("a node leaves its computer's routes, firewall and names as before, however it ends", |marks| {
        laptop.cli(["set", &format!("--advertise-routes={OFFERED}")]).run()?;
        let outcome = comes_and_goes(tailnet, marks);
        laptop.cli(["set", "--advertise-routes="]).run()?;
        outcome
    });
}

fn comes_and_goes(tailnet: &Tailnet, marks: &Marks) -> Result<()> {
    let computer = tailnet.world.lab_box(COMPUTER)?;
    let before = NetworkSettings::of(&computer)?;

    let node = Client::towline(computer.clone())?;
    joins(tailnet, &node)?;
    is_in(&computer, &before)?;
    marks.reached("in after");
    node.cli(["down"]).run()?;
    eventually("the network as before, after `towline down`", PATIENCE, || is_as(&computer, &before))?;
    marks.reached("down after");

    node.cli(["up"]).run()?;
    is_in(&computer, &before)?;
    node.stop()?;
    is_as(&computer, &before).context("after SIGTERM")?;
    marks.reached("told to end after");

    let node = Client::towline(computer.clone())?;
    is_in(&computer, &before)?;
    is_killed(&node, &before)?;
    node.daemon()?.restart()?;
    is_running(&node)?;
    is_in(&computer, &before)?;
    // What it took over from the killed one it gives back as the killed one had found it.
    node.cli(["logout"]).run()?;
    eventually("the network as before, after a kill and `towline logout`", PATIENCE, || is_as(&computer, &before))?;
    marks.reached("killed, back and logged out after");

    joins(tailnet, &node)?;
    is_in(&computer, &before)?;
    is_killed(&node, &before)?;
    // The next one is nobody's device, and wants nothing of the computer.
    computer.run(["rm", "-r", STATE])?;
    node.daemon()?.restart()?;
    let title = "the network as before, after a kill and a start that leads nowhere";
    eventually(title, PATIENCE, || is_as(&computer, &before))?;
    node.stop()?;
    is_as(&computer, &before).context("after SIGTERM, not logged in")?;
    marks.reached("killed and forgotten after");
    tailnet.installation.towline(["devices", "delete", DEVICE, "--yes"]).run()?;
    Ok(())
}

/// Joins as a device of the administrator: the policy lets nobody else use what the laptop offers.
fn joins(tailnet: &Tailnet, node: &Client) -> Result<()> {
    let (login, name) = (format!("--login-server={CONTROL_URL}"), format!("--hostname={DEVICE}"));
    let key = format!("--auth-key={}", tailnet.installation.key(&[])?);
    node.cli(["up", &login, &key, &name, "--accept-routes"]).run()?;
    Ok(())
}

/// Kills the daemon, which leaves something to the next one.
fn is_killed(node: &Client, before: &NetworkSettings) -> Result<()> {
    node.daemon()?.kill()?;
    ensure!(NetworkSettings::of(node.lab_box())? != *before, "a killed node leaves nothing for the next to take away");
    ensure!(node.lab_box().has(KEPT), "a killed node has not kept the name servers of before");
    Ok(())
}

/// Waits until the device has its way with the computer: rules, routes, firewall and names.
fn is_in(computer: &LabBox, before: &NetworkSettings) -> Result<()> {
    eventually("the tailnet's routes, firewall and names", PATIENCE, || {
        let now = NetworkSettings::of(computer)?;
        now.ensure_changed(before)?;
        ensure!(now.tell(OFFERED), "the route that the laptop offers is not there");
        Ok(())
    })
}

fn is_running(node: &Client) -> Result<()> {
    eventually("the node after its restart", PATIENCE, || {
        let status = node.status()?;
        ensure!(status["BackendState"] == "Running", "{}", status["BackendState"]);
        Ok(())
    })
}

/// Whether nothing of the device is left on the computer.
fn is_as(computer: &LabBox, before: &NetworkSettings) -> Result<()> {
    NetworkSettings::of(computer)?.ensure_same(before)?;
    ensure!(!computer.has(KEPT), "{KEPT} is left behind");
    Ok(())
}
