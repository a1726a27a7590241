//! What the internet between the routers lets through: UDP blocked or open, as tests of relays need it.

use std::fmt::Write;

use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::lab_box::LabBox;
use crate::plan::{Forwarding, NAMES, Plan};

/// Which UDP passes on the internet's bridge. TCP always does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Udp {
    /// All of it.
    Open,
    /// All but between routers: no direct path between two homes, while STUN (port 3478), DNS and relays still answer.
    NotBetweenRouters,
    /// STUN (port 3478) and DNS only.
    OnlyStun,
    /// DNS only, as in networks whose firewall lets nothing but web pages through.
    Blocked,
}

/// Makes the fabric follow `udp`, and lets routers and nodes forget the UDP flows that they track.
///
/// Tracked flows have to go: packets that still arrive refresh an entry that outlives the rule it was made under. Entries of
/// TCP stay, so that no connection is lost.
pub(crate) fn apply(fabric: &LabBox, plan: &Plan, forwarders: &[LabBox], udp: Udp) -> Result<()> {
    fabric.command(["nft", "-f", "-"]).input(rules(plan, udp)).run()?;
    let tracking: Vec<&LabBox> =
        forwarders.iter().filter(|lab_box| lab_box.plan().forwarding != Forwarding::None).collect();
    crate::parallel::for_each(&tracking, |lab_box| {
        // Exit status 1 also stands for "nothing to delete", so the list is what counts.
        lab_box.command(["conntrack", "-D", "-p", "udp"]).finish()?;
        let left = lab_box.run(["conntrack", "-C"]);
        left.map(drop).with_context(|| format!("flushing tracked flows of box {}", lab_box.name()))
    })
}

fn rules(plan: &Plan, udp: Udp) -> String {
    let routers: Vec<String> = plan.routers().iter().map(ToString::to_string).collect();
    let routers = routers.join(", ");
    let mut chain = String::new();
    // Writing into a string cannot fail.
    let _ = match udp {
        Udp::Open => Ok(()),
        Udp::NotBetweenRouters => {
            writeln!(chain, "        ip saddr {{ {routers} }} ip daddr {{ {routers} }} meta l4proto udp drop")
        }
        Udp::OnlyStun | Udp::Blocked => {
            let _ = writeln!(chain, "        ip saddr {NAMES} udp sport 53 accept");
            let _ = writeln!(chain, "        ip daddr {NAMES} udp dport 53 accept");
            if udp == Udp::OnlyStun {
                let _ = writeln!(chain, "        udp sport 3478 accept\n        udp dport 3478 accept");
            }
            let internet = internet(plan);
            writeln!(chain, "        ip saddr {internet} ip daddr {internet} meta l4proto udp drop")
        }
    };
    // Declared, deleted and declared again: replaced in one transaction, whether it was there or not.
    format!(
        "table bridge traffic\ndelete table bridge traffic\ntable bridge traffic {{\n    chain forward {{\n        \
         type filter hook forward priority filter; policy accept;\n{chain}    }}\n}}\n"
    )
}

/// Told by address: not every kernel can match a bridge by name.
fn internet(plan: &Plan) -> Ipv4Net {
    let segment = plan.segments.iter().find(|segment| segment.prefix.contains(&NAMES));
    segment.map_or(Ipv4Net::default(), |segment| segment.prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stun_passes_where_only_direct_paths_are_blocked() {
        let rules = rules(&Plan::walkthrough(), Udp::NotBetweenRouters);
        assert!(rules.contains("ip saddr { 203.0.113.20, 203.0.113.30, 203.0.113.40 }"), "{rules}");
        assert!(!rules.contains("203.0.113.0/24"), "{rules}");
    }

    #[test]
    fn names_are_resolved_even_where_udp_is_blocked() {
        assert!(rules(&Plan::walkthrough(), Udp::Blocked).contains("203.0.113.2 udp dport 53 accept"));
    }
}
