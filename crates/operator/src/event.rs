use serde::Serialize;

/// An event to be published about an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// Whether somebody must do something.
    pub warning: bool,
    /// A word in PascalCase.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// The longest message that the API server takes.
const MAX_MESSAGE: usize = 1024;

impl Note {
    /// Somebody must do something.
    pub fn warning(reason: &str, message: &str) -> Self {
        Self::new(true, reason, message)
    }

    /// Good to know.
    pub fn normal(reason: &str, message: &str) -> Self {
        Self::new(false, reason, message)
    }

    fn new(warning: bool, reason: &str, message: &str) -> Self {
        let end = (0..=message.len().min(MAX_MESSAGE)).rev().find(|end| message.is_char_boundary(*end));
        Self { warning, reason: reason.to_owned(), message: message[..end.unwrap_or_default()].to_owned() }
    }
}
