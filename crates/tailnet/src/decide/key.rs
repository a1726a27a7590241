use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::limits::{bounded, read_tags};
use super::{Draft, name_of, tags, user, user_of};
use crate::change::Change;
use crate::command::{Actor, NewApiToken, NewAuthKey, NewOAuthClient, Reply};
use crate::record::{ApiToken, AuthKey, OAuthClient, Role, TokenHolder};
use crate::refusal::Refusal;
use crate::secret::{KeyId, KeyKind, mint};
use crate::tag::Tag;
use crate::tailnet::Tailnet;

/// The longest that an auth key or a person's token works.
const LONGEST: SignedDuration = SignedDuration::from_hours(90 * 24);

/// The longest that a program's access token works.
const LONGEST_FOR_CLIENT: SignedDuration = SignedDuration::from_hours(1);

/// How many of something there may be that still work.
///
/// People have room of their own, each the same: whatever programs make, and whatever another person makes, nobody is kept
/// from signing in.
struct Room {
    things: &'static str,
    of_person: usize,
    of_program: usize,
    of_all_programs: usize,
}

const AUTH_KEYS: Room = Room { things: "auth keys", of_person: 10_000, of_program: 5000, of_all_programs: 10_000 };
const TOKENS: Room = Room { things: "tokens", of_person: 1000, of_program: 1000, of_all_programs: 10_000 };
const OAUTH_CLIENTS: Room = Room { things: "OAuth clients", of_person: 1000, of_program: 1000, of_all_programs: 1000 };

/// How many of one holder's auth keys or tokens are listed that no longer work; with another one the oldest goes.
const DEAD_LIMIT: usize = 1000;

pub(super) fn create_auth_key(tailnet: &Tailnet, new: NewAuthKey, draft: &mut Draft<'_, '_>) -> Result<Reply, Refusal> {
    let tags = read_tags("the auth key", &new.tags)?;
    tags::check(tailnet, &tags, draft.actor())?;
    let maker = match draft.actor() {
        Actor::User(id) => TokenHolder::User(user_of(tailnet, *id)?.id),
        Actor::Client { .. } if tags.is_empty() => {
            return Err(Refusal::TagsNeeded { what: "an auth key of an OAuth client" });
        }
        Actor::Client { id, .. } => TokenHolder::Client(id.clone()),
        Actor::Server | Actor::Machine(_) => {
            return Err(not_permitted(tailnet, draft, "make auth keys"));
        }
    };
    let now = draft.now();
    let live = tailnet.auth_keys().filter(|key| key.end() > now);
    AUTH_KEYS.check(tailnet, Some(&maker), live.map(|key| Some(&key.maker)))?;
    let expires = end(new.lifetime, LONGEST, now)?;
    let dead = tailnet.auth_keys().filter(|key| key.maker == maker && key.end() <= now);
    let forgotten = surplus(dead.map(|key| (key.end(), &key.id))).map(Change::DeleteAuthKey);
    forgotten.for_each(|change| draft.put(change));
    let (id, text, hash) = mint(KeyKind::Auth, draft.context.entropy);
    draft.put(Change::PutAuthKey(AuthKey {
        id: id.clone(),
        hash,
        description: bounded(new.description),
        maker,
        created: draft.now(),
        expires,
        reusable: new.reusable,
        ephemeral: new.ephemeral,
        preauthorized: new.preauthorized,
        tags,
        spent: None,
        revoked: None,
    }));
    Ok(Reply::Secret { id, text, expires: Some(expires) })
}

pub(super) fn create_oauth_client(
    tailnet: &Tailnet,
    new: NewOAuthClient,
    draft: &mut Draft<'_, '_>,
) -> Result<Reply, Refusal> {
    let tags = read_tags("the OAuth client", &new.tags)?;
    tags::check(tailnet, &tags, draft.actor())?;
    let makes_devices = ["devices:core", "auth_keys"].iter().any(|scope| new.scopes.contains(*scope));
    if makes_devices && tags.is_empty() {
        return Err(Refusal::TagsNeeded { what: "an OAuth client with the scope devices:core or auth_keys" });
    }
    match draft.actor() {
        Actor::Server => {}
        Actor::User(id) => within_role(user_of(tailnet, *id)?.role, &new.scopes)?,
        Actor::Client { id, .. } => within_client(tailnet, id, &new.scopes)?,
        Actor::Machine(_) => return Err(not_permitted(tailnet, draft, "make OAuth clients")),
    }
    let maker = draft.acting_user().map(TokenHolder::User);
    let live: Vec<_> = tailnet.oauth_clients().filter(|client| client.revoked.is_none()).collect();
    let makers: Vec<_> = live.iter().map(|client| client.maker.map(TokenHolder::User)).collect();
    OAUTH_CLIENTS.check(tailnet, maker.as_ref(), makers.iter().map(Option::as_ref))?;
    let (id, text, hash) = mint(KeyKind::Client, draft.context.entropy);
    draft.put(Change::PutOAuthClient(OAuthClient {
        id: id.clone(),
        hash,
        description: bounded(new.description),
        maker: draft.acting_user(),
        created: draft.now(),
        scopes: new.scopes,
        tags,
        revoked: None,
    }));
    Ok(Reply::Secret { id, text, expires: None })
}

