use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::{Client, ClientCredential, ClientError};
use crate::SecretText;

/// How long before its end a token is no longer used.
const MARGIN: Duration = Duration::from_secs(60);

/// The right to call: a token as given, or one that an OAuth client fetches when it needs it.
pub(super) struct Access {
    credential: ClientCredential,
    /// Held while a token is fetched, so that many calls at once fetch one.
    fetched: Mutex<Option<Fetched>>,
}

struct Fetched {
    token: SecretText,
    stale_at: Instant,
}

impl Access {
    pub(super) fn new(credential: ClientCredential) -> Self {
        Self { credential, fetched: Mutex::new(None) }
    }

    /// The token to send with the next call.
    pub(super) async fn token(&self, client: &Client) -> Result<Option<SecretText>, ClientError> {
        let (id, secret, scopes) = match &self.credential {
            ClientCredential::Nothing => return Ok(None),
            ClientCredential::Token(token) => return Ok(Some(token.clone())),
            ClientCredential::OauthClient { id, secret, scopes } => (id, secret, scopes.join(" ")),
        };
        let mut fetched = self.fetched.lock().await;
        if let Some(held) = fetched.as_ref().filter(|held| Instant::now() < held.stale_at) {
            return Ok(Some(held.token.clone()));
        }
        let mut form =
            vec![("grant_type", "client_credentials"), ("client_id", id), ("client_secret", secret.expose())];
        if !scopes.is_empty() {
            form.push(("scope", &scopes));
        }
        let answer = client.issue_token(&form).await?;
        let token = SecretText::new(answer.access_token);
        // A life that is too short for the margin still spares every second fetch.
        let life = Duration::from_secs(answer.expires_in.min(86_400));
        let stale_at = Instant::now() + life.checked_sub(MARGIN).unwrap_or(life / 2).max(life / 2);
        *fetched = Some(Fetched { token: token.clone(), stale_at });
        Ok(Some(token))
    }

    /// Drops a token that the server refused; false when another would be no different.
    pub(super) async fn forget(&self, refused: &SecretText) -> bool {
        if !matches!(self.credential, ClientCredential::OauthClient { .. }) {
            return false;
        }
        let mut fetched = self.fetched.lock().await;
        if fetched.as_ref().is_some_and(|held| held.token.expose() == refused.expose()) {
            *fetched = None;
        }
        true
    }
}
