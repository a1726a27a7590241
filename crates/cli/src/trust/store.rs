use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::Failure;

/// How a kind of system keeps the authorities that it trusts.
struct Layout {
    /// Where an admin puts certificates.
    anchors: &'static str,
    /// What makes the bundle from them, with its arguments.
    refresh: &'static [&'static str],
    /// What programs read.
    bundle: &'static str,
}

const LAYOUTS: [Layout; 2] = [
    Layout {
        anchors: "usr/local/share/ca-certificates",
        refresh: &["update-ca-certificates"],
        bundle: "etc/ssl/certs/ca-certificates.crt",
    },
    Layout {
        anchors: "etc/pki/ca-trust/source/anchors",
        refresh: &["update-ca-trust", "extract"],
        bundle: "etc/pki/tls/certs/ca-bundle.crt",
    },
];

/// This machine's trusted certificates.
pub(super) struct SystemStore {
    root: PathBuf,
    layout: &'static Layout,
}

impl SystemStore {
    /// Finds how this system keeps them.
    pub(super) fn find() -> Result<Self, Failure> {
        Self::below(Path::new("/"))
    }

    fn below(root: &Path) -> Result<Self, Failure> {
        let found = LAYOUTS.iter().find(|layout| {
            // A fresh Debian has the bundle before it has the admin's folder.
            root.join(layout.anchors).is_dir() || root.join(layout.bundle).is_file()
        });
        let layout = found.ok_or_else(|| {
            Failure::failed(
                "this system keeps its trusted certificates where this command does not know: `towline trust show --pem` \
                 prints the one to install",
            )
        })?;
        Ok(Self { root: root.to_owned(), layout })
    }

    fn anchor(&self, fingerprint: &str) -> PathBuf {
        let short: String = fingerprint.chars().take(16).collect();
        self.root.join(self.layout.anchors).join(format!("towline-{short}.crt"))
    }

    /// What installing does, in words.
    pub(super) fn steps(&self, fingerprint: &str) -> Vec<String> {
        vec![
            format!("write {}", self.anchor(fingerprint).display()),
            format!("add it to {}", self.root.join(self.layout.bundle).display()),
        ]
    }

    /// What to run after the file was removed.
    pub(super) fn refresh_hint(&self) -> String {
        format!("run `{}`", self.layout.refresh.join(" "))
    }

    /// Installs a certificate and answers the file that holds it.
    pub(super) fn install(&self, pem: &str, fingerprint: &str) -> Result<PathBuf> {
        let anchor = self.anchor(fingerprint);
        write(&anchor, pem.as_bytes())?;
        self.refresh();
        self.complete_bundle(pem)?;
        Ok(anchor)
    }

    /// Lets the system's own program make the bundle, and what else it keeps, where there is one.
    fn refresh(&self) {
        let (Some(program), arguments) = (self.layout.refresh.first(), &self.layout.refresh[1..]) else { return };
        if self.root != Path::new("/") {
            return;
        }
        let nothing = std::process::Stdio::null;
        let made = std::process::Command::new(program).args(arguments).stdin(nothing()).stdout(nothing()).output();
        drop(made);
    }

    /// Adds the certificate to the bundle where the system's program did not: slim images have none.
    fn complete_bundle(&self, pem: &str) -> Result<()> {
        let bundle = self.root.join(self.layout.bundle);
        let mut text = match std::fs::read_to_string(&bundle) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            text => text.with_context(|| format!("reading {}", bundle.display()))?,
        };
        if text.contains(pem.trim()) {
            return Ok(());
        }
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(pem);
        write(&bundle, text.as_bytes())
    }
}

/// Writes beside and renames, for everybody to read.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().context("the file has a folder")?;
    let draft = folder.join(format!(".towline-draft-{}", std::process::id()));
    let written = (|| {
        std::fs::create_dir_all(folder)?;
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&draft, path)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&draft);
    }
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            anyhow::Error::from(error).context(format!("{} is root's: run the command with sudo", path.display()))
        }
        _ => anyhow::Error::from(error).context(format!("writing {}", path.display())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    #[test]
    fn a_certificate_is_in_the_folder_and_once_in_the_bundle() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("etc/ssl/certs")).unwrap();
        let bundle = root.path().join("etc/ssl/certs/ca-certificates.crt");
        std::fs::write(&bundle, "other").unwrap();
        let store = SystemStore::below(root.path()).unwrap();
        for _ in 0..2 {
            let anchor = store.install(PEM, "0123456789abcdef00").unwrap();
            assert!(anchor.ends_with("usr/local/share/ca-certificates/towline-0123456789abcdef.crt"));
            assert_eq!(std::fs::read_to_string(anchor).unwrap(), PEM);
        }
        assert_eq!(std::fs::read_to_string(&bundle).unwrap(), format!("other\n{PEM}"));
    }

    #[test]
    fn an_unknown_system_is_said_so() {
        let root = tempfile::tempdir().unwrap();
        assert!(SystemStore::below(root.path()).err().unwrap().to_string().contains("trust show --pem"));
    }
}
