use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use kube::Resource;
use kube::api::Api;
use kubeapi::name;
use serde_json::json;

use super::{Next, outcome, sooner, take_back, trouble};
use crate::context::Context;
use crate::provision::{self, ProvisionError};
use crate::service::{self, Observed, Plan};

const MANAGER: &str = name::manager::SERVICE;

pub(super) async fn reconcile(context: &Context, namespace: &str, name: &str) -> Result<Next, ProvisionError> {
    let settings = &context.settings;
    let Some(observed) = service::observe(&context.stores, namespace, name, settings) else { return Ok(None) };
    let (plan, _) = service::decide(&observed, None, settings, Timestamp::now());
    let executed = execute(context, &observed, &plan).await;
    let Some(after) = service::observe(&context.stores, namespace, name, settings) else { return Ok(None) };
    let trouble = executed.as_ref().err().and_then(trouble);
    let (_, status) = service::decide(&after, trouble.as_ref(), settings, Timestamp::now());
    let services: Api<Service> = Api::namespaced(context.client.clone(), namespace);
    if let Some(apply) = &status.apply {
        context.writer.status(&services, name, MANAGER, apply).await?;
    }
    for note in &status.events {
        context.writer.publish(note, &after.service.object_ref(&())).await;
    }
    outcome(&service::owner(&after.service), executed, trouble)
}

async fn execute(context: &Context, observed: &Observed, plan: &Plan) -> Result<Next, ProvisionError> {
    let service = &observed.service;
    let (namespace, name) = (
        service.metadata.namespace.as_deref().unwrap_or_default(),
        service.metadata.name.as_deref().unwrap_or_default(),
    );
    let services: Api<Service> = Api::namespaced(context.client.clone(), namespace);
    if plan.tear_down {
        return tear_down(context, &services, service).await;
    }
    if let Some(proxy) = &plan.proxy {
        provision::names_are_free(proxy, &observed.proxy)?;
    }
    if let Some(patch) = &plan.patch {
        context.writer.patch(&services, name, MANAGER, patch).await?;
    }
    for object in &plan.objects {
        context.writer.ensure(MANAGER, object, Some(None)).await?;
    }
    let mut next: Next = None;
    if let Some(proxy) = &plan.proxy {
        next = sooner(next, provision::proxy(context, MANAGER, proxy, &observed.proxy).await?);
        if plan.objects.is_empty() && observed.proxy.stateful_set.is_some() && was_egress(observed) {
            context.writer.delete(crate::object::Kind::Service, &proxy.owner.base()).await?;
        }
    }
    Ok(next)
}

/// Whether the proxy that runs was made for the other direction: its pods have a name of their own.
fn was_egress(observed: &Observed) -> bool {
    let set = observed.proxy.stateful_set.as_ref().and_then(|set| set.spec.as_ref());
    set.and_then(|spec| spec.service_name.as_deref()).is_some_and(|name| !name.is_empty())
}

async fn tear_down(context: &Context, services: &Api<Service>, service: &Service) -> Result<Next, ProvisionError> {
    let owner = service::owner(service);
    if let Some(again) = take_back(context, &owner, service).await? {
        return Ok(Some(again));
    }
    drop_finalizer(context, services, service).await?;
    context.forget(&owner.uid);
    Ok(None)
}

/// Takes our finalizer off, and what we said about a Service that stays.
async fn drop_finalizer(context: &Context, services: &Api<Service>, service: &Service) -> Result<Next, ProvisionError> {
    let name = service.metadata.name.as_deref().unwrap_or_default();
    if service.metadata.deletion_timestamp.is_none() {
        context.writer.status(services, name, MANAGER, &json!({})).await?;
    }
    context.writer.drop_finalizer(services, &service.metadata, MANAGER).await?;
    Ok(Some(Duration::ZERO))
}
