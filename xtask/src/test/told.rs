use std::fmt;

use crate::test::stage::Counts;

/// A line of a test program about what it does, in the words of the crate `e2e`'s `Checks`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told<'a> {
    /// A scenario begins.
    Begins(&'a str),
    /// A step of a scenario begins.
    Now(&'a str),
    /// A step of a scenario is done, after a time.
    Done(&'a str),
    /// A scenario has ended, well or not.
    Ended { well: bool, name: &'a str },
}

impl<'a> Told<'a> {
    /// Reads a line; none where it is of something else.
    pub(super) fn read(line: &'a str) -> Option<Self> {
        // The first word stands in a column of its own.
        let (word, rest) = line.split_at_checked(7)?;
        match word {
            "begin  " => Some(Self::Begins(rest)),
            "now    " => Some(Self::Now(rest)),
            "done   " => Some(Self::Done(rest)),
            "ok     " => Some(Self::Ended { well: true, name: rest }),
            "FAILED " => Some(Self::Ended { well: false, name: rest }),
            _ => None,
        }
    }

    /// What passed and what failed by it.
    pub(super) fn counts(&self) -> Counts {
        match self {
            Self::Ended { well, .. } => Counts::one(*well),
            Self::Begins(_) | Self::Now(_) | Self::Done(_) => Counts::default(),
        }
    }

    /// Whether it gets a line of its own. On a terminal the live line shows what is being done, and only how it ended stays.
    pub(super) fn is_shown(&self, live: bool) -> bool {
        match self {
            Self::Ended { .. } => true,
            Self::Begins(_) | Self::Done(_) => !live,
            Self::Now(_) => false,
        }
    }
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begins(name) => write!(f, "  begin  {name}"),
            Self::Now(step) => write!(f, "         {step} …"),
            Self::Done(step) => write!(f, "         {step}"),
            Self::Ended { well: true, name } => write!(f, "  ok     {name}"),
            Self::Ended { well: false, name } => write!(f, "  FAILED {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ends_count() {
        let counts = |line| Told::read(line).map(|told| told.counts());
        assert_eq!(counts("ok     a pod answers"), Some(Counts { passed: 1, failed: 0 }));
        assert_eq!(counts("FAILED a pod answers"), Some(Counts { passed: 0, failed: 1 }));
        assert_eq!(counts("begin  a pod answers"), Some(Counts::default()));
        for line in ["test result: ok. 1 passed; 0 failed", "", "ok", "öööööök"] {
            assert_eq!(Told::read(line), None, "{line}");
        }
    }

    #[test]
    fn without_a_terminal_each_begin_and_step_has_a_line_and_on_one_only_the_ends() {
        let lines = ["begin  row 7", "now    boxes", "done   boxes (0.4 s)", "ok     row 7 (1.0 s)"];
        let shown = |live| {
            let told = lines.iter().filter_map(|line| Told::read(line)).filter(|told| told.is_shown(live));
            told.map(|told| told.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(shown(true), ["  ok     row 7 (1.0 s)"]);
        assert_eq!(shown(false), ["  begin  row 7", "         boxes (0.4 s)", "  ok     row 7 (1.0 s)"]);
    }
}
