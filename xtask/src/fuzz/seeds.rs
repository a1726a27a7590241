//! Texts that the policy's fuzzers begin with: the examples of the reference, those of the repository, and the policies of
//! the tests.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::checkout::Checkout;

const REFERENCE: &str = "docs/policy.md";
/// Where policies stand in raw strings.
const TESTS: &str = "crates/policy/";

/// Writes every seed into a folder, which is emptied first.
pub(super) fn write(checkout: &Checkout, folder: &Path) -> Result<()> {
    let mut seeds = Vec::new();
    for file in checkout.files()? {
        let is_rust = file.starts_with(TESTS) && file.ends_with(".rs");
        if file != REFERENCE && !is_rust && !file.ends_with(".hujson") {
            continue;
        }
        let text = fs::read_to_string(checkout.path(&file)).with_context(|| format!("reading {file}"))?;
        match file.as_str() {
            REFERENCE => seeds.extend(between(&text, "```hujson\n", "```")),
            _ if is_rust => {
                seeds.extend(between(&text, "r#\"", "\"#").filter(|seed| seed.trim_start().starts_with('{')))
            }
            _ => seeds.push(text),
        }
    }
    ensure!(!seeds.is_empty(), "no example of a policy was found in {REFERENCE} and {TESTS}");
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("emptying {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    for (at, seed) in seeds.iter().enumerate() {
        let path = folder.join(format!("{at:03}"));
        fs::write(&path, seed).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// The texts between each pair of marks.
fn between<'t>(text: &'t str, open: &'t str, close: &'t str) -> impl Iterator<Item = String> + 't {
    text.split(open).skip(1).filter_map(move |rest| rest.split_once(close).map(|(seed, _)| seed.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_taken_from_between_their_marks() {
        let page = "words\n```hujson\n{\"a\": 1}\n```\n```console\n$ x\n```\n```hujson\n{}\n```\n";
        assert_eq!(between(page, "```hujson\n", "```").collect::<Vec<String>>(), ["{\"a\": 1}\n", "{}\n"]);
    }
}
