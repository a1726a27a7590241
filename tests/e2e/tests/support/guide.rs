//! The commands that the readme, the guide and what is deployed show, for the tests of the programs that they name.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Error;
use clap::error::ErrorKind;

/// A command as a document shows it.
pub(crate) struct Shown {
    /// File and line.
    pub(crate) place: String,
    /// Its words, the program first.
    pub(crate) words: Vec<String>,
    /// Whether it is to be typed as it stands; within a sentence its name may stand for it.
    pub(crate) whole: bool,
}

impl Shown {
    /// Whether the program takes the command, where its arguments were refused with this error.
    pub(crate) fn stands(&self, error: &Error) -> bool {
        let wrong = [ErrorKind::UnknownArgument, ErrorKind::InvalidSubcommand, ErrorKind::ArgumentConflict];
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => true,
            kind => !self.whole && !wrong.contains(&kind),
        }
    }
}

/// All commands of the pages in the repository that people read; `repository` is where the readme lies.
pub(crate) fn commands(repository: &Path) -> Vec<Shown> {
    let with = |folder: &str, extension: &str| {
        let entries = fs::read_dir(repository.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> =
            entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
        files.sort();
        files
    };
    let pages = ["README.md", "CONTRIBUTING.md"].map(|name| repository.join(name));
    let pages = pages.into_iter().chain(with("docs/guide", "md"));
    let notes = with("deploy/chart/templates", "txt");
    let commented = [
        with("deploy/manifests", "yaml"),
        with("deploy/systemd", "service"),
        with("deploy/systemd", "env"),
        with("deploy/systemd", "sysusers"),
        with("deploy/chart", "yaml"),
        with("deploy/chart/templates", "yaml"),
    ];
    let read = |path: &PathBuf, of: fn(&str, &str) -> Vec<Shown>| {
        of(&path.display().to_string(), &fs::read_to_string(path).unwrap())
    };
    let mut found: Vec<Shown> = pages.flat_map(|path| read(&path, of_page)).collect();
    found.extend(notes.iter().flat_map(|path| read(path, of_notes)));
    found.extend(commented.concat().iter().flat_map(|path| read(path, of_comments)));
    found
}

/// What a release says of itself: commands are indented, and a template's values stand for words.
fn of_notes(name: &str, text: &str) -> Vec<Shown> {
    let lines = text.lines().enumerate().filter(|(_, line)| line.starts_with("  "));
    lines
        .map(|(number, line)| {
            let pieces = line.split("{{").enumerate().map(|(index, piece)| match index {
                0 => piece.to_owned(),
                _ => format!("value{}", piece.split_once("}}").map_or("", |(_, rest)| rest)),
            });
            let line: String = pieces.collect();
            Shown { place: format!("{name}:{}", number + 1), words: words(&line), whole: true }
        })
        .collect()
}

/// What comments show: commands on lines of their own, further in than prose, and others within it.
fn of_comments(name: &str, text: &str) -> Vec<Shown> {
    let comments = text.lines().enumerate().filter_map(|(number, line)| Some((number, line.trim().strip_prefix('#')?)));
    comments
        .flat_map(|(number, comment)| {
            let place = format!("{name}:{}", number + 1);
            match comment.strip_prefix("   ") {
                Some(command) => vec![of_line(place, command)],
                None => of_prose(&place, comment),
            }
        })
        .collect()
}

/// A command on a line of its own; one that is cut short, by three dots, is not to be typed as it stands.
fn of_line(place: String, line: &str) -> Shown {
    let shown = line.trim_end_matches('…');
    Shown { place, words: words(shown), whole: shown == line }
}

fn of_prose(place: &str, line: &str) -> Vec<Shown> {
    let quoted = line.split('`').skip(1).step_by(2);
    quoted.map(|text| Shown { place: place.to_owned(), words: words(text), whole: false }).collect()
}

fn of_page(name: &str, text: &str) -> Vec<Shown> {
    let mut found = Vec::new();
    // The language of the block around a line, were there one.
    let mut block: Option<String> = None;
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let place = format!("{name}:{}", number + 1);
        let line = line.trim();
        match (line.strip_prefix("```"), block.as_deref()) {
            (Some(_), Some(_)) => block = None,
            (Some(language), None) => block = Some(language.to_owned()),
            (None, Some("console")) => {
                let prompt = line.strip_prefix("$ ").or_else(|| line.strip_prefix("# "));
                let Some(mut command) = prompt.map(str::to_owned) else { continue };
                while let Some(begun) = command.strip_suffix('\\') {
                    let next = lines.next().unwrap_or_else(|| panic!("{place} ends in the middle")).1;
                    command = format!("{begun}{}", next.trim());
                }
                found.push(Shown { place, words: words(&command), whole: true });
            }
            (None, Some(_)) => {}
            (None, None) => found.extend(of_prose(&place, line)),
        }
    }
    found
}

/// The words of the command itself: without settings before it, and without what the shell does with it.
fn words(line: &str) -> Vec<String> {
    let is_setting = |word: &str| {
        word.split_once('=').is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
    };
    let words = line.split_whitespace().skip_while(|word| is_setting(word));
    words.take_while(|word| !["#", "&", "|", ">"].contains(word)).map(str::to_owned).collect()
}
