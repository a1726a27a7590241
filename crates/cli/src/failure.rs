use std::fmt;

/// The command failed for another reason than the ones below.
const EXIT_FAILED: u8 = 1;
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
    error: anyhow::Error,
}

impl Failure {
    /// A mistake in how the command was called.
    pub fn usage(text: impl fmt::Display) -> Self {
        Self { code: EXIT_USAGE, error: anyhow::anyhow!("{text}") }
    }

    /// A refusal that the command found out itself.
    pub fn refused(text: impl fmt::Display) -> Self {
        Self { code: EXIT_REFUSED, error: anyhow::anyhow!("{text}") }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let code = match error.downcast_ref::<api::ClientError>() {
            Some(api::ClientError::Refused(_)) => EXIT_REFUSED,
            Some(api::ClientError::Unreachable { .. } | api::ClientError::TimedOut { .. }) => EXIT_UNREACHABLE,
            _ => EXIT_FAILED,
        };
        Self { code, error }
    }
}

impl From<api::ClientError> for Failure {
    fn from(error: api::ClientError) -> Self {
        anyhow::Error::from(error).into()
    }
}
