use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use api::SecretText;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crypto::{Entropy, SystemEntropy};
use http::{HeaderMap, header};
use jiff::{SignedDuration, Timestamp};
use tailcfg::UserId;
use tailnet::TailnetId;

use crate::store::{EndedSessions, Store, StoreError, StoredSession};

/// How long somebody stays signed in.
const LIFE: SignedDuration = SignedDuration::from_hours(12);

/// The secret in a browser's cookie. It is kept nowhere: the server knows its hash.
#[derive(Debug, Clone)]
pub(crate) struct CookieSecret(SecretText);

impl CookieSecret {
    pub(crate) fn generate() -> Self {
        Self(SecretText::new(URL_SAFE_NO_PAD.encode(SystemEntropy.bytes32())))
    }

    /// Finds a cookie among those that a browser sent.
    pub(crate) fn find(headers: &HeaderMap, name: &str) -> Option<Self> {
        let sent = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let value = sent.flat_map(|value| value.split(';')).find_map(|pair| {
            let (key, value) = pair.trim().split_once('=')?;
            (key == name && value.len() == 43).then(|| value.to_owned())
        })?;
        Some(Self(SecretText::new(value)))
    }

    /// The value of the cookie.
    pub(crate) fn expose(&self) -> &str {
        self.0.expose()
    }

    fn hash(&self) -> String {
        crypto::sha256_hex(self.0.expose().as_bytes())
    }

    /// What a form must carry to prove that a page of ours made it for this browser.
    pub(crate) fn form_token(&self) -> String {
        crypto::sha256_hex(format!("towline form {}", self.0.expose()).as_bytes())
    }
}

/// Who is signed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SignedIn {
    pub(crate) tailnet: TailnetId,
    pub(crate) user: UserId,
}

/// Browsers that are signed in.
#[derive(Debug)]
pub(crate) struct Sessions {
    store: Store,
    open: Mutex<HashMap<String, StoredSession>>,
}

impl Sessions {
    /// Reads those that are kept.
    pub(crate) async fn load(store: Store, now: Timestamp) -> Result<Self, StoreError> {
        store.end_sessions(&EndedSessions::Expired(now)).await?;
        let open = store.load_sessions().await?.into_iter().map(|session| (session.hash.clone(), session)).collect();
        Ok(Self { store, open: Mutex::new(open) })
    }

    /// Signs a browser in, under a secret that it did not have before.
    pub(crate) async fn open(&self, who: SignedIn, now: Timestamp) -> Result<CookieSecret, StoreError> {
        let secret = CookieSecret::generate();
        let session = StoredSession { hash: secret.hash(), tailnet: who.tailnet, user: who.user, expires: now + LIFE };
        self.store.put_session(&session).await?;
        let mut open = self.locked();
        open.retain(|_, session| session.expires > now);
        open.insert(session.hash.clone(), session);
        Ok(secret)
    }

    /// Who a browser is signed in as.
    pub(crate) fn find(&self, secret: &CookieSecret, now: Timestamp) -> Option<SignedIn> {
        let open = self.locked();
        let session = open.get(&secret.hash()).filter(|session| session.expires > now)?;
        Some(SignedIn { tailnet: session.tailnet, user: session.user })
    }

    /// Signs a browser out.
    pub(crate) async fn close(&self, secret: &CookieSecret) -> Result<(), StoreError> {
        let hash = secret.hash();
        self.locked().remove(&hash);
        self.store.end_sessions(&EndedSessions::One(&hash)).await
    }

    /// Signs a user out everywhere.
    pub(crate) async fn close_all(&self, user: UserId) -> Result<(), StoreError> {
        self.locked().retain(|_, session| session.user != user);
        self.store.end_sessions(&EndedSessions::User(user)).await
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<String, StoredSession>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_cookie_is_found_among_others() {
        let secret = CookieSecret::generate();
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=b; towline=short"));
        headers.append(header::COOKIE, HeaderValue::from_str(&format!("x=y;towline={}", secret.expose())).unwrap());
        assert_eq!(CookieSecret::find(&headers, "towline").unwrap().expose(), secret.expose());
        assert!(CookieSecret::find(&headers, "other").is_none());
    }

    #[test]
    fn the_forms_token_is_not_the_cookie_nor_what_is_kept_of_it() {
        let secret = CookieSecret::generate();
        assert_ne!(secret.form_token(), secret.hash());
        assert!(!secret.form_token().contains(secret.expose()));
        assert!(!format!("{secret:?}").contains(secret.expose()));
    }
}
