//! Auth keys, OAuth clients and API tokens in the API's words.

use api::{
    ApiError, CreateDevices, CreateKey, DeviceCapabilities, Done, InTailnet, Key, KeyCapabilities, KeyList, KeyQuery,
    KeyType, OfKey, OrOwn, Permission, ReadApiTokens, ReadAuthKeys, ReadKeys, ReadOauthKeys, Scopes, WriteApiTokens,
    WriteAuthKeys, WriteKeys, WriteOauthKeys,
};
use jiff::{SignedDuration, Timestamp};
use tailnet::{
    ApiToken, AuthKey, Command, KeyId, NewApiToken, NewAuthKey, NewOAuthClient, OAuthClient, Reply, Tailnet,
    TokenHolder,
};

use super::{By, Identity, Rest};

/// A key of any kind, and whether it still works.
struct Found {
    kind: KeyType,
    holder: Option<TokenHolder>,
    key: Key,
}

/// On what ground a caller is let at a key.
enum Ground {
    /// It is their own.
    Own,
    /// Their scopes let them at keys of some kind.
    Scopes,
}

impl Identity {
    /// Whether a key is the caller's own: an API token of the user for whom the credential stands, or the credential itself.
    fn owns(&self, found: &Found) -> bool {
        let is_users = self.stands_for.is_some_and(|user| found.holder == Some(TokenHolder::User(user)));
        found.kind == KeyType::Api && (is_users || found.key.id == self.token.0)
    }
}

impl Rest {
    /// The keys that the caller may see.
    pub(super) fn keys(&self, by: &By<OrOwn<ReadKeys>>, at: &InTailnet, query: KeyQuery) -> Result<KeyList, ApiError> {
        let (now, who) = (self.coordination.now(), by.identity());
        // Who may look at none but their own is told so where they ask for everybody's.
        if query.all || who.stands_for.is_none() {
            by.also::<ReadKeys>()?;
        }
        let own = who.holder();
        self.look_at(who, at, |tailnet| {
            let seen = all(tailnet, now).filter(|found| who.owns(found) || may_read(by, found.kind));
            // Without `all`, the caller's own live ones; access tokens of programs come and go by the hour.
            let mine = |found: &Found| !found.key.invalid && found.holder == own && found.kind != KeyType::Client;
            let wanted = seen.filter(|found| query.all || mine(found));
            Ok(KeyList { keys: wanted.map(|found| found.key).collect() })
        })
    }

    /// One key.
    pub(super) fn key(&self, by: &By<OrOwn<ReadKeys>>, at: &OfKey) -> Result<Key, ApiError> {
        match self.find_for(by, at)? {
            (found, Ground::Own) => Ok(found.key),
            (found, Ground::Scopes) if may_read(by, found.kind) => Ok(found.key),
            (_, Ground::Scopes) => Err(no_such_key()),
        }
    }

    /// Finds a key that is the caller's own; others are looked for only where the caller may do `P`, so that nobody else
    /// learns which there are.
    fn find_for<P: Permission>(&self, by: &By<OrOwn<P>>, at: &OfKey) -> Result<(Found, Ground), ApiError> {
        match self.find(by.identity(), at) {
            Ok(found) if by.identity().owns(&found) => Ok((found, Ground::Own)),
            found => {
                by.also::<P>()?;
                found.map(|found| (found, Ground::Scopes))
            }
        }
    }

    fn find(&self, who: &Identity, at: &OfKey) -> Result<Found, ApiError> {
        let now = self.coordination.now();
        self.look_at(who, &InTailnet { tailnet: at.tailnet.clone() }, |tailnet| {
            let id = KeyId(at.key.clone());
            let auth = || tailnet.auth_key(&id).map(|key| show_auth_key(key, now));
            let client = || tailnet.oauth_client(&id).map(show_client);
            let token = || tailnet.api_token(&id).map(|token| show_token(token, now));
            auth().or_else(client).or_else(token).ok_or_else(no_such_key)
        })
    }

