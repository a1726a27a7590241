use http::{HeaderMap, StatusCode, header};

use super::reply::Refusal;
use crate::node::Node;

/// The host that requests are for; there is no other.
const HOST: &str = "local-tailscaled.sock";

/// Turns away what no command line sends: a web page's request.
pub(super) fn check_headers(headers: &HeaderMap) -> Result<(), Refusal> {
    let refuse = |text: &str| Err(Refusal::new(StatusCode::FORBIDDEN, text));
    if headers.contains_key(header::ORIGIN) || headers.contains_key(header::REFERER) {
        return refuse("requests of web pages are not answered");
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if host == HOST => Ok(()),
        _ => refuse("the host of a request must be local-tailscaled.sock"),
    }
}

/// What a user of the machine is to the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Root, and the user that the daemon runs as.
    Owner,
    /// The user who was named for it (`--operator`).
    Operator,
    /// Anybody else, who may look.
    Reader,
}

impl Standing {
    /// What a caller is, where this user is named as the operator.
    pub(super) fn of(caller: Option<u32>, operator: &str) -> Self {
        let Some(caller) = caller else { return Self::Reader };
        if caller == 0 || caller == rustix::process::geteuid().as_raw() {
            return Self::Owner;
        }
        let is_operator = !operator.is_empty() && uid_of(operator) == Some(caller);
        if is_operator { Self::Operator } else { Self::Reader }
    }

    /// What a caller is to a node as it is now.
    pub(super) fn at(caller: Option<u32>, node: &Node) -> Self {
        Self::of(caller, &node.snapshot().mesh.preferences().operator_user)
    }

    /// Whether such a user may change anything.
    pub(super) fn may_write(self) -> bool {
        self != Self::Reader
    }
}

/// The number of a user, by name or by itself.
fn uid_of(name: &str) -> Option<u32> {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    named.or_else(|| name.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_a_command_line_is_answered() {
        assert!(check_headers(&headers(&[("host", HOST)])).is_ok());
        for bad in [
            &[][..],
            &[("host", "localhost")],
            &[("host", "evil.example")],
            &[("host", HOST), ("origin", "https://evil.example")],
            &[("host", HOST), ("referer", "http://local-tailscaled.sock/")],
        ] {
            assert!(check_headers(&headers(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_root_the_daemons_user_and_the_named_one_may_write() {
        let own = rustix::process::geteuid().as_raw();
        assert_eq!((Standing::of(Some(0), ""), Standing::of(Some(own), "")), (Standing::Owner, Standing::Owner));
        assert!(!Standing::of(Some(4_000_000), "").may_write());
        assert!(Standing::of(Some(4_000_000), "4000000").may_write());
        assert!(!Standing::of(None, "root").may_write());
        assert_eq!(uid_of("root"), Some(0));
    }
}
