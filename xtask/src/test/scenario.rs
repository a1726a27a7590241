//! The stages that need a world of boxes: test programs that print `ok` or `FAILED` for each thing that they prove.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Command, CommandFactory, FromArgMatches};
use e2e::{Arguments, rows};

use crate::test::Context;
use crate::test::stage::Counts;
use crate::test::told::Told;
use crate::{build, fetch, world};

/// What a test program is told by its environment.
type Environment<'a> = &'a [(&'a str, &'a Path)];

/// The laboratory's own cluster, without anything of ours in it.
pub(super) fn cluster(context: &Context<'_>) -> Result<Counts> {
    program(context, "cluster", &["test", "--package=lab", "--test=cluster", "--"], &[])
}

/// What a user types first, from a folder where nothing lies beside the program.
pub(super) fn up(context: &Context<'_>) -> Result<Counts> {
    // What the program builds is built here, so that the test's own times are those of the world.
    build::build(context.cache, context.checkout, context.progress, false)?;
    let xtask = alone(context)?;
    let counts = program(context, "up", &["test", "--package=e2e", "--test=up", "--"], &[("XTASK", &xtask)]);
    fs::remove_file(&xtask).with_context(|| format!("removing {}", xtask.display()))?;
    counts
}

/// Copies this program to a folder of its own.
fn alone(context: &Context<'_>) -> Result<PathBuf> {
    let program = env::current_exe().context("finding this program")?;
    let folder = context.progress.logs().join("program");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let copy = folder.join("xtask");
    fs::copy(&program, &copy).with_context(|| format!("copying {}", program.display()))?;
    Ok(copy)
}

/// Stock nodes on our coordination server and relays.
pub(super) fn mesh(context: &Context<'_>) -> Result<Counts> {
    nodes(context, "stock", "stock")
}

/// Our node, under our command line and the stock one, with a stock node and with its like.
pub(super) fn node(context: &Context<'_>) -> Result<Counts> {
    let pairs = [("towline", "towline"), ("towline", "stock"), ("stock", "towline"), ("mixed", "towline")];
    pairs.into_iter().map(|(laptop, robbinsdale)| nodes(context, laptop, robbinsdale)).sum()
}

fn nodes(context: &Context<'_>, laptop: &str, robbinsdale: &str) -> Result<Counts> {
    let built = build::build(context.cache, context.checkout, context.progress, false)?;
    let title = format!("{laptop} and {robbinsdale} node");
    let (laptop, robbinsdale) = (format!("--laptop={laptop}"), format!("--robbinsdale={robbinsdale}"));
    let command = ["test", "--package=e2e", "--test=mesh", "--", &laptop, &robbinsdale];
    program(context, &title, &command, &[("TOWLINE_BINARY", &built.binary)])
}

/// A coordination server that is killed now and then.
pub(super) fn durability(context: &Context<'_>) -> Result<Counts> {
    kills(context, "durability", "12")
}

/// A coordination server that is killed hundreds of times.
pub(super) fn long(context: &Context<'_>) -> Result<Counts> {
    kills(context, "durability, long", "300")
}

fn kills(context: &Context<'_>, title: &str, count: &str) -> Result<Counts> {
    let built = build::build(context.cache, context.checkout, context.progress, false)?;
    let environment: Environment<'_> = &[("TOWLINE_BINARY", &built.binary), ("TOWLINE_KILLS", Path::new(count))];
    program(context, title, &["test", "--package=e2e", "--test=durability", "--"], environment)
}

/// The stock operator and its proxies on our coordination server and relays.
pub(super) fn stock_operator(context: &Context<'_>) -> Result<Counts> {
    play(context, "stock-operator", &["--operator=stock"])
}

/// Our operator and proxies, with our clients.
pub(super) fn operator(context: &Context<'_>) -> Result<Counts> {
    play(context, "operator", &["--operator=towline", "--laptop=towline", "--robbinsdale=towline"])
}

/// Our operator and proxies, with stock clients on one side or on both.
pub(super) fn clients(context: &Context<'_>) -> Result<Counts> {
    let pairs: [(&str, &str, &[&str]); 3] = [
        ("stock", "stock", &["--row=4", "--row=8", "--row=10", "--row=13"]),
        ("towline", "stock", &["--row=8"]),
        ("stock", "towline", &["--row=8"]),
    ];
    let each = pairs.into_iter().map(|(laptop, robbinsdale, rows)| {
        let title = format!("operator, {laptop} and {robbinsdale} node");
        let (laptop, robbinsdale) = (format!("--laptop={laptop}"), format!("--robbinsdale={robbinsdale}"));
        let cast = ["--operator=towline", &laptop, &robbinsdale];
        play(context, &title, &[&cast, rows].concat())
    });
    each.sum()
}

