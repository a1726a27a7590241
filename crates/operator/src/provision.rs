//! Brings a proxy to what it should be: its account, its Secrets, its way into the tailnet, its pod.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use kubeapi::condition::event;
use kubeapi::{NodeConfig, ProxyState, name};

use crate::context::Context;
use crate::control::{Control, ControlError};
use crate::event::Note;
use crate::object::{Kind, Object};
use crate::owner::Owner;
use crate::proxy::{
    ConfigPlace, Credential, CredentialRecord, CredentialStep, KeyHealth, MintReason, ObservedProxy, Proxy,
    config_object, state_secret,
};
use crate::writer::WriteError;

/// Why a proxy could not be brought to what it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProvisionError {
    /// The coordination server did not do its part.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The cluster did not take a write.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The cluster could not be read.
    #[error("the API server: {0}")]
    Read(Box<kube::Error>),
    /// What has its names was made for another object.
    #[error("{name} was made for another object, with the UID {other}: delete this one, and make it anew")]
    NameTaken {
        /// The name of the StatefulSet.
        name: String,
        /// The UID of the other.
        other: String,
    },
    /// A ConfigMap that remembers what is left in the tailnet is not as we wrote it.
    #[error(
        "the ConfigMap {name} should say which devices are still to be removed, and can't be read ({reason}): remove those \
         that nobody needs with `towline devices delete`, and delete the ConfigMap"
    )]
    BrokenTombstone {
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl From<kube::Error> for ProvisionError {
    fn from(error: kube::Error) -> Self {
        Self::Read(Box::new(error))
    }
}

/// Where a proxy's credentials are, and what they are for.
pub(crate) struct Site {
    pub(crate) owner: Owner,
    pub(crate) place: ConfigPlace,
    pub(crate) stateful_set: String,
    pub(crate) config: NodeConfig,
    pub(crate) tags: Vec<String>,
    pub(crate) manager: &'static str,
}

/// Brings one replica to what it should be. Returns when to look again, though nothing changes.
pub(crate) async fn proxy(
    context: &Context,
    manager: &'static str,
    proxy: &Proxy,
    observed: &ObservedProxy,
) -> Result<Option<Duration>, ProvisionError> {
    let settings = &context.settings;
    let writer = &context.writer;
    names_are_free(proxy, observed)?;
    let generation = |object: &Object| match object.kind {
        Kind::StatefulSet => observed.stateful_set.as_ref().map(|set| set.metadata.generation),
        _ => Some(None),
    };
    let state = state_secret(proxy, settings);
    writer.ensure(manager, &state, observed.state.as_ref().map(|_| None)).await?;
    let (set, account): (Vec<Object>, Vec<Object>) =
        proxy.objects(settings).into_iter().partition(|object| object.kind == Kind::StatefulSet);
    for object in &account {
        writer.ensure(manager, object, generation(object)).await?;
    }
    let site = Site {
        owner: proxy.owner.clone(),
        place: ConfigPlace {
            namespace: settings.namespace.clone(),
            name: name::config_secret(&proxy.name()),
            labels: proxy.labels(),
        },
        stateful_set: proxy.name(),
        config: proxy.node_config(settings),
        tags: crate::proxy::tag_texts(&proxy.tags),
        manager,
    };
    let outcome = credentials(context, &site, observed).await;
    // A pod that runs gets its new shape whatever the coordination server says; one that never had a key would only wait.
    if outcome.is_ok() || observed.stateful_set.is_some() {
        for object in &set {
            writer.ensure(manager, object, generation(object)).await?;
        }
    }
    outcome
}

/// Refuses a proxy whose objects have the names of another object's: whatever is applied is forced, and would take them over.
pub(crate) fn names_are_free(proxy: &Proxy, observed: &ObservedProxy) -> Result<(), ProvisionError> {
    let other = observed.stranger(&proxy.owner.uid);
    other.map_or(Ok(()), |other| Err(ProvisionError::NameTaken { name: proxy.name(), other }))
}

/// Gives a node what it needs to be in the tailnet, and takes back what it does not need any more.
pub(crate) async fn credentials(
    context: &Context,
    site: &Site,
    observed: &ObservedProxy,
) -> Result<Option<Duration>, ProvisionError> {
    let (mut record, said) = (observed.record(), observed.said());
    follow_device(context, site, &mut record, &said).await?;
    let now = Timestamp::now();
    let mut step = Credential { record: &record, state: &said }.step(None, now);
    if step == CredentialStep::Ask {
        let health = match &record.key_id {
            Some(id) => context.control.health(id).await?,
            None => KeyHealth::Spent,
        };
        step = Credential { record: &record, state: &said }.step(Some(health), now);
    }
    let wait = match step {
        CredentialStep::Mint(reason) => return mint(context, site, reason).await,
        CredentialStep::Registered => {
            record.auth_key = None;
            None
        }
        CredentialStep::Wait(seconds) => Some(Duration::from_secs(seconds)),
        CredentialStep::Ask => Some(Duration::from_secs(30)),
    };
    let object = config_object(&site.place, site.config.clone(), &record);
    context.writer.ensure(site.manager, &object, observed.config.as_ref().map(|_| None)).await?;
    Ok(wait)
}

/// Remembers which device the proxy is; one that it was before, and is not any more, goes. One that is another proxy's it
/// can't be, whatever it says.
async fn follow_device(
    context: &Context,
    site: &Site,
    record: &mut CredentialRecord,
    said: &ProxyState,
) -> Result<(), ProvisionError> {
    let Some(device) = &said.device_id else { return Ok(()) };
    if record.device.as_ref() == Some(device) {
        return Ok(());
    }
    if context.stores.is_anothers(device, &site.stateful_set) {
        refuse_device(context, &site.owner, device).await;
        return Ok(());
    }
    if let Some(old) = &record.device {
        remove_recorded(context, site, old, &record.tags).await?;
    }
    record.device = Some(device.clone());
    Ok(())
}

/// Gets a key. What is decided here is decided on what the API server has now, not on what was seen some time ago, and the
/// attempt is written down before the key is asked for: of two that try, one fails, and after a crash the key of the
/// attempt is found by its description and taken away.
async fn mint(context: &Context, site: &Site, reason: MintReason) -> Result<Option<Duration>, ProvisionError> {
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &context.settings.namespace);
    let observed = ObservedProxy {
        config: secrets.get_opt(&site.place.name).await?.map(std::sync::Arc::new),
        state: secrets.get_opt(&name::state_secret(&site.stateful_set)).await?.map(std::sync::Arc::new),
        stateful_set: None,
    };
    let (mut record, said) = (observed.record(), observed.said());
    follow_device(context, site, &mut record, &said).await?;
    let health = (reason == MintReason::Spent).then_some(KeyHealth::Spent);
    let still = Credential { record: &record, state: &said }.step(health, Timestamp::now());
    if !matches!(still, CredentialStep::Mint(_)) {
        return Ok(Some(Duration::from_secs(2)));
    }
    let uid = observed.config.as_ref().and_then(|secret| secret.metadata.uid.clone());
    if let (Some(uid), true) = (&uid, record.attempt > 0) {
        take_back(context, uid, &record).await?;
    }
    if let Some(device) = record.device.take_if(|_| said.device_id.is_none() || said.reissue.is_some()) {
        remove_recorded(context, site, &device, &record.tags).await?;
    }
    let attempt = record.attempt + 1;
    let intent = CredentialRecord {
        attempt,
        tags: site.tags.clone(),
        device: record.device.clone(),
        ..CredentialRecord::default()
    };
    let uid = write_intent(context, site, &intent, observed.config.as_deref()).await?;
    let key = context.control.mint(&CredentialRecord::description(&uid, attempt), &site.tags).await?;
    let record = CredentialRecord {
        key_id: Some(key.id),
        minted: Some(Timestamp::now()),
        expires: key.expires,
        auth_key: Some(key.secret),
        ..intent
    };
    let object = config_object(&site.place, site.config.clone(), &record);
    context.writer.ensure(site.manager, &object, None).await?;
    tracing::info!(secret = site.place.name, ?reason, attempt, "made an auth key");
    Ok(Some(Duration::from_secs(91)))
}

