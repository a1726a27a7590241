use std::collections::BTreeMap;

use crypto::{MachinePublic, sha256_hex};
use mesh::Preferences;
use tailcfg::{Hostinfo, NetInfo};

use crate::VERSION;

/// What is so of the machine for as long as the process lives.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) hostname: String,
    kernel: String,
    architecture: String,
    distribution: BTreeMap<String, String>,
    in_container: bool,
}

impl Machine {
    /// Asks the system.
    pub(crate) fn read() -> Self {
        let uname = rustix::system::uname();
        let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
        let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        Self {
            hostname: text(uname.nodename()),
            kernel: text(uname.release()),
            architecture: text(uname.machine()),
            distribution: os_release(&release),
            in_container: std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
                || std::path::Path::new("/.dockerenv").exists()
                || std::path::Path::new("/run/.containerenv").exists(),
        }
    }

    /// The name that the node goes by: the one asked for, or the machine's first label.
    pub(crate) fn name(&self, preferences: &Preferences) -> String {
        if !preferences.hostname.is_empty() {
            return preferences.hostname.clone();
        }
        self.hostname.split('.').next().unwrap_or_default().to_owned()
    }

    /// What the node says of itself.
    pub(crate) fn hostinfo(
        &self,
        preferences: &Preferences,
        machine: &MachinePublic,
        net_info: Option<&NetInfo>,
        user_space: bool,
        app: &str,
    ) -> Hostinfo {
        let fact = |name: &str| self.distribution.get(name).cloned().unwrap_or_default();
        Hostinfo {
            ipn_version: VERSION.to_owned(),
            // No log goes anywhere; servers want the name of one all the same.
            backend_log_id: sha256_hex(machine.as_bytes()),
            os: "linux".to_owned(),
            os_version: self.kernel.clone(),
            container: Some(self.in_container),
            env: if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() { "k8s".to_owned() } else { String::new() },
            distro: fact("ID"),
            distro_version: fact("VERSION_ID"),
            distro_code_name: fact("VERSION_CODENAME"),
            app: app.to_owned(),
            hostname: self.name(preferences),
            shields_up: preferences.shields_up,
            machine: self.architecture.clone(),
            go_arch: match &*self.architecture {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            }
            .to_owned(),
            routable_ips: preferences.advertise_routes.clone(),
            request_tags: preferences.advertise_tags.clone(),
            net_info: net_info.cloned(),
            userspace: Some(user_space),
            userspace_router: Some(user_space),
            exit_node_id: preferences.exit_node_id.0.clone(),
            ..Hostinfo::default()
        }
    }
}

/// Reads `NAME=value` lines, quotes taken off.
fn os_release(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().trim_matches('"').to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_is_read_with_and_without_quotes() {
        let facts = os_release("PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID=\"12\"\n\n#x");
        assert_eq!((facts["ID"].as_str(), facts["VERSION_ID"].as_str()), ("debian", "12"));
    }

    #[test]
    fn a_log_is_named_though_none_is_sent_and_the_wished_name_counts() {
        let preferences = Preferences { hostname: "wish".to_owned(), ..Preferences::default() };
        let info = Machine::read().hostinfo(&preferences, &MachinePublic::from_bytes([1; 32]), None, true, "");
        assert_eq!((info.backend_log_id.len(), info.hostname.as_str()), (64, "wish"));
    }
}