pub(super) fn create_api_token(
    tailnet: &Tailnet,
    new: NewApiToken,
    draft: &mut Draft<'_, '_>,
) -> Result<Reply, Refusal> {
    let asked = read_tags("the token", &new.tags)?;
    let (held, longest) = match &new.holder {
        TokenHolder::User(id) => {
            let user = user_of(tailnet, *id)?;
            Refusal::unless_active(user)?;
            within_role(user.role, &new.scopes)?;
            (BTreeSet::new(), LONGEST)
        }
        TokenHolder::Client(id) => {
            within_client(tailnet, id, &new.scopes)?;
            let client = tailnet.oauth_client(id).ok_or_else(|| Refusal::NoSuchKey(id.clone()))?;
            (client.tags.clone(), LONGEST_FOR_CLIENT)
        }
    };
    let tags = narrowed(tailnet, held, asked, &new.holder)?;
    let now = draft.now();
    let live = tailnet.api_tokens().filter(|token| token.end() > now);
    TOKENS.check(tailnet, Some(&new.holder), live.map(|token| Some(&token.holder)))?;
    let expires = end(new.lifetime, longest, now)?;
    let dead = tailnet.api_tokens().filter(|token| token.holder == new.holder && token.end() <= now);
    let forgotten = surplus(dead.map(|token| (token.end(), &token.id))).map(Change::DeleteApiToken);
    forgotten.for_each(|change| draft.put(change));
    let (id, text, hash) = mint(KeyKind::Api, draft.context.entropy);
    draft.put(Change::PutApiToken(ApiToken {
        id: id.clone(),
        hash,
        description: bounded(new.description),
        holder: new.holder,
        created: draft.now(),
        expires,
        scopes: new.scopes,
        tags,
        revoked: None,
    }));
    Ok(Reply::Secret { id, text, expires: Some(expires) })
}

/// All tags of the holder, or those asked for if the holder may give them.
fn narrowed(
    tailnet: &Tailnet,
    held: BTreeSet<Tag>,
    asked: BTreeSet<Tag>,
    holder: &TokenHolder,
) -> Result<BTreeSet<Tag>, Refusal> {
    match holder {
        _ if asked.is_empty() => Ok(held),
        TokenHolder::User(id) => tags::check(tailnet, &asked, &Actor::User(*id)).map(|()| asked),
        TokenHolder::Client(id) => {
            tags::check(tailnet, &asked, &Actor::Client { id: id.clone(), tags: held }).map(|()| asked)
        }
    }
}

/// Takes away whatever has this id; a credential with its tokens and auth keys. Devices that joined with one of these stay.
/// Doing so twice is no error.
pub(super) fn revoke(tailnet: &Tailnet, id: &KeyId, draft: &mut Draft<'_, '_>) -> Result<Reply, Refusal> {
    let now = draft.now();
    if let Some(key) = tailnet.auth_key(id) {
        if key.revoked.is_none() {
            draft.put(Change::PutAuthKey(AuthKey { revoked: Some(now), ..key.clone() }));
        }
    } else if let Some(client) = tailnet.oauth_client(id) {
        if client.revoked.is_none() {
            draft.put(Change::PutOAuthClient(OAuthClient { revoked: Some(now), ..client.clone() }));
            user::revoke_auth_keys(tailnet, &TokenHolder::Client(id.clone()), draft);
            user::revoke_tokens(tailnet, &TokenHolder::Client(id.clone()), draft);
        }
    } else if let Some(token) = tailnet.api_token(id) {
        if token.revoked.is_none() {
            draft.put(Change::PutApiToken(ApiToken { revoked: Some(now), ..token.clone() }));
        }
    } else {
        return Err(Refusal::NoSuchKey(id.clone()));
    }
    Ok(Reply::Done)
}

