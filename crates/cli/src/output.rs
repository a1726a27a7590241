use std::io::{self, Write};

use clap::{Args, ValueEnum};
use serde::Serialize;

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people: a table, or a sentence.
    #[default]
    Text,
    /// For programs: the answer as JSON.
    Json,
}

/// The option that every command has.
#[derive(Debug, Clone, Copy, Args)]
pub struct OutputArguments {
    /// How to print the answer
    #[arg(short, long, value_enum, global = true, default_value_t, value_name = "FORMAT")]
    pub output: Format,
}

/// Whoever read the answer has enough, as in `towline status | head -1`: nothing is wrong, and nothing is to be said.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads the answer")]
pub struct NobodyReads;

/// Where a command prints its answer, once.
#[derive(Debug)]
pub struct Output<W> {
    format: Format,
    to: W,
}

impl<W: Write> Output<W> {
    /// Prints to `to` in this format.
    pub fn new(format: Format, to: W) -> Self {
        Self { format, to }
    }

    /// Prints a value: as JSON, or as `text` says it.
    ///
    /// # Errors
    /// When it can't be written; with [`NobodyReads`] inside where whoever read has enough.
    pub fn print<T: Serialize>(&mut self, value: &T, text: impl FnOnce(&T) -> String) -> io::Result<()> {
        match self.format {
            Format::Json => {
                let json = escape_json(&serde_json::to_string_pretty(value)?);
                self.write(&format!("{json}\n"))
            }
            Format::Text => self.write(&ended(escape(&text(value)))),
        }
    }

    /// As [`Output::print`], for a text whose first part `paint` gives colours, where a terminal shows it and its user wants
    /// some.
    ///
    /// # Errors
    /// As [`Output::print`].
    pub(crate) fn print_painted<T: Serialize>(
        &mut self,
        value: &T,
        [painted, rest]: [&str; 2],
        paint: impl FnOnce(&str) -> String,
    ) -> io::Result<()> {
        match self.format {
            Format::Json => self.print(value, |_| String::new()),
            Format::Text if has_colours(&io::stdout()) => {
                self.write(&ended(format!("{}{}", paint(&escape(painted)), escape(rest))))
            }
            Format::Text => self.print(value, |_| format!("{painted}{rest}")),
        }
    }

    /// Prints one of several values as soon as it is there: as a line of JSON, or as `text` says it.
    ///
    /// # Errors
    /// As [`Output::print`].
    pub fn line<T: Serialize>(&mut self, value: &T, text: impl FnOnce(&T) -> String) -> io::Result<()> {
        let line = match self.format {
            Format::Json => escape_json(&serde_json::to_string(value)?),
            Format::Text => escape(&text(value)),
        };
        self.write(&format!("{line}\n"))
    }

    /// Prints what this program made itself, such as a script, as it is.
    ///
    /// # Errors
    /// As [`Output::print`].
    pub fn write(&mut self, text: &str) -> io::Result<()> {
        let written = self.to.write_all(text.as_bytes()).and_then(|()| self.to.flush());
        written.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => io::Error::new(io::ErrorKind::BrokenPipe, NobodyReads),
            _ => error,
        })
    }

    /// Whether answers are printed as JSON.
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Prints JSON from here on, if a command's own `--json` says so.
    pub fn prefer_json(&mut self, json: bool) {
        if json {
            self.format = Format::Json;
        }
    }
}

/// Tells something beside the answer, on standard error.
pub(crate) fn note(text: &str) {
    // Nobody is told where nobody reads.
    let _ = writeln!(io::stderr(), "{}", escape(text));
}

/// As [`note`], for a text whose first part `paint` gives colours.
pub(crate) fn note_painted([painted, rest]: [&str; 2], paint: impl FnOnce(&str) -> String) {
    let painted = if has_colours(&io::stderr()) { paint(&escape(painted)) } else { escape(painted) };
    let text = format!("{painted}{}", escape(rest));
    // Nobody is told where nobody reads, or where there is nothing to tell.
    let _ = io::stderr().write_all(ended(text).as_bytes());
}

/// Whether a terminal reads that shows colours, and nobody has forbidden them (<https://no-color.org>).
fn has_colours(to: &impl io::IsTerminal) -> bool {
    let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|terminal| terminal.is_empty() || terminal == "dumb");
    to.is_terminal() && !forbidden && !dumb
}

/// The text with the end of its last line.
fn ended(text: String) -> String {
    let end = if text.ends_with('\n') || text.is_empty() { "" } else { "\n" };
    text + end
}

/// Names and texts come from other people: nothing of them may steer a terminal.
pub(crate) fn escape(text: &str) -> String {
    text.chars()
        .map(|letter| if steers(letter) && !matches!(letter, '\n' | '\t') { '\u{fffd}' } else { letter })
        .collect()
}

/// Whether a terminal takes a letter for a command, or for the end of the reading direction.
fn steers(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// JSON escapes what lies below the space; the other letters that steer a terminal can only stand in its texts.
fn escape_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if steers(letter) && letter != '\n' {
            out.push_str(&format!("\\u{:04x}", letter as u32));
        } else {
            out.push(letter);
        }
    }
    out
}

/// Rows under headings, each column as wide as its widest cell.
#[derive(Debug, Clone)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub fn new<const N: usize>(headings: [&str; N]) -> Self {
        Self { rows: vec![headings.map(str::to_owned).to_vec()] }
    }

    /// Adds a row; an empty cell shows as `-`.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        let cells = cells.map(|cell| if cell.is_empty() { "-".to_owned() } else { cell });
        self.rows.push(cells.to_vec());
    }

    /// Whether there is nothing under the headings.
    pub fn is_empty(&self) -> bool {
        self.rows.len() <= 1
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_an_empty_cell_shows() {
        let mut table = Table::new(["NAME", "TAGS"]);
        table.row(["a".into(), String::new()]);
        table.row(["longer".into(), "tag:x".into()]);
        assert_eq!(table.to_string(), "NAME    TAGS\na       -\nlonger  tag:x\n");
    }

    #[test]
    fn a_hostile_name_does_not_steer_the_terminal() {
        let mut bytes = Vec::new();
        Output::new(Format::Text, &mut bytes).print(&"a\u{1b}[2Jb", |text| (*text).to_owned()).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), "a\u{fffd}[2Jb\n");
    }

    #[test]
    fn a_hostile_name_does_not_steer_the_terminal_from_within_json_either() {
        let mut bytes = Vec::new();
        Output::new(Format::Json, &mut bytes).print(&"\u{9b}2J\u{202e}b", |_| unreachable!()).unwrap();
        assert_eq!(String::from_utf8(bytes.clone()).unwrap(), "\"\\u009b2J\\u202eb\"\n");
        assert_eq!(serde_json::from_slice::<String>(&bytes).unwrap(), "\u{9b}2J\u{202e}b");
    }

    /// A pipe whose reader has gone.
    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_who_has_enough_hears_no_complaint() {
        let printed = Output::new(Format::Json, Closed).print(&1, |_| unreachable!());
        let failure = crate::Failure::from(anyhow::Error::from(printed.unwrap_err()).context("printing the answer"));
        assert!(failure.is_told());
        // Another pipe that breaks is a failure like any other.
        let other = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).context("asking the daemon");
        assert!(!crate::Failure::from(other).is_told());
    }

    #[test]
    fn json_is_the_value_itself() {
        let mut bytes = Vec::new();
        Output::new(Format::Json, &mut bytes).print(&vec![1, 2], |_| unreachable!()).unwrap();
        assert_eq!(serde_json::from_slice::<Vec<u8>>(&bytes).unwrap(), [1, 2]);
    }
}
