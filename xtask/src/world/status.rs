//! `cargo xtask status`: what runs where, and what is to be done where something is amiss.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use e2e::{ADMIN, Login, LoginState, Overview};
use lab::{Scratch, ScratchWorld};

use super::name::{DEMO, attach, option};
use crate::up::Course;
use crate::{Task, print};

/// Show what runs where in a world; exits with 1 when something is not as it should be
///
/// Says below the tables what is amiss, and the command that helps.
#[derive(Parser)]
#[command(name = "status")]
pub(crate) struct Status {
    /// As JSON
    #[arg(long)]
    json: bool,

    /// The world's name
    #[arg(long, default_value = DEMO)]
    world: String,
}

impl Task for Status {
    fn run(self) -> Result<ExitCode> {
        let scratch = ScratchWorld::all();
        let world = attach(&self.world).inspect_err(|_| note_orphans(&scratch))?;
        let overview = Overview::of(&world)?;
        let course = if world.is_scratch()? { None } else { Some(Course::of(&world)?) };
        let mut problems: Vec<String> = course.and_then(|course| course.problem(&self.world)).into_iter().collect();
        problems.extend(of_overview(&overview));
        if self.json {
            let mut answer = serde_json::to_value(&overview)?;
            answer["problems"] = problems.clone().into();
            print::line(serde_json::to_string_pretty(&answer)?)?;
        } else {
            print::answer(format_args!("{overview}{}", list(&problems)))?;
        }
        note_orphans(&scratch);
        Ok(if overview.is_well() && problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Problems as they stand below the tables.
pub(crate) fn list(problems: &[String]) -> String {
    problems.iter().map(|problem| format!("\n{problem}\n")).collect()
}

/// What is amiss in a world, each with the next step.
pub(crate) fn of_overview(overview: &Overview) -> Vec<String> {
    let world = &overview.boxes.world;
    let option = option(world);
    let boxes = overview.boxes.boxes.iter();
    let gone =
        boxes.clone().filter(|found| found.pid.is_none()).map(|found| format!("The box {} does not run", found.name));
    let amiss = boxes.flat_map(|found| {
        let problems = found.daemons.iter().filter(|daemon| daemon.problem.is_some());
        problems.map(|daemon| format!("{} in the box {} is not ready", daemon.name, found.name))
    });
    let started = gone.chain(amiss).map(|what| format!("{what}: `cargo xtask up{option}` starts it again."));
    started.chain(overview.logins.iter().filter_map(|login| of_login(login, &option))).collect()
}

/// What is amiss with a client. That its daemon has ended is told with its box.
fn of_login(login: &Login, option: &str) -> Option<String> {
    let place = &login.place;
    Some(match &login.state {
        LoginState::In | LoginState::Ended => return None,
        LoginState::Waiting(url) => format!("{place} waits for a login at {url}{}", sign_in(url, option)),
        LoginState::Renewing(url) => {
            format!("{place} waits for a new login at {url} and stays who it is until then{}", sign_in(url, option))
        }
        LoginState::Out => {
            format!("{place} is not logged in: `cargo xtask up{option}` logs it in again, or `towline login` there.")
        }
        LoginState::Unapproved => format!(
            "{place} waits for an administrator: cargo xtask shell control{option} -- towline devices authorize {place}"
        ),
        LoginState::Down => {
            format!("The network of {place} is turned off: cargo xtask shell {place}{option} -- towline up")
        }
        LoginState::Other(state) => {
            format!(
                "The client of {place} is in the state {state:?}: cargo xtask shell {place}{option} -- towline status"
            )
        }
    })
}

fn sign_in(url: &str, option: &str) -> String {
    format!("\n  cargo xtask sign-in {url} --user {ADMIN}{option}   is the person who signs in there")
}

/// Names the worlds whose test was killed, and how they go.
fn note_orphans(scratch: &[Scratch]) {
    for orphan in scratch.iter().filter(|scratch| scratch.owner.is_none()) {
        print::note(format_args!("{}\n", of_orphan(orphan.name.as_str())));
    }
}

fn of_orphan(name: &str) -> String {
    format!(
        "World {name} was left by a test that was killed: the next test removes it, or `cargo xtask down --world {name}`."
    )
}

#[cfg(test)]
mod tests {
    use lab::{BoxStatus, DaemonStatus};

    use super::*;

    fn overview(world: &str, problem: Option<&str>, state: LoginState) -> Overview {
        let daemon =
            DaemonStatus { name: "control".to_owned(), pid: 7, resident_bytes: 0, problem: problem.map(str::to_owned) };
        let control =
            BoxStatus { name: "control".to_owned(), addresses: Vec::new(), pid: Some(1), daemons: vec![daemon] };
        Overview {
            boxes: lab::Status { world: world.to_owned(), boxes: vec![control] },
            devices: Vec::new(),
            logins: vec![Login { place: "laptop".to_owned(), state, user: String::new() }],
            pods: Vec::new(),
            silent: Vec::new(),
        }
    }

    #[test]
    fn where_all_is_well_nothing_is_said() {
        assert_eq!(of_overview(&overview("demo", None, LoginState::In)), Vec::<String>::new());
    }

    #[test]
    fn a_server_that_has_ended_is_told_with_what_starts_it_again() {
        let told = of_overview(&overview("other", Some("it has ended"), LoginState::In));
        assert_eq!(told, ["control in the box control is not ready: `cargo xtask up --world other` starts it again."]);
    }

    #[test]
    fn a_client_that_is_not_in_is_told_with_the_way_in() {
        let told = |state| of_overview(&overview("demo", None, state)).concat();
        let url = "https://control.towline.test/a/x".to_owned();
        assert!(
            told(LoginState::Waiting(url.clone()))
                .contains("cargo xtask sign-in https://control.towline.test/a/x --user ")
        );
        let renewing = told(LoginState::Renewing(url));
        assert!(renewing.starts_with("laptop waits for a new login at https://control.towline.test/a/x and stays "));
        assert!(renewing.contains("cargo xtask sign-in https://control.towline.test/a/x --user "), "{renewing}");
        assert!(told(LoginState::Out).starts_with("laptop is not logged in: `cargo xtask up` logs it in again"));
        assert!(told(LoginState::Down).contains("cargo xtask shell laptop -- towline up"));
        assert_eq!(told(LoginState::Ended), "");
    }

    #[test]
    fn a_world_that_a_killed_test_left_is_named_with_how_it_goes() {
        assert!(of_orphan("scratch-1-0").contains("`cargo xtask down --world scratch-1-0`"));
    }
}
