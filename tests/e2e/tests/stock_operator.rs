//! The stock operator with its stock proxies, unchanged, on our coordination server and relays.

use std::process::ExitCode;

use e2e::{Checks, Operator, Stage, rows};

fn main() -> ExitCode {
    Checks::main(|checks| {
        let stage = Stage::set(|world| Operator::stock(world))?;
        rows::install::play(&stage, checks);
        rows::egress::play(&stage, checks);
        rows::connector::play(&stage, checks);
        rows::expose::play(&stage, checks);
        rows::exit_node::play(&stage, checks);
        rows::removal::play(&stage, checks);
        Ok(())
    })
}
