use policy::Policy;

use super::Draft;
use super::limits::bounded;
use crate::change::Change;
use crate::command::{NewPolicy, PolicyPrecondition, Reply};
use crate::record::PolicyRecord;
use crate::refusal::Refusal;
use crate::tailnet::Tailnet;

/// Puts a policy in force, if it is whole and passes its own tests; else the old one stays.
pub(super) fn set_policy(tailnet: &Tailnet, new: NewPolicy, draft: &mut Draft<'_, '_>) -> Result<Reply, Refusal> {
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
    let review = tailnet.review_policy(&new.text, author)?;
    if review.cuts_author_off && !new.confirmed {
        let author =
            author.and_then(|id| tailnet.user(id)).map_or_else(|| new.who.clone(), |user| user.login.to_string());
        return Err(Refusal::PolicyCutsAuthorOff { author });
    }
    let empty = new.text.trim().is_empty();
    let text = if empty { Policy::default_for_new_tailnet().to_owned() } else { new.text };
    if text != tailnet.policy().text {
        draft.put(Change::PutPolicy(PolicyRecord {
            text,
            version: tailnet.policy().version + 1,
            who: bounded(new.who),
            why: bounded(new.why),
            when: draft.now(),
        }));
    }
    Ok(Reply::Policy { etag: review.etag, warnings: review.warnings })
}
