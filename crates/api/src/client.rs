use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dial::{CertificateFault, Resolve, Roots};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::exchange::Content;
use crate::{AccessToken, ApiError, SecretText, urlencoded};

mod access;
mod connector;

use access::Access;
use connector::Connector;

/// The largest answer that is read: a list of many thousand devices.
const ANSWER_LIMIT: usize = 64 << 20;

/// What a client needs to know.
#[derive(Clone)]
pub struct ClientConfig {
    /// Where the server is: `https://control.example.com`, without a path.
    pub base_url: String,
    /// What to prove the right to call with.
    pub credential: ClientCredential,
    /// Which certificate authorities to believe.
    pub roots: Roots,
    /// Who turns names into addresses.
    pub resolver: Arc<dyn Resolve>,
    /// What to call ourselves.
    pub user_agent: String,
    /// How long one call may take, with everything.
    pub timeout: Duration,
}

/// What a client proves its right to call with.
#[derive(Debug, Clone)]
pub enum ClientCredential {
    /// An API access token.
    Token(SecretText),
    /// An OAuth client; tokens are fetched and kept as they are needed.
    OauthClient {
        /// Its id.
        id: String,
        /// Its secret.
        secret: SecretText,
        /// Only these scopes; empty for all that it has.
        scopes: Vec<String>,
    },
    /// Nothing yet: only a login is possible.
    Nothing,
}

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The configuration can't be used.
    #[error("the server's address {url:?} can't be used: {reason}")]
    BaseUrl {
        /// The address as given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The server could not be reached, or its certificate is not trusted.
    #[error("the server {url} can't be reached: {reason}")]
    Unreachable {
        /// Where it should be.
        url: String,
        /// What happened.
        reason: String,
    },
    /// The server did not answer in time.
    #[error("the server {url} did not answer within {seconds} s")]
    TimedOut {
        /// Where it should be.
        url: String,
        /// How long we waited.
        seconds: u64,
    },
    /// The server answered that it does not do this.
    #[error(transparent)]
    Refused(#[from] ApiError),
    /// The server answered something else than the API says.
    #[error("the server's answer to {operation} can't be read: {reason}")]
    Unreadable {
        /// The operation.
        operation: &'static str,
        /// What was wrong.
        reason: String,
    },
}

impl ClientError {
    /// The status that the server answered with, if it answered.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused(error) => Some(error.status),
            _ => None,
        }
    }

    /// Whether the server said that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(StatusCode::NOT_FOUND)
    }

    /// Whether the same call may work later without any change.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } => true,
            Self::Refused(error) => {
                error.status.is_server_error() && error.status != StatusCode::NOT_IMPLEMENTED
                    || error.status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::BaseUrl { .. } | Self::Unreadable { .. } => false,
        }
    }
}

/// Calls a server's API: one method per operation, each named and typed as in [`crate::Api`].
pub struct Client {
    http: hyper_util::client::legacy::Client<Connector, Full<Bytes>>,
    scheme: Scheme,
    authority: Authority,
    access: Access,
    user_agent: HeaderValue,
    timeout: Duration,
}

impl Client {
    /// Makes a client; nothing is sent yet.
    pub fn new(config: ClientConfig) -> Result<Self, ClientError> {
        let (scheme, authority) = base(&config.base_url)?;
        let user_agent = HeaderValue::from_str(&config.user_agent)
            .unwrap_or_else(|_| HeaderValue::from_static(concat!("towline/", env!("CARGO_PKG_VERSION"))));
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(Connector::new(config.resolver, &config.roots));
        let access = Access::new(config.credential);
        Ok(Self { http, scheme, authority, access, user_agent, timeout: config.timeout })
    }

    /// Where the server is.
    pub fn base_url(&self) -> String {
        format!("{}://{}", self.scheme, self.authority)
    }

    /// Logs a user in by name and password, for a token that lives an hour.
    pub async fn log_in(&self, login_name: &str, password: &SecretText) -> Result<AccessToken, ClientError> {
        let form = [("grant_type", "password"), ("username", login_name), ("password", password.expose())];
        self.issue_token(&form).await
    }

