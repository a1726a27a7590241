//! Stock nodes on our coordination server and relays: they join, find each other, and survive restarts of both.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use e2e::{ADMIN, CONTROL_URL, Checks, Client, Installation, PATIENCE, binary, eventually};
use lab::{Options, ScratchWorld, Udp};

const POLICY: &str = include_str!("../../../examples/policy.hujson");

fn main() -> ExitCode {
    Checks::main(run)
}

fn run(checks: &mut Checks) -> Result<()> {
    let world = ScratchWorld::up(Options::boxes()?)?;
    let installation = Installation::set_up(&world, &binary()?, POLICY)?;
    let laptop = Client::stock(world.lab_box("laptop")?)?;
    let robbinsdale = Client::stock(world.lab_box("robbinsdale")?)?;

    checks.check("a stock node joins with a tagged key", || {
        robbinsdale.join(&installation.key(&["tag:server"])?)?;
        let status = robbinsdale.status()?;
        ensure!(status["BackendState"] == "Running", "{status}");
        ensure!(status["Self"]["DNSName"] == "robbinsdale.taila31de.ts.net.", "{}", status["Self"]);
        ensure!(status["Self"]["Tags"][0] == "tag:server", "{}", status["Self"]);
        Ok(())
    });

    checks.check("a used key lets nobody in, and the client says why", || {
        let key = installation.key(&["tag:server"])?;
        let spare = Client::stock(world.lab_box("echo")?)?;
        let login = format!("--login-server={CONTROL_URL}");
        let key = format!("--auth-key={key}");
        spare.cli(["up", &login, &key, "--hostname=spare"]).run()?;
        spare.cli(["logout"]).run()?;
        let refused = spare.cli(["up", &login, &key, "--hostname=spare", "--timeout=10s"]).finish()?;
        ensure!(!refused.ended.is_success(), "the second use went through");
        let said = format!("{}{}", refused.stdout, refused.stderr);
        ensure!(said.contains("was already used and works only once"), "{said}");
        spare.stop()
    });

    checks.check("a stock node joins by a login that its user confirms", || {
        laptop.log_in(ADMIN, "203.0.113.30")?;
        let status = laptop.status()?;
        ensure!(status["BackendState"] == "Running", "{status}");
        Ok(())
    });

    checks.check("they see each other by name, with owner", || {
        laptop.sees("robbinsdale", PATIENCE)?;
        let device = installation.device("laptop")?.context("the server lists no laptop")?;
        ensure!(device["user"] == ADMIN, "{device}");
        Ok(())
    });

    checks.check("a ping by MagicDNS name goes directly through both NATs", || {
        laptop.ping("robbinsdale", "via 203.0.113.40:")?;
        let answered = laptop.lab_box().command(["ping", "-c", "3", "-W", "5", "robbinsdale"]).run()?;
        ensure!(answered.stdout.contains("3 received"), "{}", answered.stdout);
        Ok(())
    });

    checks.check("with UDP blocked the relay carries it", || {
        world.set_udp(Udp::NotBetweenRouters)?;
        laptop.ping("robbinsdale", "via DERP(near)")
    });

    checks.check("the relay dies and comes back: the other carries it, then either", || {
        installation.start_relay1()?.kill()?;
        eventually("the other relay", PATIENCE, || laptop.ping("robbinsdale", "via DERP("))?;
        installation.start_relay1()?;
        eventually("a relay", PATIENCE, || laptop.ping("robbinsdale", "via DERP("))
    });

    checks.check("with UDP let through again it goes directly again", || {
        world.set_udp(Udp::Open)?;
        eventually("the direct path", PATIENCE, || laptop.ping("robbinsdale", "via 203.0.113.40:"))
    });

    checks.check("the server is killed: what they have goes on, and they find it again", || {
        installation.start_control()?.kill()?;
        laptop.ping("robbinsdale", "via ")?;
        installation.start_control()?;
        eventually("both online at the server", PATIENCE, || {
            let devices = installation.ask(["devices", "list"])?;
            let online =
                devices.as_array().into_iter().flatten().filter(|one| one["connectedToControl"] == true).count();
            ensure!(online >= 2, "{devices}");
            Ok(())
        })?;
        laptop.ping("robbinsdale", "via ")
    });

    checks.check("a device that is removed is gone from its peers at once", || {
        installation.towline(["devices", "delete", "robbinsdale", "--yes"]).run()?;
        laptop.misses("robbinsdale", PATIENCE)
    });
    Ok(())
}