/// Rows of the walkthrough, by whom the stage's own options name; ours where they don't. Without a row: all.
pub(super) fn walkthrough(context: &Context<'_>) -> Result<Counts> {
    // What is wrong with the options is said before anything is built.
    let arguments = rows_of(context.options)?;
    let ours = not_named(context.options);
    let ours: Vec<&str> = ours.iter().map(String::as_str).collect();
    rows::left_out(&arguments).iter().for_each(|words| context.progress.line(words));
    let on_kubernetes = play(context, "walkthrough", &ours)?;
    if !arguments.rows.is_empty() {
        return Ok(on_kubernetes);
    }
    let built = build::build(context.cache, context.checkout, context.progress, false)?;
    let command: Vec<&str> = ["test", "--package=e2e", "--test=mesh", "--"].into_iter().chain(ours).collect();
    let without = program(context, "walkthrough, devices", &command, &[("TOWLINE_BINARY", &built.binary)])?;
    Ok([on_kubernetes, without].into_iter().sum())
}

/// Our programs, in the roles that the options leave open.
fn not_named(options: &[String]) -> Vec<String> {
    let roles = ROLES.iter().map(|role| format!("--{role}"));
    let open = roles.filter(|role| !options.iter().any(|typed| typed.starts_with(role.as_str())));
    open.map(|role| format!("{role}=towline")).collect()
}

/// What the options of the walkthrough ask for.
///
/// # Errors
/// When it can't be played. Ends the process where help is asked for, or an option is unknown, as for any task.
fn rows_of(options: &[String]) -> Result<Arguments> {
    let arguments = parsed(options).unwrap_or_else(|error| error.exit());
    check(&arguments)?;
    Ok(arguments)
}

/// The options of the walkthrough, read.
pub(crate) fn parsed(options: &[String]) -> Result<Arguments, clap::Error> {
    let program = "cargo xtask test walkthrough".to_owned();
    let matches = command().try_get_matches_from(std::iter::once(&program).chain(options))?;
    Arguments::from_arg_matches(&matches)
}

/// The options of the walkthrough as this task takes them: what they leave open is played by our programs.
fn command() -> Command {
    let command = ROLES.iter().fold(Arguments::command(), |command, role| {
        command.mut_arg(role, |argument| argument.default_value("towline"))
    });
    let numbered = rows::TITLES.iter().enumerate().map(|(at, title)| format!("  {:>2}  {title}\n", at + 1));
    command
        .name("walkthrough")
        .bin_name("cargo xtask test walkthrough")
        .mut_arg("rows", |argument| {
            argument.help("A row to play, 1 to 17, with those that it needs; may be repeated [default: all]")
        })
        .after_help(format!("The rows:\n{}", numbered.collect::<String>()))
}

/// Whose program plays is an option for each of these.
const ROLES: [&str; 3] = ["operator", "laptop", "robbinsdale"];

/// Whether these can play these rows.
pub(crate) fn check(arguments: &Arguments) -> Result<()> {
    rows::chosen(arguments)?;
    arguments.cast()?;
    Ok(())
}

fn play(context: &Context<'_>, title: &str, cast: &[&str]) -> Result<Counts> {
    let built = build::build(context.cache, context.checkout, context.progress, false)?;
    let sources = fetch::stock_sources(context.cache, context.checkout, context.progress)?;
    let environment: Environment<'_> = &[("TOWLINE_BINARY", &built.binary), ("STOCK_SOURCES", &sources)];
    let command: Vec<&str> =
        ["test", "--package=e2e", "--test=walkthrough", "--"].iter().chain(cast).copied().collect();
    program(context, title, &command, environment)
}

/// Runs a test program by Cargo, shows what it says of each scenario as it says it, and counts that.
fn program(context: &Context<'_>, title: &str, arguments: &[&str], environment: Environment<'_>) -> Result<Counts> {
    let init = world::init(context.cache, context.checkout, context.progress)?;
    context.progress.step(title, |step| {
        let mut cargo = context.checkout.cargo(context.cache, step)?;
        cargo.envs(environment.iter().copied()).env("LAB_INIT", init);
        let mut counts = Counts::default();
        let status = step.lines(cargo.args(arguments).args(context.options), |line| {
            let Some(told) = Told::read(line) else { return };
            counts = [counts, told.counts()].into_iter().sum();
            if told.is_shown(context.progress.is_live()) {
                context.progress.line(&told.to_string());
            }
        })?;
        if !status.success() && counts.failed == 0 {
            // It broke off before a scenario could fail.
            counts.failed = 1;
        }
        if counts.failed > 0 {
            let log = fs::read_to_string(step.log()).with_context(|| format!("reading {}", step.log().display()))?;
            let last: Vec<&str> = log.lines().rev().take(60).collect();
            last.iter().rev().for_each(|line| context.progress.line(&format!("  | {line}")));
            context.progress.line(&format!("the whole log is {}", step.log().display()));
        }
        Ok(counts)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_walkthroughs_help_says_what_it_plays_by_whom_and_which_rows_there_are() {
        let help = command().render_long_help().to_string();
        assert!(help.starts_with("Play the walkthrough"), "{help}");
        assert_eq!(help.matches("[default: towline]").count(), 3, "{help}");
        assert!(!help.contains("[default: stock]") && help.contains("\n  17  "), "{help}");
        assert!(help.contains("Usage: cargo xtask test walkthrough"), "{help}");
    }

    #[test]
    fn what_the_options_leave_open_is_played_by_our_programs() {
        let options = ["--laptop=stock", "--row=5"].map(str::to_owned);
        assert_eq!(not_named(&options), ["--operator=towline", "--robbinsdale=towline"]);
        check(&parsed(&options).unwrap()).unwrap();
    }
}
