use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams};
use kube::{Client, ResourceExt};
use kubeapi::{Connector, ProxyState, condition, name};
use serde_json::{Value, json};
use telemetry::{Health, Shutdown};

use crate::config::{ApiServerProxy, Config};
use crate::context::Context;
use crate::control::RestControl;
use crate::leader::Election;
use crate::owner::Owner;
use crate::provision::remove_device;
use crate::queue::Queue;
use crate::removal::{self, Removal};
use crate::run::connect;
use crate::watches::{Stores, is_finalized};
use crate::writer::{WriteError, Writer};

/// How long all of it may take; then what is left is named and the rest of the uninstallation goes on.
const PATIENCE: Duration = Duration::from_secs(240);

/// How often something may fail when nothing else is to be waited for.
const TRIES: u32 = 3;

/// Stops the operator and takes back everything that it has made: devices, proxies, Secrets and finalizers. Services and
/// Connectors stay, for whoever installs it again.
///
/// # Errors
///
/// When something could not be removed in time; the message names it.
pub async fn drain(config: Config, shutdown: Shutdown) -> Result<()> {
    let client = connect(&config)?;
    let drained = async {
        stop(&client, &config).await?;
        take_back(&client, &config).await
    };
    tokio::select! {
        drained = tokio::time::timeout(PATIENCE, drained) => drained.context("not everything could be removed in time")?,
        () = shutdown.requested() => bail!("asked to stop before everything was removed"),
    }
}

