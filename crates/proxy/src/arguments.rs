use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::health::{self, Unwell};

/// Where sockets are unless the environment says otherwise.
const RUN_FOLDER: &str = "/run/towline";

/// Runs a node in a pod: what a Service or a Connector becomes in the tailnet.
///
/// What it does is said by the pod's environment, which the operator writes.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// The folder of its sockets, for probes and commands.
    #[arg(long, env = "TOWLINE_RUN_FOLDER", default_value = RUN_FOLDER, value_name = "FOLDER", global = true)]
    run_folder: PathBuf,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Command {
    /// Ask the proxy in this pod whether traffic can flow: exit code 0, or one line that says what is missing
    Health {
        /// Ask only whether it answers at all
        #[arg(long)]
        alive: bool,
    },
}

/// What the arguments ask for.
#[derive(Debug, Clone)]
pub enum Task {
    /// To run a proxy with its sockets in this folder.
    Serve(PathBuf),
    /// To ask the one that runs.
    Probe(Probe),
}

/// A question to a proxy that runs.
#[derive(Debug, Clone)]
pub struct Probe {
    socket: PathBuf,
    alive: bool,
}

impl Arguments {
    /// What is asked for.
    pub fn task(self) -> Task {
        match self.command {
            None => Task::Serve(self.run_folder),
            Some(Command::Health { alive }) => Task::Probe(Probe { socket: health_socket(&self.run_folder), alive }),
        }
    }
}

impl Probe {
    /// The probe that this process was started as, exactly as the contract writes it and with nothing besides: known
    /// without building the tree of all arguments, which costs more than asking.
    pub fn of_process() -> Option<Self> {
        let mut arguments = std::env::args_os();
        let [_, first, second] = [arguments.next()?, arguments.next()?, arguments.next()?];
        let flag = arguments.next();
        if arguments.next().is_some() {
            return None;
        }
        let folder = std::env::var_os(kubeapi::environment::RUN_FOLDER);
        Self::written([first.to_str()?, second.to_str()?], flag.as_deref(), folder)
    }

    fn written(words: [&str; 2], flag: Option<&OsStr>, folder: Option<OsString>) -> Option<Self> {
        let alive = match flag {
            None => false,
            Some(flag) if flag == "--alive" => true,
            Some(_) => return None,
        };
        let folder = folder.map_or_else(|| PathBuf::from(RUN_FOLDER), PathBuf::from);
        (words == ["proxy", "health"]).then(|| Self { socket: health_socket(&folder), alive })
    }

    /// Asks.
    ///
    /// # Errors
    /// One line that says what is missing.
    pub fn ask(&self) -> Result<(), Unwell> {
        health::ask(&self.socket, self.alive)
    }
}

pub(crate) fn health_socket(run_folder: &Path) -> PathBuf {
    run_folder.join("proxy.sock")
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;

    fn task(arguments: &[&str]) -> Task {
        let command = Arguments::augment_args(clap::Command::new("proxy"));
        let matches = command.try_get_matches_from([&["proxy"], arguments].concat()).unwrap();
        Arguments::from_arg_matches(&matches).unwrap().task()
    }

    #[test]
    fn the_short_way_to_a_probe_is_the_way_that_the_arguments_go() {
        for (probe, alive) in [(kubeapi::contract::READINESS, false), (kubeapi::contract::LIVENESS, true)] {
            let flag = probe.get(3).map(OsStr::new);
            let found = Probe::written([probe[1], probe[2]], flag, None).unwrap();
            let Task::Probe(asked) = task(&probe[2..]) else { panic!("no probe") };
            assert_eq!((&found.socket, found.alive), (&asked.socket, alive));
        }
        let elsewhere = Probe::written(["proxy", "health"], None, Some("/a".into())).unwrap();
        assert_eq!(elsewhere.socket, Path::new("/a/proxy.sock"));
        assert!(Probe::written(["proxy", "health"], Some(OsStr::new("--help")), None).is_none());
        assert!(Probe::written(["proxy", "run"], None, None).is_none());
    }

    #[test]
    fn the_probes_of_the_contract_are_understood() {
        for (probe, alive) in [(kubeapi::contract::READINESS, false), (kubeapi::contract::LIVENESS, true)] {
            let Task::Probe(asked) = task(&probe[2..]) else { panic!("no probe") };
            assert_eq!((asked.alive, asked.socket.as_path()), (alive, Path::new("/run/towline/proxy.sock")));
        }
        assert!(matches!(task(&[]), Task::Serve(_)));
    }
}
