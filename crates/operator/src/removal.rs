//! Takes back what was made for an object: devices, keys, pods, Secrets.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kubeapi::{label, name};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::context::Context;
use crate::control::ControlError;
use crate::object::{Kind, Object};
use crate::owner::Owner;
use crate::provision::{ProvisionError, names_of_replica, remove_device};
use crate::proxy::ObservedProxy;

/// How long an object's finalizer waits for pods and for the coordination server; then the object may go, and a tombstone
/// remembers what is left.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How often something is tried again that others may end at any moment.
const AGAIN: Duration = Duration::from_secs(3);

/// The key of a tombstone's data.
const REMAINS: &str = "remains";

/// What is still to be removed from the tailnet.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Remains {
    /// Devices, each with the tags of which it must wear one.
    devices: BTreeMap<String, Vec<String>>,
    /// Keys that were never used.
    keys: Vec<String>,
    /// When the removal began.
    since: Option<Timestamp>,
}

/// How far a removal is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Removal {
    /// Nothing is left.
    Gone,
    /// Nothing is left in the cluster; the tombstone goes on with the rest, for this reason.
    LeftBehind(String),
    /// Something is left: what, and when to look again.
    Waiting(String, Duration),
}

impl Remains {
    fn of(observed: &[ObservedProxy]) -> Self {
        let mut remains = Self::default();
        for proxy in observed {
            let (record, said) = (proxy.record(), proxy.said());
            for device in [&record.device, &said.device_id].into_iter().flatten() {
                remains.devices.insert(device.clone(), record.tags.clone());
            }
            if let (Some(id), Some(_)) = (record.key_id, record.auth_key) {
                remains.keys.push(id);
            }
        }
        remains
    }

    fn read(tombstone: &ConfigMap) -> Self {
        let text = tombstone.data.as_ref().and_then(|data| data.get(REMAINS));
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        self.devices.is_empty() && self.keys.is_empty()
    }

    fn merge(&mut self, other: Self) {
        self.devices.extend(other.devices);
        self.keys.extend(other.keys);
        self.keys.sort();
        self.keys.dedup();
        self.since = self.since.or(other.since);
    }
}

/// Removes what was made for an owner; `since` is when its own removal was asked for.
pub(crate) async fn everything(context: &Context, owner: &Owner, since: Timestamp) -> Result<Removal, ProvisionError> {
    let base = owner.base();
    let count = context.stores.replicas(owner).max(1);
    let replicas: Vec<String> = (0..count).map(|replica| name::replica(&base, replica)).collect();
    let removal = replicas_of(context, owner, &replicas, since).await?;
    if !matches!(removal, Removal::Waiting(..)) {
        context.writer.delete(Kind::Service, &base).await?;
    }
    Ok(removal)
}

/// Removes some replicas of an owner.
pub(crate) async fn replicas_of(
    context: &Context,
    owner: &Owner,
    replicas: &[String],
    since: Timestamp,
) -> Result<Removal, ProvisionError> {
    let observed: Vec<ObservedProxy> = replicas.iter().map(|replica| context.stores.proxy(replica)).collect();
    let tombstone = name::tombstone(&replicas.first().cloned().unwrap_or_else(|| owner.base()));
    let remains = remember(context, owner, &tombstone, &observed, since).await?;
    let late = is_late(remains.since.unwrap_or(since));
    for replica in replicas {
        context.writer.delete(Kind::StatefulSet, replica).await?;
    }
    if let Some(set) = observed.iter().find_map(|proxy| proxy.stateful_set.as_ref()).filter(|_| !late) {
        let set = set.metadata.name.clone().unwrap_or_default();
        return Ok(Removal::Waiting(format!("the pod of {set} is stopping"), AGAIN));
    }
    let outcome = take_back(context, &remains).await;
    match &outcome {
        Err(error) if !late => {
            return Ok(Removal::Waiting(format!("devices are still in the tailnet: {error}"), AGAIN));
        }
        _ => {}
    }
    for (kind, name) in replicas.iter().flat_map(|replica| names_of_replica(replica)) {
        context.writer.delete(kind, &name).await?;
    }
    match outcome {
        Ok(()) => {
            context.writer.delete(Kind::ConfigMap, &tombstone).await?;
            Ok(Removal::Gone)
        }
        Err(error) => Ok(Removal::LeftBehind(error.message)),
    }
}

pub(crate) fn is_late(since: Timestamp) -> bool {
    Duration::try_from(Timestamp::now().duration_since(since)).is_ok_and(|age| age >= PATIENCE)
}

/// Writes down what is to be removed before anything is: the Secrets that know it go too.
async fn remember(
    context: &Context,
    owner: &Owner,
    tombstone: &str,
    observed: &[ObservedProxy],
    since: Timestamp,
) -> Result<Remains, ProvisionError> {
    let mut remains = Remains::of(observed);
    let reference = kube::runtime::reflector::ObjectRef::new(tombstone).within(&context.settings.namespace);
    let known = context.stores.tombstones.get(&reference).map(|known| Remains::read(&known)).unwrap_or_default();
    remains.merge(known.clone());
    remains.since = remains.since.or(Some(since));
    if !remains.is_empty() && remains != known {
        let mut labels = owner.labels();
        labels.insert(label::TOMBSTONE.to_owned(), "true".to_owned());
        let text = serde_json::to_string(&remains).unwrap_or_default();
        let namespace = &context.settings.namespace;
        let object = Object::new(
            Kind::ConfigMap,
            namespace,
            tombstone,
            json!({"labels": labels}),
            json!({"data": {REMAINS: text}}),
        );
        context.writer.ensure(name::manager::TOMBSTONE, &object, Some(None)).await?;
    }
    Ok(remains)
}

async fn take_back(context: &Context, remains: &Remains) -> Result<(), ControlError> {
    for (device, tags) in &remains.devices {
        remove_device(context, device, tags).await?;
    }
    for key in &remains.keys {
        context.control.revoke(key).await?;
    }
    Ok(())
}

/// Goes on with what a removal has left behind; returns when to try again.
pub(crate) async fn tombstone(context: &Context, name: &str) -> Result<Option<Duration>, ProvisionError> {
    let reference = kube::runtime::reflector::ObjectRef::new(name).within(&context.settings.namespace);
    let Some(tombstone) = context.stores.tombstones.get(&reference) else { return Ok(None) };
    let remains = Remains::read(&tombstone);
    let age = remains
        .since
        .map_or(PATIENCE, |since| Duration::try_from(Timestamp::now().duration_since(since)).unwrap_or_default());
    // Until then the object's own removal has the first word.
    if age < 2 * PATIENCE {
        return Ok(Some(2 * PATIENCE - age));
    }
    take_back(context, &remains).await?;
    context.writer.delete(Kind::ConfigMap, name).await?;
    tracing::info!(tombstone = name, "removed what was left behind");
    Ok(None)
}
