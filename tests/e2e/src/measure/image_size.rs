use anyhow::{Context, Result};
use lab::World;
use serde_json::Value;

use super::memory::megabytes;

/// The layers of an image as the registry has them, uncompressed, in MB.
pub(super) fn image_size(world: &World, image: &str) -> Result<f64> {
    let (repository, reference) = named(image);
    let url = format!("http://127.0.0.1/v2/{repository}/manifests/{reference}");
    let accept = "Accept: application/vnd.oci.image.manifest.v1+json";
    let registry = world.lab_box("registry")?;
    let said = registry.run(["curl", "-fsS", "--max-time", "10", "-H", accept, &url])?.stdout;
    let manifest: Value = serde_json::from_str(&said).with_context(|| format!("reading {said:?}"))?;
    let layers = manifest["layers"].as_array().with_context(|| format!("{image} has no layers: {manifest}"))?;
    Ok(megabytes(layers.iter().filter_map(|layer| layer["size"].as_u64()).sum()))
}

/// Repository and tag or digest of an image's name.
fn named(image: &str) -> (&str, &str) {
    let path = match image.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) => path,
        _ => image,
    };
    path.split_once('@').or_else(|| path.rsplit_once(':')).unwrap_or((path, "latest"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_with_and_without_host_tag_and_digest() {
        assert_eq!(named("docker.io/tailscale/tailscale:v1.2"), ("tailscale/tailscale", "v1.2"));
        assert_eq!(named("registry:5000/towline@sha256:ab"), ("towline", "sha256:ab"));
        assert_eq!(named("towline/towline"), ("towline/towline", "latest"));
    }
}
