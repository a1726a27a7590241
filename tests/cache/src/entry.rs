//! Entries: made once for a key, published at a fixed path.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};

use crate::Key;
use crate::folder::{Cache, children, make_parent, remove};

/// Something that the cache holds: a name, which is its public path below the root, and the key of its inputs.
#[derive(Clone, Debug)]
pub struct Entry {
    name: String,
    key: Key,
}

/// What [`Cache::ensure`] had to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The entry was there.
    Current,
    /// It had been made before, and its public path showed another one.
    Published,
    /// It was made now.
    Made,
}

impl Entry {
    /// Names an entry, such as `bin/kubelet`.
    pub fn new(name: impl Into<String>, key: Key) -> Self {
        Self { name: name.into(), key }
    }

    /// The name, which is the public path below the cache's root.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key of everything that it is made from.
    pub fn key(&self) -> &Key {
        &self.key
    }
}

impl Cache {
    /// The path of exactly this entry, whatever the public path shows now or later.
    pub fn path(&self, entry: &Entry) -> PathBuf {
        self.made().join(format!("{}-{}", entry.name, entry.key))
    }

    /// Whether the entry is made and its public path shows it.
    pub fn is_current(&self, entry: &Entry) -> bool {
        shows(&self.public(&entry.name), &self.path(entry))
    }

    /// Notes that the entry is in use, for [`Cache::prune`]; [`Cache::ensure`] does so too.
    pub fn mark_used(&self, entry: &Entry) {
        mark_used(&self.path(entry));
    }

