//! What tasks tell, on standard output and beside it.
//!
//! A reader may have enough before a task has said all, as in `cargo xtask status | head -1`. That is no failure of the task:
//! it does its work to the end and exits as it would have. The macros of the standard library would break it off.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use anyhow::{Context, Result};

/// Prints an answer.
///
/// # Errors
/// When it can't be written, as on a full disk; a reader who has gone is none.
pub(crate) fn answer(text: impl Display) -> Result<()> {
    write(&mut io::stdout(), &text.to_string()).context("printing the answer")
}

/// Prints a line of an answer.
///
/// # Errors
/// As [`answer`].
pub(crate) fn line(text: impl Display) -> Result<()> {
    answer(format_args!("{text}\n"))
}

/// Tells something beside the answer, on standard error. Nobody is told where nobody reads.
pub(crate) fn note(text: impl Display) {
    let mut to = io::stderr();
    let _ = write!(to, "{text}").and_then(|()| to.flush());
}

fn write(to: &mut impl Write, text: &str) -> io::Result<()> {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Failing(ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_a_reader_who_has_gone_is_no_failure() {
        assert!(write(&mut Failing(ErrorKind::BrokenPipe), "a line\n").is_ok());
        assert!(write(&mut Failing(ErrorKind::StorageFull), "a line\n").is_err());
    }
}
