//! The server's certificate, the key of accounts' tokens, and who may ask.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Somebody whom the API server knows by a token.
#[derive(Clone, Copy, Debug)]
pub struct User<'a> {
    /// The name.
    pub name: &'a str,
    /// The token.
    pub token: &'a str,
    /// A group besides that of all who have a token, if any.
    pub group: Option<&'a str>,
}

/// Who may do everything; known to every API server.
pub const ADMINISTRATOR: User<'static> =
    User { name: "admin", token: "admin-of-the-test", group: Some("system:masters") };

/// Writes what the API server is started with, and returns its own certificate, which is its authority too, as DER.
pub(crate) fn write(folder: &Path, users: &[User<'_>]) -> Result<Vec<u8>> {
    let write =
        |name: &str, text: String| fs::write(folder.join(name), text).with_context(|| format!("writing {name}"));
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()])
        .context("making a certificate")?;
    write("server.crt", own.cert.pem())?;
    write("server.key", own.signing_key.serialize_pem())?;
    let account = rcgen::KeyPair::generate().context("making a key")?;
    write("account.key", account.serialize_pem())?;
    write("account.pub", account.public_key_pem())?;
    let lines = users.iter().chain([&ADMINISTRATOR]).map(|User { name, token, group }| match group {
        Some(group) => format!("{token},{name},{name},\"{group}\"\n"),
        None => format!("{token},{name},{name}\n"),
    });
    write("tokens.csv", lines.collect())?;
    Ok(own.cert.der().to_vec())
}