/// Takes the key of the last attempt away: one that was never told us, or does not work, or is not wanted any more.
async fn take_back(context: &Context, uid: &str, record: &CredentialRecord) -> Result<(), ControlError> {
    let keys = match &record.key_id {
        Some(id) => vec![id.clone()],
        None => context.control.find(&CredentialRecord::description(uid, record.attempt)).await?,
    };
    for id in keys {
        context.control.revoke(&id).await?;
    }
    Ok(())
}

/// Writes the attempt down, on the Secret as it was read, and returns the Secret's UID.
async fn write_intent(
    context: &Context,
    site: &Site,
    intent: &CredentialRecord,
    read: Option<&Secret>,
) -> Result<String, ProvisionError> {
    let version = match read {
        Some(secret) => secret.metadata.resource_version.clone(),
        // A Secret that is not there has no version that could tell two writers apart.
        None => {
            let blank = config_object(&site.place, site.config.clone(), &CredentialRecord::default());
            context.writer.apply(site.manager, &blank).await?.metadata.resource_version
        }
    };
    let mut object = config_object(&site.place, site.config.clone(), intent);
    object.body["metadata"]["resourceVersion"] = serde_json::json!(version);
    let written = context.writer.apply(site.manager, &object).await?;
    Ok(written.metadata.uid.unwrap_or_default())
}

