use tailcfg::NodeId;

use super::limits::read_tags;
use super::{Draft, device_of, naming, register, tags, user_of};
use crate::change::Change;
use crate::command::{KeyExpiry, Reply};
use crate::record::{Node, Owner};
use crate::refusal::Refusal;
use crate::tailnet::Tailnet;

/// Puts a device that differs from what it was.
fn put(before: &Node, node: Node, draft: &mut Draft<'_, '_>) -> Reply {
    if node != *before {
        draft.put(Change::PutNode(Box::new(node)));
    }
    Reply::Done
}

pub(super) fn delete(tailnet: &Tailnet, id: NodeId, draft: &mut Draft<'_, '_>) -> Result<Reply, Refusal> {
    device_of(tailnet, id)?;
    draft.put(Change::DeleteNode(id));
    Ok(Reply::Done)
}

pub(super) fn expire(tailnet: &Tailnet, id: NodeId, draft: &mut Draft<'_, '_>) -> Result<Reply, Refusal> {
    let before = device_of(tailnet, id)?;
    if before.is_expired(draft.now()) {
        return Ok(Reply::Done);
    }
    Ok(put(before, Node { key_expiry: Some(draft.now()), ..before.clone() }, draft))
}

pub(super) fn rename(tailnet: &Tailnet, id: NodeId, name: &str, draft: &mut Draft<'_, '_>) -> Result<Reply, Refusal> {
    let before = device_of(tailnet, id)?;
    let node = if name.is_empty() {
        let name = naming::choose(tailnet, &before.hostinfo.hostname, Some(id));
        Node { name, named_by_hand: false, ..before.clone() }
    } else {
        // People paste the full name too.
        let suffix = format!(".{}", tailnet.domain());
        let short = name.trim_end_matches('.').strip_suffix(&suffix).unwrap_or(name);
        Node { name: naming::claim(tailnet, short, id)?, named_by_hand: true, ..before.clone() }
    };
    Ok(put(before, node, draft))
}

pub(super) fn set_tags(
    tailnet: &Tailnet,
    id: NodeId,
    wanted: &[String],
    draft: &mut Draft<'_, '_>,
) -> Result<Reply, Refusal> {
    let before = device_of(tailnet, id)?;
    let wanted = read_tags("this device", wanted)?;
    let added = wanted.iter().filter(|tag| !before.owner.tags().any(|had| had == *tag)).cloned().collect();
    tags::check(tailnet, &added, draft.actor())?;
    let owner = if wanted.is_empty() { Owner::User(new_owner(tailnet, before, draft)?) } else { Owner::Tags(wanted) };
    let mut node = Node { owner, ..before.clone() };
    if node.owner.is_tagged() != before.owner.is_tagged() && !before.is_expired(draft.now()) {
        node.key_expiry = register::key_expiry(tailnet, &node, None, draft.now());
    }
    let approved = tailnet.rules.auto_approved(&node);
    node.approved_routes.extend(approved);
    Ok(put(before, node, draft))
}

/// Whose a device becomes that loses its last tag.
fn new_owner(tailnet: &Tailnet, node: &Node, draft: &Draft<'_, '_>) -> Result<tailcfg::UserId, Refusal> {
    if let Some(user) = node.owner.user() {
        return Ok(user);
    }
    let user = draft.acting_user().ok_or(Refusal::UntagWithoutUser)?;
    user_of(tailnet, user).map(|user| user.id)
}

pub(super) fn set_key_expiry(
    tailnet: &Tailnet,
    id: NodeId,
    expiry: KeyExpiry,
    draft: &mut Draft<'_, '_>,
) -> Result<Reply, Refusal> {
    let before = device_of(tailnet, id)?;
    let disabled = expiry == KeyExpiry::Disabled;
    if before.key_expiry_disabled == disabled {
        return Ok(Reply::Done);
    }
    let mut node = Node { key_expiry_disabled: disabled, ..before.clone() };
    // A key that has ended stays ended: only its user can bring the device back.
    if !before.is_expired(draft.now()) {
        node.key_expiry = register::key_expiry(tailnet, &node, None, draft.now());
    }
    Ok(put(before, node, draft))
}

pub(super) fn set_authorized(
    tailnet: &Tailnet,
    id: NodeId,
    authorized: bool,
    draft: &mut Draft<'_, '_>,
) -> Result<Reply, Refusal> {
    let before = device_of(tailnet, id)?;
    Ok(put(before, Node { authorized, ..before.clone() }, draft))
}
