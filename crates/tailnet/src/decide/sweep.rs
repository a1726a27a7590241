use jiff::{SignedDuration, Timestamp};

use super::Draft;
use crate::change::Change;
use crate::command::Reply;
use crate::refusal::Refusal;
use crate::tailnet::Tailnet;

/// How long a key, credential or token is still listed after its end, so that its last user can be told what became of
/// it.
const KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Access tokens of programs live an hour and are made all the time.
const TOKEN_KEPT: SignedDuration = SignedDuration::from_hours(24);

/// How many rows one sweep writes at most; the next one goes on.
const BATCH: usize = 500;

/// Deletes what nobody needs any more: ephemeral devices that are gone, and keys long after their end.
pub(super) fn sweep(tailnet: &Tailnet, draft: &mut Draft<'_, '_>) -> Result<Reply, Refusal> {
    let now = draft.now();
    let over = |end: Timestamp, kept: SignedDuration| now.duration_since(end) >= kept;
    let nodes = tailnet.gone_ephemeral(now).into_iter().map(Change::DeleteNode);
    let keys = tailnet.auth_keys().filter(|key| {
        let spent = key.spent.filter(|_| !key.reusable).map(|spent| spent.at);
        [key.revoked, spent, Some(key.expires)].into_iter().flatten().min().is_some_and(|end| over(end, KEPT))
    });
    let clients = tailnet.oauth_clients().filter(|client| client.revoked.is_some_and(|end| over(end, KEPT)));
    let tokens = tailnet.api_tokens().filter(|token| {
        let kept = if matches!(token.holder, crate::record::TokenHolder::Client(_)) { TOKEN_KEPT } else { KEPT };
        over(token.revoked.unwrap_or(token.expires).min(token.expires), kept)
    });
    let changes: Vec<Change> = nodes
        .chain(keys.map(|key| Change::DeleteAuthKey(key.id.clone())))
        .chain(clients.map(|client| Change::DeleteOAuthClient(client.id.clone())))
        .chain(tokens.map(|token| Change::DeleteApiToken(token.id.clone())))
        .take(BATCH)
        .collect();
    changes.into_iter().for_each(|change| draft.put(change));
    Ok(Reply::Done)
}
