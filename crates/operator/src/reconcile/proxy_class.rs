use jiff::Timestamp;
use kube::Resource;
use kube::api::Api;
use kubeapi::{ProxyClass, name};

use super::Next;
use crate::context::Context;
use crate::provision::ProvisionError;
use crate::proxy_class;

pub(super) async fn reconcile(context: &Context, name: &str) -> Result<Next, ProvisionError> {
    let Some(class) = context.stores.class(name) else { return Ok(None) };
    if class.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let status = proxy_class::status(&class, proxy_class::validate(&class), Timestamp::now());
    let classes: Api<ProxyClass> = Api::all(context.client.clone());
    if let Some(apply) = &status.apply {
        context.writer.status(&classes, name, name::manager::PROXY_CLASS, apply).await?;
    }
    for note in &status.events {
        context.writer.publish(note, &class.object_ref(&())).await;
    }
    Ok(None)
}
