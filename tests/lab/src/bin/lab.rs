//! The laboratory by hand: `lab up NAME`, `lab run NAME BOX COMMAND…`, `lab shell NAME BOX`, `lab status NAME`, `lab down NAME`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use lab::{Ended, Event, Options, StepState, World, WorldName};

const USAGE: &str = "\
usage: lab up [--cluster] NAME     make a world, or what is missing of it
       lab run NAME BOX COMMAND…   run a command in a box
       lab shell NAME BOX          open a prompt in a box
       lab status [--json] NAME    what runs where
       lab list                    names of all worlds
       lab down NAME               take a world down";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<ExitCode> {
    match arguments {
        ["up", name] => up(name, Options::boxes()?),
        ["up", "--cluster", name] => up(name, Options::whole()?),
        ["run", name, place, command @ ..] if !command.is_empty() => in_box(name, place, command),
        ["shell", name, place] => {
            World::attach(&WorldName::parse(name)?)?.lab_box(place)?.interactive(&[])?;
            Ok(ExitCode::SUCCESS)
        }
        ["status", name] => {
            let status = World::attach(&WorldName::parse(name)?)?.status()?;
            print!("{status}");
            Ok(if status.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        ["status", "--json", name] => {
            println!("{}", serde_json::to_string_pretty(&World::attach(&WorldName::parse(name)?)?.status()?)?);
            Ok(ExitCode::SUCCESS)
        }
        ["list"] => {
            World::all().iter().for_each(|name| println!("{name}"));
            Ok(ExitCode::SUCCESS)
        }
        ["down", name] => World::down(&WorldName::parse(name)?).map(|()| ExitCode::SUCCESS),
        _ => bail!("{USAGE}"),
    }
}

fn up(name: &str, options: Options) -> Result<ExitCode> {
    let tell = |event: Event| match event.state {
        StepState::Begun => {}
        StepState::Done(took) => eprintln!("{:<24} {:>6} ms", event.step, took.as_millis()),
        StepState::Failed(took) => eprintln!("{:<24} failed after {} ms", event.step, took.as_millis()),
    };
    print!("{}", World::up(&WorldName::parse(name)?, &options, &tell)?.status()?);
    Ok(ExitCode::SUCCESS)
}

fn in_box(name: &str, place: &str, command: &[&str]) -> Result<ExitCode> {
    let lab_box = World::attach(&WorldName::parse(name)?)?.lab_box(place)?;
    let output = lab_box.command(command.iter().copied()).finish()?;
    print!("{}", output.stdout);
    eprint!("{}", output.stderr);
    Ok(match output.ended {
        Ended::Exit(status) => ExitCode::from(u8::try_from(status).unwrap_or(1)),
        Ended::Signal(_) => ExitCode::FAILURE,
    })
}
