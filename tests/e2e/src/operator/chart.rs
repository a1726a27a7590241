//! Files of Helm charts.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// The files of a chart, with those of its folders, by their path within it.
pub(super) fn read(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut chart = BTreeMap::new();
    collect(folder, "", &mut chart)?;
    ensure!(chart.contains_key("Chart.yaml"), "{} holds no chart", folder.display());
    Ok(chart)
}

fn collect(folder: &Path, within: &str, chart: &mut BTreeMap<String, String>) -> Result<()> {
    let what = || format!("reading {}", folder.display());
    for entry in fs::read_dir(folder).with_context(what)? {
        let entry = entry.with_context(what)?;
        let path = format!("{within}{}", entry.file_name().to_string_lossy());
        if entry.file_type().with_context(what)?.is_dir() {
            collect(&entry.path(), &format!("{path}/"), chart)?;
        } else {
            let content = fs::read_to_string(entry.path()).with_context(|| format!("reading {path} of a chart"))?;
            chart.insert(path, content);
        }
    }
    Ok(())
}
