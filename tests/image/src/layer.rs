//! Layers: a map from paths in the image to content, written as a tar archive that depends on nothing else.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Cursor, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use tar::{Builder, EntryType, Header};

use crate::blob::{Blob, Hashing};

/// A layer in the making.
#[derive(Clone, Default, Debug)]
pub struct LayerBuilder {
    entries: BTreeMap<PathBuf, Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    source: Source,
    /// Permission bits, set-user-id and the like included.
    mode: u32,
    user: u64,
    group: u64,
}

#[derive(Clone, Debug)]
enum Source {
    Folder,
    File(PathBuf),
    Bytes(Vec<u8>),
    Link(PathBuf),
}

impl LayerBuilder {
    /// Starts an empty layer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a folder; the folders above any entry are added by themselves, with mode 755.
    #[must_use]
    pub fn folder(self, path: &str, mode: u32) -> Self {
        self.with(path, Source::Folder, mode)
    }

    /// Adds the content that the file `from` has when the layer is written; links are followed.
    #[must_use]
    pub fn file(self, path: &str, from: impl Into<PathBuf>, mode: u32) -> Self {
        self.with(path, Source::File(from.into()), mode)
    }

    /// Adds a file with this content.
    #[must_use]
    pub fn bytes(self, path: &str, content: impl Into<Vec<u8>>, mode: u32) -> Self {
        self.with(path, Source::Bytes(content.into()), mode)
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn link(self, path: &str, to: &str) -> Self {
        self.with(path, Source::Link(to.into()), 0o777)
    }

    /// Adds one path of a tree as it is there: its kind, mode, user and group. What is neither file, folder nor link is
    /// left out, since a runtime makes its own devices.
    ///
    /// # Errors
    /// When the path does not exist below `tree` or cannot be read.
    pub fn path_of(mut self, tree: &Path, path: &Path) -> Result<Self> {
        let path = relative(path);
        let from = tree.join(&path);
        let found = fs::symlink_metadata(&from).with_context(|| format!("reading {}", from.display()))?;
        let source = if found.is_dir() {
            Source::Folder
        } else if found.is_symlink() {
            Source::Link(fs::read_link(&from).with_context(|| format!("reading the link {}", from.display()))?)
        } else if found.is_file() {
            Source::File(from)
        } else {
            return Ok(self);
        };
        let entry =
            Entry { source, mode: found.mode() & 0o7777, user: u64::from(found.uid()), group: u64::from(found.gid()) };
        self.entries.insert(path, entry);
        Ok(self)
    }

    /// Makes the layer in memory.
    ///
    /// # Errors
    /// When a file that it is made from cannot be read.
    pub fn build(&self) -> Result<Blob> {
        Ok(Blob::of(self.write(Vec::new())?))
    }

    /// Makes the layer as a blob file below `layout`, the folder of an OCI image layout.
    ///
    /// # Errors
    /// When a file that it is made from cannot be read, or the blob cannot be written.
    pub fn build_in(&self, layout: &Path) -> Result<Blob> {
        let folder = layout.join("blobs/sha256");
        let draft = folder.join("draft");
        let problem = || format!("writing the layer {}", draft.display());
        fs::create_dir_all(&folder).with_context(problem)?;
        let file = Hashing::new(BufWriter::new(File::create(&draft).with_context(problem)?));
        let (mut file, digest, size) = self.write(file)?.finish();
        file.flush().with_context(problem)?;
        let path = folder.join(digest.hex());
        fs::rename(&draft, &path).with_context(problem)?;
        Ok(Blob::stored(path, digest, size))
    }

    fn with(mut self, path: &str, source: Source, mode: u32) -> Self {
        self.entries.insert(relative(Path::new(path)), Entry { source, mode, user: 0, group: 0 });
        self
    }

    fn write<W: Write>(&self, to: W) -> Result<W> {
        let mut archive = Builder::new(to);
        for (path, entry) in self.entries_with_folders() {
            append(&mut archive, &path, &entry).with_context(|| format!("adding /{} to a layer", path.display()))?;
        }
        archive.into_inner().context("ending a layer")
    }

    /// All entries and the folders above them, parents first.
    fn entries_with_folders(&self) -> BTreeMap<PathBuf, Entry> {
        let mut all = self.entries.clone();
        for path in self.entries.keys() {
            for folder in path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()) {
                let entry = || Entry { source: Source::Folder, mode: 0o755, user: 0, group: 0 };
                all.entry(folder.to_owned()).or_insert_with(entry);
            }
        }
        all
    }
}

