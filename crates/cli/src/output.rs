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
    pub fn print<T: Serialize>(&mut self, value: &T, text: impl FnOnce(&T) -> String) -> io::Result<()> {
        match self.format {
            Format::Json => writeln!(self.to, "{}", escape_json(&serde_json::to_string_pretty(value)?))?,
            Format::Text => {
                let text = escape(&text(value));
                write!(self.to, "{text}{}", if text.ends_with('\n') || text.is_empty() { "" } else { "\n" })?;
            }
        }
        self.to.flush()
    }

    /// Prints one of several values as soon as it is there: as a line of JSON, or as `text` says it.
    pub fn line<T: Serialize>(&mut self, value: &T, text: impl FnOnce(&T) -> String) -> io::Result<()> {
        match self.format {
            Format::Json => writeln!(self.to, "{}", escape_json(&serde_json::to_string(value)?))?,
            Format::Text => writeln!(self.to, "{}", escape(&text(value)))?,
        }
        self.to.flush()
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
    eprintln!("{}", escape(text));
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

    #[test]
    fn json_is_the_value_itself() {
        let mut bytes = Vec::new();
        Output::new(Format::Json, &mut bytes).print(&vec![1, 2], |_| unreachable!()).unwrap();
        assert_eq!(serde_json::from_slice::<Vec<u8>>(&bytes).unwrap(), [1, 2]);
    }
}
