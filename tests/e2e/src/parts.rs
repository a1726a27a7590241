use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Files that a stage is made of besides what the laboratory's cache holds.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Our binary.
    pub binary: PathBuf,
    /// The image that holds it, as a layout.
    pub image: PathBuf,
    /// The stock programs' sources, where the stock operator is to play: its chart is among them.
    pub stock_sources: Option<PathBuf>,
}

impl Parts {
    /// The parts that `cargo xtask test` names in the environment.
    pub fn of_the_test() -> Result<Self> {
        let binary = binary()?;
        let image = binary.with_file_name("image");
        ensure!(image.is_dir(), "{} has no image beside it: `cargo xtask build` packs one", binary.display());
        let stock_sources = std::env::var_os("STOCK_SOURCES").map(PathBuf::from);
        Ok(Self { binary, image, stock_sources })
    }

    /// The stock programs' sources.
    pub(crate) fn stock_sources(&self) -> Result<&Path> {
        let sources = self.stock_sources.as_deref();
        sources.context("STOCK_SOURCES must name the stock sources: run this as a stage of `cargo xtask test`")
    }
}

/// The binary under test, which the environment names.
pub fn binary() -> Result<PathBuf> {
    let path = std::env::var_os("TOWLINE_BINARY").map(PathBuf::from);
    let path = path.context("TOWLINE_BINARY must name our binary: run this as a stage of `cargo xtask test`")?;
    ensure!(path.is_file(), "TOWLINE_BINARY names {}, which is no file", path.display());
    Ok(path)
}
