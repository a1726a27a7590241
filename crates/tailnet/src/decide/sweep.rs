use super::Draft;
use crate::change::Change;
use crate::command::Reply;
use crate::refusal::Refusal;
use crate::tailnet::Tailnet;

/// How many rows one sweep writes at most; the next one goes on.
const BATCH: usize = 500;

/// Deletes what nobody needs any more: ephemeral devices that are gone, and keys long after their end.
pub(super) fn sweep(tailnet: &Tailnet, draft: &mut Draft<'_, '_>) -> Result<Reply, Refusal> {
    let now = draft.now();
    let nodes = tailnet.gone_ephemeral(now).into_iter().map(Change::DeleteNode);
    let changes: Vec<Change> = nodes.chain(tailnet.forgettable(now)).take(BATCH).collect();
    changes.into_iter().for_each(|change| draft.put(change));
    Ok(Reply::Done)
}
