//! The page on which a user confirms a login by SSH: by signing in, whoever the browser is signed in as already.

use std::sync::Arc;
use std::time::Instant;

use api::{Peer, SecretText};
use axum::body::Bytes;
use axum::extract::{Extension, Path, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use tailnet::{CheckId, PendingCheck};

use super::answer::{self, Cookies};
use super::html::{escape, facts};
use super::{Pages, STALE, credentials};
use crate::session::CookieSecret;

pub(super) async fn show(State(pages): State<Arc<Pages>>, Path(check): Path<String>, headers: HeaderMap) -> Response {
    let id = CheckId::from_text(&check);
    match pages.coordination.pending_check(&id) {
        Some(pending) => pages.ask_to_confirm_login(&id, &pending, &headers, None),
        None => gone(),
    }
}

pub(super) async fn confirm(
    State(pages): State<Arc<Pages>>,
    Extension(peer): Extension<Peer>,
    Path(check): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let id = CheckId::from_text(&check);
    let Some(pending) = pages.coordination.pending_check(&id) else { return gone() };
    let Some(form) = pages.form_before_sign_in(&headers, &body) else {
        return pages.ask_to_confirm_login(&id, &pending, &headers, STALE);
    };
    let (name, password) = (form.value("name"), SecretText::new(form.value("password").to_owned()));
    let candidates = |name: &str| pages.coordination.candidates(name);
    let (tailnet, user) = match pages.sign_in.check(peer.source, name, password, Instant::now(), candidates).await {
        Ok(found) => found,
        Err(error) => return pages.ask_to_confirm_login(&id, &pending, &headers, Some(&error.to_string())),
    };
    if pages.coordination.confirm_check(&id, tailnet, user) {
        let content = "<p>The login goes on. You can close this page.</p>";
        return answer::page(StatusCode::OK, "Login confirmed", content);
    }
    let text = "only the user whose device it is can confirm this login";
    pages.ask_to_confirm_login(&id, &pending, &headers, Some(text))
}

impl Pages {
    fn ask_to_confirm_login(
        &self,
        id: &CheckId,
        pending: &PendingCheck,
        headers: &HeaderMap,
        problem: Option<&str>,
    ) -> Response {
        let Some((source, destination)) = self.coordination.names_of_check(&pending.path) else { return gone() };
        let cookies = Cookies::of(&self.url);
        let cookie = cookies.read_form(headers).unwrap_or_else(CookieSecret::generate);
        let asked = pending.opened.strftime("%Y-%m-%d %H:%M UTC").to_string();
        let login =
            facts(&[("From", &source), ("To", &destination), ("Account", &pending.account), ("Asked at", &asked)]);
        let content = format!(
            "<p>Somebody logs in by SSH, and the policy asks the user of the device to confirm it. \
             Sign in only if you started this yourself.</p>{login}{}",
            credentials(&format!("/ssh/{}/confirm", escape(id.as_str())), &cookie, problem, "Sign in and confirm"),
        );
        let status = if problem.is_none() { StatusCode::OK } else { StatusCode::FORBIDDEN };
        answer::with_cookie(answer::page(status, "Confirm this login?", &content), &cookies.form(&cookie))
    }
}

fn gone() -> Response {
    let text = "This login was confirmed already, is over, or never was. Start it again.";
    answer::problem(StatusCode::NOT_FOUND, text)
}
