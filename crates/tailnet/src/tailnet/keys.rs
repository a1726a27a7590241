use std::collections::BTreeSet;

use jiff::Timestamp;

use super::Tailnet;
use crate::change::Change;
use crate::record::{ApiToken, AuthKey, OAuthClient};
use crate::secret::KeyId;

/// Keys, credentials and tokens by the time until which they are listed.
#[derive(Debug, Default)]
pub(super) struct KeysKept(BTreeSet<(Timestamp, KeyId)>);

impl KeysKept {
    /// Notes that something is listed until another time than before; without an end while it works for ever.
    pub(super) fn put(&mut self, id: &KeyId, before: Option<Timestamp>, now: Option<Timestamp>) {
        if before == now {
            return;
        }
        if let Some(before) = before {
            self.0.remove(&(before, id.clone()));
        }
        if let Some(now) = now {
            self.0.insert((now, id.clone()));
        }
    }

    /// When the next one is no longer listed. Many end by the hour, so that they go in one write.
    pub(super) fn next(&self) -> Option<Timestamp> {
        const HOUR: i64 = 3600;
        let (first, _) = self.0.first()?;
        let hour = first.as_second().div_euclid(HOUR).saturating_add(1).saturating_mul(HOUR);
        Some(Timestamp::from_second(hour).unwrap_or(Timestamp::MAX))
    }
}

impl Tailnet {
    /// Applies what is said of a key, a credential or a token.
    pub(super) fn apply_to_keys(&mut self, change: &Change) {
        match change {
            Change::PutAuthKey(key) => {
                let before = self.auth_keys.insert(key.id.clone(), key.clone());
                self.keys_kept.put(&key.id, before.map(|key| key.kept_until()), Some(key.kept_until()));
            }
            Change::DeleteAuthKey(id) => {
                let before = self.auth_keys.remove(id);
                self.keys_kept.put(id, before.map(|key| key.kept_until()), None);
            }
            Change::PutOAuthClient(client) => {
                let before = self.oauth_clients.insert(client.id.clone(), client.clone());
                self.keys_kept.put(&client.id, before.and_then(|client| client.kept_until()), client.kept_until());
            }
            Change::DeleteOAuthClient(id) => {
                let before = self.oauth_clients.remove(id);
                self.keys_kept.put(id, before.and_then(|client| client.kept_until()), None);
            }
            Change::PutApiToken(token) => {
                let before = self.api_tokens.insert(token.id.clone(), token.clone());
                self.keys_kept.put(&token.id, before.map(|token| token.kept_until()), Some(token.kept_until()));
            }
            Change::DeleteApiToken(id) => {
                let before = self.api_tokens.remove(id);
                self.keys_kept.put(id, before.map(|token| token.kept_until()), None);
            }
            _ => {}
        }
    }

    /// Its auth keys, with those that work no more.
    pub fn auth_keys(&self) -> impl Iterator<Item = &AuthKey> {
        self.auth_keys.values()
    }

    /// An auth key.
    pub fn auth_key(&self, id: &KeyId) -> Option<&AuthKey> {
        self.auth_keys.get(id)
    }

    /// Its OAuth clients, with those that were taken away.
    pub fn oauth_clients(&self) -> impl Iterator<Item = &OAuthClient> {
        self.oauth_clients.values()
    }

    /// An OAuth client.
    pub fn oauth_client(&self, id: &KeyId) -> Option<&OAuthClient> {
        self.oauth_clients.get(id)
    }

    /// Its API tokens, with those that work no more.
    pub fn api_tokens(&self) -> impl Iterator<Item = &ApiToken> {
        self.api_tokens.values()
    }

    /// An API token.
    pub fn api_token(&self, id: &KeyId) -> Option<&ApiToken> {
        self.api_tokens.get(id)
    }

    /// The keys, credentials and tokens that ended so long ago that they are no longer listed.
    pub(crate) fn forgettable(&self, now: Timestamp) -> impl Iterator<Item = Change> {
        self.keys_kept.0.iter().take_while(move |(until, _)| *until <= now).map(|(_, id)| {
            if self.auth_keys.contains_key(id) {
                Change::DeleteAuthKey(id.clone())
            } else if self.oauth_clients.contains_key(id) {
                Change::DeleteOAuthClient(id.clone())
            } else {
                Change::DeleteApiToken(id.clone())
            }
        })
    }
}
