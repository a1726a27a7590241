use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use dial::{Resolve, Roots};
use kubeapi::Tag;

use crate::config::{ApiServerProxy, Config};
use crate::control::{Credentials, RestSettings};
use crate::proxy::tag_texts;
use crate::settings::Settings;

/// Run the Kubernetes operator, or `drain` what it has made
///
/// Every flag has a variable; those that the stock operator has too are named as it names them.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = false)]
pub struct Arguments {
    /// What to do instead of running
    #[command(subcommand)]
    pub command: Option<Command>,

    /// The namespace that the operator and its proxies run in
    #[arg(long, env = "OPERATOR_NAMESPACE", default_value = "tailscale", global = true)]
    pub namespace: String,

    /// The coordination server's URL
    #[arg(long, env = "OPERATOR_LOGIN_SERVER", value_name = "URL", global = true)]
    pub login_server: Option<String>,

    /// A file with the OAuth client's id
    #[arg(long, env = "CLIENT_ID_FILE", value_name = "FILE", global = true)]
    pub client_id_file: Option<PathBuf>,

    /// A file with the OAuth client's secret
    #[arg(long, env = "CLIENT_SECRET_FILE", value_name = "FILE", global = true)]
    pub client_secret_file: Option<PathBuf>,

    /// A file of PEM certificates to trust besides the system's, for the coordination server
    #[arg(long, env = "TOWLINE_CA_FILE", value_name = "FILE", global = true)]
    pub ca_file: Option<PathBuf>,

    /// The image of proxies
    #[arg(long, env = "PROXY_IMAGE", global = true)]
    pub proxy_image: Option<String>,

    /// When the image of proxies is pulled
    #[arg(long, env = "PROXY_IMAGE_PULL_POLICY", global = true)]
    pub proxy_image_pull_policy: Option<String>,

    /// Secrets to pull the image of proxies with, with commas
    #[arg(long, env = "PROXY_IMAGE_PULL_SECRETS", value_delimiter = ',', global = true)]
    pub proxy_image_pull_secrets: Vec<String>,

    /// Tags of proxies that ask for none, with commas
    #[arg(long, env = "PROXY_TAGS", default_value = "tag:k8s", global = true)]
    pub proxy_tags: String,

    /// The ProxyClass of proxies that ask for none
    #[arg(long, env = "PROXY_DEFAULT_CLASS", global = true)]
    pub proxy_class: Option<String>,

    /// The priority class of proxies' pods
    #[arg(long, env = "PROXY_PRIORITY_CLASS_NAME", global = true)]
    pub proxy_priority_class: Option<String>,

    /// A ConfigMap of certificates, key ca.crt, that proxies trust besides the public web's
    #[arg(long, env = "PROXY_CA_CONFIG_MAP", value_name = "NAME", global = true)]
    pub proxy_ca_config_map: Option<String>,

    /// Whether Services of type LoadBalancer without a class are exposed too
    #[arg(long, env = "OPERATOR_DEFAULT_LOAD_BALANCER", num_args = 0..=1, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set, global = true)]
    pub default_load_balancer: bool,

    /// The cluster's DNS domain; found in /etc/resolv.conf when absent
    #[arg(long, env = "OPERATOR_CLUSTER_DOMAIN", value_name = "DOMAIN", global = true)]
    pub cluster_domain: Option<String>,

    /// The name of the lease that replicas share
    #[arg(long, env = "OPERATOR_LEASE", default_value = "tailscale-operator", global = true)]
    pub lease: String,

    /// What to call this replica in the lease
    #[arg(long, env = "POD_NAME", default_value = "operator", global = true)]
    pub identity: String,

    /// What tells this replica from an earlier one of the same name
    #[arg(long, env = "POD_UID", default_value = "", global = true)]
    pub identity_uid: String,

    /// Where probes and metrics are answered
    #[arg(long, env = "OPERATOR_ADMIN_LISTEN", default_value = "0.0.0.0:8080", value_name = "ADDRESS", global = true)]
    pub admin_listen: SocketAddr,

    /// A kubeconfig to use in place of the pod's own account
    #[arg(long, env = "OPERATOR_KUBECONFIG", value_name = "FILE", global = true)]
    pub kubeconfig: Option<PathBuf>,
}

/// What the operator can do besides running.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Stop the operator, and remove proxies and devices before the chart is uninstalled
    Drain(DrainArguments),
}

/// What a drain needs to know.
#[derive(Debug, Clone, Args)]
pub struct DrainArguments {
    /// Deployments to stop first, with commas: the operator would make everything anew
    #[arg(long, env = "DRAIN_DEPLOYMENTS", value_delimiter = ',')]
    pub deployments: Vec<String>,

    /// The namespace of the API server's proxy, whose device is removed too
    #[arg(long, env = "DRAIN_APISERVER_PROXY_NAMESPACE", value_name = "NAMESPACE")]
    pub api_server_proxy_namespace: Option<String>,

    /// The tags of the API server's proxy, with commas: a device without any of them stays
    #[arg(long, env = "DRAIN_APISERVER_PROXY_TAGS", default_value = "tag:k8s-operator", value_name = "TAGS")]
    pub api_server_proxy_tags: String,
}

