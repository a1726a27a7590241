mod finalizer;

use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Error, Resource};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use crate::event::Note;
use crate::leader::Leadership;
use crate::object::{Kind, Object};

/// The longest that one write may take.
const LONGEST: Duration = Duration::from_secs(8);

/// How long an object that was applied is believed to be as it was applied: somebody may change it by hand.
const BELIEVED: Duration = Duration::from_secs(600);

/// Why something was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// Another replica leads, or will soon.
    #[error("this replica does not lead any more")]
    NotLeading,
    /// It took longer than the lease holds.
    #[error("{what}: the API server did not answer in time")]
    TimedOut {
        /// What was written.
        what: String,
    },
    /// Somebody else wrote in between.
    #[error("{what}: somebody else has changed it")]
    Conflict {
        /// What was written.
        what: String,
    },
    /// It is about something that is not there any more.
    #[error("{what}: {reason}")]
    Missing {
        /// What was written.
        what: String,
        /// What the API server said.
        reason: String,
    },
    /// The API server did not take it.
    #[error("{what}: {reason}")]
    Refused {
        /// What was written.
        what: String,
        /// What the API server said.
        reason: String,
    },
}

/// Every write of the operator: only while it leads, only within its lease.
pub(crate) struct Writer {
    client: Client,
    namespace: String,
    leadership: Leadership,
    recorder: Recorder,
    /// What was applied last: the fingerprint of what we sent, the generation that came back, and when.
    applied: Mutex<HashMap<(Kind, String), Applied>>,
}

struct Applied {
    fingerprint: u64,
    generation: Option<i64>,
    at: Instant,
}

impl Writer {
    pub(crate) fn new(client: Client, namespace: &str, identity: &str, leadership: Leadership) -> Self {
        let reporter =
            Reporter { controller: kubeapi::name::CONTROLLER.to_owned(), instance: Some(identity.to_owned()) };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            namespace: namespace.to_owned(),
            leadership,
            applied: Mutex::default(),
        }
    }

    /// Applies an object of ours, unless it is known to be as it should; `generation` is that of the object as it was last
    /// seen, `None` when it was not.
    pub(crate) async fn ensure(
        &self,
        manager: &str,
        object: &Object,
        seen: Option<Option<i64>>,
    ) -> Result<(), WriteError> {
        let (key, fingerprint) = ((object.kind, object.name.clone()), object.fingerprint());
        if let Some(applied) = self.applied.lock().unwrap_or_else(PoisonError::into_inner).get(&key)
            && applied.fingerprint == fingerprint
            && applied.at.elapsed() < BELIEVED
            && seen.is_some_and(|generation| generation == applied.generation)
        {
            return Ok(());
        }
        let written = self.apply(manager, object).await?;
        let applied = Applied { fingerprint, generation: written.metadata.generation, at: Instant::now() };
        self.applied.lock().unwrap_or_else(PoisonError::into_inner).insert(key, applied);
        Ok(())
    }

    /// Applies an object of ours in any case.
    pub(crate) async fn apply(&self, manager: &str, object: &Object) -> Result<DynamicObject, WriteError> {
        let api = self.api(object.kind);
        let parameters = PatchParams::apply(manager).force();
        let patch = Patch::Apply(&object.body);
        self.fenced(&format!("{:?} {}", object.kind, object.name), api.patch(&object.name, &parameters, &patch)).await
    }

    /// Deletes an object of ours; one that is not there is deleted.
    pub(crate) async fn delete(&self, kind: Kind, name: &str) -> Result<(), WriteError> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner).remove(&(kind, name.to_owned()));
        // Foreground: a StatefulSet is gone when its pod is.
        let parameters = if kind == Kind::StatefulSet { DeleteParams::foreground() } else { DeleteParams::default() };
        let api = self.api(kind);
        let deleted = async {
            match api.delete(name, &parameters).await {
                Err(Error::Api(status)) if status.code == 404 => Ok(()),
                outcome => outcome.map(drop),
            }
        };
        self.fenced(&format!("{kind:?} {name}"), deleted).await
    }

    /// Changes somebody else's object.
    pub(crate) async fn patch<K>(
        &self,
        api: &Api<K>,
        name: &str,
        manager: &str,
        patch: &Value,
    ) -> Result<(), WriteError>
    where
        K: Resource + Clone + DeserializeOwned + Debug,
    {
        let parameters = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
        self.fenced(name, api.patch(name, &parameters, &Patch::Merge(patch))).await.map(drop)
    }

    /// Says what we have to say in an object's status; what we said before and don't say now goes.
    pub(crate) async fn status<K>(
        &self,
        api: &Api<K>,
        name: &str,
        manager: &str,
        status: &Value,
    ) -> Result<(), WriteError>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let body = serde_json::json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {"name": name},
            "status": status,
        });
        let parameters = PatchParams::apply(manager).force();
        self.fenced(name, api.patch_status(name, &parameters, &Patch::Apply(&body))).await.map(drop)
    }

    /// Publishes an event; one that can't be published is only logged.
    pub(crate) async fn publish(&self, note: &Note, about: &ObjectReference) {
        let event = Event {
            type_: if note.warning { EventType::Warning } else { EventType::Normal },
            reason: note.reason.clone(),
            note: Some(note.message.clone()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.fenced("event", self.recorder.publish(&event, about)).await {
            tracing::debug!(%error, reason = note.reason, "an event could not be published");
        }
    }

    fn api(&self, kind: Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &kind.resource())
    }

    async fn fenced<T>(&self, what: &str, write: impl Future<Output = Result<T, Error>>) -> Result<T, WriteError> {
        let left = self.leadership.remaining().ok_or(WriteError::NotLeading)?;
        match tokio::time::timeout(left.min(LONGEST), write).await {
            Err(_) => Err(WriteError::TimedOut { what: what.to_owned() }),
            Ok(Ok(written)) => Ok(written),
            Ok(Err(Error::Api(status))) if status.code == 409 => Err(WriteError::Conflict { what: what.to_owned() }),
            Ok(Err(Error::Api(status))) if status.code == 404 => {
                Err(WriteError::Missing { what: what.to_owned(), reason: status.message.clone() })
            }
            Ok(Err(Error::Api(status))) => {
                Err(WriteError::Refused { what: what.to_owned(), reason: status.message.clone() })
            }
            Ok(Err(error)) => Err(WriteError::Refused { what: what.to_owned(), reason: reason(&error) }),
        }
    }
}

/// The innermost cause of an error: what is around it only says that something failed.
fn reason(error: &dyn std::error::Error) -> String {
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        reason = error.to_string();
        cause = error.source();
    }
    reason
}
