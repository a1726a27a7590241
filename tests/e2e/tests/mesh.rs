//! Two nodes on our coordination server and relays: they join, find each other, and survive restarts of both.
//!
//! `--laptop` and `--robbinsdale` say whose client runs there; `--help` explains.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use e2e::{
    ADMIN, Arguments, CONTROL_URL, Checks, Client, Conversation, Installation, Marks, PATIENCE, binary, eventually,
};
use lab::{Options, ScratchWorld, Udp};
use serde_json::Value;

const POLICY: &str = include_str!("../../../examples/policy.hujson");

fn main() -> ExitCode {
    Checks::main(run)
}

fn run(checks: &mut Checks) -> Result<()> {
    let cast = Arguments::parse().cast()?;
    let world = ScratchWorld::up(Options::boxes()?)?;
    let installation = Installation::set_up(&world, &binary()?, POLICY)?;
    let laptop = (cast.laptop)(world.lab_box("laptop")?)?;
    let robbinsdale = (cast.robbinsdale)(world.lab_box("robbinsdale")?)?;

    checks.check("a node joins with a tagged key", || {
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

    checks.check("a node joins by a login that its user confirms", || {
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

    checks.timed("TCP goes both ways at full rate, directly", |marks| throughput(&laptop, &robbinsdale, marks));

    let begun = checks.timed("a TCP connection opens", |_| Conversation::begin(&laptop, &robbinsdale));
    let Some(mut conversation) = begun else { return Ok(()) };

    checks.timed("with UDP blocked the relay carries it, and the connection goes on", |marks| {
        world.set_udp(Udp::NotBetweenRouters)?;
        conversation.answers()?;
        marks.reached("TCP goes on after");
        laptop.ping("robbinsdale", "via DERP(near)")
    });

    checks.timed("TCP goes both ways at the relay's rate", |marks| throughput(&laptop, &robbinsdale, marks));

    checks.timed("the relay dies and comes back: the other carries it, then either", |marks| {
        installation.start_relay1()?.kill()?;
        conversation.answers()?;
        marks.reached("TCP goes on after");
        eventually("the other relay", PATIENCE, || laptop.ping("robbinsdale", "via DERP("))?;
        installation.start_relay1()?;
        eventually("a relay", PATIENCE, || laptop.ping("robbinsdale", "via DERP("))?;
        conversation.answers().map(drop)
    });

    checks.timed("with UDP let through again it goes directly again", |marks| {
        world.set_udp(Udp::Open)?;
        eventually("the direct path", PATIENCE, || laptop.ping("robbinsdale", "via 203.0.113.40:"))?;
        marks.reached("direct after");
        conversation.answers()?;
        conversation.end()
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

/// Sends TCP for two seconds each way, by the name that users know.
fn throughput(from: &Client, to: &Client, marks: &mut Marks) -> Result<()> {
    for (way, option) in [("there", "--get-server-output"), ("back", "--reverse")] {
        let mut server = to.lab_box().command(["iperf3", "--server", "--one-off", "--forceflush"]).spawn()?;
        server.wait_for("Server listening", PATIENCE)?;
        let measure = ["iperf3", "--json", "--time=2", option, "--client", to.lab_box().name()];
        let said = from.lab_box().command(measure).within(PATIENCE).run()?.stdout;
        let report: Value = serde_json::from_str(&said).with_context(|| format!("reading {said:?}"))?;
        let rate = report["end"]["sum_received"]["bits_per_second"].as_f64().context("no rate in the report")?;
        ensure!(rate > 0.0, "nothing arrived: {said}");
        marks.reached(format!("{way} {:.2} Gb/s after", rate / 1e9));
        server.finish(PATIENCE)?;
    }
    Ok(())
}
