//! What kind of program a file is.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::progress::Step;

/// Checks that a program needs no loader and no library, as it runs in images that have none.
pub(crate) fn expect_static(step: &Step<'_>, program: &Path) -> Result<()> {
    let headers = step.output(Command::new("readelf").args(["--program-headers", "--wide"]).arg(program))?;
    ensure!(!headers.contains("INTERP"), "{} is linked dynamically: an image has no loader for it", program.display());
    Ok(())
}
