//! How boxes are joined: cables (veth pairs) from their interfaces to bridges in a namespace of their own, the fabric.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::command::tail;
use crate::lab_box::LabBox;
use crate::plan::{BoxPlan, Forwarding, Link, Plan, bridge_name, port_name};

/// Makes the bridges of a plan in a fresh fabric.
pub(crate) fn lay(fabric: &LabBox, plan: &Plan) -> Result<()> {
    let mut batch = String::from("link set lo up\n");
    for segment in &plan.segments {
        let bridge = bridge_name(&segment.name);
        line(&mut batch, format_args!("link add {bridge} type bridge forward_delay 0 mcast_snooping 0"));
        line(&mut batch, format_args!("link set {bridge} addrgenmode none up"));
    }
    in_fabric(fabric, &batch).context("making the bridges")?;
    // Rules meant for packets must not see frames; a kernel without br_netfilter has no such file.
    fabric.shell(
        "for file in /proc/sys/net/bridge/bridge-nf-call-*; do if [ -e \"$file\" ]; then echo 0 > \"$file\"; fi; done",
    )?;
    Ok(())
}

/// Plugs boxes in and configures their interfaces, routes and, for routers, address translation.
pub(crate) fn join(fabric: &LabBox, plan: &Plan, boxes: &[&LabBox]) -> Result<()> {
    unplug(fabric, boxes)?;
    let mut batch = String::new();
    for lab_box in boxes {
        for link in &lab_box.plan().links {
            let port = port_name(lab_box.plan(), link);
            let (interface, pid, bridge) = (&link.interface, lab_box.init().pid, bridge_name(&link.segment));
            line(&mut batch, format_args!("link add name {port} type veth peer name {interface} netns {pid}"));
            line(&mut batch, format_args!("link set {port} addrgenmode none master {bridge} up"));
        }
    }
    in_fabric(fabric, &batch).context("plugging the boxes in")?;
    crate::parallel::for_each(boxes, |lab_box| {
        configure(plan, lab_box).with_context(|| format!("configuring the network of box {}", lab_box.name()))
    })
}

/// Takes the cable of a box out of its bridge, as if pulled; `true` puts it back.
pub(crate) fn set_plugged(fabric: &LabBox, plan: &BoxPlan, interface: &str, plugged: bool) -> Result<()> {
    let link = plan.links.iter().find(|link| link.interface == interface);
    let link = link.with_context(|| format!("box {} has no interface {interface}", plan.name))?;
    let state = if plugged { "up" } else { "down" };
    in_fabric(fabric, &format!("link set {} {state}\n", port_name(plan, link)))
}

/// Removes ports that an earlier box of the same name has left: its interface goes some time after it.
fn unplug(fabric: &LabBox, boxes: &[&LabBox]) -> Result<()> {
    let shown = fabric.run(["ls", "/sys/class/net"])?.stdout;
    let there: BTreeSet<&str> = shown.split_whitespace().collect();
    let mut batch = String::new();
    for lab_box in boxes {
        for link in &lab_box.plan().links {
            let port = port_name(lab_box.plan(), link);
            if there.contains(port.as_str()) {
                line(&mut batch, format_args!("link del {port}"));
            }
        }
    }
    in_fabric(fabric, &batch).context("removing old ports")
}

fn configure(plan: &Plan, lab_box: &LabBox) -> Result<()> {
    let mut batch = String::from("link set lo up\n");
    for link in &lab_box.plan().links {
        let (interface, address, length) = (&link.interface, link.address, prefix_length(plan, link));
        line(&mut batch, format_args!("link set {interface} addrgenmode none"));
        line(&mut batch, format_args!("addr add {address}/{length} brd + dev {interface}"));
        line(&mut batch, format_args!("link set {interface} up"));
    }
    for route in &lab_box.plan().routes {
        line(&mut batch, format_args!("route add {} via {}", route.to, route.via));
    }
    lab_box.command(["ip", "-batch", "-"]).input(batch).run()?;
    if lab_box.plan().forwarding == Forwarding::Router {
        lab_box.command(["nft", "-f", "-"]).input(ROUTER_RULES).run()?;
    }
    Ok(())
}

/// What a household's router does: translate addresses outward, and drop what nobody inside asked for.
///
/// The rule about `wan` in `input` matters to hole punching. Without it the first probe from the far side is answered by the
/// router itself and leaves an entry in connection tracking; the near side's own probe then finds its port taken, gets another,
/// and the two never meet.
const ROUTER_RULES: &str = r#"
table ip router {
    chain input {
        type filter hook input priority filter; policy accept;
        iifname "wan" ct state new,invalid drop
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname "lan" accept
    }
    chain translate {
        type nat hook postrouting priority srcnat; policy accept;
        oifname "wan" masquerade
    }
}
"#;

fn prefix_length(plan: &Plan, link: &Link) -> u8 {
    let segment = plan.segments.iter().find(|segment| segment.name == link.segment);
    segment.map_or(32, |segment| segment.prefix.prefix_len())
}

/// Runs lines of `ip` in the fabric's network, but in the machine's PID namespace, so that they can name boxes by process.
fn in_fabric(fabric: &LabBox, batch: &str) -> Result<()> {
    if batch.is_empty() {
        return Ok(());
    }
    let pid = fabric.init().pid;
    let mut child = Command::new("nsenter")
        .args([format!("--net=/proc/{pid}/ns/net"), format!("--mount=/proc/{pid}/ns/mnt")])
        .args(["--", "/usr/sbin/ip", "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting nsenter (Debian package util-linux)")?;
    let written = child.stdin.take().map_or(Ok(()), |mut input| input.write_all(batch.as_bytes()));
    let output = child.wait_with_output().context("waiting for ip")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip -batch ended with {}\n{}", output.status, tail(&said, 10));
    written.context("feeding ip")
}

fn line(batch: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing into a string cannot fail.
    let _ = writeln!(batch, "{text}");
}
