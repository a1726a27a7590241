//! Kernel settings that forwarding and exit nodes need, set by file or, where files are read-only, by netlink.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use netlink_bindings::rt_link::Ipv4Devconf;

use crate::failure::{Area, HostError};
use crate::link::{self, Link};
use crate::netlink::Netlink;

const SETTINGS: &str = "/proc/sys/net";
const IPV6_ADVICE: &str = "set net.ipv6.conf.all.forwarding=1 on the machine or in the pod's securityContext.sysctls \
                           (no program can set it while /proc/sys is read-only), or forward in user space";

/// Reads and changes the kernel's settings for forwarding.
///
/// In a pod `/proc/sys` is read-only. IPv4 settings of an interface can be set by netlink all the same, with the
/// capability NET_ADMIN; those of interfaces that come later can't, so call again when an interface appears. IPv6 has
/// no such way.
pub struct Forwarding {
    netlink: Netlink,
    settings: PathBuf,
}

/// One setting that was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingChange {
    /// Its name as `sysctl` has it, such as `net.ipv4.conf.eth0.forwarding`.
    pub setting: String,
    /// What it was.
    pub before: String,
    /// What it is now.
    pub after: String,
    way: Way,
}

/// How a setting was changed, for the way back.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    File(PathBuf),
    Netlink { interface: u32, conf: u16, before: u32 },
}

/// What came of a change of settings.
#[derive(Debug, Default)]
#[must_use = "some of the settings may not have been set"]
pub struct SettingsApplied {
    /// What was changed, in order: [`Forwarding::restore`] takes it back.
    pub changes: Vec<SettingChange>,
    /// What could not be set, and why.
    pub failures: Vec<HostError>,
}

/// An IPv4 setting of interfaces.
#[derive(Clone, Copy)]
enum Conf {
    Forwarding,
    SourceValidMark,
}

impl Conf {
    fn name(self) -> &'static str {
        match self {
            Self::Forwarding => "forwarding",
            Self::SourceValidMark => "src_valid_mark",
        }
    }

    fn number(self) -> Ipv4Devconf {
        match self {
            Self::Forwarding => Ipv4Devconf::Forwarding,
            Self::SourceValidMark => Ipv4Devconf::SrcVmark,
        }
    }

    fn of(self, link: &Link) -> u32 {
        link.devconf.get(self.number() as usize).copied().unwrap_or(0)
    }
}

impl Forwarding {
    /// Opens the way to the kernel.
    ///
    /// # Errors
    /// When there is no netlink.
    pub fn new() -> Result<Self, HostError> {
        Self::below(Path::new(SETTINGS))
    }

    /// The same with the settings' files below another folder than `/proc/sys/net`.
    ///
    /// # Errors
    /// When there is no netlink.
    pub fn below(settings: &Path) -> Result<Self, HostError> {
        Ok(Self { netlink: link::open()?, settings: settings.to_owned() })
    }

