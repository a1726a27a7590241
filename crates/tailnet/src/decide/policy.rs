use policy::{Compiled, Policy};

use super::Draft;
use super::limits::bounded;
use crate::change::Change;
use crate::command::{NewPolicy, PolicyPrecondition, Reply};
use crate::record::PolicyRecord;
use crate::refusal::Refusal;
use crate::rules::auto_approved;
use crate::tailnet::Tailnet;
use crate::trial::PolicyReview;

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

/// Puts a policy in force that was tried, unless another one is in force by now than its author has seen.
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
    let PolicyReview { etag, warnings, .. } = new.tried.review.clone();
    if new.tried.policy().text() != tailnet.policy().text {
        let rules = new.tried.rules_for(tailnet)?;
        approve(tailnet, rules.compiled(), draft);
        let record = PolicyRecord {
            text: rules.policy().text().to_owned(),
            version: tailnet.policy().version + 1,
            who: bounded(new.who),
            why: bounded(new.why),
            when: draft.now(),
        };
        draft.put_policy(record, rules);
    }
    Ok(Reply::Policy { etag, warnings })
}
