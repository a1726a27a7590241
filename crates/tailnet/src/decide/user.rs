use tailcfg::UserId;

use super::key::covers;
use super::limits::bounded;
use super::{Draft, name_of, user_of};
use crate::change::Change;
use crate::command::{Actor, NewUser, Reply};
use crate::record::{AuthKey, Owner, PasswordHash, Role, TokenHolder, User, UserStatus};
use crate::refusal::Refusal;
use crate::tailnet::Tailnet;

pub(super) fn create(tailnet: &Tailnet, new: NewUser, draft: &mut Draft<'_, '_>) -> Result<Reply, Refusal> {
    may_give_role(tailnet, new.role, draft)?;
    if tailnet.user_by_login(&new.login).is_some() {
        return Err(Refusal::UserExists { login: new.login.to_string() });
    }
    draft.context.registry.check_login(&new.login)?;
    let id = UserId(draft.draw_number());
    let local = new.login.as_str().split('@').next().unwrap_or_default().to_owned();
    let display_name = if new.display_name.trim().is_empty() { local } else { bounded(new.display_name) };
    let user = User {
        id,
        login: new.login,
        display_name,
        profile_pic_url: String::new(),
        role: new.role,
        status: if may_let_in(tailnet, draft) { UserStatus::Active } else { UserStatus::NeedsApproval },
        created: draft.now(),
        password: new.password,
    };
    draft.put(Change::PutUser(user));
    Ok(Reply::User(id))
}

/// Only an owner makes owners, and only an administrator gives roles; a program those whose scopes it has itself.
///
/// A new user signs in and has what the role gives, so whoever gives more than they have gives it to themselves.
fn may_give_role(tailnet: &Tailnet, role: Role, draft: &Draft<'_, '_>) -> Result<(), Refusal> {
    let allowed = match (draft.actor(), role) {
        (Actor::Server, _) | (_, Role::Member) => true,
        (_, Role::Owner) => acting_role(tailnet, draft) == Some(Role::Owner),
        (Actor::Client { .. }, role) => !role.is_admin() && holds_scopes_of(tailnet, role, draft),
        (_, _) => acting_role(tailnet, draft).is_some_and(Role::is_admin),
    };
    let whom = if role == Role::Owner { "the owner" } else { "an administrator" };
    allowed.then_some(()).ok_or_else(|| Refusal::NotPermitted {
        who: name_of(tailnet, draft.actor()),
        what: format!("give the role {role}"),
        whom,
    })
}

/// Whether users are in whom the actor makes. Where an administrator is to look at each, programs let nobody in.
fn may_let_in(tailnet: &Tailnet, draft: &Draft<'_, '_>) -> bool {
    !(tailnet.settings().users_approval && matches!(draft.actor(), Actor::Client { .. }))
}

fn check_letting_in(tailnet: &Tailnet, user: &User, draft: &Draft<'_, '_>) -> Result<(), Refusal> {
    may_let_in(tailnet, draft).then_some(()).ok_or_else(|| Refusal::NotPermitted {
        who: name_of(tailnet, draft.actor()),
        what: format!("let in {} while users need approval", user.login),
        whom: "an administrator",
    })
}

/// Who may do more than the actor may not be touched: whoever sets another's password can sign in as them.
fn may_touch(tailnet: &Tailnet, user: &User, what: &str, draft: &Draft<'_, '_>) -> Result<(), Refusal> {
    let own = draft.acting_user() == Some(user.id);
    let allowed = match (draft.actor(), user.role) {
        (Actor::Server, _) => true,
        (_, Role::Owner) => acting_role(tailnet, draft) == Some(Role::Owner),
        (Actor::Client { .. }, role) => !role.is_admin() && holds_scopes_of(tailnet, role, draft),
        (_, role) => own || holds_scopes_of(tailnet, role, draft),
    };
    let whom = if user.role == Role::Owner { "the owner" } else { "an administrator" };
    allowed.then_some(()).ok_or_else(|| Refusal::NotPermitted {
        who: name_of(tailnet, draft.actor()),
        what: format!("{what} {}", user.login),
        whom,
    })
}

/// Whether the actor may do everything that a role may.
fn holds_scopes_of(tailnet: &Tailnet, role: Role, draft: &Draft<'_, '_>) -> bool {
    let covers_all = |held: &[&str]| role.scopes().iter().all(|scope| covers(held.iter().copied(), scope));
    match draft.actor() {
        Actor::Server => true,
        Actor::Machine(_) => false,
        Actor::User(_) => acting_role(tailnet, draft).is_some_and(|acting| covers_all(acting.scopes())),
        Actor::Client { id, .. } => tailnet
            .oauth_client(id)
            .is_some_and(|client| covers_all(&client.scopes.iter().map(String::as_str).collect::<Vec<_>>())),
    }
}

fn acting_role(tailnet: &Tailnet, draft: &Draft<'_, '_>) -> Option<Role> {
    draft.acting_user().and_then(|id| tailnet.user(id)).map(|user| user.role)
}

/// Refuses to leave the tailnet without an owner who can sign in.
fn keep_an_owner(tailnet: &Tailnet, user: &User) -> Result<(), Refusal> {
    let is_owner = |user: &&User| user.role == Role::Owner && user.status == UserStatus::Active;
    let others = tailnet.users().filter(is_owner).any(|owner| owner.id != user.id);
    if user.role == Role::Owner && !others {
        return Err(Refusal::LastOwner { login: user.login.to_string() });
    }
    Ok(())
}

fn put(before: &User, user: User, draft: &mut Draft<'_, '_>) -> Reply {
    if user != *before {
        draft.put(Change::PutUser(user));
    }
    Reply::Done
}

