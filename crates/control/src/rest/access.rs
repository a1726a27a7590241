//! Whose a credential is, and tokens for credentials.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use api::{AccessToken, ApiError, Caller, Credential, Peer, Scope, Scopes, TokenGrant, TokenRequest};
use jiff::SignedDuration;
use tailcfg::UserId;
use tailnet::{Actor, Command, KeyId, NewApiToken, Refusal, Reply, SecretText, TailnetId, TokenHolder};

use super::{Identity, Rest};
use crate::coordination::Failure;
use crate::rate::RateLimit;
use crate::sign_in::SignInError;

/// How long an access token lives.
const LIFE: SignedDuration = SignedDuration::from_hours(1);

/// How often programs get access tokens: each of them many at once, and then about as many in an hour as may work at a
/// time.
#[derive(Debug)]
pub(crate) struct Grants(RateLimit<KeyId>);

impl Default for Grants {
    fn default() -> Self {
        Self(RateLimit::new(60, Duration::from_secs(5), 4096))
    }
}

impl Grants {
    fn take(&self, client: &KeyId) -> Result<(), ApiError> {
        self.0.take(client, Instant::now()).map_err(|wait| {
            let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
            let message = format!(
                "OAuth client {client} asks for access tokens too often: use one for the hour that it works, and ask again \
                 in {seconds} s"
            );
            ApiError::too_many(message, seconds)
        })
    }
}

impl Identity {
    /// The person who calls, if it is one.
    pub(super) fn acting_user(&self) -> Option<UserId> {
        match self.actor {
            Actor::User(id) => Some(id),
            _ => None,
        }
    }

    /// The holder of the credential.
    pub(super) fn holder(&self) -> Option<TokenHolder> {
        match &self.actor {
            Actor::User(id) => Some(TokenHolder::User(*id)),
            Actor::Client { id, .. } => Some(TokenHolder::Client(id.clone())),
            Actor::Server | Actor::Machine(_) => None,
        }
    }
}

impl Rest {
    /// Finds out who calls, and what the credential may do now.
    pub(super) async fn find_caller(&self, credential: Credential, peer: Peer) -> Result<Caller<Identity>, ApiError> {
        let Credential::Token(text) = credential;
        let text = SecretText::new(text.expose().to_owned());
        let caller = self.caller_of(&text).map_err(Failure::Refused)?;
        if !peer.encrypted && self.url.is_https() {
            return Err(self.burn(&caller.identity, peer).await);
        }
        Ok(caller)
    }

    fn caller_of(&self, text: &SecretText) -> Result<Caller<Identity>, Refusal> {
        let now = self.coordination.now();
        let server = self.coordination.server();
        let tailnet = server.tailnet_of_secret(text)?;
        let (token, actor) = tailnet.authenticate(text, now)?;
        let names: Vec<&String> = token.scopes.iter().collect();
        // What was written before a scope was renamed or taken out gives nothing.
        let held: Scopes = names.iter().filter_map(|name| name.parse().ok()).collect();
        let (scopes, stands_for) = match &actor {
            Actor::User(id) => {
                // A role may have become less than it was when the token was made.
                let role = tailnet.user(*id).map(|user| role_scopes(user.role)).unwrap_or_default();
                let is_whole = !role.is_empty() && held.cover(&role);
                (both(&held, &role), is_whole.then_some(*id))
            }
            _ => (held, None),
        };
        let identity = Identity { tailnet: tailnet.id(), actor, stands_for, token: token.id.clone() };
        Ok(Caller { identity, scopes })
    }

    /// A token that travelled in the clear is nobody's secret any more.
    async fn burn(&self, who: &Identity, peer: Peer) -> ApiError {
        // What stays on this machine was seen by nobody else: it is a mistake, not a leak.
        if peer.source.is_loopback() {
            return ApiError::forbidden("tokens are taken over https:// only; call this server by its own URL");
        }
        tracing::warn!(token = %who.token, "an API token came without encryption and is taken away");
        let command = Command::Revoke(who.token.clone());
        match self.coordination.execute(who.tailnet, command, Actor::Server).await {
            Ok(_) => ApiError::forbidden(
                "this token was sent without encryption, so it was revoked: make a new one and use https://",
            ),
            Err(failure) => failure.into(),
        }
    }

