//! Cargo's target folders, one for each checkout.
//!
//! Two checkouts cannot share one: Cargo names what it builds by the path *within* the workspace and judges freshness by
//! modification times, so the second checkout is handed the first one's binaries (seen with Cargo 1.95). What they can
//! share is what they have in common, the dependencies: a new checkout takes over the folder of one that is gone, or
//! starts with a copy of another's dependencies.

use std::fs::{self, File, FileTimes};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

use crate::folder::{children, make_parent, remove};
use crate::{Cache, Key};

/// Says, inside a target folder, which checkout it belongs to.
const OWNER: &str = "checkout";

impl Cache {
    /// The target folder for the checkout at `checkout`, whose crates are called `members`.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn cargo_target(&self, checkout: &Path, members: &[String], waiting: &mut dyn FnMut(&str)) -> Result<PathBuf> {
        let checkout =
            checkout.canonicalize().with_context(|| format!("finding the checkout {}", checkout.display()))?;
        let key = Key::of("cargo-target").text("checkout", &checkout.to_string_lossy()).finish();
        let target = self.targets().join(key.to_string());
        let _lock = self.lock("cargo-target", waiting)?;
        if !target.join(OWNER).is_file() {
            self.seed(&target, members)?;
            fs::write(target.join(OWNER), checkout.as_os_str().as_bytes())
                .with_context(|| format!("writing in {}", target.display()))?;
        }
        let _ = File::open(&target).and_then(|file| file.set_times(FileTimes::new().set_modified(SystemTime::now())));
        Ok(target)
    }

    /// Target folders whose checkout is gone.
    pub(crate) fn orphaned_targets(&self) -> Result<Vec<PathBuf>> {
        let mut targets = children(&self.targets())?;
        targets.retain(|target| is_orphaned(target));
        Ok(targets)
    }

    fn targets(&self) -> PathBuf {
        self.root().join("cargo-target")
    }

    /// Fills a new target folder with the dependencies that an earlier one holds.
    fn seed(&self, target: &Path, members: &[String]) -> Result<()> {
        remove(target)?;
        make_parent(target)?;
        let mut others = children(&self.targets())?;
        others.retain(|other| other.join(OWNER).is_file());
        others.sort_by_key(|other| fs::metadata(other).and_then(|found| found.modified()).ok());
        let draft = self.draft("cargo-target");
        remove(&draft)?;
        make_parent(&draft)?;
        if let Some(orphan) = others.iter().rev().find(|other| is_orphaned(other)) {
            fs::rename(orphan, &draft).with_context(|| format!("taking over {}", orphan.display()))?;
            remove(&draft.join(OWNER))?;
            drop_members(&draft, members)?;
        } else if let Some(newest) = others.last() {
            copy_dependencies(newest, &draft, members)?;
        } else {
            fs::create_dir_all(&draft)?;
        }
        fs::rename(&draft, target).with_context(|| format!("moving {} to {}", draft.display(), target.display()))
    }
}

fn is_orphaned(target: &Path) -> bool {
    fs::read_to_string(target.join(OWNER)).is_ok_and(|checkout| !Path::new(&checkout).join("Cargo.toml").is_file())
}

/// The folders of one profile each: `debug`, `<triple>/release` and the like, known by their `.fingerprint`.
fn profiles(target: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for child in children(target)? {
        found.extend(children(&child)?);
        found.push(child);
    }
    found.retain(|profile| profile.join(".fingerprint").is_dir());
    Ok(found)
}

/// Makes Cargo build the workspace's own crates again: their units lose what says that they are fresh.
fn drop_members(target: &Path, members: &[String]) -> Result<()> {
    for profile in profiles(target)? {
        remove(&profile.join("incremental"))?;
        for unit in children(&profile.join(".fingerprint"))? {
            if belongs_to(&unit, members) {
                remove(&unit)?;
            }
        }
    }
    Ok(())
}

/// Copies what other crates than `members` left in `from`. Fingerprints go first: a unit that Cargo finishes meanwhile
/// is copied without its fingerprint and built again, never taken for whole.
fn copy_dependencies(from: &Path, to: &Path, members: &[String]) -> Result<()> {
    fs::create_dir_all(to)?;
    for profile in profiles(from)? {
        let Ok(within) = profile.strip_prefix(from) else { continue };
        for part in [".fingerprint", "build", "deps"] {
            for path in children(&profile.join(part))? {
                if !belongs_to(&path, members) {
                    let name = path.file_name().unwrap_or_default();
                    copy(&path, &to.join(within).join(part).join(name))?;
                }
            }
        }
    }
    Ok(())
}

