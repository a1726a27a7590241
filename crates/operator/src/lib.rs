//! The operator: Services and Connectors of a cluster become devices of a tailnet.
//!
//! One look at one object goes through five steps, each a file of its own:
//!
//! - *observe*: what the watches saw of the object and of what was made for it;
//! - *validate* (pure): what the object asks for, or why it can't be;
//! - *plan* (pure): the proxies, objects and changes that follow;
//! - *execute*: server-side apply with a field manager a controller; keys and devices at the coordination server;
//! - *status* (pure): what to say, from what is then observed. Ready means that traffic can flow.
//!
//! The pure steps are tested by folders of YAML: `cases/<controller>/<name>/{in,out}.yaml`.
//!
//! What it does not do: carry a packet, be a device itself, or impersonate anybody. It knows neither the node nor the
//! coordination server but by [`kubeapi`]'s contract and two narrow traits, [`Keys`] and [`Devices`].
//!
//! Invariants:
//! - All replicas watch; only the holder of the lease writes, and no write outlives the lease.
//! - A key is asked for after the attempt is written down, and an attempt that came to nothing is taken back: whatever
//!   crashes when, there is at most one living key for a proxy.
//! - Nothing is removed from the cluster that remembers a device before a tombstone remembers it.
//! - A device is removed only when it wears a tag that we let it in with.
//! - A proxy's account reaches its own state Secret and nothing else.

#![forbid(unsafe_code)]

pub mod connector;
pub mod proxy_class;
pub mod service;

mod arguments;
mod config;
mod context;
mod control;
mod drain;
mod event;
mod leader;
mod object;
mod owner;
mod provision;
mod proxy;
mod queue;
mod reconcile;
mod removal;
mod run;
mod settings;
mod watches;
mod writer;

pub use arguments::{Arguments, Command, DrainArguments};
pub use config::{ApiServerProxy, Config};
pub use control::{Control, ControlError, Credentials, Devices, Keys, MintedKey, RestControl, RestSettings};
pub use drain::drain;
pub use event::Note;
pub use object::{Kind, Object};
pub use owner::Owner;
pub use proxy::{
    Credential, CredentialRecord, CredentialStep, KeyHealth, MintReason, ObservedProxy, Port, Progress, Proxy, Target,
    Traffic, state_secret,
};
pub use run::run;
pub use settings::Settings;

/// Does what the arguments say: runs, or drains.
///
/// # Errors
///
/// As [`run`] and [`drain`], and when the arguments can't be resolved.
pub async fn execute(
    arguments: Arguments,
    resolver: std::sync::Arc<dyn dial::Resolve>,
    shutdown: telemetry::Shutdown,
) -> anyhow::Result<()> {
    let drains = matches!(arguments.command, Some(Command::Drain(_)));
    let config = arguments.resolve(resolver).await?;
    if drains { drain(config, shutdown).await } else { run(config, shutdown).await }
}