    /// Whether packets that come by each interface are forwarded, in IPv4. Loopback is left out.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn ipv4(&mut self) -> Result<Vec<(String, bool)>, HostError> {
        let links = link::list_links(&mut self.netlink)?;
        let forwards = |link: Link| (Conf::Forwarding.of(&link) != 0, link.name);
        Ok(links.into_iter().filter(|link| !link.loopback).map(forwards).map(|(on, name)| (name, on)).collect())
    }

    /// Whether IPv6 packets are forwarded; nothing when the machine has no IPv6 or hides the setting.
    pub fn ipv6(&self) -> Option<bool> {
        Some(self.read("ipv6/conf/all/forwarding").ok()? != "0")
    }

    /// Forwards IPv4 between all interfaces.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn forward_ipv4(&mut self) -> Result<SettingsApplied, HostError> {
        let mut applied = SettingsApplied::default();
        if self.ipv4()?.iter().all(|(_, on)| *on) {
            return Ok(applied);
        }
        match self.write("ipv4/ip_forward", "1") {
            Ok(change) => applied.changes.extend(change),
            Err(_) => self.set_each(Conf::Forwarding, &mut applied)?,
        }
        Ok(applied)
    }

    /// Forwards IPv6 between all interfaces. Interfaces that take their routes from router advertisements go on doing
    /// so, which forwarding would else end.
    pub fn forward_ipv6(&mut self) -> SettingsApplied {
        let mut applied = SettingsApplied::default();
        match self.ipv6() {
            Some(true) => return applied,
            Some(false) => {}
            None => {
                applied.failures.push(HostError::with_advice(
                    "forward IPv6",
                    io::Error::from_raw_os_error(libc::EAFNOSUPPORT),
                    "this machine has no IPv6, or hides its settings: forward IPv4 only",
                ));
                return applied;
            }
        }
        for interface in self.interfaces_that_accept_advertisements() {
            match self.write(&format!("ipv6/conf/{interface}/accept_ra"), "2") {
                Ok(change) => applied.changes.extend(change),
                Err(error) => {
                    applied.failures.push(ipv6_failure(error));
                    return applied;
                }
            }
        }
        match self.write("ipv6/conf/all/forwarding", "1") {
            Ok(change) => applied.changes.extend(change),
            Err(error) => applied.failures.push(ipv6_failure(error)),
        }
        applied
    }

    /// Lets strict reverse path filters take a packet's mark into account: answers to the node's own packets are then
    /// accepted beside an exit node. Goes with
    /// [`FirewallConfig::mark_replies`](crate::FirewallConfig::mark_replies).
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn trust_marks(&mut self) -> Result<SettingsApplied, HostError> {
        let mut applied = SettingsApplied::default();
        match self.write("ipv4/conf/all/src_valid_mark", "1") {
            Ok(change) => applied.changes.extend(change),
            Err(_) => self.set_each(Conf::SourceValidMark, &mut applied)?,
        }
        Ok(applied)
    }

    /// Takes changes back, the last one first. Interfaces that are gone are no failure.
    pub fn restore(&mut self, changes: &[SettingChange]) -> Vec<HostError> {
        let mut failures = Vec::new();
        for change in changes.iter().rev() {
            let restored = match &change.way {
                Way::File(path) => fs::write(path, &change.before).map_err(Into::into),
                Way::Netlink { interface, conf, before } => {
                    let conf = if *conf == Ipv4Devconf::Forwarding as u16 {
                        Ipv4Devconf::Forwarding
                    } else {
                        Ipv4Devconf::SrcVmark
                    };
                    link::set_devconf(&mut self.netlink, *interface, conf, *before)
                }
            };
            match restored {
                Err(reason) if matches!(reason.errno(), Some(libc::ENODEV | libc::ENOENT)) => {}
                Err(reason) => failures.push(HostError::new(
                    Area::Network,
                    format!("set {} back to {}", change.setting, change.before),
                    reason,
                )),
                Ok(()) => {}
            }
        }
        failures
    }

    fn set_each(&mut self, conf: Conf, applied: &mut SettingsApplied) -> Result<(), HostError> {
        for link in link::list_links(&mut self.netlink)? {
            let before = conf.of(&link);
            if link.loopback || before != 0 {
                continue;
            }
            let setting = format!("net.ipv4.conf.{}.{}", link.name, conf.name());
            match link::set_devconf(&mut self.netlink, link.index, conf.number(), 1) {
                Ok(()) => applied.changes.push(SettingChange {
                    setting,
                    before: before.to_string(),
                    after: "1".to_owned(),
                    way: Way::Netlink { interface: link.index, conf: conf.number() as u16, before },
                }),
                Err(reason) => {
                    applied.failures.push(HostError::new(Area::Network, format!("set {setting}=1 by netlink"), reason));
                }
            }
        }
        Ok(())
    }

    fn interfaces_that_accept_advertisements(&self) -> Vec<String> {
        let entries = fs::read_dir(self.settings.join("ipv6/conf")).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<_> = names
            .filter(|name| name != "all" && name != "lo")
            .filter(|name| self.read(&format!("ipv6/conf/{name}/accept_ra")).is_ok_and(|value| value == "1"))
            .collect();
        names.sort();
        names
    }

    fn read(&self, setting: &str) -> io::Result<String> {
        Ok(fs::read_to_string(self.settings.join(setting))?.trim().to_owned())
    }

    /// Sets a setting by its file; nothing is changed when it has the value.
    fn write(&self, setting: &str, value: &str) -> io::Result<Option<SettingChange>> {
        let before = self.read(setting)?;
        if before == value {
            return Ok(None);
        }
        let path = self.settings.join(setting);
        fs::write(&path, value)?;
        let after = value.to_owned();
        Ok(Some(SettingChange {
            setting: format!("net.{}", setting.replace('/', ".")),
            before,
            after,
            way: Way::File(path),
        }))
    }
}

fn ipv6_failure(error: io::Error) -> HostError {
    HostError::with_advice("forward IPv6", error, IPV6_ADVICE)
}

impl std::fmt::Display for SettingChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "set {}={} (was {})", self.setting, self.after, self.before)
    }
}