impl Arguments {
    /// Resolves arguments: reads the account or kubeconfig and certificates, and asks nobody.
    ///
    /// # Errors
    ///
    /// When something is missing or is not what it should be; the message says which flag or variable.
    pub async fn resolve(self, resolver: Arc<dyn Resolve>) -> Result<Config> {
        let settings = self.settings().await?;
        let control = self.control(&settings, resolver)?;
        let (drained, api_server_proxy) = match self.command {
            Some(Command::Drain(drain)) => drain.resolve()?,
            None => (Vec::new(), None),
        };
        let identity: Vec<_> = [self.identity, self.identity_uid].into_iter().filter(|part| !part.is_empty()).collect();
        Ok(Config {
            settings,
            cluster: cluster(self.kubeconfig).await?,
            control,
            lease: self.lease,
            identity: identity.join("_"),
            admin_listen: self.admin_listen,
            drained,
            api_server_proxy,
        })
    }

    /// What proxies are made with.
    async fn settings(&self) -> Result<Settings> {
        let login_server = self.login_server.clone();
        let login_server =
            login_server.context("no coordination server: set OPERATOR_LOGIN_SERVER (chart value loginServer)")?;
        let image = self.proxy_image.clone().context("no image for proxies: set PROXY_IMAGE")?;
        ensure!(!image.trim().is_empty(), "no image for proxies: PROXY_IMAGE is empty");
        Ok(Settings {
            namespace: self.namespace.clone(),
            cluster_domain: match nonempty(self.cluster_domain.as_ref()) {
                Some(domain) => domain,
                None => cluster_domain(&tokio::fs::read_to_string("/etc/resolv.conf").await.unwrap_or_default()),
            },
            login_server,
            image,
            image_pull_policy: nonempty(self.proxy_image_pull_policy.as_ref()),
            image_pull_secrets: self.proxy_image_pull_secrets.iter().filter(|name| !name.is_empty()).cloned().collect(),
            tags: Tag::list(&self.proxy_tags).context("PROXY_TAGS")?,
            proxy_class: nonempty(self.proxy_class.as_ref()),
            priority_class: nonempty(self.proxy_priority_class.as_ref()),
            certificates: nonempty(self.proxy_ca_config_map.as_ref()),
            default_load_balancer: self.default_load_balancer,
        })
    }

    /// How the coordination server is asked.
    fn control(&self, settings: &Settings, resolver: Arc<dyn Resolve>) -> Result<RestSettings> {
        let (Some(id), Some(secret)) = (&self.client_id_file, &self.client_secret_file) else {
            anyhow::bail!(
                "no credential: set CLIENT_ID_FILE and CLIENT_SECRET_FILE to the files of the Secret operator-oauth"
            );
        };
        let mut roots = Roots::system().context("reading the system's certificates")?;
        if let Some(path) = &self.ca_file {
            roots = roots.and_file(path)?;
        }
        Ok(RestSettings {
            url: settings.login_server.clone(),
            credentials: Credentials::Files { id: id.clone(), secret: secret.clone() },
            roots,
            resolver,
        })
    }
}

impl DrainArguments {
    fn resolve(self) -> Result<(Vec<String>, Option<ApiServerProxy>)> {
        let tags = Tag::list(&self.api_server_proxy_tags).context("DRAIN_APISERVER_PROXY_TAGS")?;
        let namespace = nonempty(self.api_server_proxy_namespace.as_ref());
        let proxy = namespace.map(|namespace| ApiServerProxy { namespace, tags: tag_texts(&tags) });
        Ok((self.deployments, proxy))
    }
}

/// The chart writes a value that is not set as an empty variable.
fn nonempty(text: Option<&String>) -> Option<String> {
    text.filter(|text| !text.is_empty()).cloned()
}

/// The pod's own account, or a kubeconfig.
async fn cluster(kubeconfig: Option<PathBuf>) -> Result<kube::Config> {
    let mut config = match kubeconfig {
        Some(path) => {
            let kubeconfig = kube::config::Kubeconfig::read_from(&path)
                .with_context(|| format!("reading the kubeconfig {}", path.display()))?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default())
                .await
                .with_context(|| format!("using the kubeconfig {}", path.display()))?
        }
        None => kube::Config::incluster()
            .context("the pod has no account: this runs in a pod, or with OPERATOR_KUBECONFIG")?,
    };
    config.connect_timeout = Some(std::time::Duration::from_secs(5));
    config.write_timeout = Some(std::time::Duration::from_secs(10));
    Ok(config)
}

/// The domain behind `svc.` in a pod's search list.
fn cluster_domain(resolv_conf: &str) -> String {
    let searches =
        resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("search")).flat_map(str::split_whitespace);
    let mut domains = searches.filter_map(|domain| domain.trim_end_matches('.').strip_prefix("svc."));
    domains.next().unwrap_or("cluster.local").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_domain_is_found_in_the_search_list() {
        let pods =
            "nameserver 10.1.0.10\nsearch tailscale.svc.k8s.example svc.k8s.example k8s.example\noptions ndots:5\n";
        assert_eq!(cluster_domain(pods), "k8s.example");
        assert_eq!(cluster_domain("nameserver 1.1.1.1\n"), "cluster.local");
    }
}
