//! The stock operator with its stock proxies, unchanged, on our coordination server and relays.

use std::process::ExitCode;

use e2e::{Cast, Checks, Client, Operator, Stage, rows};

const CAST: Cast = Cast { operator: Operator::stock, laptop: Client::stock, robbinsdale: Client::stock };

fn main() -> ExitCode {
    Checks::main(|checks| {
        let title = "the world is up, with our server, two devices and the images";
        let Some(stage) = checks.timed(title, |marks| Stage::set(&CAST, marks)) else { return Ok(()) };
        rows::install::play(&stage, checks);
        rows::egress::play(&stage, checks);
        rows::connector::play(&stage, checks);
        rows::expose::play(&stage, checks);
        rows::exit_node::play(&stage, checks);
        rows::trouble::play(&stage, checks);
        rows::refusal::play(&stage, checks);
        rows::credentials::play(&stage, checks);
        rows::removal::play(&stage, checks);
        Ok(())
    })
}
