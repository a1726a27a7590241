//! Rows 12 and 17, the part without Kubernetes: which way traffic takes when ways open and close.

use anyhow::{Context, Result, ensure};
use lab::Udp;
use serde_json::Value;

use crate::promise::{BY_OTHER_RELAY, BY_RELAY, DIRECT_AGAIN};
use crate::{Checks, Client, Conversation, Marks, PATIENCE, Promise, Stopwatch, Tailnet, Took, eventually};

/// What `ping` says of each way from the laptop to robbinsdale.
const DIRECTLY: &str = "via 203.0.113.40:";
const NEAR: &str = "via DERP(near)";
const FAR: &str = "via DERP(far)";

/// Blocks UDP between the two, kills the relay that takes over, and lets all of it come back.
pub(super) fn play(tailnet: &Tailnet, checks: &mut Checks) {
    let Tailnet { world, installation, laptop, robbinsdale } = tailnet;
    let ours = laptop.is_ours() && robbinsdale.is_ours();
    checks.check("row 12: a ping by MagicDNS name goes directly through both NATs", || {
        eventually("the direct path", 2 * PATIENCE, || laptop.ping("robbinsdale", DIRECTLY))?;
        let answered = laptop.lab_box().command(["ping", "-c", "3", "-W", "5", "robbinsdale"]).run()?;
        ensure!(answered.stdout.contains("3 received"), "{}", answered.stdout);
        Ok(())
    });
    checks.timed("row 12: TCP goes both ways, directly and past the relays", |marks| {
        let (sent, relayed) = throughput(tailnet, marks)?;
        // Probes of ways may go by a relay at any time.
        ensure!(relayed < sent / 100, "the relays carried {relayed} bytes while {sent} were sent");
        laptop.ping("robbinsdale", DIRECTLY)
    });
    let begun = checks.timed("row 12: a TCP connection opens", |_| Conversation::begin(laptop, robbinsdale));
    let Some(mut conversation) = begun else { return };

    checks.timed("row 12: with UDP blocked the near relay carries it, and the connection goes on", |marks| {
        let took = moves(tailnet, NEAR, BY_RELAY, || world.set_udp(Udp::NotBetweenRouters))?;
        conversation.answers()?;
        marks.reached("TCP goes on after");
        BY_RELAY.judge_ours(ours, took, marks)
    });
    checks.timed("row 12: TCP goes both ways, by the relay", |marks| {
        let (sent, relayed) = throughput(tailnet, marks)?;
        ensure!(relayed >= sent, "the relays carried {relayed} bytes while {sent} were sent");
        Ok(())
    });
    checks.timed("row 17: the relay is killed: the other carries it, and the connection goes on", |marks| {
        let relay = installation.start_relay1()?;
        let took = moves(tailnet, FAR, BY_OTHER_RELAY, || relay.kill())?;
        conversation.answers()?;
        marks.reached("TCP goes on after");
        BY_OTHER_RELAY.judge_ours(ours, took, marks)
    });
    checks.check("row 17: the relay comes back: it carries it again, or the other goes on", || {
        installation.start_relay1()?;
        eventually("a relay", PATIENCE, || laptop.ping("robbinsdale", "via DERP("))?;
        conversation.answers()
    });
    checks.timed("row 12: with UDP let through it goes directly again, on the same connection", |marks| {
        let took = pinged(tailnet, DIRECTLY, DIRECT_AGAIN, || world.set_udp(Udp::Open))?;
        conversation.answers()?;
        DIRECT_AGAIN.judge_ours(ours, took, marks)?;
        conversation.end()
    });
}

/// How long after `change` traffic from the laptop reaches robbinsdale again; it must go `way` then.
///
/// The time is that of packets in the tunnel, sent ten times a second: answers to disco may take a way on which nothing else
/// goes yet.
fn moves(tailnet: &Tailnet, way: &str, promise: Promise, change: impl FnOnce() -> Result<()>) -> Result<Took> {
    let peer = tailnet.laptop.peer("robbinsdale")?.context("the laptop does not see robbinsdale")?;
    let address = peer["TailscaleIPs"][0].as_str().context("it has no address")?;
    let changed = Stopwatch::start();
    change()?;
    let ping = ["ping", "-n", "-i", "0.1", "-w", "60", "-c", "1", address];
    let packets = tailnet.laptop.lab_box().command(ping).spawn()?;
    let answered = packets.finish(2 * PATIENCE)?;
    let took = changed.stop();
    ensure!(answered.ended.is_success(), "nothing comes through: {}", answered.stdout);
    let mut pings = tailnet.laptop.pinging("robbinsdale")?;
    pings.wait_for(way, promise.limit().max(2 * PATIENCE))?;
    Ok(took)
}

/// How long after `change` the laptop's `ping` is answered by `way`.
fn pinged(tailnet: &Tailnet, way: &str, promise: Promise, change: impl FnOnce() -> Result<()>) -> Result<Took> {
    let changed = Stopwatch::start();
    change()?;
    let mut pings = tailnet.laptop.pinging("robbinsdale")?;
    pings.wait_for(way, promise.limit().max(2 * PATIENCE))?;
    Ok(changed.stop())
}

/// Sends TCP for two seconds each way, by the name that users know; how many bytes arrived, and how many the relays took
/// meanwhile.
fn throughput(tailnet: &Tailnet, marks: &Marks) -> Result<(u64, u64)> {
    let before = tailnet.installation.relayed_bytes()?;
    let arrived = sent(&tailnet.laptop, &tailnet.robbinsdale, marks)?;
    Ok((arrived, tailnet.installation.relayed_bytes()? - before))
}

fn sent(from: &Client, to: &Client, marks: &Marks) -> Result<u64> {
    let mut all = 0;
    for (way, option) in [("there", "--get-server-output"), ("back", "--reverse")] {
        let mut server = to.lab_box().command(["iperf3", "--server", "--one-off", "--forceflush"]).spawn()?;
        server.wait_for("Server listening", PATIENCE)?;
        let measure = ["iperf3", "--json", "--time=2", option, "--client", to.lab_box().name()];
        let said = from.lab_box().command(measure).within(PATIENCE).run()?.stdout;
        let report: Value = serde_json::from_str(&said).with_context(|| format!("reading {said:?}"))?;
        let received = &report["end"]["sum_received"];
        let bytes = received["bytes"].as_u64().context("no bytes in the report")?;
        ensure!(bytes > 0, "nothing arrived {way}: {said}");
        all += bytes;
        let rate = received["bits_per_second"].as_f64().context("no rate in the report")?;
        marks.tell(format!("{way} {:.2} Gb/s", rate / 1e9));
        server.finish(PATIENCE)?;
    }
    Ok(all)
}
