use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use dial::Resolve;

use crate::{Allowed, Cluster, Config, Limits};

/// Run the Kubernetes API server proxy: people reach the cluster as who they are on the tailnet.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// A group that may be impersonated, by its exact name; may be repeated. Without any, people act as themselves only.
    #[arg(long = "group", env = "APISERVER_PROXY_GROUPS", value_name = "GROUP", value_delimiter = ',')]
    groups: Vec<String>,

    /// A user that may be impersonated, by login name or a tagged node's full name; may be repeated. Without any: everybody.
    #[arg(long = "user", env = "APISERVER_PROXY_USERS", value_name = "USER", value_delimiter = ',')]
    users: Vec<String>,

    /// The API server, as https://host:port; in a pod it is the cluster's own.
    #[arg(
        long,
        env = "APISERVER_PROXY_SERVER",
        value_name = "URL",
        requires_all = ["api_server_ca_file", "api_server_token_file"]
    )]
    api_server: Option<String>,

    /// The CA that vouches for the API server, in PEM.
    #[arg(long, env = "APISERVER_PROXY_CA_FILE", value_name = "FILE", requires = "api_server")]
    api_server_ca_file: Option<PathBuf>,

    /// The file with the proxy's own token, read again when it changes.
    #[arg(long, env = "APISERVER_PROXY_TOKEN_FILE", value_name = "FILE", requires = "api_server")]
    api_server_token_file: Option<PathBuf>,

    /// Where /healthz, /readyz and /metrics are served; keep it to yourself.
    #[arg(long, env = "APISERVER_PROXY_ADMIN_LISTEN", value_name = "ADDRESS")]
    admin_listen: Option<SocketAddr>,

    /// How many sessions of exec, attach, cp and port-forward one caller may have at once.
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().sessions_per_caller)]
    max_sessions_per_caller: usize,
}

impl Arguments {
    /// Checks the arguments and reads the files that they name; opens nothing.
    ///
    /// # Errors
    /// A process in no pod that names no API server, and files that are not what they should be.
    pub fn resolve(self, resolver: Arc<dyn Resolve>) -> anyhow::Result<Config> {
        // An empty variable is how the chart writes an empty list.
        let named = |names: Vec<String>| names.into_iter().filter(|name| !name.is_empty());
        let allowed = Allowed::groups(named(self.groups)).and_users(named(self.users));
        let cluster = match (self.api_server, self.api_server_ca_file, self.api_server_token_file) {
            (Some(server), Some(ca), Some(token)) => Cluster::new(&server, &ca, token, resolver)?,
            _ => Cluster::of_pod(resolver)?,
        };
        let limits = Limits { sessions_per_caller: self.max_sessions_per_caller, ..Limits::default() };
        Ok(Config { cluster, allowed, admin_listen: self.admin_listen, limits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args as _, Command, FromArgMatches as _};

    fn read(arguments: &[&str]) -> Result<Arguments, clap::Error> {
        let command = Arguments::augment_args(Command::new("apiserver-proxy"));
        Arguments::from_arg_matches(&command.try_get_matches_from([&["apiserver-proxy"], arguments].concat())?)
    }

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::augment_args(Command::new("apiserver-proxy")).debug_assert();
        let read = read(&["--group=a,b", "--group=c", "--user="]).unwrap();
        assert_eq!((read.groups, read.users), (vec!["a".into(), "b".into(), "c".into()], vec![String::new()]));
    }

    #[test]
    fn an_api_server_by_name_needs_its_ca_and_a_token() {
        assert!(read(&["--api-server=https://10.1.0.1"]).is_err());
        assert!(
            read(&["--api-server=https://10.1.0.1", "--api-server-ca-file=a", "--api-server-token-file=b"]).is_ok()
        );
    }
}
