use std::fmt;

use crate::node::LocalApiError;
use crate::output::{NobodyReads, escape};

/// The command failed for another reason than the ones below.
pub const EXIT_FAILED: u8 = 1;
/// The arguments make no sense together; clap uses the same code.
pub const EXIT_USAGE: u8 = 2;
/// The server or daemon was reached and refused.
pub const EXIT_REFUSED: u8 = 3;
/// The server or daemon could not be reached, or did not answer in time: the same command may work later.
pub const EXIT_UNREACHABLE: u8 = 4;

/// Why a command failed, and the exit code that tells scripts.
#[derive(Debug)]
pub struct Failure {
    /// The exit code of the process.
    pub code: u8,
    /// What to say; nothing when the answer that was printed says it all.
    error: Option<anyhow::Error>,
}

impl Failure {
    /// A mistake in how the command was called.
    pub fn usage(text: impl fmt::Display) -> Self {
        Self { code: EXIT_USAGE, error: Some(anyhow::anyhow!("{text}")) }
    }

    /// A refusal that the command found out itself.
    pub fn refused(text: impl fmt::Display) -> Self {
        Self { code: EXIT_REFUSED, error: Some(anyhow::anyhow!("{text}")) }
    }

    /// The command can't do what it should, and trying again changes nothing.
    pub fn failed(text: impl fmt::Display) -> Self {
        Self { code: EXIT_FAILED, error: Some(anyhow::anyhow!("{text}")) }
    }

    /// Something did not answer in time.
    pub fn unreachable(text: impl fmt::Display) -> Self {
        Self { code: EXIT_UNREACHABLE, error: Some(anyhow::anyhow!("{text}")) }
    }

    /// The answer is "no", and was printed already.
    pub fn told() -> Self {
        Self { code: EXIT_FAILED, error: None }
    }

    /// Whether there is anything left to say.
    pub fn is_told(&self) -> bool {
        self.error.is_none()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.error {
            // Servers and peers wrote parts of it.
            Some(error) => f.write_str(&escape(&format!("{error:#}"))),
            None => Ok(()),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if inner.is_some_and(|inner| inner.is::<NobodyReads>()) {
            return Self::told();
        }
        let code = match error.downcast_ref::<api::ClientError>() {
            Some(api::ClientError::Refused(_)) => EXIT_REFUSED,
            Some(api::ClientError::Unreachable { .. } | api::ClientError::TimedOut { .. }) => EXIT_UNREACHABLE,
            _ => error.downcast_ref::<LocalApiError>().map_or(EXIT_FAILED, LocalApiError::exit_code),
        };
        Self { code, error: Some(error) }
    }
}

impl From<api::ClientError> for Failure {
    fn from(error: api::ClientError) -> Self {
        anyhow::Error::from(error).into()
    }
}

impl From<LocalApiError> for Failure {
    fn from(error: LocalApiError) -> Self {
        anyhow::Error::from(error).into()
    }
}

impl From<std::io::Error> for Failure {
    /// A command's own input and output: nothing else of it ends in a bare I/O error.
    fn from(error: std::io::Error) -> Self {
        anyhow::Error::from(error).context("printing the answer").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_words_do_not_steer_the_terminal() {
        let refusal = api::ClientError::from(api::ApiError::bad_request("line 1\n\u{1b}[2Jall is well\u{202e}"));
        let failure = Failure::from(refusal);
        assert_eq!(failure.code, EXIT_REFUSED);
        assert_eq!(failure.to_string(), "line 1\n\u{fffd}[2Jall is well\u{fffd} (400 Bad Request)");
    }
}