/// Puts a user who is somebody else to policy than before: what their devices offer may need no approval any more. What was
/// approved stays so.
fn put_for_policy(tailnet: &Tailnet, before: &User, user: User, draft: &mut Draft<'_, '_>) -> Reply {
    if user.status == UserStatus::Active {
        for device in tailnet.nodes().filter(|node| node.owner == Owner::User(user.id)) {
            let approved = tailnet.rules.auto_approved_of(device, &user);
            if !approved.is_subset(&device.approved_routes) {
                let mut device = device.clone();
                device.approved_routes.extend(approved);
                draft.put(Change::PutNode(Box::new(device)));
            }
        }
    }
    put(before, user, draft)
}

pub(super) fn set_role(tailnet: &Tailnet, id: UserId, role: Role, draft: &mut Draft<'_, '_>) -> Result<Reply, Refusal> {
    let before = user_of(tailnet, id)?;
    may_touch(tailnet, before, "change the role of", draft)?;
    may_give_role(tailnet, role, draft)?;
    if role != Role::Owner {
        keep_an_owner(tailnet, before)?;
    }
    Ok(put_for_policy(tailnet, before, User { role, ..before.clone() }, draft))
}

pub(super) fn set_password(
    tailnet: &Tailnet,
    id: UserId,
    password: PasswordHash,
    draft: &mut Draft<'_, '_>,
) -> Result<Reply, Refusal> {
    let before = user_of(tailnet, id)?;
    may_touch(tailnet, before, "set the password of", draft)?;
    // Whoever knew the old one may hold tokens; they end with it.
    revoke_tokens(tailnet, &TokenHolder::User(id), draft);
    Ok(put(before, User { password: Some(password), ..before.clone() }, draft))
}

pub(super) fn set_display_name(
    tailnet: &Tailnet,
    id: UserId,
    name: String,
    draft: &mut Draft<'_, '_>,
) -> Result<Reply, Refusal> {
    let before = user_of(tailnet, id)?;
    may_touch(tailnet, before, "rename", draft)?;
    Ok(put(before, User { display_name: bounded(name), ..before.clone() }, draft))
}

pub(super) fn approve(tailnet: &Tailnet, id: UserId, draft: &mut Draft<'_, '_>) -> Result<Reply, Refusal> {
    let before = user_of(tailnet, id)?;
    may_touch(tailnet, before, "let in", draft)?;
    check_letting_in(tailnet, before, draft)?;
    if before.status != UserStatus::NeedsApproval {
        return Ok(Reply::Done);
    }
    // Who waits has no devices yet that could offer anything.
    Ok(put(before, User { status: UserStatus::Active, ..before.clone() }, draft))
}

pub(super) fn suspend(tailnet: &Tailnet, id: UserId, draft: &mut Draft<'_, '_>) -> Result<Reply, Refusal> {
    let before = user_of(tailnet, id)?;
    may_touch(tailnet, before, "suspend", draft)?;
    keep_an_owner(tailnet, before)?;
    Ok(put(before, User { status: UserStatus::Suspended, ..before.clone() }, draft))
}

pub(super) fn restore(tailnet: &Tailnet, id: UserId, draft: &mut Draft<'_, '_>) -> Result<Reply, Refusal> {
    let before = user_of(tailnet, id)?;
    may_touch(tailnet, before, "restore", draft)?;
    check_letting_in(tailnet, before, draft)?;
    if before.status != UserStatus::Suspended {
        return Ok(Reply::Done);
    }
    Ok(put_for_policy(tailnet, before, User { status: UserStatus::Active, ..before.clone() }, draft))
}

/// Deletes a user with what is theirs, and nothing of anybody else.
pub(super) fn delete(tailnet: &Tailnet, id: UserId, draft: &mut Draft<'_, '_>) -> Result<Reply, Refusal> {
    let user = user_of(tailnet, id)?;
    may_touch(tailnet, user, "delete", draft)?;
    keep_an_owner(tailnet, user)?;
    let own = tailnet.nodes().filter(|node| node.owner == Owner::User(id));
    let nodes: Vec<_> = own.map(|node| Change::DeleteNode(node.id)).collect();
    nodes.into_iter().for_each(|change| draft.put(change));
    let holder = TokenHolder::User(id);
    revoke_auth_keys(tailnet, &holder, draft);
    revoke_tokens(tailnet, &holder, draft);
    draft.put(Change::DeleteUser(id));
    Ok(Reply::Done)
}

/// Ends every auth key of a holder. Those that let nobody in any more stay as they ended.
pub(super) fn revoke_auth_keys(tailnet: &Tailnet, holder: &TokenHolder, draft: &mut Draft<'_, '_>) {
    let now = draft.now();
    let live = tailnet.auth_keys().filter(|key| key.maker == *holder && key.end() > now);
    let changes: Vec<_> = live.map(|key| Change::PutAuthKey(AuthKey { revoked: Some(now), ..key.clone() })).collect();
    changes.into_iter().for_each(|change| draft.put(change));
}

/// Ends every token of a holder.
pub(super) fn revoke_tokens(tailnet: &Tailnet, holder: &TokenHolder, draft: &mut Draft<'_, '_>) {
    let now = draft.now();
    let live = tailnet.api_tokens().filter(|token| token.holder == *holder && token.revoked.is_none());
    let changes: Vec<_> = live
        .map(|token| Change::PutApiToken(crate::record::ApiToken { revoked: Some(now), ..token.clone() }))
        .collect();
    changes.into_iter().for_each(|change| draft.put(change));
}
