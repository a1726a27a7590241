//! Images: a configuration and layers, and the manifest that names both.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::blob::{Blob, Digest};
use crate::layer::LayerBuilder;

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Where Debian, and the stock images, keep the certificates that programs trust.
const TRUSTED: &str = "etc/ssl/certs/ca-certificates.crt";

/// What a container of the image runs, as the OCI image specification's `config` has it.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Process {
    /// User and group, `65532:65532` or a name; empty means root.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Variables, each `NAME=value`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The program and its first arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Arguments that a container may replace.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// The folder that the program starts in; empty means the root.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
}

/// An image for Linux on amd64.
#[derive(Clone, Debug)]
pub struct Image {
    process: Process,
    layers: Vec<Blob>,
}

#[derive(Serialize, Deserialize)]
struct Configuration {
    architecture: String,
    os: String,
    #[serde(default)]
    config: Process,
    rootfs: RootFileSystem,
}

#[derive(Serialize, Deserialize)]
struct RootFileSystem {
    #[serde(rename = "type")]
    kind: String,
    diff_ids: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub(crate) annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: String,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

impl Image {
    /// Puts layers, lowest first, and what to run together.
    pub fn new(process: Process, layers: Vec<Blob>) -> Self {
        Self { process, layers }
    }

    /// Reads an image from its manifest; `blob` finds the path of a blob's file.
    pub(crate) fn from_manifest(manifest: &[u8], blob: impl Fn(&Digest) -> std::path::PathBuf) -> Result<Self> {
        let manifest: Manifest = serde_json::from_slice(manifest).context("reading the manifest")?;
        let stored = |descriptor: &Descriptor| -> Result<Blob> {
            let digest = Digest::parse(&descriptor.digest)?;
            Ok(Blob::stored(blob(&digest), digest, descriptor.size))
        };
        let mut text = String::new();
        stored(&manifest.config)?.open()?.take(1 << 20).read_to_string(&mut text)?;
        let configuration: Configuration = serde_json::from_str(&text).context("reading the configuration")?;
        if let Some(other) = manifest.layers.iter().find(|layer| layer.media_type != LAYER) {
            bail!("the layer {} is of type {}; only {LAYER} is known", other.digest, other.media_type);
        }
        ensure!(
            manifest.layers.iter().map(|layer| &layer.digest).eq(&configuration.rootfs.diff_ids),
            "the configuration names other layers than the manifest"
        );
        let layers = manifest.layers.iter().map(stored).collect::<Result<_>>()?;
        Ok(Self { process: configuration.config, layers })
    }

    /// What a container of the image runs.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The layers, lowest first.
    pub fn layers(&self) -> &[Blob] {
        &self.layers
    }

    /// The bytes of all layers.
    pub fn size(&self) -> u64 {
        self.layers.iter().map(Blob::size).sum()
    }

    /// The same image with one more layer on top.
    #[must_use]
    pub fn with_layer(&self, layer: Blob) -> Self {
        let mut image = self.clone();
        image.layers.push(layer);
        image
    }

    /// The same image with one more layer, in which programs trust the certificates in `pem` besides those that they
    /// trusted already.
    ///
    /// # Errors
    /// When a layer cannot be read.
    pub fn trusting(&self, pem: &str) -> Result<Self> {
        let mut bundle = self.read_file(TRUSTED)?.unwrap_or_default();
        if bundle.last().is_some_and(|last| *last != b'\n') {
            bundle.push(b'\n');
        }
        bundle.extend_from_slice(pem.as_bytes());
        let layer = LayerBuilder::new().bytes(TRUSTED, bundle, 0o644).build()?;
        Ok(self.with_layer(layer))
    }

    /// The content of a plain file as the uppermost layer that has it holds it. Removals by an upper layer are not
    /// looked for: layers made here have none.
    ///
    /// # Errors
    /// When a layer cannot be read.
    pub fn read_file(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let wanted = Path::new(path.trim_start_matches('/'));
        for layer in self.layers.iter().rev() {
            let mut archive = tar::Archive::new(layer.open()?);
            for entry in archive.entries()? {
                let mut entry = entry.with_context(|| format!("reading the layer {}", layer.digest()))?;
                if entry.path()? == wanted && entry.header().entry_type().is_file() {
                    let mut content = Vec::new();
                    entry.read_to_end(&mut content)?;
                    return Ok(Some(content));
                }
            }
        }
        Ok(None)
    }

    /// The configuration as a blob.
    pub fn configuration(&self) -> Result<Blob> {
        let configuration = Configuration {
            architecture: "amd64".to_owned(),
            os: "linux".to_owned(),
            config: self.process.clone(),
            rootfs: RootFileSystem {
                kind: "layers".to_owned(),
                diff_ids: self.layers.iter().map(|layer| layer.digest().to_string()).collect(),
            },
        };
        Ok(Blob::of(serde_json::to_vec(&configuration)?))
    }

    /// The manifest as a blob: its digest is the image's.
    pub fn manifest(&self) -> Result<Blob> {
        let manifest = Manifest {
            schema_version: 2,
            media_type: MANIFEST.to_owned(),
            config: descriptor(CONFIG, &self.configuration()?),
            layers: self.layers.iter().map(|layer| descriptor(LAYER, layer)).collect(),
        };
        Ok(Blob::of(serde_json::to_vec(&manifest)?))
    }
}

pub(crate) fn descriptor(media_type: &str, blob: &Blob) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: blob.digest().to_string(),
        size: blob.size(),
        annotations: std::collections::BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uppermost_layer_wins() {
        let layer = |content: &str| LayerBuilder::new().bytes("/etc/a", content, 0o644).build().unwrap();
        let image = Image::new(Process::default(), vec![layer("low"), layer("high")]);
        assert_eq!(image.read_file("/etc/a").unwrap().unwrap(), b"high");
        assert!(image.read_file("/etc/b").unwrap().is_none());
    }

    #[test]
    fn a_trusting_image_keeps_the_certificates_that_it_had() {
        let base = LayerBuilder::new().bytes(TRUSTED, "first", 0o644).build().unwrap();
        let image = Image::new(Process::default(), vec![base]).trusting("second\n").unwrap();
        assert_eq!(image.read_file(TRUSTED).unwrap().unwrap(), b"first\nsecond\n");
        let empty = Image::new(Process::default(), Vec::new()).trusting("only\n").unwrap();
        assert_eq!(empty.read_file(TRUSTED).unwrap().unwrap(), b"only\n");
    }

    #[test]
    fn the_manifest_names_the_configuration_and_the_layers() {
        let layer = LayerBuilder::new().bytes("/a", "a", 0o755).build().unwrap();
        let process = Process { entrypoint: vec!["/a".to_owned()], ..Process::default() };
        let image = Image::new(process, vec![layer.clone()]);
        let mut text = String::new();
        image.manifest().unwrap().open().unwrap().read_to_string(&mut text).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["config"]["digest"], image.configuration().unwrap().digest().to_string());
        assert_eq!(value["layers"][0]["digest"], layer.digest().to_string());
        assert_eq!(value["layers"][0]["size"], layer.size());
    }
}
