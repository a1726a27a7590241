//! What could not be done to the machine, why, and what to do about it.

use std::io;

/// A change that the system refused, with the reason and the next step for whoever runs the machine.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}: {reason}; {advice}")]
pub struct HostError {
    action: String,
    reason: Reason,
    advice: String,
}

/// The system's own words: its error, and the sentence that the kernel added to it.
#[derive(Debug)]
pub(crate) struct Reason {
    pub(crate) error: io::Error,
    pub(crate) detail: Option<String>,
}

/// What a failed action touched: it decides which capability or module the advice names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Area {
    /// Links, addresses, routes, rules, socket marks.
    Network,
    /// nf_tables.
    Firewall,
    /// The TUN device.
    Tun,
    /// Files: resolv.conf, sysctls.
    File,
}

impl HostError {
    /// An error for `action` (an infinitive: "add the address 100.64.0.1/32 to tailscale0").
    pub(crate) fn new(area: Area, action: impl Into<String>, reason: impl Into<Reason>) -> Self {
        let reason = reason.into();
        let advice = advice(area, &reason.error).to_owned();
        Self { action: action.into(), reason, advice }
    }

    /// The same with advice of the caller's own.
    pub(crate) fn with_advice(action: impl Into<String>, reason: impl Into<Reason>, advice: impl Into<String>) -> Self {
        Self { action: action.into(), reason: reason.into(), advice: advice.into() }
    }

    /// What was being done.
    pub fn action(&self) -> &str {
        &self.action
    }

    /// What to do about it.
    pub fn advice(&self) -> &str {
        &self.advice
    }

    /// The system's error number, where it gave one.
    pub fn raw_os_error(&self) -> Option<i32> {
        self.reason.error.raw_os_error()
    }

    /// Whether the process lacks a right, which waiting does not change.
    pub fn is_permission(&self) -> bool {
        self.reason.error.kind() == io::ErrorKind::PermissionDenied
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.detail {
            Some(detail) => write!(f, "{} ({detail})", self.error),
            None => write!(f, "{}", self.error),
        }
    }
}

impl From<io::Error> for Reason {
    fn from(error: io::Error) -> Self {
        Self { error, detail: None }
    }
}

impl From<rustix::io::Errno> for Reason {
    fn from(errno: rustix::io::Errno) -> Self {
        io::Error::from(errno).into()
    }
}

impl Reason {
    pub(crate) fn errno(&self) -> Option<i32> {
        self.error.raw_os_error()
    }
}

fn advice(area: Area, error: &io::Error) -> &'static str {
    let code = error.raw_os_error().unwrap_or(0);
    match (area, code) {
        (Area::Tun, libc::ENODEV | libc::ENXIO | libc::ENOENT) => "load the kernel module with `modprobe tun`",
        (Area::Tun, libc::EBUSY) => {
            "another process holds this interface: stop it, or choose another name for the interface"
        }
        (Area::Tun, libc::EPERM | libc::EACCES) => {
            "grant the capability NET_ADMIN and access to the device /dev/net/tun (character 10:200), \
             or run in user space"
        }
        (Area::Firewall, libc::ENOENT | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT) => {
            "the kernel lacks a part of nf_tables: try `modprobe -a nf_tables nft_chain_nat nft_masq nft_ct`"
        }
        (Area::File, libc::EROFS) => "the file system is mounted read-only: mount this path writable",
        (Area::File, libc::EPERM | libc::EACCES) => "run as root, or make this path writable for this user",
        (_, libc::EPERM | libc::EACCES) => "run as root, or grant the capability NET_ADMIN",
        (Area::Network, libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT) => {
            "the kernel does not support this: load the module, or do without this address family"
        }
        (Area::Network, libc::ENODEV) => "the interface is gone: start the node again",
        _ => "the system's log (`dmesg`) may say more",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_right_names_the_capability() {
        let refused = io::Error::from_raw_os_error(libc::EPERM);
        let error = HostError::new(Area::Network, "add the route 100.64.0.0/10", refused);
        assert!(error.is_permission());
        assert_eq!(
            error.to_string(),
            "cannot add the route 100.64.0.0/10: Operation not permitted (os error 1); \
             run as root, or grant the capability NET_ADMIN"
        );
    }

    #[test]
    fn the_kernels_own_sentence_is_kept() {
        let reason =
            Reason { error: io::Error::from_raw_os_error(libc::EINVAL), detail: Some("Invalid prefix".to_owned()) };
        let error = HostError::new(Area::Network, "add a route", reason);
        assert!(error.to_string().contains("(Invalid prefix)"), "{error}");
    }
}