    async fn issue_token(&self, form: &[(&str, &str)]) -> Result<AccessToken, ClientError> {
        let body = urlencoded::encode_pairs(form.iter().copied());
        let content = Content::typed("application/x-www-form-urlencoded", body);
        let (_, bytes) = self.exchange(Method::POST, "/oauth/token", &[], &content, None).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| ClientError::Unreadable { operation: "issueToken", reason: error.to_string() })
    }

    /// Calls an operation with whatever right the client has; a token that is refused is fetched anew, once.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(String, String)],
        content: Content,
    ) -> Result<(HeaderMap, Bytes), ClientError> {
        let token = self.access.token(self).await?;
        let first = self.exchange(method.clone(), path, query, &content, token.as_ref()).await;
        match (first, token) {
            (Err(ClientError::Refused(error)), Some(token)) if error.status == StatusCode::UNAUTHORIZED => {
                if !self.access.forget(&token).await {
                    return Err(error.into());
                }
                let token = self.access.token(self).await?;
                self.exchange(method, path, query, &content, token.as_ref()).await
            }
            (outcome, _) => outcome,
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        query: &[(String, String)],
        content: &Content,
        token: Option<&SecretText>,
    ) -> Result<(HeaderMap, Bytes), ClientError> {
        let request = self.request(method, path, query, content, token)?;
        let exchanged = async {
            let response = self.http.request(request).await.map_err(|error| self.unreachable(&error))?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_LIMIT).collect().await;
            let bytes = body.map_err(|error| self.unreachable(error.as_ref()))?.to_bytes();
            Ok::<_, ClientError>((parts, bytes))
        };
        let (parts, bytes) = tokio::time::timeout(self.timeout, exchanged)
            .await
            .map_err(|_| ClientError::TimedOut { url: self.base_url(), seconds: self.timeout.as_secs() })??;
        if parts.status.is_success() {
            return Ok((parts.headers, bytes));
        }
        let retry_after = parts.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        Err(ApiError::read(parts.status, retry_after, &bytes).into())
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        query: &[(String, String)],
        content: &Content,
        token: Option<&SecretText>,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let query = urlencoded::encode_pairs(query.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let separator = if query.is_empty() { "" } else { "?" };
        let unusable = |reason| ClientError::BaseUrl { url: self.base_url(), reason };
        let uri = Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(format!("/api/v2{path}{separator}{query}"))
            .build()
            .map_err(|_| unusable("no path can be put behind it"))?;
        let mut request = Request::new(Full::new(content.bytes.clone()));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::USER_AGENT, self.user_agent.clone());
        for (name, value) in &content.headers {
            headers.insert(name, value.clone());
        }
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
                .map_err(|_| unusable("the token holds characters that no header can carry"))?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        Ok(request)
    }

    fn unreachable(&self, error: &(dyn std::error::Error + 'static)) -> ClientError {
        if let Some(fault) = CertificateFault::find(error) {
            return ClientError::Unreachable { url: self.base_url(), reason: fault.to_string() };
        }
        let mut reason = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            reason = error.to_string();
            cause = error.source();
        }
        ClientError::Unreachable { url: self.base_url(), reason }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("base_url", &self.base_url()).finish_non_exhaustive()
    }
}

/// Reads a server's address; a token may go in the clear only to an address that is private by its look.
fn base(url: &str) -> Result<(Scheme, Authority), ClientError> {
    let unusable = |reason| ClientError::BaseUrl { url: url.to_owned(), reason };
    let uri: Uri = url.trim_end_matches('/').parse().map_err(|_| unusable("it is not a URL"))?;
    let parts = uri.into_parts();
    if parts.path_and_query.is_some_and(|path| path.as_str() != "/") {
        return Err(unusable("it has a path, but the API is at the server's root"));
    }
    let authority = parts.authority.ok_or_else(|| unusable("it names no host"))?;
    if authority.as_str().contains('@') {
        return Err(unusable("it holds a user name; give the credential by its own option"));
    }
    let scheme = parts.scheme.ok_or_else(|| unusable("it does not start with https://"))?;
    if scheme == Scheme::HTTPS || scheme == Scheme::HTTP && is_private(authority.host()) {
        return Ok((scheme, authority));
    }
    Err(unusable("it does not start with https://, and plain http:// is for private addresses only"))
}

fn is_private(host: &str) -> bool {
    match host.trim_matches(['[', ']']).parse() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private(),
        Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local(),
        Err(_) => host == "localhost",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_in_the_clear_to_private_addresses_only() {
        assert!(base("https://control.example.com").is_ok());
        assert!(base("https://control.example.com:8443/").is_ok());
        assert!(base("http://127.0.0.1:8080").is_ok());
        assert!(base("http://[::1]:8080").is_ok());
        assert!(base("http://10.1.0.1").is_ok());
        for (url, reason) in [
            ("http://control.example.com", "private addresses only"),
            ("https://control.example.com/api", "it has a path"),
            ("control.example.com", "https://"),
            ("https://u:p@control.example.com", "user name"),
            ("", "not a URL"),
        ] {
            let error = base(url).unwrap_err().to_string();
            assert!(error.contains(reason), "{url}: {error}");
        }
    }
}