/// Stops the deployments that would make everything anew, and waits for their pods.
async fn stop(client: &Client, config: &Config) -> Result<()> {
    let own = config.drained.iter().filter(|name| !name.is_empty());
    let own = own.map(|name| (config.settings.namespace.as_str(), name.as_str()));
    let proxy = config.api_server_proxy.iter().map(|proxy| (proxy.namespace.as_str(), name::API_SERVER_PROXY_STATE));
    for (namespace, name) in own.chain(proxy) {
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
        let none = Patch::Merge(json!({"spec": {"replicas": 0}}));
        match deployments.patch(name, &PatchParams::default(), &none).await {
            Ok(_) => tracing::info!(deployment = name, "stopping"),
            Err(kube::Error::Api(status)) if status.code == 404 => continue,
            Err(error) => return Err(error).with_context(|| format!("stopping the Deployment {name}")),
        }
        loop {
            let deployment =
                deployments.get(name).await.with_context(|| format!("looking at the Deployment {name}"))?;
            let status = deployment.status.unwrap_or_default();
            let seen = status.observed_generation >= deployment.metadata.generation;
            if seen && status.replicas.unwrap_or_default() == 0 && status.terminating_replicas.unwrap_or_default() == 0
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    Ok(())
}

async fn take_back(client: &Client, config: &Config) -> Result<()> {
    let settings = &config.settings;
    let identity = format!("{}_drain", config.identity);
    let (election, mut leadership) = Election::new(client.clone(), &settings.namespace, &config.lease, &identity);
    let queue = Arc::new(Queue::default());
    let (stores, _watches) = Stores::watch(client, settings, &queue, &Health::new().condition("watches"));
    let writer = Writer::new(client.clone(), &settings.namespace, &identity, leadership.clone());
    let control = Arc::new(RestControl::new(config.control.clone()));
    let context = Context::new(client.clone(), settings.clone(), stores.clone(), writer, control, queue);
    let work = async {
        leadership.won().await;
        stores.ready().await;
        everything(&context, config.api_server_proxy.as_ref()).await
    };
    let ended = tokio::select! {
        lost = election.run() => lost,
        ended = work => ended,
    };
    election.release().await;
    ended?;
    // Nobody is left to hold it.
    let leases: Api<Lease> = Api::namespaced(client.clone(), &settings.namespace);
    match leases.delete(&config.lease, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        outcome => outcome.map(drop).context("deleting the lease"),
    }
}

/// What a pass could not finish.
#[derive(Default)]
struct Unfinished {
    /// What will be over by itself.
    waiting: Option<String>,
    /// The first that failed.
    failed: Option<anyhow::Error>,
}

impl Unfinished {
    fn failed(&mut self, error: anyhow::Error) {
        tracing::warn!(error = format!("{error:#}"), "could not be removed");
        self.failed.get_or_insert(error);
    }
}

async fn everything(context: &Context, proxy: Option<&ApiServerProxy>) -> Result<()> {
    let since = Timestamp::now();
    let mut failures = 0;
    loop {
        let mut unfinished = one_pass(context, since).await;
        if let Some(proxy) = proxy {
            match api_server_proxy(context, proxy, since).await {
                Ok(what) => unfinished.waiting = what.or(unfinished.waiting),
                Err(error) => unfinished.failed(error),
            }
        }
        match unfinished {
            Unfinished { waiting: Some(what), .. } => tracing::info!(what, "waiting"),
            Unfinished { failed: Some(error), .. } => {
                failures += 1;
                if failures == TRIES {
                    return Err(error);
                }
            }
            Unfinished { .. } => break,
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    tracing::info!("everything is removed");
    Ok(())
}

/// Removes what can be removed now. What fails keeps nothing else.
async fn one_pass(context: &Context, since: Timestamp) -> Unfinished {
    let (mut unfinished, mut kept) = (Unfinished::default(), BTreeSet::new());
    for owner in owners(&context.stores) {
        match removal::everything(context, &owner, since).await {
            Ok(Removal::Waiting(what, _)) => {
                unfinished.waiting = Some(format!("{owner}: {what}"));
                kept.insert(owner.uid);
            }
            // The job's log is the only place that tells it: whoever uninstalls has to remove it by hand.
            Ok(Removal::LeftBehind(what)) => tracing::warn!(%owner, what, "left behind"),
            Ok(Removal::Gone) => {}
            Err(error) => {
                let error = anyhow::Error::new(error).context(format!("removing what was made for the {owner}"));
                unfinished.failed(error);
                kept.insert(owner.uid);
            }
        }
    }
    drop_finalizers(context, &kept, &mut unfinished).await;
    unfinished
}

/// Everybody for whom something was made, each once.
fn owners(stores: &Stores) -> Vec<Owner> {
    let secrets = stores.secrets.state();
    let mut owners: Vec<Owner> = secrets.iter().filter_map(|secret| Owner::of_labels(secret.labels())).collect();
    let services = stores.services.state_filter(is_finalized);
    owners.extend(services.iter().map(|service| crate::service::owner(service)));
    let connectors = stores.connectors.state_filter(is_finalized);
    owners.extend(connectors.iter().map(|connector| crate::connector::owner(connector)));
    owners.sort();
    owners.dedup_by(|one, other| one.uid == other.uid);
    owners
}

/// Removes the device of the API server's proxy, whose objects are the chart's; returns what is still to be waited for.
async fn api_server_proxy(context: &Context, proxy: &ApiServerProxy, since: Timestamp) -> Result<Option<String>> {
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &proxy.namespace);
    let state = secrets.get_opt(name::API_SERVER_PROXY_STATE).await;
    let state = state.with_context(|| format!("reading the state of the API server's proxy in {}", proxy.namespace))?;
    let said = state.and_then(|secret| secret.data).map(|data| ProxyState::read(&data)).unwrap_or_default();
    let Some(device) = said.device_id else { return Ok(None) };
    match remove_device(context.control.as_ref(), &device, &proxy.tags).await {
        Ok(()) => Ok(None),
        Err(error) if removal::is_late(since) => {
            // As above: nobody else knows the device any more.
            tracing::warn!(device, %error, "the device of the API server's proxy is left behind");
            Ok(None)
        }
        Err(error) => Ok(Some(format!("the device of the API server's proxy is still in the tailnet: {error}"))),
    }
}

/// Lets the users' objects go on without us, but those that something still hangs on.
async fn drop_finalizers(context: &Context, kept: &BTreeSet<String>, unfinished: &mut Unfinished) {
    let free = |metadata: &ObjectMeta| !metadata.uid.as_ref().is_some_and(|uid| kept.contains(uid));
    for service in context.stores.services.state_filter(|one| is_finalized(one) && free(&one.metadata)) {
        let namespace = service.namespace().unwrap_or_default();
        let services: Api<Service> = Api::namespaced(context.client.clone(), &namespace);
        let freed = drop_finalizer(context, &services, name::manager::SERVICE, service.as_ref(), &json!({})).await;
        if let Err(error) = freed {
            let error = anyhow::Error::new(error);
            unfinished
                .failed(error.context(format!("taking the finalizer off the {}", crate::service::owner(&service))));
        }
    }
    for connector in context.stores.connectors.state_filter(|one| is_finalized(one) && free(&one.metadata)) {
        let connectors: Api<Connector> = Api::all(context.client.clone());
        let (said, manager) = (uninstalled(&connector, Timestamp::now()), name::manager::CONNECTOR);
        if let Err(error) = drop_finalizer(context, &connectors, manager, connector.as_ref(), &said).await {
            let (error, owner) = (anyhow::Error::new(error), crate::connector::owner(&connector));
            unfinished.failed(error.context(format!("taking the finalizer off the {owner}")));
        }
    }
}

/// Says the last on an object and takes our finalizer off; one that is gone needs neither.
async fn drop_finalizer<K>(
    context: &Context,
    api: &Api<K>,
    manager: &str,
    object: &K,
    said: &Value,
) -> Result<(), WriteError>
where
    K: kube::Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let name = object.name_any();
    let freed = async {
        context.writer.status(api, &name, manager, said).await?;
        context.writer.drop_finalizer(api, object.meta(), manager).await
    };
    match freed.await {
        Err(WriteError::Missing { .. }) => Ok(()),
        freed => freed,
    }
}

/// What stays to be read on a Connector that nobody serves any more.
fn uninstalled(connector: &Connector, now: Timestamp) -> Value {
    let before = connector.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let (kind, reason) = (condition::CONNECTOR_READY, condition::connector::CREATING);
    let message = "the operator was uninstalled, and the devices are removed";
    let new = condition::next(before, kind, false, reason, message, connector.metadata.generation, &Time(now));
    json!({"conditions": [new]})
}
