//! What people read shows commands that this program takes.

use std::path::Path;

use clap::{CommandFactory, Parser};

use crate::Arguments;

#[path = "../../../tests/e2e/tests/support/guide.rs"]
mod shown;

/// Under which names our program is called in the documents.
const NAMES: [&str; 2] = ["towline", "/towline"];

#[test]
fn every_command_of_the_guide_is_one_that_this_program_takes() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut whole = 0;
    for command in shown::commands(&repository) {
        // In a pod it stands behind kubectl's own words.
        let within = command.words.iter().position(|word| word == "--").map_or(0, |dashes| dashes + 1);
        let words = &command.words[within..];
        if !words.first().is_some_and(|program| NAMES.contains(&program.as_str())) {
            continue;
        }
        whole += usize::from(command.whole);
        if let Err(error) = Arguments::try_parse_from(words) {
            assert!(command.stands(&error), "{}: {}: {error}", command.place, words.join(" "));
        }
    }
    assert!(whole >= 10, "the guide shows only {whole} commands: are its blocks read?");
}

#[test]
fn the_page_on_scripts_names_every_command() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide/commands.md");
    let page = std::fs::read_to_string(page).unwrap();
    for command in Arguments::command().get_subcommands().filter(|command| !command.is_hide_set()) {
        let name = command.get_name();
        assert!(page.contains(&format!("`towline {name}`")), "{name} is missing");
    }
}
