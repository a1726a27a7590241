//! The Debian packages that this machine itself must have.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use cache::Cache;

use crate::progress::Progress;

/// Packages and what needs them: as few as possible, since everything else runs from the cache.
const NEEDED: &[(&str, &str)] = &[
    ("debootstrap", "makes the Debian tree"),
    ("gcc", "links every program, and runc and pause are C in part"),
    ("libc6-dev", "has what static linking needs"),
    ("libseccomp-dev", "is built into runc"),
    ("pkg-config", "finds libseccomp for runc"),
];

/// Installs what is missing, and says so; when all is there it only asks dpkg.
pub(super) fn install_missing(cache: &Cache, progress: &Progress) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the laboratory needs root, for namespaces and for the Debian tree: run this as root"
    );
    let missing = missing()?;
    if missing.is_empty() {
        return Ok(());
    }
    for (package, need) in NEEDED.iter().filter(|(package, _)| missing.contains(package)) {
        progress.line(&format!("installing the Debian package {package} on this machine: it {need}"));
    }
    progress.step("packages", |step| {
        let _lock = cache.lock("packages", &mut |holder| step.waiting(holder))?;
        step.run_over_network(3, || apt_get(&["update", "-q"]))?;
        step.run_over_network(3, || {
            let mut install = apt_get(&["install", "-q", "-y", "--no-install-recommends"]);
            install.args(&missing);
            install
        })
    })
}

fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command.args(["-o", "Acquire::Retries=3", "-o", "DPkg::Lock::Timeout=300"]).args(arguments);
    command
}

fn missing() -> Result<Vec<&'static str>> {
    let names = NEEDED.iter().map(|(package, _)| *package);
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"]).args(names.clone());
    let output = query.output().context("asking dpkg-query, which a Debian machine has")?;
    // It ends with 1 when it does not know a package, which is an answer too.
    if !matches!(output.status.code(), Some(0 | 1)) {
        bail!("dpkg-query failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let listed = String::from_utf8_lossy(&output.stdout);
    let installed = |package: &str| listed.lines().any(|line| line == format!("{package} installed"));
    Ok(names.filter(|package| !installed(package)).collect())
}
