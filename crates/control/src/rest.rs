//! The REST API v2 over the tailnets.

mod access;
mod desk;
mod devices;
mod dns;
mod keys;
mod operations;
mod policy;
mod settings;
mod users;
mod why;

use std::sync::Arc;

use api::{ApiError, Authorized, Done, InTailnet, OfDevice, OfUser, WriteUsers};
use tailcfg::{NodeId, StableNodeId, UserId};
use tailnet::{Actor, Command, KeyId, Reply, Tailnet, TailnetId};

use crate::config::ServerUrl;
use crate::coordination::Coordination;
use crate::session::Sessions;
use crate::sign_in::SignIn;
pub(crate) use access::Grants;

pub(crate) use desk::PolicyDesk;

/// What the API is made from.
#[derive(Debug)]
pub(crate) struct Rest {
    pub(crate) url: ServerUrl,
    pub(crate) coordination: Arc<Coordination>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) sign_in: Arc<SignIn>,
    pub(crate) grants: Grants,
    pub(crate) desk: PolicyDesk,
}

/// Who calls.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// The tailnet that the credential belongs to; it can reach no other.
    tailnet: TailnetId,
    actor: Actor,
    /// The user for whom the credential stands: it may do all that they may. Nobody, where it may do less or is a program's.
    stands_for: Option<UserId>,
    /// The credential.
    token: KeyId,
}

type By<P> = Authorized<P, Identity>;

impl Rest {
    /// Looks at the caller's tailnet.
    fn look<T>(&self, who: &Identity, look: impl FnOnce(&Tailnet) -> Result<T, ApiError>) -> Result<T, ApiError> {
        let server = self.coordination.server();
        look(server.tailnet(who.tailnet).ok_or_else(|| ApiError::not_found("the tailnet is gone"))?)
    }

    /// Looks at the tailnet that a path names: the caller's own, in one way or the other.
    fn look_at<T>(
        &self,
        who: &Identity,
        at: &InTailnet,
        look: impl FnOnce(&Tailnet) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        self.look(who, |tailnet| {
            let record = tailnet.record();
            let own =
                [&record.name, record.domain.as_str(), &record.id.to_string(), "-"].contains(&at.tailnet.as_str());
            if own { look(tailnet) } else { Err(ApiError::not_found("this credential belongs to no such tailnet")) }
        })
    }

    /// Finds the device that a path names.
    fn device(&self, who: &Identity, at: &OfDevice) -> Result<NodeId, ApiError> {
        self.look(who, |tailnet| {
            let stable = StableNodeId(at.device.clone());
            let numbered = at.device.parse().ok().map(NodeId).filter(|id| tailnet.node(*id).is_some());
            let found = numbered.or_else(|| tailnet.nodes().find(|node| node.stable_id == stable).map(|node| node.id));
            found.ok_or_else(|| ApiError::not_found("there is no such device in this tailnet"))
        })
    }

    /// Finds the user that a path names.
    fn user(&self, who: &Identity, at: &OfUser) -> Result<UserId, ApiError> {
        self.look(who, |tailnet| {
            let found = at.user.parse().ok().map(UserId).filter(|id| tailnet.user(*id).is_some());
            found.ok_or_else(|| ApiError::not_found("there is no such user in this tailnet"))
        })
    }

    /// Finds the user that a path names, whom the credential may touch.
    fn touched_user(&self, by: &By<WriteUsers>, at: &OfUser) -> Result<UserId, ApiError> {
        let id = self.user(by.identity(), at)?;
        let role = self.look(by.identity(), |tailnet| Ok(tailnet.user(id).map(|user| user.role)))?;
        role.map_or(Ok(()), |role| users::within_credential(by, role)).map(|()| id)
    }

    /// Has the caller's tailnet do something.
    async fn execute(&self, who: &Identity, command: Command) -> Result<Reply, ApiError> {
        Ok(self.coordination.execute(who.tailnet, command, who.actor.clone()).await?)
    }

    async fn done(&self, who: &Identity, command: Command) -> Result<Done, ApiError> {
        self.execute(who, command).await.map(|_| Done)
    }
}