    /// Takes a key away.
    pub(super) async fn take_key_away(&self, by: &By<OrOwn<WriteKeys>>, at: &OfKey) -> Result<Done, ApiError> {
        let (found, ground) = self.find_for(by, at)?;
        if let Ground::Scopes = ground {
            may_write(by, found.kind)?;
        }
        self.done(by.identity(), Command::Revoke(KeyId(found.key.id))).await
    }

    /// Makes a key.
    pub(super) async fn make_key(
        &self,
        by: &By<OrOwn<WriteKeys>>,
        at: &InTailnet,
        new: CreateKey,
    ) -> Result<Key, ApiError> {
        let kind = new.key_type;
        // It makes tokens for nobody but the caller, with no more than the caller has.
        let is_own = kind == KeyType::Api && by.identity().stands_for.is_some();
        if !is_own {
            may_write(by, kind)?;
        }
        self.look_at(by.identity(), at, |_| Ok(()))?;
        let lifetime = match new.expiry_seconds.unwrap_or(0) {
            0 => None,
            seconds => Some(SignedDuration::from_secs(seconds)),
        };
        let command = match kind {
            KeyType::Auth => Command::CreateAuthKey(auth_key(new, lifetime)),
            KeyType::Client => Command::CreateOAuthClient(oauth_client(by, new)?),
            KeyType::Api => Command::CreateApiToken(api_token(by, new, lifetime)?),
            KeyType::Federated => {
                let message = "federated identities are not served by this server yet";
                return Err(ApiError::new(http::StatusCode::NOT_IMPLEMENTED, message));
            }
        };
        let Reply::Secret { id, text, .. } = self.execute(by.identity(), command).await? else {
            return Err(ApiError::internal("no key was made"));
        };
        let found = self.find(by.identity(), &OfKey { tailnet: "-".to_owned(), key: id.to_string() })?;
        Ok(Key { key: text.expose().to_owned(), ..found.key })
    }
}

fn no_such_key() -> ApiError {
    ApiError::not_found("there is no such key in this tailnet")
}

fn may_read(by: &By<OrOwn<ReadKeys>>, kind: KeyType) -> bool {
    match kind {
        KeyType::Auth => by.also::<ReadAuthKeys>().is_ok(),
        KeyType::Client | KeyType::Federated => by.also::<ReadOauthKeys>().is_ok(),
        KeyType::Api => by.also::<ReadApiTokens>().is_ok(),
    }
}

fn may_write(by: &By<OrOwn<WriteKeys>>, kind: KeyType) -> Result<(), ApiError> {
    match kind {
        KeyType::Auth => by.also::<WriteAuthKeys>().map(drop),
        KeyType::Client | KeyType::Federated => by.also::<WriteOauthKeys>().map(drop),
        KeyType::Api => by.also::<WriteApiTokens>().map(drop),
    }
}

fn auth_key(new: CreateKey, lifetime: Option<SignedDuration>) -> NewAuthKey {
    let create = new.capabilities.unwrap_or_default().devices.create;
    NewAuthKey {
        reusable: create.reusable,
        ephemeral: create.ephemeral,
        preauthorized: create.preauthorized,
        tags: create.tags,
        lifetime,
        description: new.description,
    }
}

fn oauth_client(by: &By<OrOwn<WriteKeys>>, new: CreateKey) -> Result<NewOAuthClient, ApiError> {
    let scopes = within(by, &new.scopes)?;
    if scopes.is_empty() {
        return Err(ApiError::bad_request("scopes must say what the client may do, for example [\"devices:core\"]"));
    }
    Ok(NewOAuthClient { scopes: scopes.names().into_iter().collect(), tags: new.tags, description: new.description })
}

fn api_token(
    by: &By<OrOwn<WriteKeys>>,
    new: CreateKey,
    lifetime: Option<SignedDuration>,
) -> Result<NewApiToken, ApiError> {
    let user = by.identity().acting_user().ok_or_else(|| {
        ApiError::forbidden("an OAuth client gets its tokens from /api/v2/oauth/token; only people make lasting ones")
    })?;
    let asked = within(by, &new.scopes)?;
    let scopes = if asked.is_empty() { by.scopes().clone() } else { asked };
    Ok(NewApiToken {
        holder: TokenHolder::User(user),
        scopes: scopes.names().into_iter().collect(),
        tags: new.tags,
        lifetime,
        description: new.description,
    })
}

