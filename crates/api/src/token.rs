use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ApiError, SecretText, urlencoded};

/// What a request proves its right with.
#[derive(Debug, Clone)]
pub enum Credential {
    /// A token in a `Bearer` header, or as the user name of a `Basic` one.
    Token(SecretText),
}

impl Credential {
    /// Reads the `Authorization` header.
    pub fn read(headers: &HeaderMap) -> Result<Self, ApiError> {
        let value = headers.get(header::AUTHORIZATION).ok_or_else(|| {
            ApiError::unauthorized("this needs an API access token: send it as \"Authorization: Bearer <token>\"")
        })?;
        let value = value.to_str().map_err(|_| unreadable())?;
        let (scheme, rest) = value.split_once(' ').ok_or_else(unreadable)?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return Ok(Self::Token(SecretText::new(rest.trim().to_owned())));
        }
        let (user, password) = basic(scheme, rest).ok_or_else(unreadable)?;
        // The token is the user name by convention; some programs only have a field for a password.
        let token = if user.is_empty() { password } else { SecretText::new(user) };
        Ok(Self::Token(token))
    }
}

fn unreadable() -> ApiError {
    ApiError::unauthorized("the Authorization header is neither \"Bearer <token>\" nor \"Basic <base64 of token:>\"")
}

fn basic(scheme: &str, encoded: &str) -> Option<(String, SecretText)> {
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':').unwrap_or((&text, ""));
    Some((user.to_owned(), SecretText::new(password.to_owned())))
}

/// A request for an access token (RFC 6749).
#[derive(Debug, Clone)]
pub struct TokenRequest {
    /// What is offered for it.
    pub grant: TokenGrant,
    /// Only these scopes, where the grant has more; empty for all.
    pub scopes: Vec<String>,
    /// Only these tags; empty for all.
    pub tags: Vec<String>,
}

/// What an access token is given for.
#[derive(Debug, Clone)]
pub enum TokenGrant {
    /// An OAuth client's secret (RFC 6749, 4.4). The secret names its client, so the id is only a hint.
    Client {
        /// The client's id as sent.
        id: String,
        /// The client's secret.
        secret: SecretText,
    },
    /// A user's name and password (RFC 6749, 4.3): how an administrator's command line gets its first token.
    Password {
        /// The login name.
        login_name: String,
        /// The password.
        password: SecretText,
    },
}

impl TokenRequest {
    /// Reads a form and the `Authorization` header, which has precedence for the client.
    pub fn read(headers: &HeaderMap, form: &[u8]) -> Result<Self, ApiError> {
        let form = std::str::from_utf8(form).map_err(|_| ApiError::bad_request("the form is not UTF-8"))?;
        let mut pairs = urlencoded::decode_pairs(form);
        let mut take = |wanted: &str| {
            let found = pairs.iter().position(|(name, _)| name == wanted)?;
            Some(pairs.swap_remove(found).1)
        };
        let list = |text: Option<String>| -> Vec<String> {
            text.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
        };
        let (scopes, tags) = (list(take("scope")), list(take("tags")));
        let grant = match take("grant_type").as_deref() {
            None | Some("" | "client_credentials") => {
                let (id, secret) = match client_header(headers)? {
                    Some(client) => client,
                    None => (take("client_id").unwrap_or_default(), take("client_secret").unwrap_or_default().into()),
                };
                if secret.expose().is_empty() {
                    return Err(ApiError::unauthorized(
                        "the client's secret is missing: send client_id and client_secret",
                    ));
                }
                TokenGrant::Client { id, secret }
            }
            Some("password") => TokenGrant::Password {
                login_name: take("username").unwrap_or_default(),
                password: take("password").unwrap_or_default().into(),
            },
            Some(_) => {
                return Err(ApiError::bad_request("grant_type is \"client_credentials\" or \"password\""));
            }
        };
        Ok(Self { grant, scopes, tags })
    }
}

/// The client in a `Basic` header, where RFC 6749 (2.3.1) has both parts form-encoded once more.
fn client_header(headers: &HeaderMap) -> Result<Option<(String, SecretText)>, ApiError> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let parts = value.to_str().ok().and_then(|value| value.split_once(' '));
    let (id, secret) = parts.and_then(|(scheme, rest)| basic(scheme, rest)).ok_or_else(unreadable)?;
    Ok(Some((urlencoded::decode(&id, true), urlencoded::decode(secret.expose(), true).into())))
}

/// An access token.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AccessToken {
    /// The token.
    pub access_token: String,
    /// `Bearer`.
    pub token_type: String,
    /// How many seconds it lives.
    pub expires_in: u64,
    /// What it allows, separated by spaces.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub scope: String,
}

impl std::fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessToken").field("scope", &self.scope).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn authorization(text: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_str(text).unwrap())])
    }

    fn basic_header(text: &str) -> HeaderMap {
        authorization(&format!("Basic {}", STANDARD.encode(text)))
    }

    #[test]
    fn a_token_comes_as_bearer_or_as_basic_user() {
        for headers in [
            authorization("Bearer tskey-api-x"),
            authorization("bearer tskey-api-x"),
            basic_header("tskey-api-x:"),
            basic_header(":tskey-api-x"),
        ] {
            let Credential::Token(token) = Credential::read(&headers).unwrap();
            assert_eq!(token.expose(), "tskey-api-x");
        }
        assert!(Credential::read(&HeaderMap::new()).unwrap_err().message.contains("Bearer <token>"));
        assert!(Credential::read(&authorization("Digest x")).is_err());
        assert!(Credential::read(&authorization("Basic ???")).is_err());
    }

    #[test]
    fn a_client_comes_in_the_header_or_in_the_form() {
        let form = b"grant_type=client_credentials&scope=devices%3Acore+auth_keys&client_id=a&client_secret=b";
        let in_form = TokenRequest::read(&HeaderMap::new(), form).unwrap();
        assert_eq!(in_form.scopes, ["devices:core", "auth_keys"]);
        let TokenGrant::Client { id, secret } = in_form.grant else { panic!("a client") };
        assert_eq!((id.as_str(), secret.expose()), ("a", "b"));

        let in_header = TokenRequest::read(&basic_header("a%2B:b"), b"").unwrap();
        let TokenGrant::Client { id, secret } = in_header.grant else { panic!("a client") };
        assert_eq!((id.as_str(), secret.expose()), ("a+", "b"));
    }

    #[test]
    fn the_wrong_style_is_refused_with_401() {
        let error = TokenRequest::read(&HeaderMap::new(), b"grant_type=client_credentials").unwrap_err();
        assert_eq!(error.status, http::StatusCode::UNAUTHORIZED);
        let error = TokenRequest::read(&HeaderMap::new(), b"grant_type=implicit").unwrap_err();
        assert_eq!(error.status, http::StatusCode::BAD_REQUEST);
    }
}
