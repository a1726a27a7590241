//! What was typed wrong, in our words: what comes nearest to it, and where all there is is listed.

use clap::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// What to say of a command or flag that there is not; `None` where the parser's own words are as good.
pub(crate) fn explain(error: &Error) -> Option<String> {
    let text = |kind| match error.get(kind)? {
        ContextValue::String(text) => Some(text.as_str()),
        // The best comes last.
        ContextValue::Strings(texts) => texts.last().map(String::as_str),
        _ => None,
    };
    let usage = error.get(ContextKind::Usage).map(ToString::to_string).unwrap_or_default();
    let command = command_of(&usage);
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let typed = text(ContextKind::InvalidSubcommand)?;
            let nearest = nearest(text(ContextKind::SuggestedSubcommand));
            Some(format!("there is no command `{command} {typed}`{nearest} `{command} --help` lists all"))
        }
        ErrorKind::UnknownArgument => {
            let typed = text(ContextKind::InvalidArg)?;
            let nearest = nearest(text(ContextKind::SuggestedArg));
            let what = if typed.starts_with('-') { "has no flag" } else { "takes no further argument" };
            Some(format!("`{command}` {what} `{typed}`{nearest} `{command} --help` lists all"))
        }
        _ => None,
    }
}

fn nearest(suggested: Option<&str>) -> String {
    suggested.map_or_else(|| ".".to_owned(), |name| format!(": did you mean `{name}`?"))
}

/// The command that a usage is about: its words up to the first that stands for something else.
fn command_of(usage: &str) -> String {
    let words = usage.trim_start().trim_start_matches("Usage:").split_whitespace();
    words.take_while(|word| !word.starts_with(['[', '<', '-'])).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &str) -> Option<String> {
        explain(&crate::command("towline").try_get_matches_from(line.split_whitespace()).unwrap_err())
    }

    #[test]
    fn what_is_mistyped_is_answered_with_what_comes_nearest() {
        for (line, text) in [
            (
                "towline stauts",
                "there is no command `towline stauts`: did you mean `status`? `towline --help` lists all",
            ),
            (
                "towline keys creat",
                "there is no command `towline keys creat`: did you mean `create`? `towline keys --help` lists all",
            ),
            (
                "towline up --advertise-tag=tag:x",
                "`towline up` has no flag `--advertise-tag`: did you mean `--advertise-tags`? `towline up --help` lists all",
            ),
            ("towline zzzzzz", "there is no command `towline zzzzzz`. `towline --help` lists all"),
            ("towline down now", "`towline down` takes no further argument `now`. `towline down --help` lists all"),
        ] {
            assert_eq!(told(line).as_deref(), Some(text), "{line}");
        }
    }

    #[test]
    fn other_mistakes_are_told_in_the_parsers_words() {
        for line in ["towline --help", "towline up --netfilter-mode=some", "towline keys revoke"] {
            assert_eq!(told(line), None, "{line}");
        }
    }
}
