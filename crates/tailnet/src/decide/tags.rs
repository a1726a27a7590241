use std::collections::BTreeSet;

use super::name_of;
use crate::command::Actor;
use crate::refusal::Refusal;
use crate::rules::TagGiver;
use crate::tag::Tag;
use crate::tailnet::Tailnet;

/// Refuses tags that the policy doesn't have, or that the actor may not give.
///
/// Administrators may give every tag of the policy; other users those that they own there; a program those that its
/// client has, and those that these own.
pub(super) fn check(tailnet: &Tailnet, tags: &BTreeSet<Tag>, actor: &Actor) -> Result<(), Refusal> {
    for tag in tags {
        if !tailnet.rules.knows_tag(tag) {
            return Err(Refusal::UnknownTag { tag: tag.clone() });
        }
        if !may_give(tailnet, tag, actor) {
            return Err(Refusal::TagNotPermitted { tag: tag.clone(), who: name_of(tailnet, actor) });
        }
    }
    Ok(())
}

fn may_give(tailnet: &Tailnet, tag: &Tag, actor: &Actor) -> bool {
    match actor {
        Actor::Server => true,
        Actor::Machine(_) => false,
        Actor::User(id) => tailnet
            .user(*id)
            .is_some_and(|user| user.role.is_admin() || tailnet.rules.may_give(TagGiver::User(*id), tag)),
        Actor::Client { tags, .. } => tailnet.rules.may_give(TagGiver::Tags(tags), tag),
    }
}