    /// Makes the entry unless it is there, and lets its public path show it.
    ///
    /// `make` gets a path where nothing is yet and leaves a file or a folder there. `waiting` is told who holds the
    /// entry's lock, when it is somebody else.
    ///
    /// # Errors
    /// When `make` fails, or the cache cannot be written.
    pub fn ensure(
        &self,
        entry: &Entry,
        waiting: &mut dyn FnMut(&str),
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Outcome> {
        let path = self.path(entry);
        if self.is_current(entry) {
            mark_used(&path);
            return Ok(Outcome::Current);
        }
        let _lock = self.lock(&entry.name, waiting)?;
        let outcome = if path.exists() {
            Outcome::Published
        } else {
            self.make(&entry.name, &path, make)?;
            Outcome::Made
        };
        self.show(&path, &entry.name)?;
        mark_used(&path);
        Ok(outcome)
    }

    /// Makes a folder that is named by its own content, such as `towline/<digest>`, unless it is there; the name is its
    /// path below the root, and nothing else ever stands there. Returns the path.
    ///
    /// # Errors
    /// When `make` fails, or the cache cannot be written.
    pub fn store(
        &self,
        name: &str,
        waiting: &mut dyn FnMut(&str),
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let path = self.public(name);
        if !path.exists() {
            let _lock = self.lock(name, waiting)?;
            if !path.exists() {
                self.make(name, &path, make)?;
            }
        }
        mark_used(&path);
        Ok(path)
    }

    /// Lets the public path `name` show `path`, which lies in the cache, from now on.
    ///
    /// # Errors
    /// When the cache cannot be written.
    pub fn publish(&self, name: &str, path: &Path, waiting: &mut dyn FnMut(&str)) -> Result<()> {
        let _lock = self.lock(name, waiting)?;
        self.show(path, name)
    }

    /// What was made before and no public path shows.
    pub(crate) fn superseded(&self) -> Result<Vec<PathBuf>> {
        let made = self.made();
        let mut found = Vec::new();
        for path in children(&made)? {
            match path.is_dir() && !names_a_key(&path) {
                true => found.extend(children(&path)?),
                false => found.push(path),
            }
        }
        found.retain(|path| {
            let public = path.strip_prefix(&made).ok().and_then(|name| name.to_str()?.rsplit_once('-'));
            !public.is_some_and(|(name, _)| shows(&self.public(name), path))
        });
        Ok(found)
    }

    /// Replaces the public path in one step: a reader sees the old entry or the new one.
    fn show(&self, path: &Path, name: &str) -> Result<()> {
        let public = self.public(name);
        let beside = self.draft(&format!("{name}.link"));
        make_parent(&public)?;
        make_parent(&beside)?;
        remove(&beside)?;
        let linked =
            if path.is_dir() { symlink(self.link_target(path, name), &beside) } else { fs::hard_link(path, &beside) };
        linked.and_then(|()| fs::rename(&beside, &public)).with_context(|| format!("publishing {}", public.display()))
    }

    /// The path as a link at the public path `name` must say it, so that the cache may be moved as a whole.
    fn link_target(&self, path: &Path, name: &str) -> PathBuf {
        let Ok(below) = path.strip_prefix(self.root()) else { return path.to_owned() };
        let up = name.matches('/').map(|_| Path::new(".."));
        up.chain([below]).collect()
    }

    fn make(&self, name: &str, path: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let draft = self.draft(name);
        remove(&draft)?;
        make_parent(&draft)?;
        make_parent(path)?;
        make(&draft)?;
        ensure!(draft.exists(), "making {name} left nothing at {}", draft.display());
        if draft.is_file() {
            File::open(&draft)
                .and_then(|file| file.sync_all())
                .with_context(|| format!("writing {}", draft.display()))?;
        }
        fs::rename(&draft, path).with_context(|| format!("moving {} to {}", draft.display(), path.display()))
    }
}

/// Whether the public path is the same file as the made one, or a link to it.
fn shows(public: &Path, made: &Path) -> bool {
    match (fs::metadata(public), fs::metadata(made)) {
        (Ok(public), Ok(made)) => (public.dev(), public.ino()) == (made.dev(), made.ino()),
        _ => false,
    }
}

/// Notes the use of an entry for [`Cache::prune`]. A cache that cannot be written keeps its entries' old dates.
fn mark_used(path: &Path) {
    let times = FileTimes::new().set_modified(SystemTime::now());
    let _ = File::open(path).and_then(|file| file.set_times(times));
}

/// Whether the last component ends in a key, so that it is an entry and not a folder of entries.
fn names_a_key(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    name.rsplit_once('-').is_some_and(|(_, key)| key.len() == 16 && key.chars().all(|digit| digit.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path()).unwrap();
        (folder, cache)
    }

    fn entry(name: &str, input: &str) -> Entry {
        Entry::new(name, Key::of("test").text("input", input).finish())
    }

    fn make_file(cache: &Cache, entry: &Entry, content: &str) -> Outcome {
        cache.ensure(entry, &mut |_| {}, |path| Ok(fs::write(path, content)?)).unwrap()
    }

    #[test]
    fn an_unchanged_input_makes_nothing() {
        let (_folder, cache) = cache();
        assert_eq!(make_file(&cache, &entry("bin/a", "1"), "one"), Outcome::Made);
        let again = cache.ensure(&entry("bin/a", "1"), &mut |_| {}, |_| panic!("made twice")).unwrap();
        assert_eq!(again, Outcome::Current);
    }

    #[test]
    fn a_changed_input_makes_it_anew_and_going_back_only_publishes() {
        let (_folder, cache) = cache();
        make_file(&cache, &entry("bin/a", "1"), "one");
        assert_eq!(make_file(&cache, &entry("bin/a", "2"), "two"), Outcome::Made);
        assert_eq!(fs::read_to_string(cache.program("a")).unwrap(), "two");
        assert_eq!(make_file(&cache, &entry("bin/a", "1"), "unused"), Outcome::Published);
        assert_eq!(fs::read_to_string(cache.program("a")).unwrap(), "one");
    }

    #[test]
    fn a_folder_is_published_as_a_link_that_its_users_resolve() {
        let (_folder, cache) = cache();
        let first = entry("tree", "1");
        cache.ensure(&first, &mut |_| {}, |path| Ok(fs::create_dir(path)?)).unwrap();
        let used = cache.tree();
        cache.ensure(&entry("tree", "2"), &mut |_| {}, |path| Ok(fs::create_dir(path)?)).unwrap();
        assert_eq!(used, cache.path(&first));
        assert!(used.is_dir() && cache.tree() != used);
    }

    #[test]
    fn a_cache_may_be_moved_as_a_whole() {
        let (folder, _) = cache();
        let before = Cache::at(folder.path().join("before")).unwrap();
        before.ensure(&entry("images/a", "1"), &mut |_| {}, |path| Ok(fs::create_dir(path)?)).unwrap();
        fs::rename(before.root(), folder.path().join("after")).unwrap();
        let after = Cache::at(folder.path().join("after")).unwrap();
        assert!(after.is_current(&entry("images/a", "1")) && after.image("a").is_dir());
    }

    #[test]
    fn a_failed_making_publishes_nothing_and_the_next_starts_clean() {
        let (_folder, cache) = cache();
        let broken = cache.ensure(&entry("tree", "1"), &mut |_| {}, |path| {
            fs::create_dir(path)?;
            anyhow::bail!("half way")
        });
        assert_eq!(broken.unwrap_err().to_string(), "half way");
        assert!(!cache.root().join("tree").exists());
        cache.ensure(&entry("tree", "1"), &mut |_| {}, |path| Ok(fs::create_dir(path)?)).unwrap();
        assert!(cache.tree().is_dir());
    }

    #[test]
    fn of_many_at_once_one_makes_the_entry() {
        let (_folder, cache) = cache();
        let made = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    cache.ensure(&entry("bin/a", "1"), &mut |_| {}, |path| {
                        made.fetch_add(1, Ordering::Relaxed);
                        Ok(fs::write(path, "one")?)
                    })
                });
            }
        });
        assert_eq!(made.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn what_is_named_by_its_content_is_made_once() {
        let (_folder, cache) = cache();
        let make = |path: &Path| Ok(fs::create_dir(path)?);
        let path = cache.store("towline/0123", &mut |_| {}, make).unwrap();
        assert_eq!(path, cache.root().join("towline/0123"));
        cache.store("towline/0123", &mut |_| {}, |_| panic!("made twice")).unwrap();
        cache.publish("images/towline", &path, &mut |_| {}).unwrap();
        assert_eq!(cache.image("towline"), path);
    }

    #[test]
    fn prune_removes_what_is_superseded_and_old_and_nothing_else() {
        let (_folder, cache) = cache();
        let old = entry("bin/a", "1");
        make_file(&cache, &old, "one");
        make_file(&cache, &entry("bin/a", "2"), "two");
        let tree = entry("tree", "1");
        cache.ensure(&tree, &mut |_| {}, |path| Ok(fs::create_dir(path)?)).unwrap();
        assert!(cache.prune(Duration::from_secs(3600)).unwrap().is_empty());
        assert_eq!(cache.prune(Duration::ZERO).unwrap(), [cache.path(&old)]);
        assert!(cache.tree().is_dir());
    }
}
