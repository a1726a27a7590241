//! The cache's root and the paths below it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use crate::Lock;

/// Folders whose children are named by their own content; see [`Cache::store`].
const STORED: &[&str] = &["lab-init", "towline"];

/// The cache: a root folder and the layout below it.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Finds the cache: `$TOWLINE_CACHE`, else `$XDG_CACHE_HOME/towline`, else `~/.cache/towline`.
    ///
    /// # Errors
    /// When none of the three variables is set, or the path cannot stand in the options of an overlay mount.
    pub fn locate() -> Result<Self> {
        let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = variable("TOWLINE_CACHE")
            .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("towline")))
            .or_else(|| Some(variable("HOME")?.join(".cache/towline")));
        match root {
            Some(root) => Self::at(root),
            None => bail!("no place for the cache: set TOWLINE_CACHE, XDG_CACHE_HOME or HOME"),
        }
    }

    /// Takes `root` for the cache, whether it exists or not.
    ///
    /// # Errors
    /// When the path is relative or holds one of `: , \ "`, which the options of an overlay mount cannot carry.
    pub fn at(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        if !root.is_absolute() {
            bail!("the cache folder {} is a relative path: give an absolute one", root.display());
        }
        if root.to_string_lossy().contains([':', ',', '\\', '"']) {
            bail!(
                "the cache folder {} holds one of : , \\ \", which an overlay mount cannot take: set TOWLINE_CACHE",
                root.display()
            );
        }
        Ok(Self { root })
    }

    /// The root folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of pinned programs; hard links, so it can be bound elsewhere on its own.
    pub fn programs(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// One pinned program, such as `kubelet`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs().join(name)
    }

    /// The Debian tree that boxes run on, with links resolved where it exists.
    pub fn tree(&self) -> PathBuf {
        let tree = self.root.join("tree");
        tree.canonicalize().unwrap_or(tree)
    }

    /// The OCI image layout called `name`, with links resolved where it exists.
    pub fn image(&self, name: &str) -> PathBuf {
        let image = self.root.join("images").join(name);
        image.canonicalize().unwrap_or(image)
    }

    /// The folder for logs of long work.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Takes the lock called `name`; `waiting` is told who holds it, once, when that is somebody else.
    ///
    /// # Errors
    /// When the lock file cannot be made.
    pub fn lock(&self, name: &str, waiting: &mut dyn FnMut(&str)) -> Result<Lock> {
        Lock::take(&self.root.join("locks").join(format!("{}.lock", flat(name))), waiting)
    }

    /// Removes what nobody asked for since `unused_for` and no public path shows: superseded entries, our own earlier
    /// binaries, logs, and the target folders of checkouts that are gone. Returns what was removed.
    ///
    /// # Errors
    /// When a folder cannot be read or removed.
    pub fn prune(&self, unused_for: Duration) -> Result<Vec<PathBuf>> {
        let Some(before) = SystemTime::now().checked_sub(unused_for) else { return Ok(Vec::new()) };
        let mut removed = Vec::new();
        let mut unused = [self.superseded()?, children(&self.logs())?, self.orphaned_targets()?].concat();
        let shown = self.image("towline");
        for stored in STORED {
            unused.extend(children(&self.root.join(stored))?.into_iter().filter(|path| !shown.starts_with(path)));
        }
        for path in unused {
            let modified = fs::symlink_metadata(&path).and_then(|found| found.modified());
            if modified.is_ok_and(|modified| modified < before) {
                remove(&path)?;
                removed.push(path);
            }
        }
        Ok(removed)
    }

    /// The path below the root where `name` is published.
    pub(crate) fn public(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn made(&self) -> PathBuf {
        self.root.join("made")
    }

    pub(crate) fn draft(&self, name: &str) -> PathBuf {
        self.root.join("drafts").join(flat(name))
    }
}

/// The name of an entry as one path component.
fn flat(name: &str) -> String {
    name.replace('/', "-")
}

/// The paths in `folder`, sorted; none when it does not exist.
pub(crate) fn children(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let read = || -> std::io::Result<Vec<PathBuf>> { fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect() };
    let mut paths = read().with_context(|| format!("reading the folder {}", folder.display()))?;
    paths.sort();
    Ok(paths)
}

/// Removes a file, a link or a whole folder; nothing there is fine.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let gone = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => Err(error),
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    gone.with_context(|| format!("removing {}", path.display()))
}

/// Makes the folder that `path` lies in.
pub(crate) fn make_parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(parent) => fs::create_dir_all(parent).with_context(|| format!("making the folder {}", parent.display())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_that_overlay_options_cannot_carry_is_refused() {
        let message = Cache::at("/tmp/a:b").unwrap_err().to_string();
        assert!(message.contains("/tmp/a:b") && message.contains("TOWLINE_CACHE"), "{message}");
    }

    #[test]
    fn a_relative_root_is_refused() {
        assert!(Cache::at("cache").unwrap_err().to_string().contains("relative"));
    }
}
