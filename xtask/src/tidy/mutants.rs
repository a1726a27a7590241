//! Rules about `.cargo/mutants.toml`: what is altered, and what is left out for a reason.

use std::fs;

use anyhow::{Context, Result};

use crate::checkout::Checkout;
use crate::tidy::Violation;

const FILE: &str = ".cargo/mutants.toml";

/// The folders whose code decides who reaches what.
const ALTERED: [&str; 2] = ["crates/filter/src/", "crates/policy/src/"];

/// A line of one of the two lists.
struct Entry<'t> {
    glob: &'t str,
    /// Counted from one.
    line: usize,
    left_out: bool,
    /// Whether a comment stands above it, or above the entries that it follows.
    reasoned: bool,
}

pub(super) fn check(checkout: &Checkout) -> Result<Vec<Violation>> {
    let path = checkout.path(FILE);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(check_lists(&text, &checkout.files()?))
}

fn check_lists(text: &str, files: &[String]) -> Vec<Violation> {
    let entries = entries(text);
    let mut violations = Vec::new();
    for entry in &entries {
        let glob = entry.glob;
        if !files.iter().any(|file| matches(glob, file)) {
            violations.push(Violation::new(FILE, entry.line, format!("no file is called {glob}")));
        }
        if entry.left_out && !entry.reasoned {
            let message = format!("{glob} is left out without a reason: write it in a comment above");
            violations.push(Violation::new(FILE, entry.line, message));
        }
    }
    let decides = |file: &&String| file.ends_with(".rs") && ALTERED.iter().any(|folder| file.starts_with(folder));
    for file in files.iter().filter(decides) {
        if !entries.iter().any(|entry| matches(entry.glob, file)) {
            let message = format!("it is neither among what {FILE} alters nor among what it leaves out");
            violations.push(Violation::new(file.as_str(), 1, message));
        }
    }
    violations
}

fn entries(text: &str) -> Vec<Entry<'_>> {
    let mut entries = Vec::new();
    let mut list = None;
    let mut reasoned = false;
    for (line, number) in text.lines().map(str::trim).zip(1..) {
        match line {
            "examine_globs = [" => (list, reasoned) = (Some(false), false),
            "exclude_globs = [" => (list, reasoned) = (Some(true), false),
            "]" => list = None,
            comment if comment.starts_with('#') => reasoned = true,
            quoted => {
                let glob = quoted.trim_end_matches(',').trim_matches('"');
                entries.extend(list.map(|left_out| Entry { glob, line: number, left_out, reasoned }));
            }
        }
    }
    entries
}

/// Whether a pattern means a file: `*` stands for any part of a name, `**` for any folders.
fn matches(glob: &str, file: &str) -> bool {
    let (glob, file): (Vec<&str>, Vec<&str>) = (glob.split('/').collect(), file.split('/').collect());
    match_parts(&glob, &file)
}

fn match_parts(glob: &[&str], file: &[&str]) -> bool {
    match (glob, file) {
        ([], []) => true,
        (["**", rest @ ..], _) => (0..=file.len()).any(|skipped| match_parts(rest, &file[skipped..])),
        ([pattern, patterns @ ..], [name, names @ ..]) => match_name(pattern, name) && match_parts(patterns, names),
        _ => false,
    }
}

fn match_name(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, end)) => name.strip_prefix(start).is_some_and(|rest| rest.ends_with(end)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str, files: &[&str]) -> Vec<String> {
        let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
        check_lists(text, &files).iter().map(Violation::to_string).collect()
    }

    #[test]
    fn a_file_that_is_neither_altered_nor_left_out_is_named() {
        let text = "examine_globs = [\n    \"crates/filter/src/*.rs\",\n]\n";
        let files =
            ["crates/filter/src/a.rs", "crates/filter/src/a/b.rs", "crates/filter/tests/c.rs", "crates/host/src/d.rs"];
        let expected = "crates/filter/src/a/b.rs:1: it is neither among what .cargo/mutants.toml alters nor among what it leaves out";
        assert_eq!(told(text, &files), [expected]);
        assert_eq!(told(&text.replace("/*.rs", "/**/*.rs"), &files), [""; 0]);
    }

    #[test]
    fn what_is_left_out_has_a_reason_and_is_there() {
        let text = "# Not for the list below.\nexclude_globs = [\n\"crates/policy/src/a.rs\",\n# Text.\n\
                    \"crates/policy/src/b.rs\",\n\"crates/policy/src/gone.rs\",\n]\n";
        let expected = [
            ".cargo/mutants.toml:3: crates/policy/src/a.rs is left out without a reason: write it in a comment above",
            ".cargo/mutants.toml:6: no file is called crates/policy/src/gone.rs",
        ];
        assert_eq!(told(text, &["crates/policy/src/a.rs", "crates/policy/src/b.rs"]), expected);
    }
}
