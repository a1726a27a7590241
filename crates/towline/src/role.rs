use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Subcommand;
use cli::admin::{AdminCommand, Connection, ConnectionArguments};
use cli::node::{NodeCommand, Session, SocketArguments};
use cli::{Failure, Output};
use telemetry::{LogArguments, Shutdown};
use tokio::runtime::{Builder, Runtime};

use crate::apiserver_proxy;

/// How long a server may take to end what is under way once it was asked to stop.
const DRAIN: Duration = Duration::from_secs(25);

/// What the binary can be.
#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// Run a coordination server, or set one up with `control init`
    Control(Box<control::Arguments>),
    /// Run a relay: DERP over TLS and WebSocket, and STUN
    Derp(Box<derp::server::Arguments>),
    /// Run a node: the daemon that up, status and the other commands of this machine talk to
    Node(Box<node::Arguments>),
    /// Run the Kubernetes operator, or take back what it has made with `operator drain`
    Operator(Box<operator::Arguments>),
    /// Run a proxy in a pod, or ask the one that runs there with `proxy health`
    Proxy(Box<proxy::Arguments>),
    /// Run the API server's proxy in a pod: people reach the cluster as who they are on the tailnet
    ApiserverProxy(Box<apiserver_proxy::Arguments>),
    #[command(flatten)]
    Local(NodeCommand),
    #[command(flatten)]
    Admin(AdminCommand),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Whom the commands of people ask.
pub(crate) struct Asked {
    pub(crate) connection: ConnectionArguments,
    pub(crate) socket: SocketArguments,
    /// The name by which the program was called.
    pub(crate) program: &'static str,
}

/// Plays a role to its end.
pub(crate) fn run<W: Write>(
    role: Role,
    logs: &LogArguments,
    asked: Asked,
    output: &mut Output<W>,
) -> Result<(), Failure> {
    match role {
        Role::Control(arguments) => serve(logs, move |shutdown| control::execute(*arguments, shutdown)),
        Role::Derp(arguments) => serve(logs, move |shutdown| async move {
            let config = arguments.resolve(Arc::new(dial::SystemResolver::default()))?;
            derp::server::run(config, shutdown).await
        }),
        Role::Node(arguments) => run_node(*arguments, logs),
        Role::Operator(arguments) => serve(logs, move |shutdown| async move {
            operator::execute(*arguments, Arc::new(dial::SystemResolver::default()), shutdown).await
        }),
        Role::Proxy(arguments) => match arguments.task() {
            proxy::Task::Probe(probe) => Ok(probe.ask().map_err(anyhow::Error::from)?),
            proxy::Task::Serve(folder) => {
                let config = proxy::Environment::of_process().resolve().map_err(Failure::usage)?;
                let resolver = Arc::new(node::machine_resolver(!config.user_space));
                serve(logs, move |shutdown| proxy::run(config, folder, resolver, shutdown))
            }
        },
        Role::ApiserverProxy(arguments) => {
            let member = proxy::Environment::of_process().member().map_err(Failure::usage)?;
            serve(logs, move |shutdown| apiserver_proxy::run(*arguments, member, shutdown))
        }
        Role::Local(command) => command_runtime()?.block_on(async {
            let connection = connection(asked.connection);
            command.run(&Session::new(asked.socket, connection, asked.program), output).await
        }),
        Role::Admin(command) => command_runtime()?.block_on(async {
            let connection = connection(asked.connection);
            command.run(&connection, output).await
        }),
        // Needs the whole argument tree, which is main's.
        Role::Completions { .. } => Ok(()),
    }
}

/// Runs a node until it is asked to stop.
pub(crate) fn run_node(arguments: node::Arguments, logs: &LogArguments) -> Result<(), Failure> {
    serve(logs, move |shutdown| async move { node::run(arguments.resolve()?, shutdown).await })
}

/// Reaches servers by the names that this machine's name servers know.
fn connection(arguments: ConnectionArguments) -> Connection {
    Connection::new(arguments, Arc::new(dial::SystemResolver::default()))
}

/// Runs a server on all cores, with logs, until it ends or is asked to stop.
fn serve<S, F>(logs: &LogArguments, server: S) -> Result<(), Failure>
where
    S: FnOnce(Shutdown) -> F,
    F: Future<Output = anyhow::Result<()>>,
{
    logs.install().map_err(Failure::usage)?;
    let runtime = Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        let shutdown = Shutdown::on_signals(DRAIN).context("listening for signals")?;
        Ok(server(shutdown).await?)
    })
}

/// One thread is enough for a command.
fn command_runtime() -> Result<Runtime, Failure> {
    Ok(Builder::new_current_thread().enable_all().build().context("starting the runtime")?)
}
