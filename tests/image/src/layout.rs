//! OCI image layouts: a folder with one image.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::blob::{Blob, Digest, Hashing};
use crate::manifest::{Descriptor, Image, MANIFEST, descriptor};

/// Names the tag, by the OCI image specification.
const TAG: &str = "org.opencontainers.image.ref.name";
/// Names repository and tag, by containerd's importer.
const NAME: &str = "io.containerd.image.name";

/// The repository and tag under which an image is pushed, such as `tailscale/tailscale:v1.104.2`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Reference {
    /// The repository, without a registry's host.
    pub repository: String,
    /// The tag.
    pub tag: String,
}

impl Reference {
    /// Puts a repository and a tag together.
    pub fn new(repository: impl Into<String>, tag: impl Into<String>) -> Self {
        Self { repository: repository.into(), tag: tag.into() }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.repository, self.tag)
    }
}

/// An image layout on disk.
#[derive(Clone, Debug)]
pub struct Layout {
    folder: PathBuf,
    /// The image.
    pub image: Image,
    /// What the image is called.
    pub reference: Reference,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    manifests: Vec<Descriptor>,
}

impl Layout {
    /// Writes a layout into `folder`, which is made; blobs that lie there already stay.
    ///
    /// # Errors
    /// When a blob cannot be read or the folder not be written.
    pub fn write(folder: &Path, image: &Image, reference: &Reference) -> Result<Self> {
        let blobs = folder.join("blobs/sha256");
        fs::create_dir_all(&blobs).with_context(|| format!("making {}", blobs.display()))?;
        let manifest = image.manifest()?;
        for blob in image.layers().iter().chain([&image.configuration()?, &manifest]) {
            blob.place(&blobs.join(blob.digest().hex()))?;
        }
        let mut entry = descriptor(MANIFEST, &manifest);
        entry.annotations =
            BTreeMap::from([(NAME.to_owned(), reference.to_string()), (TAG.to_owned(), reference.tag.clone())]);
        let index = serde_json::to_vec(&Index { schema_version: 2, manifests: vec![entry] })?;
        for (name, content) in [("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.as_slice()), ("index.json", &index)]
        {
            fs::write(folder.join(name), content).with_context(|| format!("writing {name} in {}", folder.display()))?;
        }
        Self::read(folder)
    }

    /// Reads the layout in `folder`, which holds one image. Blobs are not read: [`Layout::verify`] does.
    ///
    /// # Errors
    /// Names the folder and what in it is wrong.
    pub fn read(folder: &Path) -> Result<Self> {
        read(folder).with_context(|| format!("reading the image layout {}", folder.display()))
    }

    /// Checks the size and the digest of every blob that the image names.
    ///
    /// # Errors
    /// Names the first blob that is not what it should be.
    pub fn verify(&self) -> Result<()> {
        let manifest = self.image.manifest()?;
        let path = self.blob_path(manifest.digest());
        ensure!(path.is_file(), "{} has no manifest {}", self.folder.display(), manifest.digest());
        for blob in self.image.layers().iter().chain([&self.image.configuration()?, &manifest]) {
            let stored = Blob::stored(self.blob_path(blob.digest()), blob.digest().clone(), blob.size());
            let mut hashing = Hashing::new(io::sink());
            io::copy(&mut stored.open()?, &mut hashing)?;
            let (_, digest, size) = hashing.finish();
            ensure!(
                digest == *blob.digest() && size == blob.size(),
                "the blob {} of {} is damaged: {size} bytes, {digest}",
                blob.digest(),
                self.reference
            );
        }
        Ok(())
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        blob_path(&self.folder, digest)
    }
}

fn read(folder: &Path) -> Result<Layout> {
    let index = fs::read(folder.join("index.json")).context("reading index.json")?;
    let index: Index = serde_json::from_slice(&index).context("reading index.json")?;
    let [entry] = index.manifests.as_slice() else {
        bail!("it holds {} images, one is expected", index.manifests.len());
    };
    let Some((repository, tag)) = entry.annotations.get(NAME).and_then(|name| name.rsplit_once(':')) else {
        bail!("its index names no image by the annotation {NAME}");
    };
    let digest = Digest::parse(&entry.digest)?;
    let manifest = fs::read(blob_path(folder, &digest)).with_context(|| format!("reading the manifest {digest}"))?;
    ensure!(Digest::of(&manifest) == digest, "the manifest {digest} is damaged");
    let image = Image::from_manifest(&manifest, |digest| blob_path(folder, digest))?;
    Ok(Layout { folder: folder.to_owned(), image, reference: Reference::new(repository, tag) })
}

fn blob_path(folder: &Path, digest: &Digest) -> PathBuf {
    folder.join("blobs/sha256").join(digest.hex())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LayerBuilder, Process};

    fn image() -> Image {
        let layer = LayerBuilder::new().bytes("/a", "a", 0o755).build().unwrap();
        let process =
            Process { user: "65532:65532".to_owned(), entrypoint: vec!["/a".to_owned()], ..Process::default() };
        Image::new(process, vec![layer])
    }

    #[test]
    fn a_layout_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let reference = Reference::new("towline/probe", "1");
        Layout::write(folder.path(), &image(), &reference).unwrap();
        let layout = Layout::read(folder.path()).unwrap();
        assert_eq!(layout.reference, reference);
        assert_eq!(layout.image.process(), image().process());
        assert_eq!(layout.image.manifest().unwrap().digest(), image().manifest().unwrap().digest());
        layout.verify().unwrap();
    }

    #[test]
    fn a_layout_with_another_layer_shares_the_files_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let first = Layout::write(&folder.path().join("one"), &image(), &Reference::new("probe", "1")).unwrap();
        let trusting = first.image.trusting("certificate").unwrap();
        let second = Layout::write(&folder.path().join("two"), &trusting, &Reference::new("probe", "2")).unwrap();
        second.verify().unwrap();
        assert_eq!(second.image.layers()[0].digest(), first.image.layers()[0].digest());
    }

    #[test]
    fn a_damaged_layer_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::write(folder.path(), &image(), &Reference::new("probe", "1")).unwrap();
        let digest = layout.image.layers()[0].digest().clone();
        fs::write(layout.blob_path(&digest), "other").unwrap();
        let message = layout.verify().unwrap_err().to_string();
        assert!(message.contains(&digest.to_string()) && message.contains("damaged"), "{message}");
    }

    #[test]
    fn a_folder_without_an_index_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let message = format!("{:#}", Layout::read(folder.path()).unwrap_err());
        assert!(message.contains(&folder.path().display().to_string()) && message.contains("index.json"), "{message}");
    }
}
