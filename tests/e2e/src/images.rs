use anyhow::{Context, Result};
use cache::Cache;
use image::{Image, LayerBuilder, Layout, Process, Reference};
use lab::{World, locate_init};

/// Pushes the images of workloads: `towline/userland`, a shell with curl, ping, ssh and socat, and `lab/web`, whose
/// `/web web TEXT` serves a page with that text.
pub(crate) fn push_workloads(world: &World, cache: &Cache) -> Result<()> {
    let userland = layout(cache, "userland")?;
    world.push(&userland.image, &userland.reference)?;
    let web = LayerBuilder::new().file("/web", locate_init()?, 0o755).build()?;
    world.push(&Image::new(Process::default(), vec![web]), &Reference::new("lab/web", "1"))?;
    Ok(())
}

/// Pushes the stock image called `name`, which trusts the laboratory's root as it would trust the public web's; returns
/// its version, such as `v1.104.2`.
pub(crate) fn push_stock(world: &World, cache: &Cache, name: &str) -> Result<String> {
    let stock = layout(cache, name)?;
    let root = world.public_authority()?;
    world.push(&stock.image.trusting(root.certificate())?, &stock.reference)?;
    Ok(stock.reference.tag)
}

fn layout(cache: &Cache, name: &str) -> Result<Layout> {
    Layout::read(&cache.image(name)).context("`cargo xtask fetch` packs the images")
}
