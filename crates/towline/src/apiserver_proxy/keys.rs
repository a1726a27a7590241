use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use dial::{Resolve, Roots};
use operator::{ControlError, Credentials, Devices as _, RestControl, RestSettings};

/// How long a key may be used, in seconds: it is used at once, and one that is not goes by itself.
const LIFETIME: i64 = 600;
/// How the server's list of keys shows what they are for.
const DESCRIPTION: &str = "towline apiserver-proxy";

/// Where the proxy gets the key that lets its device in: it asks for that itself, because the operator has no right in its
/// namespace.
#[derive(Debug, clap::Args)]
pub(crate) struct KeyArguments {
    /// The coordination server's URL
    #[arg(long, env = "APISERVER_PROXY_LOGIN_SERVER", value_name = "URL")]
    login_server: String,

    /// A file with the OAuth client's id
    #[arg(long, env = "CLIENT_ID_FILE", default_value = "/oauth/client_id", value_name = "FILE")]
    client_id_file: PathBuf,

    /// A file with the OAuth client's secret
    #[arg(long, env = "CLIENT_SECRET_FILE", default_value = "/oauth/client_secret", value_name = "FILE")]
    client_secret_file: PathBuf,

    /// The tags of its device, with commas
    #[arg(long, env = "APISERVER_PROXY_TAGS", default_value = "tag:k8s-operator", value_delimiter = ',')]
    tags: Vec<String>,

    /// The namespace that it runs in
    #[arg(long, env = "POD_NAMESPACE", default_value = "tailscale-apiserver-proxy")]
    namespace: String,
}

/// An OAuth client of the coordination server, and what its keys are for.
pub(crate) struct OwnKeys {
    control: RestControl,
    tags: Vec<String>,
    namespace: String,
}

impl OwnKeys {
    /// Asks nobody yet, and reads no credential: that may come later.
    pub(crate) fn new(
        arguments: KeyArguments,
        certificates: Option<&PathBuf>,
        resolver: Arc<dyn Resolve>,
    ) -> anyhow::Result<Self> {
        let mut roots = Roots::system().context("reading the system's certificates")?;
        if let Some(file) = certificates {
            roots = roots.and_file(file)?;
        }
        let credentials = Credentials::Files { id: arguments.client_id_file, secret: arguments.client_secret_file };
        let control = RestControl::new(RestSettings { url: arguments.login_server, credentials, roots, resolver });
        Ok(Self { control, tags: arguments.tags, namespace: arguments.namespace })
    }

    /// Gets a key for one device, and removes the device that it comes in place of.
    pub(crate) async fn fresh(&self, former: Option<&str>) -> Result<String, String> {
        if let Some(former) = former
            && let Err(error) = self.remove(former).await
        {
            tracing::warn!(%error, "the former device is left behind");
        }
        let made = self.control.mint_for(DESCRIPTION, &self.tags, Some(LIFETIME)).await;
        let key = made.map_err(|error| self.advice(&error))?;
        tracing::info!(id = key.id, "got an auth key");
        Ok(key.secret)
    }

    /// A device that wears none of the tags is not what this proxy was.
    async fn remove(&self, device: &str) -> Result<(), ControlError> {
        match self.control.tags(device).await? {
            Some(worn) if worn.iter().any(|tag| self.tags.contains(tag)) => self.control.remove(device).await,
            _ => Ok(()),
        }
    }

    fn advice(&self, error: &ControlError) -> String {
        format!(
            "{error} (the API server's proxy uses the Secret operator-oauth of its own namespace, {}; its OAuth client \
             needs the scope auth_keys and the tags {})",
            self.namespace,
            self.tags.join(",")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_credential_that_is_not_there_is_named_with_its_namespace() {
        let folder = tempfile::tempdir().unwrap();
        let keys = OwnKeys::new(
            KeyArguments {
                login_server: "http://127.0.0.1:9".to_owned(),
                client_id_file: folder.path().join("client_id"),
                client_secret_file: folder.path().join("client_secret"),
                tags: vec!["tag:k8s-operator".to_owned()],
                namespace: "door".to_owned(),
            },
            None,
            Arc::new(dial::SystemResolver::default()),
        );
        let said = keys.unwrap().fresh(None).await.unwrap_err();
        for named in ["client_id", "operator-oauth", "namespace, door", "auth_keys", "tag:k8s-operator"] {
            assert!(said.contains(named), "{named}: {said}");
        }
    }
}
