use std::collections::BTreeMap;

use http::{HeaderMap, header};

use crate::config::ServerUrl;

/// The largest form of ours, with room for long passwords.
const LIMIT: usize = 8 << 10;

/// What somebody sent by one of our forms.
#[derive(Debug)]
pub(super) struct Form(BTreeMap<String, String>);

impl Form {
    /// Reads a form that a page of ours made for this browser; `None` for any other.
    pub(super) fn read(url: &ServerUrl, headers: &HeaderMap, body: &[u8], token: &str) -> Option<Self> {
        if body.len() > LIMIT || !is_same_origin(url, headers) {
            return None;
        }
        let form = Self(api::decode_form(std::str::from_utf8(body).ok()?).into_iter().collect());
        // What is compared is a hash of a secret of the browser that sent it.
        (form.value("form") == token).then_some(form)
    }

    /// The value of a field; empty when it was not sent.
    pub(super) fn value(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }
}

/// Whether a browser says that the request comes from a page of ours, or says nothing.
fn is_same_origin(url: &ServerUrl, headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").is_none_or(|site| site == "same-origin");
    let origin = headers.get(header::ORIGIN).is_none_or(|origin| origin.as_bytes() == url.to_string().as_bytes());
    site && origin
}
