//! The Debian tree: what the laboratory's boxes run on, and where images take their programs from.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use cache::{Cache, Entry, Key};

use crate::checkout::Checkout;
use crate::progress::Step;

const SUITE: &str = "bookworm";

/// What boxes need to be routers, names, nodes of Kubernetes and places where a person looks around.
const PACKAGES: &[&str] = &[
    // Kubernetes
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "ethtool",
    "etcd-client",
    "etcd-server",
    "ipset",
    "iptables",
    "kmod",
    "libseccomp2",
    "mount",
    "nftables",
    "socat",
    // Networks, and looking at them
    "bind9-dnsutils",
    "ca-certificates",
    "curl",
    "iperf3",
    "iproute2",
    "iputils-ping",
    "netcat-openbsd",
    "openssh-client",
    "openssh-server",
    "tcpdump",
    // What the guide installs by
    "systemd-standalone-sysusers",
    // A prompt
    "bash-completion",
    "busybox",
    "jq",
    "less",
    "procps",
    "psmisc",
    "vim-tiny",
];

/// The tree, and what it is made from.
pub(crate) fn entry(checkout: &Checkout) -> Result<Entry> {
    let key = Key::of("debian tree").text("suite", SUITE).texts("package", PACKAGES.iter().copied());
    Ok(Entry::new("tree", key.file(&script(checkout))?.finish()))
}

/// The path of exactly the tree that this checkout asks for.
pub(crate) fn path(cache: &Cache, checkout: &Checkout) -> Result<PathBuf> {
    Ok(cache.path(&entry(checkout)?))
}

/// Makes the tree in `draft`.
pub(super) fn make(checkout: &Checkout, step: &Step<'_>, draft: &Path) -> Result<()> {
    let mirror = mirror(step);
    step.run_over_network(3, || {
        let mut command = Command::new("bash");
        command.arg(script(checkout)).arg(draft).arg(SUITE).arg(&mirror).args(PACKAGES);
        command
    })
}

fn script(checkout: &Checkout) -> PathBuf {
    checkout.path("tools/debian/bootstrap.sh")
}

/// The mirror that this machine takes its own packages of the suite from; empty, which means debootstrap's own choice,
/// when it runs another suite or no apt.
fn mirror(step: &Step<'_>) -> String {
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", "$(CODENAME) $(REPO_URI)", "Created-By: Packages"]);
    let listed = step.output(&mut command).unwrap_or_default();
    let uri = listed.lines().find_map(|line| line.strip_prefix(SUITE)?.strip_prefix(' '));
    uri.unwrap_or_default().to_owned()
}
