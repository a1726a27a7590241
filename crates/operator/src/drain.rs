use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
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
use crate::reconcile::without_finalizer;
use crate::removal::{self, Removal};
use crate::run::connect;
use crate::watches::{Stores, is_finalized};
use crate::writer::Writer;

/// How long all of it may take; then what is left is named and the rest of the uninstallation goes on.
const PATIENCE: Duration = Duration::from_secs(240);

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

async fn everything(context: &Context, proxy: Option<&ApiServerProxy>) -> Result<()> {
    let since = Timestamp::now();
    loop {
        let mut waiting = one_pass(context, since).await?;
        if let Some(proxy) = proxy {
            waiting = api_server_proxy(context, proxy, since).await?.or(waiting);
        }
        match waiting {
            None => break,
            Some(what) => tracing::info!(what, "waiting"),
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    tracing::info!("everything is removed");
    Ok(())
}

/// Removes what can be removed now; returns what is still to be waited for.
async fn one_pass(context: &Context, since: Timestamp) -> Result<Option<String>> {
    let secrets = context.stores.secrets.state();
    let mut owners: Vec<Owner> = secrets.iter().filter_map(|secret| Owner::of_labels(secret.labels())).collect();
    owners.extend(
        context
            .stores
            .services
            .state()
            .iter()
            .filter(|service| is_finalized(service.as_ref()))
            .map(|service| crate::service::owner(service)),
    );
    owners.extend(
        context
            .stores
            .connectors
            .state()
            .iter()
            .filter(|connector| is_finalized(connector.as_ref()))
            .map(|connector| crate::connector::owner(connector)),
    );
    owners.sort();
    owners.dedup_by(|one, other| one.uid == other.uid);
    let mut waiting = None;
    for owner in owners {
        let removal = removal::everything(context, &owner, since).await;
        match removal.with_context(|| format!("removing what was made for the {owner}"))? {
            Removal::Waiting(what, _) => waiting = Some(format!("{owner}: {what}")),
            Removal::LeftBehind(what) => tracing::warn!(%owner, what, "left behind"),
            Removal::Gone => {}
        }
    }
    if waiting.is_none() {
        drop_finalizers(context).await?;
    }
    Ok(waiting)
}

/// Removes the device of the API server's proxy, whose objects are the chart's; returns what is still to be waited for.
async fn api_server_proxy(context: &Context, proxy: &ApiServerProxy, since: Timestamp) -> Result<Option<String>> {
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &proxy.namespace);
    let state = secrets.get_opt(name::API_SERVER_PROXY_STATE).await;
    let state = state.with_context(|| format!("reading the state of the API server's proxy in {}", proxy.namespace))?;
    let said = state.and_then(|secret| secret.data).map(|data| ProxyState::read(&data)).unwrap_or_default();
    let Some(device) = said.device_id else { return Ok(None) };
    match remove_device(context, &device, &proxy.tags).await {
        Ok(()) => Ok(None),
        Err(error) if removal::is_late(since) => {
            tracing::warn!(device, %error, "the device of the API server's proxy is left behind");
            Ok(None)
        }
        Err(error) => Ok(Some(format!("the device of the API server's proxy is still in the tailnet: {error}"))),
    }
}

async fn drop_finalizers(context: &Context) -> Result<()> {
    for service in context.stores.services.state().iter().filter(|service| is_finalized(service.as_ref())) {
        let namespace = service.namespace().unwrap_or_default();
        let services: Api<Service> = Api::namespaced(context.client.clone(), &namespace);
        let name = service.name_any();
        let manager = name::manager::SERVICE;
        context.writer.status(&services, &name, manager, &json!({})).await?;
        context.writer.patch(&services, &name, manager, &without_finalizer(&service.metadata)).await?;
    }
    for connector in context.stores.connectors.state().iter().filter(|connector| is_finalized(connector.as_ref())) {
        let connectors: Api<Connector> = Api::all(context.client.clone());
        let (name, manager) = (connector.name_any(), name::manager::CONNECTOR);
        let said = uninstalled(connector, Timestamp::now());
        context.writer.status(&connectors, &name, manager, &said).await?;
        context.writer.patch(&connectors, &name, manager, &without_finalizer(&connector.metadata)).await?;
    }
    Ok(())
}

/// What stays to be read on a Connector that nobody serves any more.
fn uninstalled(connector: &Connector, now: Timestamp) -> Value {
    let before = connector.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let (kind, reason) = (condition::CONNECTOR_READY, condition::connector::CREATING);
    let message = "the operator was uninstalled, and the devices are removed";
    let new = condition::next(before, kind, false, reason, message, connector.metadata.generation, &Time(now));
    json!({"conditions": [new]})
}
