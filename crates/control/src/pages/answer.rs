use std::sync::LazyLock;

use axum::body::Body;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::html::{self, STYLE, escape};
use crate::config::ServerUrl;
use crate::session::CookieSecret;

/// Nothing runs, nothing is loaded, nothing frames us, and forms go nowhere else.
static CONTENT_SECURITY: LazyLock<String> = LazyLock::new(|| {
    let style = STANDARD.encode(crypto::sha256(STYLE.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )
});

/// A page with everything that keeps it safe.
pub(super) fn page(status: StatusCode, title: &str, content: &str) -> Response {
    let mut response = Response::new(Body::from(html::page(title, content)));
    *response.status_mut() = status;
    protect(response.headers_mut());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response
}

/// A page that says what went wrong.
pub(super) fn problem(status: StatusCode, text: &str) -> Response {
    page(status, "That did not work", &format!("<p class=\"problem\">{}</p>", escape(text)))
}

/// Sends a browser to another page of ours.
pub(super) fn redirect(path: &str, cookie: Option<String>) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    protect(response.headers_mut());
    let location = HeaderValue::from_str(path).unwrap_or(HeaderValue::from_static("/"));
    response.headers_mut().insert(header::LOCATION, location);
    match cookie {
        Some(cookie) => with_cookie(response, &cookie),
        None => response,
    }
}

/// The same answer with a cookie.
pub(super) fn with_cookie(mut response: Response, cookie: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(cookie) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
    response
}

fn protect(headers: &mut HeaderMap) {
    let security = HeaderValue::from_str(&CONTENT_SECURITY).unwrap_or(HeaderValue::from_static("default-src 'none'"));
    headers.insert(header::CONTENT_SECURITY_POLICY, security);
    for (name, value) in [
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
        // Not `no-referrer`: with that, browsers send our own forms without their origin.
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// Our cookies' names and attributes: they depend on whether browsers come by TLS.
pub(super) struct Cookies {
    secure: bool,
}

impl Cookies {
    pub(super) fn of(url: &ServerUrl) -> Self {
        Self { secure: url.is_https() }
    }

    fn name(&self, name: &str) -> String {
        // The prefix makes browsers take the cookie from this very host and by TLS only.
        if self.secure { format!("__Host-towline-{name}") } else { format!("towline-{name}") }
    }

    fn cookie(&self, name: &str, value: &str, seconds: u64) -> String {
        let secure = if self.secure { "; Secure" } else { "" };
        format!("{}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}", self.name(name))
    }

    pub(super) fn read_session(&self, headers: &HeaderMap) -> Option<CookieSecret> {
        CookieSecret::find(headers, &self.name("session"))
    }

    pub(super) fn session(&self, secret: &CookieSecret) -> String {
        self.cookie("session", secret.expose(), 12 * 3600)
    }

    pub(super) fn ended_session(&self) -> String {
        self.cookie("session", "", 0)
    }

    /// The cookie that ties the sign-in form to a browser before anybody is signed in.
    pub(super) fn read_form(&self, headers: &HeaderMap) -> Option<CookieSecret> {
        CookieSecret::find(headers, &self.name("form"))
    }

    pub(super) fn form(&self, secret: &CookieSecret) -> String {
        self.cookie("form", secret.expose(), 3600)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_allows_nothing_but_its_own_style_and_forms() {
        let response = page(StatusCode::OK, "x", "");
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(response.headers()[header::X_FRAME_OPTIONS], "DENY");
    }

    #[test]
    fn a_cookie_stays_with_the_host_and_out_of_scripts() {
        let secret = CookieSecret::generate();
        let cookies = Cookies::of(&ServerUrl::parse("https://c.example.com").unwrap());
        let cookie = cookies.session(&secret);
        assert!(cookie.starts_with("__Host-towline-session="), "{cookie}");
        for part in ["; Path=/;", "; HttpOnly", "; SameSite=Lax", "; Secure"] {
            assert!(cookie.contains(part), "{cookie}");
        }
    }
}
