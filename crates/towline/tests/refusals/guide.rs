//! The guide's page of errors quotes what the programs really say.

use std::fs;
use std::path::Path;

/// Pieces of a quoted message that are shorter say nothing: `line` stands everywhere.
const TELLING: usize = 8;

#[test]
fn every_message_in_the_guide_is_in_the_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut code = String::new();
    read_sources(&root.join("crates"), &mut code);
    code.push_str(&definition_messages(&root).join("\n"));
    let guide = fs::read_to_string(root.join("docs/guide/errors.md")).unwrap();
    let rows = guide.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let messages: Vec<&str> = rows.flat_map(|cell| cell.trim_end_matches('`').split("` and `")).collect();
    assert!(messages.len() > 40, "{} messages", messages.len());
    for message in messages {
        let pieces: Vec<&str> = message.split('…').map(str::trim).filter(|piece| piece.len() >= TELLING).collect();
        assert!(!pieces.is_empty() || message.starts_with("line "), "{message:?} quotes too little");
        for piece in pieces {
            assert!(code.contains(piece), "nobody says {piece:?} of {message:?}");
        }
    }
}

#[test]
fn what_the_charts_definitions_refuse_is_in_the_guide() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let guide = fs::read_to_string(root.join("docs/guide/errors.md")).unwrap();
    let messages = definition_messages(&root);
    assert!(messages.len() >= 6, "{messages:?}");
    for message in messages {
        assert!(guide.contains(&format!("`{message}`")), "the guide does not say what {message:?} means");
    }
}

/// What the API server says by the rules of the chart's definitions.
fn definition_messages(root: &Path) -> Vec<String> {
    let mut messages = Vec::new();
    for entry in fs::read_dir(root.join("deploy/chart/templates/crds")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        let of_rules = text.lines().filter_map(|line| line.trim_start().strip_prefix("- message: "));
        messages.extend(of_rules.map(|message| message.trim_matches('\'').replace("''", "'")));
    }
    messages
}

/// All production sources as their strings read: lines that go on joined, quotes without their backslashes.
fn read_sources(folder: &Path, code: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("tests") {
            read_sources(&path, code);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let mut lines = text.lines();
            while let Some(line) = lines.next() {
                let mut line = line.to_owned();
                while line.ends_with('\\') {
                    line.pop();
                    line.push_str(lines.next().unwrap_or_default().trim_start());
                }
                code.push_str(&line.replace("\\\"", "\""));
                code.push('\n');
            }
        }
    }
}
