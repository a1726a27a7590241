//! Images for pods: what a shell and a web server need, and the stock ones.

use std::path::Path;

use anyhow::{Context, Result};
use cache::Cache;
use image::{Digest, Image, LayerBuilder, Layout, Process, Reference};

use crate::world::World;

impl World {
    /// Pushes images of ordinary workloads: `towline/userland`, a shell with curl, ping, ssh and socat, and `lab/web`, whose
    /// `/web web TEXT` serves a page with that text.
    ///
    /// # Errors
    /// When the cache lacks the first, or the registry does not take them.
    pub fn push_workloads(&self) -> Result<()> {
        let userland = packed("userland")?;
        self.push(&userland.image, &userland.reference)?;
        let web = LayerBuilder::new().file("/web", self.init(), 0o755).build()?;
        self.push(&Image::new(Process::default(), vec![web]), &Reference::new("lab/web", "1"))?;
        Ok(())
    }

    /// Pushes the stock image called `name` in the cache; its programs trust the laboratory's root as they trust the public
    /// web's. Returns its tag, such as `v1.104.2`.
    ///
    /// # Errors
    /// When the cache lacks it, or the registry does not take it.
    pub fn push_stock(&self, name: &str) -> Result<String> {
        let stock = packed(name)?;
        let root = self.public_authority()?;
        self.push(&stock.image.trusting(root.certificate())?, &stock.reference)?;
        Ok(stock.reference.tag)
    }

    /// Pushes the image that a folder holds as a layout, as it is. Returns its name and its digest.
    ///
    /// # Errors
    /// When there is no layout, or the registry does not take it.
    pub fn push_packed(&self, folder: &Path) -> Result<(Reference, Digest)> {
        let packed = Layout::read(folder)?;
        let digest = self.push(&packed.image, &packed.reference)?;
        Ok((packed.reference, digest))
    }
}

fn packed(name: &str) -> Result<Layout> {
    Layout::read(&Cache::locate()?.image(name)).context("`cargo xtask fetch` packs the images")
}
