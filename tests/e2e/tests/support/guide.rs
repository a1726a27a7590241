//! The commands that the readme and the guide show, for the tests of the programs that they name.

use std::fs;
use std::path::Path;

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

/// All commands of the readme and the guide; `repository` is where the readme lies.
pub(crate) fn commands(repository: &Path) -> Vec<Shown> {
    let guide = fs::read_dir(repository.join("docs/guide")).unwrap().map(|entry| entry.unwrap().path());
    let pages = guide.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let mut pages: Vec<_> = pages.chain([repository.join("README.md")]).collect();
    pages.sort();
    pages.iter().flat_map(|page| of_page(&page.display().to_string(), &fs::read_to_string(page).unwrap())).collect()
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
            (None, None) => {
                let quoted = line.split('`').skip(1).step_by(2);
                found.extend(quoted.map(|text| Shown { place: place.clone(), words: words(text), whole: false }));
            }
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
