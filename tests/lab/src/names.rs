//! The laboratory's public names: a CoreDNS that every box asks, authoritative for `towline.test`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Result, ensure};
use rustix::process::Signal;

use crate::daemon::Daemon;
use crate::lab_box::LabBox;
use crate::plan::{CONTROL, ECHO, NAMES, REGISTRY, RELAY2};
use crate::readiness::Ready;

/// The public domain of the laboratory.
pub const DOMAIN: &str = "towline.test";
/// Name of the coordination server.
pub const CONTROL_NAME: &str = "control.towline.test";
/// Name of the first relay, a process of its own in the control box.
pub const RELAY1_NAME: &str = "derp1.towline.test";
/// Name of the second relay.
pub const RELAY2_NAME: &str = "derp2.towline.test";
/// Name of the box that answers with the caller's address.
pub const ECHO_NAME: &str = "echo.towline.test";
/// Name of the image registry.
pub const REGISTRY_NAME: &str = "registry.towline.test";

const COREFILE: &str = "/etc/coredns/Corefile";

/// The names that every world begins with.
pub(crate) fn usual() -> BTreeMap<String, Ipv4Addr> {
    [
        ("names.towline.test", NAMES),
        (CONTROL_NAME, CONTROL),
        (RELAY1_NAME, CONTROL),
        (RELAY2_NAME, RELAY2),
        (ECHO_NAME, ECHO),
        (REGISTRY_NAME, REGISTRY),
    ]
    .map(|(name, address)| (name.to_owned(), address))
    .into()
}

/// Starts the name server in its box.
pub(crate) fn serve(names: &LabBox, zone: &BTreeMap<String, Ipv4Addr>) -> Result<Daemon> {
    if let Some(daemon) = names.find_daemon("coredns")?
        && daemon.is_running()
        && daemon.check().is_ok()
    {
        // Names may have been added since: they stay.
        return Ok(daemon);
    }
    names.write(COREFILE, corefile(zone)?, 0o644)?;
    names.daemon("coredns", ["coredns", "-conf", COREFILE]).ready(Ready::Tcp(SocketAddr::from((NAMES, 53)))).start()
}

/// Makes the name server answer from another zone at once.
pub(crate) fn replace(names: &LabBox, zone: &BTreeMap<String, Ipv4Addr>) -> Result<()> {
    let daemon = names.find_daemon("coredns")?;
    let Some(daemon) = daemon else { return serve(names, zone).map(drop) };
    let before = daemon.log()?.matches(RELOADED).count();
    names.write(COREFILE, corefile(zone)?, 0o644)?;
    daemon.signal(Signal::USR1)?;
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(10);
    // The log is the only place where CoreDNS says that it has read the file again.
    while daemon.log()?.matches(RELOADED).count() == before {
        ensure!(daemon.is_running(), "the name server ended; see {}", daemon.log_path().display());
        ensure!(std::time::Instant::now() < limit, "the name server has not read its file again after 10 s");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Ok(())
}

const RELOADED: &str = "Reloading complete";

/// The configuration: each name its address, no other type, and every other name is no name.
fn corefile(zone: &BTreeMap<String, Ipv4Addr>) -> Result<String> {
    let authority = format!("authority \"{{{{ .Zone }}}} 60 IN SOA names.{DOMAIN}. admin.{DOMAIN}. 1 60 60 60 60\"");
    let mut text = String::from(". {\n    errors\n");
    for (name, address) in zone {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
        ensure!(!name.is_empty() && name.bytes().all(allowed), "{name:?} is no name in lower case");
        let pattern = name.replace('.', "\\.");
        // Writing into a string cannot fail.
        let _ = write!(
            text,
            "    template IN A {{\n        match \"(?i)^{pattern}\\.$\"\n        \
             answer \"{{{{ .Name }}}} 30 IN A {address}\"\n        fallthrough\n    }}\n    \
             template IN ANY {{\n        match \"(?i)^{pattern}\\.$\"\n        rcode NOERROR\n        {authority}\n        \
             fallthrough\n    }}\n"
        );
    }
    let _ = write!(text, "    template ANY ANY {{\n        rcode NXDOMAIN\n        {authority}\n    }}\n}}\n");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dot_in_a_name_matches_a_dot_only() {
        let text = corefile(&usual()).unwrap();
        assert!(text.contains("(?i)^control\\.towline\\.test\\.$"), "{text}");
    }

    #[test]
    fn a_name_that_would_change_the_configuration_is_refused() {
        let zone = BTreeMap::from([("a\" }\n".to_owned(), ECHO)]);
        assert!(corefile(&zone).is_err());
    }
}
