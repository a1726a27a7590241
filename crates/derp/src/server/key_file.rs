use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crypto::{NodePrivate, SystemEntropy};
use serde::Deserialize;
use serde_json::json;

/// Why there is no private key for a relay.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file can't be read, made or written.
    #[error("the relay's key file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{} is no relay key: it should hold {{\"PrivateKey\":\"privkey:…\"}}; move it away to have one made", path.display())]
    Content {
        /// The file.
        path: PathBuf,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct KeyFile {
    private_key: String,
}

/// Reads a relay's private key, or makes one when there is no such file. The form is the stock relay's.
pub(crate) fn load_or_create(path: &Path) -> Result<NodePrivate, KeyFileError> {
    let io = |source| KeyFileError::Io { path: path.to_owned(), source };
    match fs::read_to_string(path) {
        Ok(json) => {
            let content = || KeyFileError::Content { path: path.to_owned() };
            let file: KeyFile = serde_json::from_str(&json).map_err(|_| content())?;
            NodePrivate::from_text(&file.private_key).map_err(|_| content())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(path).map_err(io),
        Err(error) => Err(io(error)),
    }
}

fn create(path: &Path) -> io::Result<NodePrivate> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent)?;
    }
    let key = NodePrivate::generate(&mut SystemEntropy);
    // Never replaced: a second relay that starts at the same time fails here instead of taking the first one's name.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(json!({ "PrivateKey": key.expose_text().as_str() }).to_string().as_bytes())?;
    file.sync_all()?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once_and_only_its_owner_may_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state/derp.key");
        let made = load_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(load_or_create(&path).unwrap().public(), made.public());
        assert!(fs::read_to_string(&path).unwrap().starts_with(r#"{"PrivateKey":"privkey:"#));
    }

    #[test]
    fn a_file_with_something_else_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("derp.key");
        for bad in ["", "{}", r#"{"PrivateKey":"privkey:12"}"#, r#"{"PrivateKey":"nodekey:00"}"#] {
            fs::write(&path, bad).unwrap();
            let error = load_or_create(&path).unwrap_err().to_string();
            assert!(error.contains("is no relay key"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), bad);
        }
    }
}
