use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use api::SecretText;
use serde::{Deserialize, Serialize};

/// An admin's login, kept between commands in a file that only its owner reads.
#[derive(Serialize, Deserialize)]
pub(super) struct Credential {
    /// The server's URL.
    pub(super) server: String,
    /// Who is logged in.
    pub(super) login_name: String,
    /// The key's id, to revoke it by.
    pub(super) key_id: String,
    token: String,
}

impl Credential {
    pub(super) fn new(server: String, login_name: String, key_id: String, token: String) -> Self {
        Self { server, login_name, key_id, token }
    }

    pub(super) fn token(&self) -> SecretText {
        SecretText::new(self.token.clone())
    }

    /// The stored login, if there is one.
    pub(super) fn load() -> Result<Option<Self>> {
        let path = path()?;
        Self::load_from(&path)
    }

    fn load_from(path: &Path) -> Result<Option<Self>> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("reading the login in {}", path.display())),
        };
        let mode = std::fs::metadata(path)?.permissions().mode();
        if mode & 0o077 != 0 {
            bail!("{0} can be read by others: run `chmod 600 {0}`, or log in anew", path.display());
        }
        let read = serde_json::from_str(&text);
        Ok(Some(read.with_context(|| {
            format!("{} is no login; run `towline admin login --server URL --user NAME` again", path.display())
        })?))
    }

    pub(super) fn store(&self) -> Result<PathBuf> {
        let path = path()?;
        self.store_to(&path)?;
        Ok(path)
    }

    /// Writes beside and renames, so that a full disk leaves the login that was there.
    fn store_to(&self, path: &Path) -> Result<()> {
        let folder = path.parent().context("the login's path has a folder")?;
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let draft = path.with_extension(format!("draft-{}", std::process::id()));
        let written = (|| {
            let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.sync_all()?;
            std::fs::rename(&draft, path)
        })();
        if written.is_err() {
            let _ = std::fs::remove_file(&draft);
        }
        written.with_context(|| format!("writing the login to {}", path.display()))
    }

    pub(super) fn forget() -> Result<()> {
        let path = path()?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", path.display()))
            }
            _ => Ok(()),
        }
    }
}

fn path() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
    Ok(folder
        .context("neither XDG_CONFIG_HOME nor HOME is set: where should the login be kept?")?
        .join("towline/admin.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential() -> Credential {
        Credential::new("https://c".into(), "admin@example.com".into(), "k1".into(), "tskey-api-k1-x".into())
    }

    #[test]
    fn a_login_is_kept_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("towline/admin.json");
        assert!(Credential::load_from(&path).unwrap().is_none());
        credential().store_to(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Credential::load_from(&path).unwrap().unwrap().token, "tskey-api-k1-x");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Credential::load_from(&path).err().unwrap().to_string().contains("chmod 600"));
    }
}
