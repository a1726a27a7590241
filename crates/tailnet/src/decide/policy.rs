use policy::{Compiled, Policy};

use super::Draft;
use super::limits::bounded;
use crate::change::Change;
use crate::command::{NewPolicy, PolicyPrecondition, Reply};
use crate::record::PolicyRecord;
use crate::refusal::Refusal;
use crate::rules::auto_approved;
use crate::tailnet::Tailnet;
use crate::trial::TriedPolicy;

/// Approves what devices offer already and the new policy approves at once. What was approved stays so.
fn approve(tailnet: &Tailnet, compiled: &Compiled, draft: &mut Draft<'_, '_>) {
    for before in tailnet.nodes() {
        let approved = auto_approved(compiled, before);
        if !approved.is_subset(&before.approved_routes) {
            let mut node = before.clone();
            node.approved_routes.extend(approved);
            draft.put(Change::PutNode(Box::new(node)));
        }
    }
}

/// Puts a policy in force, if it is whole and passes its own tests; else the old one stays.
/// What was tried beforehand is not tried again.
pub(super) fn set_policy(
    tailnet: &Tailnet,
    new: NewPolicy,
    tried: Option<&TriedPolicy>,
    draft: &mut Draft<'_, '_>,
) -> Result<Reply, Refusal> {
    let current = tailnet.policy_etag();
    let holds = match &new.precondition {
        None => true,
        Some(PolicyPrecondition::Etag(etag)) => etag == current,
        Some(PolicyPrecondition::NeverSet) => {
            tailnet.policy().version == 0 || tailnet.policy().text == Policy::default_for_new_tailnet()
        }
    };
    if !holds {
        return Err(Refusal::PolicyChanged { etag: current.to_owned() });
    }
    let author = draft.acting_user();
    let trial = || tailnet.policy_trial().try_policy(&new.text, author);
    let tried = tried.map_or_else(trial, |tried| Ok(tried.clone()))?;
    let (review, compiled) = (&tried.review, tried.compiled_for(tailnet));
    if review.cuts_author_off && !new.confirmed {
        let author =
            author.and_then(|id| tailnet.user(id)).map_or_else(|| new.who.clone(), |user| user.login.to_string());
        return Err(Refusal::PolicyCutsAuthorOff { author });
    }
    let text = tried.text().to_owned();
    if text != tailnet.policy().text {
        approve(tailnet, &compiled, draft);
        draft.put(Change::PutPolicy(PolicyRecord {
            text,
            version: tailnet.policy().version + 1,
            who: bounded(new.who),
            why: bounded(new.why),
            when: draft.now(),
        }));
    }
    Ok(Reply::Policy { etag: tried.review.etag, warnings: tried.review.warnings })
}
