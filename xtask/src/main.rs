//! The project's own tasks: `cargo xtask --help`.
//!
//! Each task is a type that clap fills and [`Task::run`] runs; the table [`TASKS`] names them all. What tasks share is
//! here too: the [`checkout`] that they work on, the [`progress`] that they show, and the [`cache`] that outlives both.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod bench;
mod build;
mod checkout;
mod elf;
mod fetch;
mod fuzz;
#[cfg(test)]
mod guide;
mod images;
mod interrupt;
mod mutants;
mod print;
mod progress;
mod prune;
mod test;
mod tidy;
mod up;
mod world;

use std::process::ExitCode;

use anyhow::Result;
use clap::{ArgMatches, Command, Parser};

/// Every task; a new one is one line.
const TASKS: &[Entry] = &[
    entry::<fetch::Fetch>(),
    entry::<build::Build>(),
    entry::<test::Test>(),
    entry::<bench::Bench>(),
    entry::<fuzz::Fuzz>(),
    entry::<mutants::Mutants>(),
    entry::<tidy::Tidy>(),
    entry::<prune::Prune>(),
    entry::<up::Up>(),
    entry::<world::Status>(),
    entry::<world::Shell>(),
    entry::<world::SignIn>(),
    entry::<world::Down>(),
];

/// One of the project's tasks: its arguments, and what it does.
trait Task: Parser {
    /// Does it. The exit code is for tasks whose failure is a result, such as failed tests.
    fn run(self) -> Result<ExitCode>;
}

struct Entry {
    command: fn() -> Command,
    run: fn(&ArgMatches) -> Result<ExitCode>,
}

const fn entry<T: Task>() -> Entry {
    Entry { command: T::command, run: |matches| T::from_arg_matches(matches)?.run() }
}

/// The whole tree of arguments.
fn program() -> Command {
    Command::new("cargo xtask")
        .bin_name("cargo xtask")
        .about("The project's own tasks")
        .long_about(
            "The project's own tasks.\n\n\
             Everything that they fetch and build lies in a cache outside the checkout: $TOWLINE_CACHE, else \
             $XDG_CACHE_HOME/towline, else ~/.cache/towline. It may be removed at any time, and is filled again when it is \
             needed. Several checkouts and tasks may use it at once.",
        )
        .after_help("Most used: `cargo xtask test`. `cargo xtask help TASK` explains a task.")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(TASKS.iter().map(|task| (task.command)()))
}

fn main() -> ExitCode {
    let matches = program().get_matches();
    let chosen = matches.subcommand();
    let named = TASKS.iter().find(|task| chosen.is_some_and(|(name, _)| name == (task.command)().get_name()));
    let result = match (named, chosen) {
        (Some(task), Some((_, matches))) => (task.run)(matches),
        _ => Ok(ExitCode::FAILURE),
    };
    result.unwrap_or_else(|error| {
        interrupt::settle();
        print::note(format_args!("error: {error:#}\n"));
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_has_a_name_of_its_own_and_says_what_it_does() {
        let mut names: Vec<String> = TASKS.iter().map(|task| (task.command)().get_name().to_owned()).collect();
        assert!(TASKS.iter().all(|task| (task.command)().get_about().is_some()));
        names.sort();
        names.dedup();
        assert_eq!(names.len(), TASKS.len());
    }

    #[test]
    fn the_terminal_breaks_the_lines_of_a_tasks_help_and_nobody_else() {
        for task in TASKS {
            let about = (task.command)().get_long_about().map(ToString::to_string).unwrap_or_default();
            assert!(about.split("\n\n").all(|paragraph| !paragraph.contains('\n')), "{about}");
        }
    }

    #[test]
    fn the_arguments_of_every_task_are_consistent() {
        for task in TASKS {
            (task.command)().debug_assert();
        }
    }
}
