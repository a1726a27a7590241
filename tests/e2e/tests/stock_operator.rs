//! The stock operator with its stock proxies, unchanged, on our coordination server and relays.

use std::process::ExitCode;

use e2e::{Checks, Marks, Operator, Stage, rows};

fn main() -> ExitCode {
    Checks::main(|checks| {
        let set = |marks: &mut Marks| Stage::set(|world| Operator::stock(world), marks);
        let Some(stage) = checks.timed("the world is up, with our server, two devices and the images", set) else {
            return Ok(());
        };
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