/// Reads scopes, which must be within what the caller itself may do.
fn within(by: &By<OrOwn<WriteKeys>>, names: &[String]) -> Result<Scopes, ApiError> {
    let scopes = Scopes::parse(names).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let beyond = scopes.iter().find(|scope| !by.scopes().allows(*scope));
    match beyond {
        None => Ok(scopes),
        Some(scope) => {
            let scope = scope.to_string();
            Err(ApiError::forbidden(format!("this credential does not have the scope {scope:?}, so it can't give it")))
        }
    }
}

fn all(tailnet: &Tailnet, now: Timestamp) -> impl Iterator<Item = Found> {
    let auth = tailnet.auth_keys().map(move |key| show_auth_key(key, now));
    let clients = tailnet.oauth_clients().map(show_client);
    let tokens = tailnet.api_tokens().map(move |token| show_token(token, now));
    auth.chain(clients).chain(tokens)
}

fn show_auth_key(key: &AuthKey, now: Timestamp) -> Found {
    let create = CreateDevices {
        reusable: key.reusable,
        ephemeral: key.ephemeral,
        preauthorized: key.preauthorized,
        tags: key.tags.iter().map(ToString::to_string).collect(),
    };
    let used_up = key.spent.is_some() && !key.reusable;
    let shown = Key {
        id: key.id.to_string(),
        key_type: KeyType::Auth,
        expiry_seconds: Some(key.expires.duration_since(key.created).as_secs()),
        created: Some(key.created),
        expires: Some(key.expires),
        revoked: key.revoked,
        capabilities: Some(KeyCapabilities { devices: DeviceCapabilities { create } }),
        description: key.description.clone(),
        invalid: key.revoked.is_some() || used_up || key.expires <= now,
        user_id: user_id(&key.maker),
        client_id: client_id(&key.maker),
        ..Key::default()
    };
    Found { kind: KeyType::Auth, holder: Some(key.maker.clone()), key: shown }
}

fn show_client(client: &OAuthClient) -> Found {
    let shown = Key {
        id: client.id.to_string(),
        key_type: KeyType::Client,
        created: Some(client.created),
        revoked: client.revoked,
        scopes: client.scopes.iter().cloned().collect(),
        tags: client.tags.iter().map(ToString::to_string).collect(),
        description: client.description.clone(),
        invalid: client.revoked.is_some(),
        user_id: client.maker.map(|id| id.to_string()).unwrap_or_default(),
        ..Key::default()
    };
    Found { kind: KeyType::Client, holder: client.maker.map(TokenHolder::User), key: shown }
}

fn show_token(token: &ApiToken, now: Timestamp) -> Found {
    let shown = Key {
        id: token.id.to_string(),
        key_type: KeyType::Api,
        expiry_seconds: Some(token.expires.duration_since(token.created).as_secs()),
        created: Some(token.created),
        expires: Some(token.expires),
        revoked: token.revoked,
        scopes: token.scopes.iter().cloned().collect(),
        tags: token.tags.iter().map(ToString::to_string).collect(),
        description: token.description.clone(),
        invalid: token.revoked.is_some() || token.expires <= now,
        user_id: user_id(&token.holder),
        client_id: client_id(&token.holder),
        ..Key::default()
    };
    Found { kind: KeyType::Api, holder: Some(token.holder.clone()), key: shown }
}

fn user_id(holder: &TokenHolder) -> String {
    match holder {
        TokenHolder::User(id) => id.to_string(),
        TokenHolder::Client(_) => String::new(),
    }
}

fn client_id(holder: &TokenHolder) -> String {
    match holder {
        TokenHolder::User(_) => String::new(),
        TokenHolder::Client(id) => id.to_string(),
    }
}
