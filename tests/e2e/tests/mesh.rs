//! Stock nodes on our coordination server and relays: they join, find each other, and survive restarts of both.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{ADMIN, Browser, CONTROL_URL, Checks, Installation, binary, eventually};
use lab::{Options, ScratchWorld, StockNode, Udp};
use serde_json::Value;

const POLICY: &str = include_str!("../../../examples/policy.hujson");

/// How long a node may take to do what needs the network.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    match run() {
        Ok(checks) => checks.exit(),
        Err(error) => {
            println!("FAILED to set the stage\n{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<Checks> {
    let world = ScratchWorld::up(Options::boxes()?)?;
    let installation = Installation::set_up(&world, &binary()?, POLICY)?;
    let laptop = StockNode::start(&world.lab_box("laptop")?)?;
    let robbinsdale = StockNode::start(&world.lab_box("robbinsdale")?)?;
    let laptop_box = world.lab_box("laptop")?;
    let mut checks = Checks::default();

    checks.check("a stock node joins with a tagged key", || {
        let key = installation.key(&["tag:server"])?;
        let login = format!("--login-server={CONTROL_URL}");
        robbinsdale
            .cli(["up", &login, &format!("--auth-key={key}"), "--hostname=robbinsdale"])
            .within(PATIENCE)
            .run()?;
        let status = status(&robbinsdale)?;
        ensure!(status["BackendState"] == "Running", "{status}");
        ensure!(status["Self"]["DNSName"] == "robbinsdale.taila31de.ts.net.", "{}", status["Self"]);
        ensure!(status["Self"]["Tags"][0] == "tag:server", "{}", status["Self"]);
        Ok(())
    });

    checks.check("a used key lets nobody in, and the client says why", || {
        let key = installation.key(&["tag:server"])?;
        let spare = StockNode::start(&world.lab_box("echo")?)?;
        let login = format!("--login-server={CONTROL_URL}");
        let key = format!("--auth-key={key}");
        spare.cli(["up", &login, &key, "--hostname=spare"]).within(PATIENCE).run()?;
        spare.cli(["logout"]).run()?;
        let refused = spare.cli(["up", &login, &key, "--hostname=spare", "--timeout=10s"]).within(PATIENCE).finish()?;
        ensure!(!refused.ended.is_success(), "the second use went through");
        let said = format!("{}{}", refused.stdout, refused.stderr);
        ensure!(said.contains("was already used and works only once"), "{said}");
        spare.daemon()?.stop()
    });

    checks.check("a stock node joins by a login that its user confirms", || {
        // The URL comes by standard error; only standard output can be waited for.
        let line = format!("exec tailscale up --login-server={CONTROL_URL} --hostname=laptop 2>&1");
        let mut up = laptop_box.command(["sh", "-c", &line]).spawn()?;
        up.wait_for("/a/", PATIENCE)?;
        let said = up.output().stdout;
        let url = said.split_whitespace().find(|word| word.contains("/a/")).context("no URL was shown")?;
        let browser = Browser::open(&laptop_box, "admin")?;
        let page = browser.visit(url)?;
        let password = Installation::password(ADMIN);
        let page = browser.send(&page, "Sign in", &[("name", ADMIN), ("password", &password)])?;
        ensure!(page.html.contains("laptop"), "the page does not name the device:\n{}", page.html);
        ensure!(page.html.contains("203.0.113.30"), "the page does not show its address:\n{}", page.html);
        browser.send(&page, "Yes, let it in", &[])?;
        up.finish(PATIENCE)?;
        let status = status(&laptop)?;
        ensure!(status["BackendState"] == "Running", "{status}");
        Ok(())
    });

    checks.check("they see each other by name, with owner", || {
        let status = eventually("the peer", PATIENCE, || {
            let status = status(&laptop)?;
            ensure!(peer(&status, "robbinsdale").is_some(), "{status}");
            Ok(status)
        })?;
        let robbinsdale = peer(&status, "robbinsdale").context("just seen")?;
        ensure!(robbinsdale["Online"] == true, "{robbinsdale}");
        let devices = installation.ask(["devices", "list"])?;
        let laptop = devices.as_array().and_then(|all| all.iter().find(|one| one["hostname"] == "laptop"));
        ensure!(laptop.is_some_and(|laptop| laptop["user"] == ADMIN), "{devices}");
        Ok(())
    });

    checks.check("a ping by MagicDNS name goes directly through both NATs", || {
        ping(&laptop, "robbinsdale", "via 203.0.113.40:")?;
        let answered = laptop_box.command(["ping", "-c", "3", "-W", "5", "robbinsdale"]).run()?;
        ensure!(answered.stdout.contains("3 received"), "{}", answered.stdout);
        Ok(())
    });

    checks.check("with UDP blocked the relay carries it", || {
        world.set_udp(Udp::NotBetweenRouters)?;
        ping(&laptop, "robbinsdale", "via DERP(near)")
    });

    checks.check("the relay dies and comes back: the other carries it, then either", || {
        installation.start_relay1()?.kill()?;
        eventually("the other relay", PATIENCE, || ping(&laptop, "robbinsdale", "via DERP("))?;
        installation.start_relay1()?;
        eventually("a relay", PATIENCE, || ping(&laptop, "robbinsdale", "via DERP("))
    });

    checks.check("with UDP let through again it goes directly again", || {
        world.set_udp(Udp::Open)?;
        eventually("the direct path", PATIENCE, || ping(&laptop, "robbinsdale", "via 203.0.113.40:"))
    });

    checks.check("the server is killed: what they have goes on, and they find it again", || {
        installation.start_control()?.kill()?;
        ping(&laptop, "robbinsdale", "via ")?;
        installation.start_control()?;
        eventually("both online at the server", PATIENCE, || {
            let devices = installation.ask(["devices", "list"])?;
            let online =
                devices.as_array().into_iter().flatten().filter(|one| one["connectedToControl"] == true).count();
            ensure!(online >= 2, "{devices}");
            Ok(())
        })?;
        ping(&laptop, "robbinsdale", "via ")
    });

    checks.check("a device that is removed is gone from its peers at once", || {
        installation.towline(["devices", "delete", "robbinsdale", "--yes"]).run()?;
        eventually("the peer gone", PATIENCE, || {
            let status = status(&laptop)?;
            ensure!(peer(&status, "robbinsdale").is_none(), "{status}");
            Ok(())
        })
    });
    Ok(checks)
}

fn status(node: &StockNode) -> Result<Value> {
    let output = node.cli(["status", "--json"]).run()?;
    serde_json::from_str(&output.stdout).with_context(|| format!("reading {:?}", output.stdout))
}

/// The peer of this short name, as the status has it.
fn peer<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    let is = |peer: &&Value| peer["DNSName"].as_str().is_some_and(|dns| dns.split('.').next() == Some(name));
    status["Peer"].as_object()?.values().find(is)
}

/// Pings by disco until an answer comes by the way that `way` names.
fn ping(node: &StockNode, peer: &str, way: &str) -> Result<()> {
    let output = node.cli(["ping", "-c", "15", "--timeout=3s", "--until-direct=false", peer]);
    let output = output.within(Duration::from_secs(60)).finish()?;
    let way = output.stdout.lines().any(|line| line.starts_with("pong from ") && line.contains(way)).then_some(());
    way.with_context(|| format!("no such pong:\n{}{}", output.stdout, output.stderr))
}
