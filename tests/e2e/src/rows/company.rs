//! Beside the rows: our daemon on a computer where another one runs.

use anyhow::{Result, ensure};
use lab::{Ended, LabBox, Ready};

use crate::{CONTROL_URL, Checks, Client, Conversation, NetworkSettings, PATIENCE, Tailnet, eventually};

/// Where the stock daemon is commanded, as our daemon names it.
const STOCK_SOCKET: &str = "/var/run/tailscale/tailscaled.sock";
/// Another place, where a daemon of ours is looked for too.
const OUR_SOCKET: &str = "/run/towline/towlined.sock";
/// The name of our daemon, and of the device that it is.
const BESIDE: &str = "beside";

/// Starts our daemon where a stock client is a device; where all clients are ours there is none.
pub(super) fn play(tailnet: &Tailnet, checks: &mut Checks) {
    let (laptop, robbinsdale) = (&tailnet.laptop, &tailnet.robbinsdale);
    let (stock, other) = match (laptop.is_ours(), robbinsdale.is_ours()) {
        (false, _) => (laptop, robbinsdale),
        (true, false) => (robbinsdale, laptop),
        (true, true) => return,
    };
    let title = "beside a stock daemon ours doesn't start and says what to do, which works; the stock one goes on";
    checks.check(title, || {
        let mut conversation = Conversation::begin(laptop, robbinsdale)?;
        let (process, key) = (stock.daemon()?.process(), stock.status()?["Self"]["PublicKey"].clone());
        beside(tailnet, stock, other)?;
        conversation.answers()?;
        conversation.end()?;
        let status = stock.status()?;
        ensure!(status["BackendState"] == "Running" && status["Self"]["PublicKey"] == key, "{status}");
        let daemon = stock.daemon()?;
        ensure!(daemon.process() == process && daemon.is_running(), "the stock daemon is another process");
        Ok(())
    });
}

fn beside(tailnet: &Tailnet, stock: &Client, other: &Client) -> Result<()> {
    let computer = stock.lab_box();
    let before = NetworkSettings::of(computer)?;
    let advice = "or give this one a --socket, a --state and a --port of its own, and --tun userspace-networking";
    let stop = "stop it first (systemctl stop tailscaled)";
    let by_stock = format!("another daemon answers at {STOCK_SOCKET}: {stop}, {advice}");
    refused(computer, &[], &by_stock)?;
    // Another socket and another interface are not enough: both would change the computer's routes.
    let elsewhere = ["--socket=/run/elsewhere.sock", "--tun=elsewhere0", "--state=mem:", "--port=0"];
    refused(computer, &elsewhere, &by_stock)?;
    NetworkSettings::of(computer)?.ensure_same(&before)?;

    let advised = ["--socket", OUR_SOCKET, "--state=mem:", "--port=0", "--tun=userspace-networking"];
    let ours = ["towline", "node"].into_iter().chain(advised);
    let ours = computer.daemon(BESIDE, ours).ready(Ready::File(OUR_SOCKET.to_owned())).start()?;
    // It is found by the next one in its turn.
    let stop = "stop it first (systemctl stop towline-node)";
    let by_ours = format!("Towline's node runs already and answers at {OUR_SOCKET}: {stop}, {advice}");
    refused(computer, &elsewhere, &by_ours)?;
    let command = |words: &[&str]| {
        let words = ["towline", "--socket", OUR_SOCKET].iter().chain(words).copied();
        computer.command(words).within(PATIENCE)
    };
    let (login, name) = (format!("--login-server={CONTROL_URL}"), format!("--hostname={BESIDE}"));
    let key = format!("--auth-key={}", tailnet.installation.key(&[])?);
    command(&["up", &login, &key, &name]).run()?;
    let mut ping =
        command(&["ping", "-c", "50", "--timeout=3s", "--until-direct=false", other.lab_box().name()]).spawn()?;
    ping.wait_for("via ", 2 * PATIENCE)?;
    ours.stop()?;
    tailnet.installation.towline(["devices", "delete", BESIDE, "--yes"]).run()?;
    // The stock daemon has a route to each device that it sees.
    stock.misses(BESIDE, PATIENCE)?;
    eventually("the computer's network as before", PATIENCE, || NetworkSettings::of(computer)?.ensure_same(&before))
}

/// Checks that our daemon does not start with these options, and says this.
fn refused(computer: &LabBox, options: &[&str], says: &str) -> Result<()> {
    let command = ["towline", "node"].iter().chain(options).copied();
    let refused = computer.command(command).within(PATIENCE).finish()?;
    let said = format!("{}{}", refused.stdout, refused.stderr);
    let is_refused = matches!(refused.ended, Ended::Exit(1)) && said.contains(says);
    ensure!(is_refused, "towline node {options:?} ended by {} and says: {said}", refused.ended);
    Ok(())
}
