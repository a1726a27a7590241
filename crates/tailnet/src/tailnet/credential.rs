use jiff::Timestamp;

use super::Tailnet;
use crate::command::Actor;
use crate::record::{ApiToken, OAuthClient, TokenHolder};
use crate::refusal::Refusal;
use crate::secret::{KeyKind, SecretText};

impl Tailnet {
    /// The API token with this text, if it works now, and who acts when it is used.
    ///
    /// # Errors
    /// It is unknown, was taken away, its time is over, or its holder may not be here. Who doesn't have the whole text
    /// learns only that it is not valid.
    pub fn authenticate(&self, text: &SecretText, now: Timestamp) -> Result<(&ApiToken, Actor), Refusal> {
        let found = text.identify().filter(|(kind, _)| *kind == KeyKind::Api).and_then(|(_, id)| self.api_token(&id));
        let token = found.filter(|token| token.hash.matches(text)).ok_or(Refusal::UnknownCredential)?;
        if token.revoked.is_some() {
            return Err(Refusal::CredentialRevoked { id: token.id.clone() });
        }
        if token.expires <= now {
            return Err(Refusal::TokenExpired { id: token.id.clone(), at: token.expires });
        }
        let actor = match &token.holder {
            TokenHolder::User(id) => {
                let user = self.user(*id).ok_or(Refusal::UnknownCredential)?;
                Refusal::unless_active(user)?;
                Actor::User(*id)
            }
            TokenHolder::Client(id) => {
                let client = self.oauth_client(id).ok_or(Refusal::UnknownCredential)?;
                if client.revoked.is_some() {
                    return Err(Refusal::CredentialRevoked { id: id.clone() });
                }
                Actor::Client { id: id.clone(), tags: token.tags.clone() }
            }
        };
        Ok((token, actor))
    }

    /// The OAuth client with this secret, if it may have tokens.
    ///
    /// # Errors
    /// It is unknown or was taken away.
    pub fn authenticate_client(&self, text: &SecretText) -> Result<&OAuthClient, Refusal> {
        let found =
            text.identify().filter(|(kind, _)| *kind == KeyKind::Client).and_then(|(_, id)| self.oauth_client(&id));
        let client = found.filter(|client| client.hash.matches(text)).ok_or(Refusal::UnknownCredential)?;
        if client.revoked.is_some() {
            return Err(Refusal::CredentialRevoked { id: client.id.clone() });
        }
        Ok(client)
    }
}
