use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{Cluster, with_cluster};

/// What a kubeconfig may hold.
const LIMIT: u64 = 8 << 20;

/// The kubeconfig that kubectl would write to.
pub(crate) struct KubeconfigFile {
    path: PathBuf,
}

impl KubeconfigFile {
    /// The first file of `KUBECONFIG`, whose current context counts, or `~/.kube/config`.
    pub(crate) fn locate() -> Result<Self> {
        let listed = std::env::var_os("KUBECONFIG").unwrap_or_default();
        let first = std::env::split_paths(&listed).find(|path| !path.as_os_str().is_empty());
        let home = || std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        let path = first.or_else(|| home().map(|home| home.join(".kube/config")));
        Ok(Self { path: path.context("neither KUBECONFIG nor HOME is set: where is the kubeconfig?")? })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a cluster. On any error the file is as it was.
    pub(crate) fn add(&self, cluster: &Cluster) -> Result<()> {
        // Of a link the target is replaced, not the link.
        let path = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("making {}", folder.display()))?;
        let _lock = Lock::take(&path)?;
        let old = read(&path)?;
        let text = with_cluster(&old, cluster)
            .with_context(|| format!("{} is not a kubeconfig and was left as it is", path.display()))?;
        if text == old {
            return Ok(());
        }
        replace(&path, &text).with_context(|| format!("writing {}; it is as it was", path.display()))
    }
}

fn read(path: &Path) -> Result<String> {
    let problem = || format!("reading {}", path.display());
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(String::new()),
        file => file.with_context(problem)?,
    };
    let mut bytes = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut bytes).with_context(problem)?;
    if bytes.len() as u64 > LIMIT {
        bail!("{} is not a kubeconfig and was left as it is: it is longer than {} MiB", path.display(), LIMIT >> 20);
    }
    String::from_utf8(bytes)
        .with_context(|| format!("{} is not a kubeconfig and was left as it is: it is no text", path.display()))
}

/// Writes beside and renames: readers see the old file or the new one. Mode and owner stay; a new file is its owner's.
fn replace(path: &Path, text: &str) -> Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".draft-{}", std::process::id()));
    let draft = PathBuf::from(draft);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(text.as_bytes())?;
        if let Ok(old) = std::fs::metadata(path) {
            file.set_permissions(std::fs::Permissions::from_mode(old.mode() & 0o7777))?;
            // As root, of another's file; nobody else may give files away, and need not.
            let _ = fchown(&file, Some(old.uid()), Some(old.gid()));
        }
        file.sync_all()?;
        std::fs::rename(&draft, path)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&draft);
    }
    Ok(written?)
}

/// kubectl's own lock: a file beside, there while somebody writes.
struct Lock(PathBuf);

impl Lock {
    fn take(path: &Path) -> Result<Self> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let name = PathBuf::from(name);
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&name) {
            Ok(_) => Ok(Self(name)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                bail!("{} is being written by another program; if none does, remove {}", path.display(), name.display())
            }
            Err(error) => Err(error).with_context(|| format!("locking {}", path.display())),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Authority;
    use super::*;

    fn cluster() -> Cluster {
        Cluster { name: "op.t.net".into(), server: "https://op.t.net".into(), authority: Authority::AsItIs }
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_new_file_is_its_owners_and_an_old_one_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let file = KubeconfigFile { path: folder.path().join("kube/config") };
        file.add(&cluster()).unwrap();
        assert_eq!(mode(file.path()), 0o600);
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o640)).unwrap();
        std::fs::write(file.path(), "kind: Config\n").unwrap();
        file.add(&cluster()).unwrap();
        assert_eq!(mode(file.path()), 0o640);
        assert_eq!(std::fs::read_dir(folder.path().join("kube")).unwrap().count(), 1, "drafts or locks are left");
    }

    #[test]
    fn what_is_no_kubeconfig_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = KubeconfigFile { path: folder.path().join("notes.txt") };
        for content in [&b"my notes: ["[..], b"\xff\xfe", b"kind: Pod\n"] {
            std::fs::write(file.path(), content).unwrap();
            let error = file.add(&cluster()).unwrap_err();
            assert!(error.to_string().contains("is not a kubeconfig and was left as it is"), "{error:#}");
            assert_eq!(std::fs::read(file.path()).unwrap(), content);
        }
    }

    #[test]
    fn a_link_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        std::fs::write(&real, "").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        KubeconfigFile { path: link.clone() }.add(&cluster()).unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(std::fs::read_to_string(&real).unwrap().contains("op.t.net"));
    }

    #[test]
    fn a_file_that_another_program_writes_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let file = KubeconfigFile { path: folder.path().join("config") };
        std::fs::write(folder.path().join("config.lock"), "").unwrap();
        assert!(file.add(&cluster()).unwrap_err().to_string().contains("config.lock"));
    }
}
