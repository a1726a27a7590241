//! First process of the laboratory's boxes: see `lab::init`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match lab::init::run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab-init: {error:#}");
            ExitCode::FAILURE
        }
    }
}