    /// Gives an access token.
    pub(super) async fn make_access_token(&self, request: TokenRequest, peer: Peer) -> Result<AccessToken, ApiError> {
        if !peer.encrypted && self.url.is_https() {
            return Err(ApiError::forbidden(
                "secrets are taken over https:// only; change this one, it was sent in the clear",
            ));
        }
        let wanted = Scopes::parse(&request.scopes).map_err(|error| ApiError::bad_request(error.to_string()))?;
        match request.grant {
            TokenGrant::Client { secret, .. } => self.token_for_client(secret, wanted, request.tags).await,
            TokenGrant::Password { login_name, password } => {
                let candidates = |name: &str| self.coordination.candidates(name);
                let found = self.sign_in.check(peer.source, &login_name, password, Instant::now(), candidates).await;
                let (tailnet, user) = found.map_err(|error| match error {
                    SignInError::Wrong => ApiError::unauthorized(error.to_string()),
                    SignInError::TooOften(wait) => {
                        let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).max(1);
                        ApiError::too_many(error.to_string(), seconds)
                    }
                    SignInError::Unchecked(_) => ApiError::unavailable(error.to_string(), 5),
                })?;
                self.token_for_user(tailnet, user, wanted).await
            }
        }
    }

    async fn token_for_client(
        &self,
        secret: api::SecretText,
        wanted: Scopes,
        tags: Vec<String>,
    ) -> Result<AccessToken, ApiError> {
        let text = SecretText::new(secret.expose().to_owned());
        let (tailnet, id, held, owned) = {
            let server = self.coordination.server();
            let tailnet = server.tailnet_of_secret(&text).map_err(Failure::Refused)?;
            let client = tailnet.authenticate_client(&text).map_err(Failure::Refused)?;
            (tailnet.id(), client.id.clone(), client.scopes.clone(), client.tags.clone())
        };
        // Only who has the secret is counted, so that nobody else can keep a program out.
        self.grants.take(&id)?;
        let scopes = if wanted.is_empty() { held } else { wanted.names().into_iter().collect() };
        let actor = Actor::Client { id: id.clone(), tags: owned };
        self.token(tailnet, actor, TokenHolder::Client(id), scopes, tags).await
    }

    async fn token_for_user(&self, tailnet: TailnetId, user: UserId, wanted: Scopes) -> Result<AccessToken, ApiError> {
        let role = {
            let server = self.coordination.server();
            server.tailnet(tailnet).and_then(|tailnet| tailnet.user(user)).map(|user| user.role)
        };
        let held = role.map(role_scopes).unwrap_or_default();
        if held.is_empty() {
            return Err(ApiError::forbidden(
                "this user has no right to the API: an administrator can give them another role",
            ));
        }
        let scopes = if wanted.is_empty() { held } else { wanted };
        let scopes = scopes.names().into_iter().collect();
        self.token(tailnet, Actor::User(user), TokenHolder::User(user), scopes, Vec::new()).await
    }

    async fn token(
        &self,
        tailnet: TailnetId,
        actor: Actor,
        holder: TokenHolder,
        scopes: BTreeSet<String>,
        tags: Vec<String>,
    ) -> Result<AccessToken, ApiError> {
        let scope = scopes.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
        let new = NewApiToken { holder, scopes, tags, lifetime: Some(LIFE), description: "access token".to_owned() };
        match self.coordination.execute(tailnet, Command::CreateApiToken(new), actor).await? {
            Reply::Secret { text, .. } => Ok(AccessToken {
                access_token: text.expose().to_owned(),
                token_type: "Bearer".to_owned(),
                expires_in: LIFE.as_secs().unsigned_abs(),
                scope,
            }),
            _ => Err(ApiError::internal("no token was made")),
        }
    }
}

/// What a user of a role may do at most.
pub(super) fn role_scopes(role: tailnet::Role) -> Scopes {
    role.scopes().iter().filter_map(|name| name.parse::<Scope>().ok()).collect()
}

/// What both sets allow.
fn both(one: &Scopes, other: &Scopes) -> Scopes {
    let in_other = one.iter().filter(|scope| other.allows(*scope));
    in_other.chain(other.iter().filter(|scope| one.allows(*scope))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(names: &[&str]) -> Scopes {
        Scopes::parse(names).unwrap()
    }

    #[test]
    fn a_token_never_does_more_than_its_holders_role_does_now() {
        assert_eq!(both(&scopes(&["all"]), &scopes(&["all:read", "dns"])), scopes(&["all:read", "dns"]));
        assert_eq!(both(&scopes(&["dns", "users"]), &scopes(&["all:read", "dns"])), scopes(&["dns"]));
        assert!(both(&scopes(&["all"]), &Scopes::default()).is_empty());
    }

    #[test]
    fn every_scope_of_a_role_is_one_of_the_api() {
        for role in tailnet::Role::ALL {
            assert_eq!(role_scopes(role).names().len(), role.scopes().len(), "{role}");
        }
    }
}
