use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// Text when standard error is a terminal, JSON otherwise.
    #[default]
    Auto,
    /// One line of text per event, for people.
    Text,
    /// One JSON object per line, for programs.
    Json,
}

/// The logging flags that every role takes.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct LogArguments {
    /// What to log: a level (error, warn, info, debug, trace), or levels per part, as in `info,control::machine=debug`.
    #[arg(
        long,
        global = true,
        env = "TOWLINE_LOG",
        default_value = "info",
        value_name = "FILTER",
        help_heading = "Logging"
    )]
    pub log: String,

    /// How a log line looks; `auto` writes text on a terminal and JSON elsewhere.
    #[arg(
        long,
        global = true,
        env = "TOWLINE_LOG_FORMAT",
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        help_heading = "Logging"
    )]
    pub log_format: LogFormat,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter has a directive that does not parse.
    #[error(
        "the log filter {filter:?} is not valid ({reason}); write a level, or part=level pairs separated by commas"
    )]
    Filter {
        /// The filter as given.
        filter: String,
        /// What the parser said.
        reason: String,
    },
    /// Something else in the process has installed a logger before.
    #[error("logging is already set up in this process")]
    AlreadyInstalled,
}

impl LogArguments {
    /// Sends the process's log events to standard error from now on.
    pub fn install(&self) -> Result<(), LogError> {
        let filter = self.filter()?;
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        let terminal = std::io::stderr().is_terminal();
        let installed = if self.wants_json(terminal) {
            builder.json().flatten_event(true).with_current_span(true).with_span_list(false).finish().try_init()
        } else {
            builder.with_ansi(terminal).finish().try_init()
        };
        installed.map_err(|_| LogError::AlreadyInstalled)
    }

    fn filter(&self) -> Result<EnvFilter, LogError> {
        EnvFilter::builder()
            .parse(&self.log)
            .map_err(|error| LogError::Filter { filter: self.log.clone(), reason: error.to_string() })
    }

    fn wants_json(&self, terminal: bool) -> bool {
        match self.log_format {
            LogFormat::Auto => !terminal,
            LogFormat::Text => false,
            LogFormat::Json => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(log: &str, log_format: LogFormat) -> LogArguments {
        LogArguments { log: log.to_owned(), log_format }
    }

    #[test]
    fn a_filter_that_does_not_parse_is_named() {
        let error = arguments("control=loudly", LogFormat::Auto).install().unwrap_err();
        assert!(error.to_string().contains("control=loudly"), "{error}");
    }

    #[test]
    fn a_filter_may_name_parts() {
        assert!(arguments("info,control::machine=debug", LogFormat::Auto).filter().is_ok());
    }

    #[test]
    fn people_read_text_and_programs_read_json() {
        assert!(!arguments("info", LogFormat::Auto).wants_json(true));
        assert!(arguments("info", LogFormat::Auto).wants_json(false));
        assert!(arguments("info", LogFormat::Json).wants_json(true));
        assert!(!arguments("info", LogFormat::Text).wants_json(false));
    }
}
