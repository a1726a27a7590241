use std::fmt;

use crate::TestFailure;
use crate::hujson::{Document, Position, Value};

/// How many problems of one policy are told.
const MOST_PROBLEMS: usize = 20;

/// One thing that is wrong with a policy, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// Where in the policy's text, if it is in the text.
    pub position: Option<Position>,
}

/// Why a policy is refused. The text is what the author reads; an API that speaks the hosted service's protocol sends it
/// as `message`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The text is no policy.
    #[error("{}", lines(.0))]
    Invalid(Vec<Problem>),
    /// The policy fails tests that it contains.
    #[error("test(s) failed")]
    Tests(Vec<TestFailure>),
}

/// Gathers problems while a document is read, so that an author hears of all of them at once.
pub(crate) struct Problems<'a> {
    document: &'a Document,
    found: Vec<Problem>,
}

impl Problem {
    /// A problem that has no place in the text.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), position: None }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some(position) => write!(formatter, "{position}: {}", self.message),
            None => formatter.write_str(&self.message),
        }
    }
}

impl PolicyError {
    /// The problems, if these are why it is refused.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Invalid(problems) => problems,
            Self::Tests(_) => &[],
        }
    }
}

impl From<Problem> for PolicyError {
    fn from(problem: Problem) -> Self {
        Self::Invalid(vec![problem])
    }
}

impl<'a> Problems<'a> {
    pub(crate) fn new(document: &'a Document) -> Self {
        Self { document, found: Vec::new() }
    }

    pub(crate) fn document(&self) -> &'a Document {
        self.document
    }

    /// Adds a problem with a value. Gives `None`, for the `?` of whoever had to have the value.
    pub(crate) fn at<T>(&mut self, value: &Value, message: impl Into<String>) -> Option<T> {
        if !self.is_full() {
            self.found.push(Problem { message: message.into(), position: Some(self.document.position(value)) });
        }
        None
    }

    /// Adds a problem with what stands at a place.
    pub(crate) fn at_position(&mut self, position: Position, message: impl Into<String>) {
        if !self.is_full() {
            self.found.push(Problem { message: message.into(), position: Some(position) });
        }
    }

    /// Whether no more are kept: then nobody has to find words for them.
    pub(crate) fn is_full(&self) -> bool {
        self.found.len() >= MOST_PROBLEMS
    }

    pub(crate) fn position(&self, value: &Value) -> Position {
        self.document.position(value)
    }

    pub(crate) fn finish(mut self) -> Result<(), PolicyError> {
        if self.found.is_empty() {
            return Ok(());
        }
        self.found.sort_by_key(|problem| problem.position);
        Err(PolicyError::Invalid(self.found))
    }
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    lines.join("\n")
}
