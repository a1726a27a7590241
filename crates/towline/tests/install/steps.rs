//! The steps that a page of the guide shows.

use std::fs;
use std::path::Path;

/// The commands for root below a heading of a page, each as a line for a shell.
pub(crate) fn below(page: &str, heading: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide").join(page);
    let text = fs::read_to_string(path).unwrap();
    let (mut block, mut below, mut commands) = (false, false, Vec::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("```") {
            block = !block;
        } else if !block && line.starts_with('#') {
            below = line == heading;
        } else if let (true, true, Some(command)) = (block, below, line.strip_prefix("# ")) {
            let mut command = command.to_owned();
            while let Some(begun) = command.strip_suffix('\\') {
                command = format!("{begun}{}", lines.next().unwrap().trim());
            }
            commands.push(command);
        }
    }
    assert!(!commands.is_empty(), "{page} has no commands below {heading:?}");
    commands
}
