//! The table of allowed dependencies, as ARCHITECTURE.md has it.

use std::collections::{BTreeMap, BTreeSet};

use crate::tidy::Violation;

/// The file with the table.
pub(super) const FILE: &str = "ARCHITECTURE.md";

/// Which crate may depend on which, and which crates may name a library.
#[derive(Default)]
pub(super) struct Table {
    edges: BTreeMap<String, Row>,
    only: BTreeMap<String, BTreeSet<String>>,
}

struct Row {
    line: usize,
    pure: bool,
    allowed: BTreeSet<String>,
}

impl Table {
    /// Reads the blocks `edges` (`crate: dependency dependency`, a pure crate with `*` in front) and `only`
    /// (`library: crate crate`) and checks them against themselves.
    pub(super) fn parse(text: &str) -> (Self, Vec<Violation>) {
        let mut table = Self::default();
        let mut violations = Vec::new();
        let mut block = None;
        let mut seen = BTreeSet::new();
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            if let Some(fence) = line.trim_start().strip_prefix("```") {
                block = if block.is_some() { None } else { Some(fence.trim()) };
                seen.extend(block);
                continue;
            }
            let (Some(kind @ ("edges" | "only")), false) = (block, line.trim().is_empty()) else { continue };
            let Some((name, list)) = line.split_once(':') else {
                violations.push(Violation::new(
                    FILE,
                    number,
                    format!("{line:?} is no `name: names` of the block {kind}"),
                ));
                continue;
            };
            let list: BTreeSet<String> =
                list.split([' ', ',']).filter(|name| !name.is_empty()).map(str::to_owned).collect();
            let name = name.trim();
            let twice = if kind == "edges" {
                let row = Row { line: number, pure: name.starts_with('*'), allowed: list };
                table.edges.insert(name.trim_start_matches('*').to_owned(), row).is_some()
            } else {
                table.only.insert(name.to_owned(), list).is_some()
            };
            if twice {
                violations.push(Violation::new(FILE, number, format!("{name} has two lines in the block {kind}")));
            }
        }
        for kind in ["edges", "only"].into_iter().filter(|kind| !seen.contains(kind)) {
            violations.push(Violation::new(FILE, 1, format!("it has no fenced block called {kind}")));
        }
        violations.extend(table.contradictions());
        (table, violations)
    }

    /// The crates that `name` may depend on; none when the table has no line for it.
    pub(super) fn allowed(&self, name: &str) -> Option<&BTreeSet<String>> {
        self.edges.get(name).map(|row| &row.allowed)
    }

    pub(super) fn is_pure(&self, name: &str) -> bool {
        self.edges.get(name).is_some_and(|row| row.pure)
    }

    /// The only crates that may name a library; none when all may.
    pub(super) fn only(&self, library: &str) -> Option<&BTreeSet<String>> {
        self.only.get(library)
    }

    fn contradictions(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        for (name, row) in &self.edges {
            for other in &row.allowed {
                match self.edges.get(other) {
                    None => violations.push(Violation::new(
                        FILE,
                        row.line,
                        format!("{name} is allowed {other}, which has no line of its own"),
                    )),
                    Some(other_row) if row.pure && !other_row.pure => violations.push(Violation::new(
                        FILE,
                        row.line,
                        format!("{name} is pure and may not be allowed {other}, which is not"),
                    )),
                    Some(_) => {}
                }
            }
        }
        violations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "```edges\n*crypto:\n*packet: crypto\nhost: packet\n```\n\n```only\nsqlx: host\n```\n";

    fn messages(text: &str) -> String {
        Table::parse(text).1.iter().map(|violation| format!("{violation}\n")).collect()
    }

    #[test]
    fn the_blocks_are_read() {
        let (table, violations) = Table::parse(TEXT);
        assert!(violations.is_empty(), "{violations:?}");
        assert!(table.is_pure("crypto") && !table.is_pure("host"));
        assert!(table.allowed("host").unwrap().contains("packet") && table.allowed("new").is_none());
        assert!(table.only("sqlx").unwrap().contains("host") && table.only("serde").is_none());
    }

    #[test]
    fn a_pure_crate_may_not_be_allowed_a_shell() {
        let text = TEXT.replace("*packet: crypto", "*packet: host");
        assert_eq!(messages(&text), "ARCHITECTURE.md:3: packet is pure and may not be allowed host, which is not\n");
    }

    #[test]
    fn an_unknown_name_and_a_missing_block_are_named() {
        assert!(messages(&TEXT.replace("host: packet", "host: pocket")).contains("pocket, which has no line"));
        assert!(messages("# Nothing").contains("no fenced block called edges"));
    }

    #[test]
    fn two_lines_for_one_crate_are_named() {
        assert!(messages(&TEXT.replace("host: packet", "host: packet\nhost:")).contains("two lines"));
    }
}
