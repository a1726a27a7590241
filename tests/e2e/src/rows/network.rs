//! Row 11, the part without Kubernetes: what a client finds out about the network around it.

use anyhow::{Context, Result, ensure};

use crate::{Checks, Client, Tailnet};

/// The relays' regions, as the server's relay map has them: the one that the region score makes nearer, and the other.
const NEAR: (&str, &str) = ("900", "near");
const FAR: (&str, &str) = ("901", "far");

/// Has both clients measure their network.
pub(super) fn play(tailnet: &Tailnet, checks: &mut Checks) {
    for (client, router) in [(&tailnet.laptop, lab::CAFE_ROUTER), (&tailnet.robbinsdale, lab::CABIN_ROUTER)] {
        let name = client.lab_box().name();
        checks.check(
            &format!("row 11: netcheck on {name} names the NAT, the nearest relay and how far both are"),
            || {
                for_programs(client, &router.to_string())?;
                for_people(client, &router.to_string())
            },
        );
    }
}

/// The laboratory's routers give a socket one outer address for all whom it speaks to.
fn for_programs(client: &Client, router: &str) -> Result<()> {
    let report = client.netcheck()?;
    ensure!(report["UDP"] == true, "{report}");
    ensure!(report["MappingVariesByDestIP"] == false, "the mapping varies, or is not known: {report}");
    if client.has_our_commands() {
        ensure!(report["NAT"] == "easy", "{report}");
    }
    let seen = report["GlobalV4"].as_str().context("no GlobalV4")?;
    ensure!(seen.starts_with(&format!("{router}:")), "{report}");
    ensure!(report["PreferredDERP"].as_u64() == NEAR.0.parse().ok(), "{report}");
    for (id, _) in [NEAR, FAR] {
        let latency = report["RegionLatency"][id].as_u64().filter(|nanoseconds| *nanoseconds > 0);
        ensure!(latency.is_some(), "no latency of region {id}: {report}");
    }
    Ok(())
}

fn for_people(client: &Client, router: &str) -> Result<()> {
    let said = client.cli(["netcheck"]).run()?.stdout;
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    let has = |start: &str| lines.iter().any(|line| line.starts_with(start));
    ensure!(has("* UDP: true") && has(&format!("* IPv4: yes, {router}:")), "{said}");
    ensure!(has("* MappingVariesByDestIP: false"), "{said}");
    // The stock command leaves the name of it to the reader.
    ensure!(has("* NAT: easy: ") || !client.has_our_commands(), "{said}");
    ensure!(has(&format!("* Nearest DERP: {}", NEAR.1)), "{said}");
    for (_, code) in [NEAR, FAR] {
        let line = lines.iter().find(|line| line.starts_with(&format!("- {code}: ")));
        let line = line.with_context(|| format!("no latency of {code}: {said}"))?;
        let latency = line.split_whitespace().nth(2).unwrap_or_default();
        ensure!(latency.ends_with('s') && latency.starts_with(|first: char| first.is_ascii_digit()), "{line}");
    }
    Ok(())
}
