//! One look at one object: observe, decide, execute, say.

mod connector;
mod orphan;
mod proxy_class;
mod service;

use std::time::Duration;

use jiff::Timestamp;
use kube::Resource;
use kubeapi::condition::event;

use crate::context::Context;
use crate::event::Note;
use crate::owner::Owner;
use crate::provision::ProvisionError;
use crate::queue::Key;
use crate::removal::{self, Removal};
use crate::service::Trouble;
use crate::writer::WriteError;

/// When to look again though nothing changes; `None` when that is not needed.
pub(crate) type Next = Option<Duration>;

/// How long until something is tried again that the coordination server has refused: its policy may change.
const REFUSED: Duration = Duration::from_secs(60);

/// Looks at an object once.
///
/// # Errors
///
/// When it should be looked at again soon, with growing pauses.
pub(crate) async fn reconcile(context: &Context, key: &Key) -> Result<Next, ProvisionError> {
    match key {
        Key::Service { namespace, name } => service::reconcile(context, namespace, name).await,
        Key::Connector(name) => connector::reconcile(context, name).await,
        Key::ProxyClass(name) => proxy_class::reconcile(context, name).await,
        Key::Orphan(owner) => orphan::reconcile(context, owner).await,
        Key::Tombstone(name) => removal::tombstone(context, name).await,
    }
}

/// What of an error is to be said on the object, and whether the look failed altogether.
fn trouble(error: &ProvisionError) -> Option<Trouble> {
    match error {
        ProvisionError::Control(error) => Some(Trouble { message: error.message.clone(), passing: error.passing }),
        ProvisionError::Write(WriteError::NotLeading | WriteError::Conflict { .. } | WriteError::TimedOut { .. }) => {
            None
        }
        ProvisionError::Write(WriteError::Refused { what, reason } | WriteError::Missing { what, reason }) => {
            Some(Trouble { message: format!("{what}: {reason}"), passing: false })
        }
        ProvisionError::NameTaken { .. } => Some(Trouble { message: error.to_string(), passing: false }),
        ProvisionError::Read(_) | ProvisionError::BrokenTombstone { .. } => None,
    }
}

/// How a look ends whose trouble was said on the object: a refusal is tried again in its time, all else as it says itself.
fn outcome(
    owner: &Owner,
    executed: Result<Next, ProvisionError>,
    said: Option<Trouble>,
) -> Result<Next, ProvisionError> {
    match (executed, said) {
        (Err(error), Some(trouble)) if !trouble.passing => {
            // The name of an object of the cluster, and of no device: without it nobody could look at the right one.
            tracing::warn!(%owner, %error, again_s = REFUSED.as_secs(), "a change was refused");
            Ok(Some(REFUSED))
        }
        (executed, _) => executed,
    }
}

/// Removes what was made for an object that goes, and says on it what is waited for or stays behind. With a time to look
/// again the object has to stay until then.
async fn take_back<K: Resource<DynamicType = ()>>(
    context: &Context,
    owner: &Owner,
    object: &K,
) -> Result<Next, ProvisionError> {
    let since = object.meta().deletion_timestamp.as_ref().map_or_else(Timestamp::now, |time| time.0);
    let about = object.object_ref(&());
    match removal::everything(context, owner, since).await? {
        Removal::Waiting(what, again) => {
            context.tell_once(Note::normal(event::WAITING, &what), &about).await;
            Ok(Some(again))
        }
        Removal::LeftBehind(what) => {
            context.tell_once(Note::warning(event::LEFT_BEHIND, &what), &about).await;
            Ok(None)
        }
        Removal::Gone => Ok(None),
    }
}

/// The earlier of two times.
fn sooner(one: Next, other: Next) -> Next {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