/// Removes the device that was written down of a proxy, unless it was of another one too.
async fn remove_recorded(context: &Context, site: &Site, id: &str, tags: &[String]) -> Result<(), ControlError> {
    if context.stores.is_anothers(id, &site.stateful_set) {
        refuse_device(context, &site.owner, id).await;
        return Ok(());
    }
    remove_device(context.control.as_ref(), id, tags).await
}

/// Says that a proxy claims another's device, with which nothing is done.
pub(crate) async fn refuse_device(context: &Context, owner: &Owner, device: &str) {
    tracing::warn!(
        "a proxy says that it is another proxy's device; nothing is done with that, and an event names both"
    );
    tracing::debug!(%owner, device, "the proxy's owner, and the device");
    let message = format!(
        "a proxy of it says that it is the device {device}, which is another proxy's, and is not believed: find out who \
         wrote that into its state Secret"
    );
    context.tell_once(Note::warning(event::FOREIGN_DEVICE, &message), &owner.reference()).await;
}

/// Removes a device of ours. One that wears none of the tags that we let it in with is somebody else's: a proxy may write
/// any id into its state.
pub(crate) async fn remove_device(control: &dyn Control, id: &str, tags: &[String]) -> Result<(), ControlError> {
    match control.tags(id).await? {
        None => Ok(()),
        Some(worn) if worn.iter().any(|tag| tags.contains(tag)) => {
            control.remove(id).await?;
            tracing::info!("removed a device");
            tracing::debug!(device = id, "it is removed");
            Ok(())
        }
        Some(_) => {
            tracing::warn!("left a device alone: it wears none of the tags that its proxy was let in with");
            tracing::debug!(device = id, "it is left alone");
            Ok(())
        }
    }
}

/// The names of everything that belongs to a replica, by kind.
pub(crate) fn names_of_replica(stateful_set: &str) -> Vec<(Kind, String)> {
    Kind::REMOVAL
        .into_iter()
        .flat_map(|kind| match kind {
            Kind::Secret => vec![(kind, name::config_secret(stateful_set)), (kind, name::state_secret(stateful_set))],
            Kind::Service => Vec::new(),
            _ => vec![(kind, stateful_set.to_owned())],
        })
        .collect()
}
