use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use apiproxy::{Entrance, Server, TailnetIdentities, TailnetListener};
use node::{CertificateStanding, Node, NodeCertificate, Snapshot};
use proxy::{Duty, Member, Membership, NodeConfig, Surroundings};
use telemetry::{Condition, Health, Shutdown};
use tokio::task::JoinHandle;

mod keys;

use keys::{KeyArguments, OwnKeys};

/// Where the tailnet finds the proxy: its address is that of a web server.
const PORT: u16 = 443;
/// How long requests and sessions that are under way may go on after the proxy was told to end.
const DRAIN: Duration = Duration::from_secs(20);

/// Runs the Kubernetes API server's proxy in a pod: people reach the cluster as who they are on the tailnet.
///
/// It is a device of the tailnet, and serves port 443 there with a certificate of the tailnet's own authority. What it is
/// as a device stands in the pod's environment and configuration, as the operator's chart writes them; the
/// key that lets it in it gets itself.
#[derive(Debug, clap::Args)]
// The flattened arguments have a group of the same name.
#[group(skip)]
pub(crate) struct Arguments {
    #[command(flatten)]
    proxy: apiproxy::Arguments,

    #[command(flatten)]
    keys: KeyArguments,

    /// The folder of its socket for commands.
    #[arg(long, env = "TOWLINE_RUN_FOLDER", default_value = "/run/towline", value_name = "FOLDER")]
    run_folder: PathBuf,
}

/// Runs the proxy until it is told to end.
///
/// It is ready when it is logged in, has its certificate and has heard of the API server.
pub(crate) async fn run(arguments: Arguments, member: Member, shutdown: Shutdown) -> anyhow::Result<()> {
    let resolver = Arc::new(dial::SystemResolver::default());
    let health = Health::new();
    let certified = health.condition("certificate");
    let config = arguments.proxy.resolve(resolver.clone())?;
    let keys = OwnKeys::new(arguments.keys, member.certificates.as_ref(), resolver.clone())?;
    let server = Server::new(config, health.clone(), &shutdown).await?;
    let surroundings = Surroundings { run_folder: arguments.run_folder, resolver, health, shutdown };
    if let Some(membership) = Membership::open(member, surroundings).await? {
        membership.keep(Door { server, keys, certified, open: None }).await;
    }
    tracing::info!("the proxy has ended");
    Ok(())
}

/// The proxy's door in the tailnet, which opens and closes with its node.
struct Door {
    server: Server,
    keys: OwnKeys,
    certified: Condition,
    open: Option<Open>,
}

struct Open {
    certificate: Arc<NodeCertificate>,
    closes: Shutdown,
    serving: JoinHandle<()>,
}

impl Duty for Door {
    async fn begin(&mut self, node: &Node, _: &NodeConfig) -> Result<(), String> {
        let user_space = node.user_space().ok_or("the node is not in user space")?;
        let clients = user_space.listen(PORT);
        let clients = clients.map_err(|error| format!("port {PORT} of the tailnet can't be taken: {error}"))?;
        let certificate = Arc::new(node.certificate());
        let entrance = Entrance {
            identify: Arc::new(TailnetIdentities::new(node.clone())),
            certificates: certificate.clone(),
            listener: TailnetListener::new(clients, node.clone()),
        };
        let (closes, server) = (Shutdown::new(DRAIN), self.server.clone());
        let serves = server.serve(entrance, closes.clone());
        let serving = tokio::spawn(async move {
            if let Err(error) = serves.await {
                tracing::error!(%error, "nothing is served");
            }
        });
        self.open = Some(Open { certificate, closes, serving });
        Ok(())
    }

    async fn key(&mut self, former: Option<String>) -> Result<Option<String>, String> {
        self.keys.fresh(former.as_deref()).await.map(Some)
    }

    fn hindered(&mut self, reason: &str) {
        self.certified.unmet(reason);
    }

    fn stands(&mut self, _: &Snapshot) {
        let Some(open) = &self.open else { return };
        match &*open.certificate.watch().borrow() {
            CertificateStanding::Valid { .. } => self.certified.met(),
            CertificateStanding::Missing(reason) => self.certified.unmet(reason.clone()),
        }
    }

    async fn end(&mut self, drains: bool) {
        let Some(mut open) = self.open.take() else { return };
        open.closes.request();
        if drains {
            // A panic there has been told already.
            let _ = (&mut open.serving).await;
        }
        // Without its node no connection goes on, and nobody is known any more.
        open.serving.abort();
    }
}
