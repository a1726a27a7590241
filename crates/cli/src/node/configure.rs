use std::io::Write;
use std::net::IpAddr;

use clap::{Args, Subcommand};
use serde_json::json;

use super::Session;
use super::settings::Switch;
use super::state::{PeerStatus, Status};
use crate::kubeconfig::{Authority, Cluster, KubeconfigFile};
use crate::output::note;
use crate::trust::{self, Root};
use crate::{Failure, Output};
use site::{NoApiServer, Site};

mod site;

/// What can be set up.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Give kubectl a context for a cluster behind the tailnet
    Kubeconfig(KubeconfigArguments),
}

/// Adds a cluster behind the tailnet to the kubeconfig, and makes it the current context.
///
/// What answers there must be an API server of Kubernetes, or a proxy before one; else nothing is changed.
///
/// The kubeconfig is the first file of $KUBECONFIG, or ~/.kube/config. When the cluster's certificate comes from the
/// tailnet's own authority, that goes into the kubeconfig, and the system's trusted certificates stay as they are.
#[derive(Debug, Args)]
pub struct KubeconfigArguments {
    /// The node that stands before the cluster's API server: its name, or a URL of it
    host: String,
    /// Reach it by plain HTTP, within the tunnel
    #[arg(long, default_value_t = false, switch())]
    http: bool,
    /// Don't ask whether an API server answers there
    #[arg(long, default_value_t = false, switch())]
    force: bool,
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
    let site = Site { name: &name, secure, peer, api: &api };
    // The stock command does not ask, and who types its name relies on that.
    let force = arguments.force || session.is_stock();
    let (server, authority) = (site.url(), authority(&site, session, force).await?);
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

/// Finds out by whom the site's certificate is signed; by force also where that can't be seen.
async fn authority(site: &Site<'_>, session: &Session, force: bool) -> Result<Authority, Failure> {
    if force && !site.secure {
        return Ok(Authority::System);
    }
    let root = if site.secure { root(session).await } else { None };
    let looked = site.look(root.as_ref(), &session.connection().roots()?).await;
    let error = match looked {
        Ok(authority) => return Ok(authority),
        Err(error) if !force => return Err(error.into()),
        Err(error) => error,
    };
    note(&format!("{error}. The context is written all the same."));
    Ok(match (&error, root) {
        (NoApiServer::Untrusted { .. }, _) | (_, None) => Authority::AsItIs,
        (_, Some(root)) => {
            note("Its certificate is taken to come from the tailnet's authority.");
            Authority::Only(root.pem().to_owned())
        }
    })
}

/// The tailnet's own authority, where it can be asked for.
async fn root(session: &Session) -> Option<Root> {
    match trust::fetch(session).await {
        Ok(root) => Some(root),
        Err(failure) => {
            note(&format!("The tailnet has no authority of its own that could be asked for: {failure}"));
            None
        }
    }
}
