//! The pages that people see: signing in, and letting a device in. They work without scripts.
//!
//! ```text
//! GET  /a/<login>          who asks to be let in, or the form to sign in with
//! POST /a/<login>/sign-in  name and password → a session, and back
//! POST /a/<login>/confirm  the device is let in as one of the signed-in user's
//! POST /a/<login>/refuse   it is not
//! POST /sign-out
//! GET  /ssh/<check>          which login by SSH waits to be confirmed, and the form to do so
//! POST /ssh/<check>/confirm  name and password → the login goes on
//! ```
//!
//! Every form carries a token that only a page of ours, made for the same browser, can know. Everything that a device or
//! a person wrote is shown as text.

mod answer;
mod check;
mod form;
pub(crate) mod html;

use std::sync::Arc;
use std::time::Instant;

use api::{Peer, SecretText};
use axum::extract::{Extension, Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Router, body::Bytes};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use tailnet::{LoginId, LoginState, PendingLogin};

use crate::config::ServerUrl;
use crate::coordination::Coordination;
use crate::session::{CookieSecret, Sessions, SignedIn};
use crate::sign_in::SignIn;
use answer::Cookies;
use form::Form;
use html::{escape, facts};

/// What the pages are made from.
#[derive(Debug)]
pub(crate) struct Pages {
    pub(crate) url: ServerUrl,
    pub(crate) coordination: Arc<Coordination>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) sign_in: Arc<SignIn>,
}

/// The routes of the pages.
pub(crate) fn router(pages: Arc<Pages>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/a/{login}", get(show))
        .route("/a/{login}/sign-in", post(sign_in))
        .route("/a/{login}/confirm", post(confirm))
        .route("/a/{login}/refuse", post(refuse))
        .route("/sign-out", post(sign_out))
        .route("/ssh/{check}", get(check::show))
        .route("/ssh/{check}/confirm", post(check::confirm))
        .with_state(pages)
}

type Shared = State<Arc<Pages>>;

async fn index(State(pages): Shared) -> Response {
    let url = escape(&pages.url.to_string());
    let content = format!(
        "<p>This is a coordination server. To join a device to a tailnet of it, run on the device:</p>\
         <p><code>towline up --login-server={url}</code></p><p>or, with the stock client:</p>\
         <p><code>tailscale up --login-server={url}</code></p>"
    );
    answer::page(StatusCode::OK, "Towline", &content)
}

async fn show(State(pages): Shared, Path(login): Path<String>, headers: HeaderMap) -> Response {
    let Some((id, pending)) = pages.pending(&login) else { return gone() };
    match pages.signed_in(&headers) {
        Some((cookie, who)) => pages.ask_to_confirm(&id, &pending, &cookie, who),
        None => pages.ask_to_sign_in(&id, &headers, None),
    }
}

async fn sign_in(
    State(pages): Shared,
    Extension(peer): Extension<Peer>,
    Path(login): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some((id, _)) = pages.pending(&login) else { return gone() };
    let Some(form) = pages.form_before_sign_in(&headers, &body) else {
        return pages.ask_to_sign_in(&id, &headers, STALE);
    };
    let (name, password) = (form.value("name"), SecretText::new(form.value("password").to_owned()));
    let candidates = |name: &str| pages.coordination.candidates(name);
    let who = match pages.sign_in.check(peer.source, name, password, Instant::now(), candidates).await {
        Ok((tailnet, user)) => SignedIn { tailnet, user },
        Err(error) => return pages.ask_to_sign_in(&id, &headers, Some(&error.to_string())),
    };
    match pages.sessions.open(who, Timestamp::now()).await {
        Ok(secret) => {
            let cookies = Cookies::of(&pages.url);
            answer::redirect(&format!("/a/{}", id.as_str()), Some(cookies.session(&secret)))
        }
        Err(error) => {
            tracing::error!(%error, "a session could not be written");
            answer::problem(
                StatusCode::SERVICE_UNAVAILABLE,
                "The server can't sign anybody in right now. Try again in a minute.",
            )
        }
    }
}

async fn confirm(State(pages): Shared, Path(login): Path<String>, headers: HeaderMap, body: Bytes) -> Response {
    let Some((id, pending)) = pages.pending(&login) else { return gone() };
    let Some(who) = pages.form_of_session(&headers, &body) else { return pages.ask_to_sign_in(&id, &headers, STALE) };
    match pages.coordination.confirm_login(&id, who.tailnet, who.user).await {
        Ok(()) => {
            let name = escape(&pending.request.hostinfo().hostname);
            let content = format!("<p><strong>{name}</strong> is in. You can close this page.</p>");
            answer::page(StatusCode::OK, "Device added", &content)
        }
        Err(refusal) => answer::problem(StatusCode::FORBIDDEN, &format!("The device was not let in: {refusal}.")),
    }
}

async fn refuse(State(pages): Shared, Path(login): Path<String>, headers: HeaderMap, body: Bytes) -> Response {
    let Some((id, _)) = pages.pending(&login) else { return gone() };
    let Some(who) = pages.form_of_session(&headers, &body) else { return pages.ask_to_sign_in(&id, &headers, STALE) };
    pages.coordination.refuse_login(&id, who.tailnet, who.user);
    answer::page(StatusCode::OK, "Device refused", "<p>The device was not let in. You can close this page.</p>")
}

