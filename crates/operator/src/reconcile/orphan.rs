use jiff::Timestamp;

use super::Next;
use crate::context::Context;
use crate::owner::Owner;
use crate::provision::ProvisionError;
use crate::removal::{self, Removal};

/// Removes what was made for an object that went without its finalizer.
pub(super) async fn reconcile(context: &Context, owner: &Owner) -> Result<Next, ProvisionError> {
    if context.stores.lives(owner) || context.stores.replicas(owner) == 0 {
        return Ok(None);
    }
    tracing::debug!(%owner, "something is left of an object that is gone; removing it");
    match removal::everything(context, owner, Timestamp::now()).await? {
        Removal::Waiting(_, again) => Ok(Some(again)),
        Removal::LeftBehind(_) | Removal::Gone => Ok(None),
    }
}