/// Whether one of the scopes `held` gives the scope `wanted`.
pub(super) fn covers<'a>(held: impl IntoIterator<Item = &'a str>, wanted: &str) -> bool {
    let looks = wanted.ends_with(":read");
    let family = wanted.strip_suffix(":read").unwrap_or(wanted);
    held.into_iter().any(|held| match held.strip_suffix(":read") {
        Some(area) => looks && (area == "all" || area == family),
        None => held == "all" || held == family,
    })
}

fn within_role(role: Role, scopes: &BTreeSet<String>) -> Result<(), Refusal> {
    match scopes.iter().find(|scope| !covers(role.scopes().iter().copied(), scope)) {
        Some(scope) => Err(Refusal::ScopeBeyondRole { role, scope: scope.clone() }),
        None => Ok(()),
    }
}

fn within_client(tailnet: &Tailnet, id: &KeyId, scopes: &BTreeSet<String>) -> Result<(), Refusal> {
    let client = tailnet.oauth_client(id).ok_or_else(|| Refusal::NoSuchKey(id.clone()))?;
    if client.revoked.is_some() {
        return Err(Refusal::CredentialRevoked { id: id.clone() });
    }
    match scopes.iter().find(|scope| !covers(client.scopes.iter().map(String::as_str), scope)) {
        Some(scope) => Err(Refusal::ScopeBeyondClient { id: id.clone(), scope: scope.clone() }),
        None => Ok(()),
    }
}

/// When something that works this long stops to.
fn end(lifetime: Option<SignedDuration>, longest: SignedDuration, now: Timestamp) -> Result<Timestamp, Refusal> {
    let lifetime = lifetime.unwrap_or(longest);
    if lifetime <= SignedDuration::ZERO || lifetime > longest {
        return Err(Refusal::OutOfRange {
            what: "the lifetime",
            given: format!("{} s", lifetime.as_secs()),
            want: "it must be above zero, at most 90 days for keys and tokens of people, and 1 hour for access tokens of programs",
        });
    }
    Ok(now.saturating_add(lifetime).unwrap_or(Timestamp::MAX))
}

impl Room {
    /// Refuses another one for a holder, given whose the live ones are. Nobody in particular is a program.
    fn check<'a>(
        &self,
        tailnet: &Tailnet,
        holder: Option<&TokenHolder>,
        live: impl Iterator<Item = Option<&'a TokenHolder>>,
    ) -> Result<(), Refusal> {
        let person = |holder: Option<&TokenHolder>| matches!(holder, Some(TokenHolder::User(_)));
        let (mut own, mut of_programs) = (0, 0);
        for other in live {
            own += usize::from(other == holder);
            of_programs += usize::from(!person(other));
        }
        let limit = if person(holder) { self.of_person } else { self.of_program };
        let (who, limit) = if own >= limit {
            let who = match holder {
                Some(TokenHolder::User(id)) => name_of(tailnet, &Actor::User(*id)),
                Some(TokenHolder::Client(id)) => format!("OAuth client {id}"),
                None => "the server".to_owned(),
            };
            (who, limit)
        } else if !person(holder) && of_programs >= self.of_all_programs {
            ("the programs of this tailnet together".to_owned(), self.of_all_programs)
        } else {
            return Ok(());
        };
        Err(Refusal::Full { who, things: self.things, limit })
    }
}

/// Of what no longer works, what has to go for another one to be listed: the oldest.
fn surplus<'a>(dead: impl Iterator<Item = (Timestamp, &'a KeyId)>) -> impl Iterator<Item = KeyId> {
    let mut dead: Vec<_> = dead.collect();
    let count = (dead.len() + 1).saturating_sub(DEAD_LIMIT);
    if count > 0 {
        dead.sort_unstable();
    }
    dead.into_iter().take(count).map(|(_, id)| id.clone()).collect::<Vec<_>>().into_iter()
}

fn not_permitted(tailnet: &Tailnet, draft: &Draft<'_, '_>, what: &str) -> Refusal {
    Refusal::NotPermitted {
        who: name_of(tailnet, draft.actor()),
        what: what.to_owned(),
        whom: "an administrator, or sign in as one",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changing_covers_looking_and_all_covers_everything() {
        assert!(covers(["all"], "dns"));
        assert!(covers(["all:read", "dns"], "users:read"));
        assert!(covers(["devices:core"], "devices:core:read"));
        assert!(!covers(["devices:core:read"], "devices:core"));
        assert!(!covers(["all:read"], "all"));
        assert!(!covers([], "dns"));
    }
}