fn append<W: Write>(archive: &mut Builder<W>, path: &Path, entry: &Entry) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(entry.mode);
    header.set_uid(entry.user);
    header.set_gid(entry.group);
    header.set_mtime(0);
    header.set_size(0);
    match &entry.source {
        Source::Folder => {
            header.set_entry_type(EntryType::Directory);
            archive.append_data(&mut header, path.join(""), std::io::empty())?;
        }
        Source::Link(to) => {
            header.set_entry_type(EntryType::Symlink);
            archive.append_link(&mut header, path, to)?;
        }
        Source::Bytes(content) => {
            header.set_entry_type(EntryType::Regular);
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, path, Cursor::new(content))?;
        }
        Source::File(from) => {
            let file = File::open(from).with_context(|| format!("opening {}", from.display()))?;
            let size = file.metadata()?.len();
            header.set_entry_type(EntryType::Regular);
            header.set_size(size);
            // A file that grows meanwhile must not spill into the next header, one that shrinks must not pass.
            let mut counted = Counted { inner: file.take(size), read: 0 };
            archive.append_data(&mut header, path, &mut counted)?;
            if counted.read != size {
                bail!("{} changed while it was read", from.display());
            }
        }
    }
    Ok(())
}

struct Counted<R> {
    inner: R,
    read: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.read += read as u64;
        Ok(read)
    }
}

/// The path without a leading slash, as archives have it.
fn relative(path: &Path) -> PathBuf {
    path.components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(blob: &Blob) -> Vec<String> {
        let mut archive = tar::Archive::new(blob.open().unwrap());
        archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
    }

    #[test]
    fn folders_come_before_what_is_in_them_and_need_not_be_named() {
        let layer = LayerBuilder::new().bytes("/usr/local/bin/a", "a", 0o755).folder("/tmp", 0o1777).build().unwrap();
        assert_eq!(names(&layer), ["tmp/", "usr/", "usr/local/", "usr/local/bin/", "usr/local/bin/a"]);
    }

    #[test]
    fn the_order_of_adding_does_not_change_the_digest() {
        let one = LayerBuilder::new().bytes("/a", "a", 0o644).link("/b", "a").build().unwrap();
        let other = LayerBuilder::new().link("/b", "a").bytes("/a", "a", 0o644).build().unwrap();
        assert_eq!(one.digest(), other.digest());
    }

    #[test]
    fn a_layer_in_a_file_is_the_same_as_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "content").unwrap();
        let long = format!("/{}/file", "long-folder-name/".repeat(12));
        let builder = LayerBuilder::new().file("/a", folder.path().join("a"), 0o600).bytes(&long, "x", 0o644);
        let stored = builder.build_in(folder.path()).unwrap();
        assert_eq!(stored.digest(), builder.build().unwrap().digest());
        assert!(folder.path().join("blobs/sha256").join(stored.digest().hex()).is_file());
    }

    #[test]
    fn a_path_of_a_tree_keeps_its_mode_and_times_do_not_matter() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ping");
        fs::write(&path, "x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).unwrap();
        let layer = || LayerBuilder::new().path_of(folder.path(), Path::new("/ping")).unwrap().build().unwrap();
        let first = layer();
        File::open(&path).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(first.digest(), layer().digest());
        let mut archive = tar::Archive::new(first.open().unwrap());
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.header().mode().unwrap(), 0o4755);
    }
}
