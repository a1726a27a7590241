use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use dial::Roots;

use crate::config::{AuthKey, Config, DeviceConfig, Wishes};
use crate::control::ControlUrl;
use crate::dns::machine_resolver;
use crate::other_daemon;
use crate::store::{FileStore, MemoryStore, StateStore};

/// Where state is kept when nobody says otherwise: in a folder of its own, because the coordination server may have one beside
/// it that is another user's.
const STATE: &str = "/var/lib/towline/node/node.state";

/// Where earlier versions kept it.
const EARLIER_STATE: &str = "/var/lib/towline/node.state";

/// Runs a node: the daemon that `towline up` and the other commands talk to.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// The file that keys and settings are kept in; `mem:` keeps nothing.
    #[arg(long, env = "TOWLINE_NODE_STATE", default_value = STATE, value_name = "FILE")]
    state: PathBuf,

    /// The socket for commands.
    #[arg(
        long,
        env = "TOWLINE_NODE_SOCKET",
        default_value = "/var/run/tailscale/tailscaled.sock",
        value_name = "PATH"
    )]
    socket: PathBuf,

    /// The interface's name; `userspace-networking` for an IP stack of the program's own, which needs no rights.
    #[arg(long, env = "TOWLINE_NODE_TUN", default_value = "tailscale0", value_name = "NAME")]
    tun: String,

    /// The UDP port of the mesh; 0 lets the system choose.
    #[arg(long, env = "TOWLINE_NODE_PORT", default_value_t = 41641, value_name = "PORT")]
    port: u16,

    /// Certificates in PEM to believe besides the system's: of a coordination server and relays with a private authority.
    #[arg(long, env = "TOWLINE_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,

    /// The coordination server to join, for a start without `towline up`.
    #[arg(long, env = "TOWLINE_CONTROL_URL", value_name = "URL")]
    login_server: Option<ControlUrl>,

    /// A file with an auth key, to join at once; the key is used when the node is not known yet.
    #[arg(long, env = "TOWLINE_AUTH_KEY_FILE", value_name = "FILE")]
    auth_key_file: Option<PathBuf>,

    /// The name to ask for when the node joins; the machine's otherwise.
    #[arg(long, env = "TOWLINE_NODE_HOSTNAME", value_name = "NAME")]
    hostname: Option<String>,
}

impl Arguments {
    /// Reads the files that the arguments name, and takes the state for this daemon.
    ///
    /// # Errors
    /// Another daemon in the way, or a file that can't be read or holds something else than it should.
    pub fn resolve(self) -> anyhow::Result<Config> {
        let in_memory = self.state.as_os_str() == "mem:";
        let device = match &*self.tun {
            "userspace-networking" => DeviceConfig::UserSpace,
            _ => DeviceConfig::Tun { name: self.tun },
        };
        // Before anything is opened: a daemon that is in the way has more than the state, and uses what would be moved.
        other_daemon::look(Some(&self.socket), device.interface())?;
        if self.state == Path::new(STATE) {
            FileStore::adopt(Path::new(EARLIER_STATE), &self.state)?;
        }
        let store: Arc<dyn StateStore> =
            if in_memory { Arc::new(MemoryStore::default()) } else { Arc::new(FileStore::open(&self.state)?) };
        let auth_key = match &self.auth_key_file {
            Some(path) => {
                let text =
                    std::fs::read_to_string(path).with_context(|| format!("the auth key in {}", path.display()))?;
                Some(AuthKey::new(text)).filter(|key| !key.is_empty())
            }
            None => None,
        };
        let mut roots = Roots::system()?;
        if let Some(path) = &self.ca_file {
            roots = roots.and_file(path)?;
        }
        let wishes = Wishes {
            running: auth_key.as_ref().map(|_| true),
            control_url: self.login_server,
            hostname: self.hostname,
            ..Wishes::default()
        };
        let resolver = Arc::new(machine_resolver(device != DeviceConfig::UserSpace));
        Ok(Config {
            store,
            netmap_cache: (!in_memory).then(|| self.state.with_extension("netmap")),
            device,
            wishes,
            auth_key,
            ephemeral: false,
            port: self.port,
            mark_sockets: false,
            local_api: Some(self.socket),
            roots,
            resolver,
            app: String::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};

    use super::*;

    #[test]
    fn the_arguments_are_consistent_and_a_server_is_checked_as_it_is_read() {
        let command = || Arguments::augment_args(Command::new("node"));
        command().debug_assert();
        let read = |url: &str| command().try_get_matches_from(["node", "--login-server", url]);
        assert!(read("https://control.example").is_ok_and(|m| Arguments::from_arg_matches(&m).is_ok()));
        assert!(read("control.example").unwrap_err().to_string().contains("https://control.example.com"));
    }
}
