//! Users in the API's words.

use api::{
    ApiError, CreateUser, Done, InTailnet, SecretText, User, UserList, UserQuery, UserRole, UserStatus, UserType,
    WriteUsers,
};
use jiff::{SignedDuration, Timestamp};
use tailcfg::UserId;
use tailnet::{Command, NewUser, PasswordHash, Reply, Role, Tailnet};

use super::access::role_scopes;
use super::{By, Identity, Rest};
use crate::password::PasswordError;

/// After how long without a device here a user counts as idle.
const IDLE: SignedDuration = SignedDuration::from_hours(28 * 24);

impl Rest {
    /// Makes a user.
    pub(super) async fn make_user(&self, who: &Identity, at: &InTailnet, new: CreateUser) -> Result<User, ApiError> {
        self.look_at(who, at, |_| Ok(()))?;
        let login = new
            .login_name
            .trim()
            .parse()
            .map_err(|error: tailnet::LoginNameError| ApiError::bad_request(error.to_string()))?;
        let password = Some(self.hash_password(new.password).await?);
        let user = NewUser { login, display_name: new.display_name, role: role(new.role), password };
        let Reply::User(id) = self.execute(who, Command::CreateUser(user)).await? else {
            return Err(ApiError::internal("no user was made"));
        };
        let now = self.coordination.now();
        self.look(who, |tailnet| show(tailnet, id, now))
    }

    pub(super) async fn hash_password(&self, password: String) -> Result<PasswordHash, ApiError> {
        let hashed = self.sign_in.passwords().hash(SecretText::new(password)).await;
        hashed.map(PasswordHash).map_err(|error| match error {
            PasswordError::Length => ApiError::bad_request(error.to_string()),
            PasswordError::Busy => ApiError::unavailable(error.to_string(), 5),
            PasswordError::Failed => ApiError::internal(error.to_string()),
        })
    }

    /// Ends a user's sessions in browsers; their tokens have ended with what was decided.
    pub(super) async fn sign_out_everywhere(&self, user: UserId) -> Result<Done, ApiError> {
        match self.sessions.close_all(user).await {
            Ok(()) => Ok(Done),
            Err(error) => {
                tracing::error!(%error, "the sessions of a user could not be ended in the database");
                Err(ApiError::unavailable("it is done, but sessions of the user may come back after a restart", 5))
            }
        }
    }
}

/// Refuses to make somebody who may do more than the credential, or to touch one.
///
/// The tailnet looks at whose credential it is; a credential may have less than its holder, and must not be the way to more.
pub(super) fn within_credential(by: &By<WriteUsers>, role: Role) -> Result<(), ApiError> {
    if by.scopes().cover(&role_scopes(role)) {
        return Ok(());
    }
    let message =
        format!("this credential has fewer scopes than a user who is {role}, so it can neither make nor change one");
    Err(ApiError::forbidden(message))
}

/// The users that a query asks for.
pub(super) fn list(tailnet: &Tailnet, query: UserQuery, now: Timestamp) -> UserList {
    let all = tailnet.users().map(|user| describe(tailnet, user, now));
    let wanted = all.filter(|user| query.kind.is_none_or(|kind| kind == user.kind));
    UserList { users: wanted.filter(|user| query.role.is_none_or(|role| role == user.role)).collect() }
}

/// One user.
pub(super) fn show(tailnet: &Tailnet, id: UserId, now: Timestamp) -> Result<User, ApiError> {
    let user = tailnet.user(id).map(|user| describe(tailnet, user, now));
    user.ok_or_else(|| ApiError::not_found("there is no such user in this tailnet"))
}

fn describe(tailnet: &Tailnet, user: &tailnet::User, now: Timestamp) -> User {
    let own = || tailnet.nodes().filter(|node| node.owner.user() == Some(user.id));
    let presences = || own().filter_map(|node| tailnet.presence(node.id));
    let currently_connected = presences().any(|presence| presence.online);
    let last_seen = presences().filter_map(|presence| presence.last_seen).max();
    let last_active = last_seen.unwrap_or(user.created);
    let status = match user.status {
        tailnet::UserStatus::Suspended => UserStatus::Suspended,
        tailnet::UserStatus::NeedsApproval => UserStatus::NeedsApproval,
        tailnet::UserStatus::Active if !currently_connected && now.duration_since(last_active) > IDLE => {
            UserStatus::Idle
        }
        tailnet::UserStatus::Active => UserStatus::Active,
    };
    User {
        id: user.id.to_string(),
        display_name: user.display_name.clone(),
        login_name: user.login.to_string(),
        profile_pic_url: user.profile_pic_url.clone(),
        tailnet_id: tailnet.id().to_string(),
        created: Some(user.created),
        kind: UserType::Member,
        role: shown_role(user.role),
        status,
        device_count: own().count() as u64,
        last_seen,
        currently_connected,
    }
}

/// A role of the API as the tailnet has it.
pub(super) fn role(role: UserRole) -> Role {
    match role {
        UserRole::Owner => Role::Owner,
        UserRole::Admin => Role::Admin,
        UserRole::ItAdmin => Role::ItAdmin,
        UserRole::NetworkAdmin => Role::NetworkAdmin,
        UserRole::BillingAdmin => Role::BillingAdmin,
        UserRole::Auditor => Role::Auditor,
        UserRole::Member => Role::Member,
    }
}

fn shown_role(role: Role) -> UserRole {
    UserRole::parse(role.name()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_have_the_same_names_on_both_sides() {
        for known in Role::ALL {
            assert_eq!(role(shown_role(known)), known);
        }
    }
}
