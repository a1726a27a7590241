//! Takes back what was made for an object: devices, keys, pods, Secrets.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Resource, ResourceExt};
use kubeapi::condition::event;
use kubeapi::{label, name};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::context::Context;
use crate::control::{Control, ControlError};
use crate::event::Note;
use crate::object::{Kind, Object};
use crate::owner::Owner;
use crate::provision::{ProvisionError, names_of_replica, refuse_device, remove_device};
use crate::proxy::ObservedProxy;
use crate::writer::WriteError;

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
    /// What the replicas with these names have left, and the devices that they claim and `is_anothers` says to be another's.
    fn of(replicas: &[(&String, &ObservedProxy)], is_anothers: impl Fn(&str, &str) -> bool) -> (Self, Vec<String>) {
        let (mut remains, mut foreign) = (Self::default(), Vec::new());
        for (name, proxy) in replicas {
            let (record, said) = (proxy.record(), proxy.said());
            for device in [&record.device, &said.device_id].into_iter().flatten() {
                if is_anothers(device, name) {
                    foreign.push(device.clone());
                } else {
                    remains.devices.insert(device.clone(), record.tags.clone());
                }
            }
            if let (Some(id), Some(_)) = (record.key_id, record.auth_key) {
                remains.keys.push(id);
            }
        }
        (remains, foreign)
    }

    /// Reads a tombstone.
    ///
    /// # Errors
    ///
    /// Why it can't be read: somebody wrote something else there.
    fn read(tombstone: &ConfigMap) -> Result<Self, String> {
        let text = tombstone.data.as_ref().and_then(|data| data.get(REMAINS));
        let text = text.ok_or_else(|| format!("it has no {REMAINS}"))?;
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// How long these are still left to the object's own removal, which has the first word; nothing when it had it. A
    /// beginning that nobody wrote down, or that is still to come, was long ago: else nobody would ever go on.
    fn wait(&self, now: Timestamp) -> Option<Duration> {
        let age = now.duration_since(self.since?);
        // Clocks of two replicas differ.
        let age = match Duration::try_from(age) {
            Ok(age) => age,
            Err(_) if age.unsigned_abs() <= PATIENCE => Duration::ZERO,
            Err(_) => return None,
        };
        (2 * PATIENCE).checked_sub(age).filter(|left| !left.is_zero())
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
    if !matches!(removal, Removal::Waiting(..)) && is_its(context, owner, &base) {
        context.writer.delete(Kind::Service, &base).await?;
    }
    Ok(removal)
}

/// Whether nothing with this name was made for another object.
fn is_its(context: &Context, owner: &Owner, replica: &str) -> bool {
    context.stores.proxy(replica).stranger(&owner.uid).is_none()
}

/// Removes some replicas of an owner.
pub(crate) async fn replicas_of(
    context: &Context,
    owner: &Owner,
    replicas: &[String],
    since: Timestamp,
) -> Result<Removal, ProvisionError> {
    let replicas: Vec<&String> = replicas.iter().filter(|replica| is_its(context, owner, replica)).collect();
    let Some(first) = replicas.first() else { return Ok(Removal::Gone) };
    let tombstone = name::tombstone(first);
    let observed: Vec<ObservedProxy> = replicas.iter().map(|replica| context.stores.proxy(replica)).collect();
    let there: Vec<(&String, &ObservedProxy)> = replicas.iter().copied().zip(&observed).collect();
    let remains = remember(context, owner, &tombstone, &there, since).await?;
    let late = is_late(remains.since.unwrap_or(since));
    for replica in &replicas {
        context.writer.delete(Kind::StatefulSet, replica).await?;
    }
    if let Some(set) = observed.iter().find_map(|proxy| proxy.stateful_set.as_ref()).filter(|_| !late) {
        let set = set.metadata.name.clone().unwrap_or_default();
        return Ok(Removal::Waiting(format!("the pod of {set} is stopping"), AGAIN));
    }
    let (left, failed) = take_back(context.control.as_ref(), remains).await;
    if let Some(error) = failed.as_ref().filter(|_| !late) {
        return Ok(Removal::Waiting(format!("devices are still in the tailnet: {error}"), AGAIN));
    }
    if failed.is_some() {
        write_tombstone(context, &tombstone, &labels_of_tombstone(owner), &left).await?;
    }
    for (kind, name) in replicas.iter().flat_map(|replica| names_of_replica(replica)) {
        context.writer.delete(kind, &name).await?;
    }
    match failed {
        None => {
            context.writer.delete(Kind::ConfigMap, &tombstone).await?;
            Ok(Removal::Gone)
        }
        Some(error) => Ok(Removal::LeftBehind(error.message)),
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
    replicas: &[(&String, &ObservedProxy)],
    since: Timestamp,
) -> Result<Remains, ProvisionError> {
    let (mut remains, foreign) = Remains::of(replicas, |device, replica| context.stores.is_anothers(device, replica));
    for device in foreign {
        refuse_device(context, owner, &device).await;
    }
    let reference = kube::runtime::reflector::ObjectRef::new(tombstone).within(&context.settings.namespace);
    let known = match context.stores.tombstones.get(&reference) {
        None => Remains::default(),
        Some(there) => match Remains::read(&there) {
            Ok(known) => known,
            Err(reason) => {
                // What is known now is written in its place: waiting for somebody would keep the object for ever.
                tell_of_broken(context, &there, &reason).await;
                Remains::default()
            }
        },
    };
    remains.merge(known.clone());
    remains.since = remains.since.or(Some(since));
    if !remains.is_empty() && remains != known {
        write_tombstone(context, tombstone, &labels_of_tombstone(owner), &remains).await?;
    }
    Ok(remains)
}

fn labels_of_tombstone(owner: &Owner) -> BTreeMap<String, String> {
    let mut labels = owner.labels();
    labels.insert(label::TOMBSTONE.to_owned(), "true".to_owned());
    labels
}

async fn write_tombstone(
    context: &Context,
    name: &str,
    labels: &BTreeMap<String, String>,
    remains: &Remains,
) -> Result<(), WriteError> {
    let text = serde_json::to_string(remains).unwrap_or_default();
    let (metadata, data) = (json!({"labels": labels}), json!({"data": {REMAINS: text}}));
    let object = Object::new(Kind::ConfigMap, &context.settings.namespace, name, metadata, data);
    context.writer.ensure(name::manager::TOMBSTONE, &object, Some(None)).await
}

/// Removes all of it that can be removed; returns what is left, and the first reason why.
async fn take_back(control: &dyn Control, mut remains: Remains) -> (Remains, Option<ControlError>) {
    let mut failed = None;
    let devices = std::mem::take(&mut remains.devices);
    for (device, tags) in devices {
        if let Err(error) = remove_device(control, &device, &tags).await {
            remains.devices.insert(device, tags);
            failed.get_or_insert(error);
        }
    }
    for key in std::mem::take(&mut remains.keys) {
        if let Err(error) = control.revoke(&key).await {
            remains.keys.push(key);
            failed.get_or_insert(error);
        }
    }
    (remains, failed)
}

/// Goes on with what a removal has left behind; returns when to try again.
pub(crate) async fn tombstone(context: &Context, name: &str) -> Result<Option<Duration>, ProvisionError> {
    let reference = kube::runtime::reflector::ObjectRef::new(name).within(&context.settings.namespace);
    let Some(tombstone) = context.stores.tombstones.get(&reference) else { return Ok(None) };
    let remains = match Remains::read(&tombstone) {
        Ok(remains) => remains,
        Err(reason) => {
            tell_of_broken(context, &tombstone, &reason).await;
            return Err(ProvisionError::BrokenTombstone { name: name.to_owned(), reason });
        }
    };
    if let Some(wait) = remains.wait(Timestamp::now()) {
        return Ok(Some(wait));
    }
    let (left, failed) = take_back(context.control.as_ref(), remains.clone()).await;
    if let Some(error) = failed {
        if left != remains {
            write_tombstone(context, name, tombstone.labels(), &left).await?;
        }
        return Err(error.into());
    }
    context.writer.delete(Kind::ConfigMap, name).await?;
    tracing::info!("removed what was left behind");
    tracing::debug!(tombstone = name, "its tombstone is deleted");
    context.forget(&tombstone.uid().unwrap_or_default());
    Ok(None)
}

/// Says on a tombstone that it can't be read: devices that only it knows stay until somebody looks.
async fn tell_of_broken(context: &Context, tombstone: &ConfigMap, reason: &str) {
    let name = tombstone.name_any();
    let message = ProvisionError::BrokenTombstone { name, reason: reason.to_owned() }.to_string();
    context.tell_once(Note::warning(event::BROKEN_TOMBSTONE, &message), &tombstone.object_ref(&())).await;
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use async_trait::async_trait;
    use k8s_openapi::ByteString;
    use k8s_openapi::api::core::v1::Secret;

    use super::*;
    use crate::control::{Devices, Keys, MintedKey};
    use crate::proxy::KeyHealth;

    /// A coordination server that can't remove what is called `stuck`.
    #[derive(Default)]
    struct Reluctant(Mutex<Vec<String>>);

    impl Reluctant {
        fn take(&self, id: &str) -> Result<(), ControlError> {
            if id.starts_with("stuck") {
                return Err(ControlError { message: format!("{id} is stuck"), passing: true });
            }
            self.0.lock().unwrap().push(id.to_owned());
            Ok(())
        }
    }

    #[async_trait]
    impl Devices for Reluctant {
        async fn tags(&self, _: &str) -> Result<Option<Vec<String>>, ControlError> {
            Ok(Some(vec!["tag:k8s".to_owned()]))
        }

        async fn remove(&self, id: &str) -> Result<(), ControlError> {
            self.take(id)
        }
    }

    #[async_trait]
    impl Keys for Reluctant {
        async fn mint(&self, _: &str, _: &[String]) -> Result<MintedKey, ControlError> {
            unreachable!("nothing is made while something is removed")
        }

        async fn health(&self, _: &str) -> Result<KeyHealth, ControlError> {
            Ok(KeyHealth::Usable)
        }

        async fn find(&self, _: &str) -> Result<Vec<String>, ControlError> {
            Ok(Vec::new())
        }

        async fn revoke(&self, id: &str) -> Result<(), ControlError> {
            self.take(id)
        }
    }

    #[tokio::test]
    async fn what_can_not_be_removed_keeps_nothing_else_and_is_what_is_left() {
        let tags = vec!["tag:k8s".to_owned()];
        let devices = ["a", "stuck-1", "z"].map(|id| (id.to_owned(), tags.clone())).into();
        let keys = ["stuck-2", "k"].map(str::to_owned).into();
        let control = Reluctant::default();
        let (left, failed) = take_back(&control, Remains { devices, keys, since: None }).await;
        assert_eq!(*control.0.lock().unwrap(), ["a", "z", "k"]);
        assert_eq!(left.devices.keys().collect::<Vec<_>>(), ["stuck-1"]);
        assert_eq!(left.keys, ["stuck-2"]);
        assert_eq!(failed.unwrap().message, "stuck-1 is stuck");
    }

    fn tombstone(data: &[(&str, &str)]) -> ConfigMap {
        let data = data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        ConfigMap { data: Some(data), ..ConfigMap::default() }
    }

    #[test]
    fn a_tombstone_reads_back_and_one_that_somebody_wrote_into_says_what_is_wrong() {
        let remains = Remains { keys: vec!["k1".to_owned()], ..Remains::default() };
        let text = serde_json::to_string(&remains).unwrap();
        assert_eq!(Remains::read(&tombstone(&[(REMAINS, &text)])), Ok(remains));
        assert_eq!(Remains::read(&tombstone(&[("other", "{}")])).unwrap_err(), "it has no remains");
        assert_eq!(Remains::read(&ConfigMap::default()).unwrap_err(), "it has no remains");
        for text in ["", "{", r#"{"devices": ["n1"]}"#, r#"{"since": "yesterday"}"#] {
            assert!(Remains::read(&tombstone(&[(REMAINS, text)])).is_err(), "{text}");
        }
    }

    #[test]
    fn a_tombstone_waits_for_its_object_and_never_for_ever() {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let wait = |since: Option<&str>| {
            let since = since.map(|since| since.parse().unwrap());
            Remains { since, ..Remains::default() }.wait(now)
        };
        assert_eq!(wait(Some("2026-01-01T11:59:50Z")), Some(Duration::from_secs(50)));
        assert_eq!(wait(Some("2026-01-01T11:59:00Z")), None);
        assert_eq!(wait(Some("2020-01-01T00:00:00Z")), None);
        assert_eq!(wait(None), None);
        assert_eq!(wait(Some("2026-01-01T12:00:10Z")), Some(2 * PATIENCE));
        assert_eq!(wait(Some("9999-01-01T00:00:00Z")), None);
    }

    #[test]
    fn a_device_that_is_anothers_is_no_remainder_whoever_says_so() {
        let said = |id: &str| {
            let data = [("device_id".to_owned(), ByteString(id.as_bytes().to_vec()))].into();
            Some(Arc::new(Secret { data: Some(data), ..Secret::default() }))
        };
        let liar = ObservedProxy { state: said("n2"), ..ObservedProxy::default() };
        let name = "ts-liar".to_owned();
        let (remains, foreign) =
            Remains::of(&[(&name, &liar)], |device, replica| (device, replica) == ("n2", "ts-liar"));
        assert_eq!((remains.devices.len(), foreign), (0, vec!["n2".to_owned()]));
        let (remains, foreign) = Remains::of(&[(&name, &liar)], |_, _| false);
        assert_eq!((remains.devices.contains_key("n2"), foreign.len()), (true, 0));
    }
}
