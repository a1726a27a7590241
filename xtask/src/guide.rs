//! What people read shows tasks that there are.

use std::path::Path;

use clap::Parser;

use crate::program;
use crate::test::{Test, scenario};

#[path = "../../tests/e2e/tests/support/guide.rs"]
mod shown;

#[test]
fn every_task_of_the_readme_and_the_guide_is_one_that_there_is() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut whole = 0;
    for command in shown::commands(&repository) {
        let typed: Vec<&str> = command.words.iter().map(String::as_str).collect();
        let ["cargo", "xtask", words @ ..] = typed.as_slice() else { continue };
        whole += usize::from(command.whole);
        let (place, text) = (&command.place, words.join(" "));
        if let Err(error) = program().try_get_matches_from(["cargo xtask"].iter().chain(words)) {
            assert!(command.stands(&error), "{place}: {text}: {error}");
        }
        if words.first() == Some(&"test") {
            check_stage(&words[1..]).unwrap_or_else(|error| panic!("{place}: {text}: {error:#}"));
        }
    }
    assert!(whole >= 2, "the readme shows only {whole} tasks: are its blocks read?");
}

/// The stage is one, and takes its options where these are the walkthrough's.
fn check_stage(words: &[&str]) -> anyhow::Result<()> {
    let test = Test::try_parse_from(["test"].iter().chain(words))?;
    test.stages()?;
    match test.stage.as_slice() {
        [stage, options @ ..] if stage == "walkthrough" => scenario::check(&scenario::parsed(options)?),
        _ => Ok(()),
    }
}