async fn sign_out(State(pages): Shared, headers: HeaderMap, body: Bytes) -> Response {
    if pages.form_of_session(&headers, &body).is_some()
        && let Some((cookie, _)) = pages.signed_in(&headers)
        && let Err(error) = pages.sessions.close(&cookie).await
    {
        tracing::error!(%error, "a session could not be ended in the database; it ends with its time");
    }
    answer::redirect("/", Some(Cookies::of(&pages.url).ended_session()))
}

/// What is said when a form is not one of ours for this browser: usually it is only old.
const STALE: Option<&str> = Some("the page was too old or came from elsewhere; sign in again");

impl Pages {
    /// The login that a URL names, while somebody can still decide about it.
    fn pending(&self, login: &str) -> Option<(LoginId, PendingLogin)> {
        let id = LoginId::from_text(login);
        let pending = self.coordination.login(&id)?;
        (pending.state == LoginState::Open).then_some((id, pending))
    }

    fn signed_in(&self, headers: &HeaderMap) -> Option<(CookieSecret, SignedIn)> {
        let cookie = Cookies::of(&self.url).read_session(headers)?;
        let who = self.sessions.find(&cookie, Timestamp::now())?;
        // Who was deleted or suspended since is no longer anybody.
        self.coordination.may_sign_in(who.tailnet, who.user).then_some((cookie, who))
    }

    fn form_of_session(&self, headers: &HeaderMap, body: &[u8]) -> Option<SignedIn> {
        let (cookie, who) = self.signed_in(headers)?;
        Form::read(&self.url, headers, body, &cookie.form_token()).map(|_| who)
    }

    fn form_before_sign_in(&self, headers: &HeaderMap, body: &[u8]) -> Option<Form> {
        let cookie = Cookies::of(&self.url).read_form(headers)?;
        Form::read(&self.url, headers, body, &cookie.form_token())
    }

    fn ask_to_sign_in(&self, id: &LoginId, headers: &HeaderMap, problem: Option<&str>) -> Response {
        let cookies = Cookies::of(&self.url);
        let cookie = cookies.read_form(headers).unwrap_or_else(CookieSecret::generate);
        let content = format!(
            "<p>A device asks to join. Sign in to see which one, and to decide.</p>{}",
            credentials(&format!("/a/{}/sign-in", escape(id.as_str())), &cookie, problem, "Sign in"),
        );
        let status = if problem.is_none() { StatusCode::OK } else { StatusCode::FORBIDDEN };
        answer::with_cookie(answer::page(status, "Sign in", &content), &cookies.form(&cookie))
    }

    fn ask_to_confirm(&self, id: &LoginId, pending: &PendingLogin, cookie: &CookieSecret, who: SignedIn) -> Response {
        let hostinfo = pending.request.hostinfo();
        let system = format!("{} {}", hostinfo.os, hostinfo.os_version);
        let asked = pending.opened.strftime("%Y-%m-%d %H:%M UTC").to_string();
        let (login_name, domain) = self.coordination.names_of(who.tailnet, who.user).unwrap_or_default();
        let device = facts(&[
            ("Host name", &hostinfo.hostname),
            ("System", system.trim()),
            ("Client", &hostinfo.ipn_version),
            ("Address", &pending.source.address.to_string()),
            ("Machine key", &pending.machine.to_string()),
            ("Tags wanted", &hostinfo.request_tags.join(" ")),
            ("Asked at", &asked),
        ]);
        let (id, token) = (escape(id.as_str()), cookie.form_token());
        let button = |path: &str, label: &str| {
            format!(
                "<form method=\"post\" action=\"{path}\"><input type=\"hidden\" name=\"form\" value=\"{token}\">\
                 <button>{label}</button></form>"
            )
        };
        let content = format!(
            "<p>This device asks to join <strong>{domain}</strong> as a device of <strong>{login_name}</strong>. \
             Let it in only if you started this on it yourself.</p>{device}{}{}{}",
            button(&format!("/a/{id}/confirm"), "Yes, let it in"),
            button(&format!("/a/{id}/refuse"), "No, refuse it"),
            button("/sign-out", "Sign out"),
            domain = escape(&domain),
            login_name = escape(&login_name),
        );
        answer::page(StatusCode::OK, "Add this device?", &content)
    }
}

/// A form for name and password, for this browser alone, under what was wrong with the last try.
fn credentials(action: &str, cookie: &CookieSecret, problem: Option<&str>, button: &str) -> String {
    let problem = problem.map(|text| format!("<p class=\"problem\">{}</p>", escape(text))).unwrap_or_default();
    format!(
        "{problem}<form method=\"post\" action=\"{action}\">\
         <input type=\"hidden\" name=\"form\" value=\"{token}\">\
         <label for=\"name\">Login name</label>\
         <input id=\"name\" name=\"name\" autocomplete=\"username\" required autofocus>\
         <label for=\"password\">Password</label>\
         <input id=\"password\" name=\"password\" type=\"password\" autocomplete=\"current-password\" required>\
         <button>{button}</button></form>",
        token = cookie.form_token(),
    )
}

fn gone() -> Response {
    let text = "This login is over or never was. Start it again on the device: run \"up\" there once more.";
    answer::problem(StatusCode::NOT_FOUND, text)
}
