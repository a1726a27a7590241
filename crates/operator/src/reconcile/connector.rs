use jiff::Timestamp;
use kube::Resource;
use kube::api::Api;
use kubeapi::{Connector, name};

use super::{Next, outcome, sooner, take_back, trouble};
use crate::connector::{self, Observed, Plan};
use crate::context::Context;
use crate::provision::{self, ProvisionError};
use crate::removal::{self, Removal};

const MANAGER: &str = name::manager::CONNECTOR;

pub(super) async fn reconcile(context: &Context, name: &str) -> Result<Next, ProvisionError> {
    let settings = &context.settings;
    let default = settings.proxy_class.as_deref();
    let Some(observed) = connector::observe(&context.stores, name, default) else { return Ok(None) };
    let (plan, _) = connector::decide(&observed, None, settings, Timestamp::now());
    let executed = execute(context, &observed, &plan).await;
    let Some(after) = connector::observe(&context.stores, name, default) else { return Ok(None) };
    let trouble = executed.as_ref().err().and_then(trouble);
    let (_, status) = connector::decide(&after, trouble.as_ref(), settings, Timestamp::now());
    let connectors: Api<Connector> = Api::all(context.client.clone());
    if let Some(apply) = &status.apply {
        context.writer.status(&connectors, name, MANAGER, apply).await?;
    }
    for note in &status.events {
        context.writer.publish(note, &after.connector.object_ref(&())).await;
    }
    outcome(&connector::owner(&after.connector), executed, trouble)
}

async fn execute(context: &Context, observed: &Observed, plan: &Plan) -> Result<Next, ProvisionError> {
    let connector = &observed.connector;
    let connectors: Api<Connector> = Api::all(context.client.clone());
    let name = connector.metadata.name.as_deref().unwrap_or_default();
    if plan.tear_down {
        return tear_down(context, &connectors, connector).await;
    }
    if let Some(patch) = &plan.patch {
        context.writer.patch(&connectors, name, MANAGER, patch).await?;
    }
    let (mut next, mut failed): (Next, Option<ProvisionError>) = (None, None);
    for proxy in &plan.proxies {
        let there = observed.proxies.get(proxy.replica as usize).cloned().unwrap_or_default();
        match provision::proxy(context, MANAGER, proxy, &there).await {
            Ok(wait) => next = sooner(next, wait),
            // One replica's trouble is not the others'.
            Err(error) => failed = Some(error),
        }
    }
    if !plan.removed.is_empty() {
        next = sooner(next, shrink(context, connector, &plan.removed).await?);
    }
    failed.map_or(Ok(next), Err)
}

async fn shrink(context: &Context, connector: &Connector, removed: &[u32]) -> Result<Next, ProvisionError> {
    let owner = connector::owner(connector);
    let mut next: Next = None;
    for replica in removed {
        let names = [name::replica(&owner.base(), *replica)];
        if let Removal::Waiting(_, again) = removal::replicas_of(context, &owner, &names, Timestamp::now()).await? {
            next = sooner(next, Some(again));
        }
    }
    Ok(next)
}

async fn tear_down(
    context: &Context,
    connectors: &Api<Connector>,
    connector: &Connector,
) -> Result<Next, ProvisionError> {
    let owner = connector::owner(connector);
    if let Some(again) = take_back(context, &owner, connector).await? {
        return Ok(Some(again));
    }
    context.writer.drop_finalizer(connectors, &connector.metadata, MANAGER).await?;
    context.forget(&owner.uid);
    Ok(None)
}
