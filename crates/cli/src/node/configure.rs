use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::settings::parse_bool;
use super::state::{PeerStatus, Status};
use super::{LocalApi, Session};
use crate::kubeconfig::{Authority, Cluster, KubeconfigFile};
use crate::output::note;
use crate::trust::{self, Root};
use crate::web::{Trust, WebError};
use crate::{Failure, Output};

/// How long the cluster's proxy may take to answer; only a look at its certificate depends on it.
const PATIENCE: Duration = Duration::from_secs(8);

/// What can be set up.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Give kubectl a context for a cluster behind the tailnet
    Kubeconfig(KubeconfigArguments),
}

/// Adds a cluster behind the tailnet to the kubeconfig, and makes it the current context.
///
/// The kubeconfig is the first file of $KUBECONFIG, or ~/.kube/config. When the cluster's certificate comes from the
/// tailnet's own authority, that goes into the kubeconfig, and the system's trusted certificates stay as they are.
#[derive(Debug, Args)]
pub struct KubeconfigArguments {
    /// The node that stands before the cluster's API server: its name, or a URL of it
    host: String,
    /// Reach it by plain HTTP, within the tunnel
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_bool, default_value_t = false, value_name = "true|false")]
    http: bool,
}

pub(super) async fn run<W: Write>(command: Command, session: &Session, output: &mut Output<W>) -> Result<(), Failure> {
    let Command::Kubeconfig(arguments) = command;
    let (secure, host) = match arguments.host.split_once("://") {
        None => (!arguments.http, arguments.host.as_str()),
        Some(("https", host)) => (true, host),
        Some(("http", host)) => (false, host),
        Some((scheme, _)) => return Err(Failure::usage(format!("{scheme}:// is no way to a cluster: https or http"))),
    };
    let host = host.trim_end_matches('/');
    let file = KubeconfigFile::locate()?;
    let api = session.api().await?;
    let status: Status = api.get("status").await?;
    status.require_running(session)?;
    let peer = find(host, &status)?;
    let name = peer.dns_name.trim_end_matches('.').to_owned();
    let scheme = if secure { "https" } else { "http" };
    let server = format!("{scheme}://{name}");
    let authority = if secure { authority(&name, peer, &api, session).await? } else { Authority::System };
    let cluster = Cluster { name, server, authority };
    file.add(&cluster)?;
    let answer = json!({
        "context": cluster.name, "server": cluster.server, "kubeconfig": file.path(),
        "certificateAuthority": matches!(cluster.authority, Authority::Only(_)),
    });
    let text = format!("kubeconfig configured for {:?} at URL {:?}", cluster.name, cluster.server);
    output.print(&answer, |_| text)?;
    Ok(())
}

fn find<'a>(host: &str, status: &'a Status) -> Result<&'a PeerStatus, Failure> {
    let at = host.parse::<IpAddr>().ok().and_then(|address| status.at(address));
    let found = at.or_else(|| status.named(host)).filter(|peer| !peer.dns_name.is_empty());
    found.ok_or_else(|| Failure::failed(format!("no peer found for {host:?}; `towline status` shows all")))
}

/// Finds out by whom the server's certificate is signed.
async fn authority(name: &str, peer: &PeerStatus, api: &LocalApi, session: &Session) -> Result<Authority, Failure> {
    let root = match trust::fetch(session).await {
        Ok(root) => Some(root),
        Err(failure) => {
            note(&format!("The tailnet has no authority of its own that could be asked for: {failure}"));
            None
        }
    };
    if let Some(root) = &root {
        match signed_by(root, name, peer, api).await {
            Ok(()) => return Ok(Authority::Only(root.pem().to_owned())),
            Err(WebError::Untrusted(..)) => {}
            Err(error) => {
                note(&format!(
                    "{name} does not answer yet ({error}); its certificate is taken to come from the tailnet's authority. If kubectl \
                     says otherwise, run this command again once the cluster is up."
                ));
                return Ok(Authority::Only(root.pem().to_owned()));
            }
        }
    }
    let public = Trust::new(&session.connection().roots()?);
    match shake(&public, name, peer, api).await {
        Ok(()) => Ok(Authority::System),
        Err(error) => {
            note(&format!("The certificate of {name} could not be verified: {error}. kubectl may refuse it."));
            Ok(Authority::AsItIs)
        }
    }
}

async fn signed_by(root: &Root, name: &str, peer: &PeerStatus, api: &LocalApi) -> Result<(), WebError> {
    let only = Trust::only(root.der().clone());
    let only = only.map_err(|error| WebError::Unreachable(name.to_owned(), error.to_string()))?;
    shake(&only, name, peer, api).await
}

/// Shakes hands with the server, by way of the daemon or else of this machine's routes.
async fn shake(trust: &Trust, name: &str, peer: &PeerStatus, api: &LocalApi) -> Result<(), WebError> {
    let handshake = async {
        if let Ok(stream) = api.dial(name, 443).await {
            return trust.handshake(name, stream).await.map(drop);
        }
        let unreachable = |reason: String| WebError::Unreachable(name.to_owned(), reason);
        let address = peer.addresses.first().ok_or_else(|| unreachable("it has no address".to_owned()))?;
        let stream = TcpStream::connect((*address, 443)).await.map_err(|error| unreachable(error.to_string()))?;
        trust.handshake(name, stream).await.map(drop)
    };
    timeout(PATIENCE, handshake).await.unwrap_or_else(|_| Err(WebError::TimedOut(name.to_owned())))
}