/// Whether a file or folder that Cargo names `<crate>-<hash>` or `lib<crate>-<hash>.rlib` is of one of `members`.
fn belongs_to(path: &Path, members: &[String]) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let Some((owner, _)) = name.rsplit_once('-') else { return false };
    let owner = owner.replace('-', "_");
    let bare = owner.strip_prefix("lib").unwrap_or(&owner);
    members.iter().any(|member| {
        let member = member.replace('-', "_");
        member == owner || member == bare
    })
}

/// Copies a file or folder with its modification times, by which Cargo judges build scripts.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let problem = || format!("copying {} to {}", from.display(), to.display());
    make_parent(to)?;
    let found = match fs::symlink_metadata(from) {
        // The other checkout's Cargo may be replacing it just now.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        found => found.with_context(problem)?,
    };
    if found.is_dir() {
        fs::create_dir_all(to).with_context(problem)?;
        for path in children(from)? {
            copy(&path, &to.join(path.file_name().unwrap_or_default()))?;
        }
    } else if found.is_file() {
        fs::copy(from, to).with_context(problem)?;
    }
    let times = FileTimes::new().set_modified(found.modified().with_context(problem)?);
    File::open(to).and_then(|file| file.set_times(times)).with_context(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folders {
        _folder: tempfile::TempDir,
        cache: Cache,
        base: PathBuf,
    }

    fn folders() -> Folders {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().to_owned();
        Folders { cache: Cache::at(base.join("cache")).unwrap(), base, _folder: folder }
    }

    impl Folders {
        fn checkout(&self, name: &str) -> PathBuf {
            let path = self.base.join(name);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("Cargo.toml"), "[workspace]").unwrap();
            path
        }

        fn target(&self, checkout: &Path) -> PathBuf {
            self.cache.cargo_target(checkout, &["own-crate".to_owned()], &mut |_| {}).unwrap()
        }
    }

    fn build(target: &Path) {
        for unit in ["serde-0123456789abcdef", "own-crate-0123456789abcdef"] {
            fs::create_dir_all(target.join("triple/debug/.fingerprint").join(unit)).unwrap();
        }
        fs::create_dir_all(target.join("triple/debug/deps")).unwrap();
        for file in ["libserde-0123456789abcdef.rlib", "libown_crate-0123456789abcdef.rlib"] {
            fs::write(target.join("triple/debug/deps").join(file), file).unwrap();
        }
    }

    fn fingerprints(target: &Path) -> Vec<String> {
        let units = children(&target.join("triple/debug/.fingerprint")).unwrap();
        units.iter().map(|unit| unit.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn two_checkouts_never_share_a_target_folder() {
        let folders = folders();
        let (one, other) = (folders.checkout("one"), folders.checkout("other"));
        assert_ne!(folders.target(&one), folders.target(&other));
        assert_eq!(folders.target(&one), folders.target(&one));
    }

    #[test]
    fn a_second_checkout_starts_with_the_dependencies_of_the_first_and_none_of_its_crates() {
        let folders = folders();
        let first = folders.target(&folders.checkout("one"));
        build(&first);
        let second = folders.target(&folders.checkout("other"));
        assert_eq!(fingerprints(&second), ["serde-0123456789abcdef"]);
        let copied = second.join("triple/debug/deps/libserde-0123456789abcdef.rlib");
        let original = first.join("triple/debug/deps/libserde-0123456789abcdef.rlib");
        let modified = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
        assert_eq!(modified(&copied), modified(&original));
        assert!(!second.join("triple/debug/deps/libown_crate-0123456789abcdef.rlib").exists());
    }

    #[test]
    fn the_folder_of_a_checkout_that_is_gone_is_taken_over() {
        let folders = folders();
        let gone = folders.checkout("gone");
        let first = folders.target(&gone);
        build(&first);
        fs::remove_dir_all(&gone).unwrap();
        let second = folders.target(&folders.checkout("next"));
        assert!(!first.exists());
        assert_eq!(fingerprints(&second), ["serde-0123456789abcdef"]);
    }
}
