//! Rules about files and lines.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::checkout::Checkout;
use crate::tidy::Violation;
use crate::tidy::table::Table;

/// Longest `lib.rs`, in lines.
const LIB_LINES: usize = 100;

/// Longest file of production code, in lines. Half of it is the aim.
const FILE_LINES: usize = 800;

/// Hosts of package registries, in two parts each so that this file passes its own rule.
const REGISTRY_HOSTS: &[(&str, &str)] = &[
    ("proxy.golang", ".org"),
    ("sum.golang", ".org"),
    ("index.crates", ".io"),
    ("static.crates", ".io"),
    ("deb.debian", ".org"),
    ("security.debian", ".org"),
    ("snapshot.debian", ".org"),
    ("pypi", ".org"),
    ("pythonhosted", ".org"),
    ("registry.npmjs", ".org"),
    (".pkg", ".dev"),
];

/// Folders that only some people's machines have.
const MACHINE_FOLDERS: &[&str] = &["root", "work", "home"];

/// What a pure crate may not name, and what it is.
const IMPURE: &[(&str, &str)] = &[
    ("std::fs", "files"),
    ("std::env", "environment"),
    ("std::process", "processes"),
    ("std::thread", "threads"),
    ("net::TcpStream", "sockets"),
    ("net::TcpListener", "sockets"),
    ("net::UdpSocket", "sockets"),
    ("Instant::now(", "clock"),
    ("SystemTime::now(", "clock"),
    ("Timestamp::now(", "clock"),
];

pub(super) fn check(checkout: &Checkout, table: &Table) -> Result<Vec<Violation>> {
    let mut violations = Vec::new();
    for file in checkout.files()? {
        let path = checkout.path(&file);
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        // What is not text has no lines to break rules with.
        let Ok(text) = String::from_utf8(bytes) else { continue };
        violations.extend(check_file(&file, &text, table));
    }
    Ok(violations)
}

fn check_file(file: &str, text: &str, table: &Table) -> Vec<Violation> {
    let mut violations = Vec::new();
    let name = Path::new(file).file_name().unwrap_or_default();
    if name == "mod.rs" {
        violations.push(Violation::new(file, 1, "no file is called mod.rs: thing.rs stands beside thing/"));
    }
    if name == "lib.rs" && text.lines().count() > LIB_LINES {
        let message =
            format!("lib.rs has {} lines, {LIB_LINES} at most: move items into modules", text.lines().count());
        violations.push(Violation::new(file, LIB_LINES + 1, message));
    }
    let production = production_lines(file, text);
    if production > FILE_LINES {
        let message = format!("{production} lines before its tests, {FILE_LINES} at most: a file is one noun");
        violations.push(Violation::new(file, FILE_LINES + 1, message));
    }
    if name != "go.sum" && name != "Cargo.lock" {
        violations.extend(check_lines(file, text, table));
    }
    violations
}

fn check_lines(file: &str, text: &str, table: &Table) -> Vec<Violation> {
    let mut violations = Vec::new();
    let is_rust = file.ends_with(".rs");
    let pure = is_rust && pure_crate(file, table);
    let mut in_tests = is_rust && holds_tests_only(file);
    let mut before = "";
    for (index, line) in text.lines().enumerate() {
        // By the style, what follows the first such line is tests to the end of the file.
        in_tests |= is_rust && line.trim_start().starts_with("#[cfg(test)]");
        let excused = |rule: &str| {
            let excuse = format!("tidy: {rule}, ");
            line.contains(&excuse) || before.contains(&excuse)
        };
        let mut broken = |rule: &str, message: String| {
            if !excused(rule) {
                violations.push(Violation::new(file, index + 1, message));
            }
        };
        let code = if is_rust { without_comment(line) } else { line };
        if in_tests && code.contains("sleep(") {
            broken("sleep", "tests await events and do not sleep".to_owned());
        }
        if pure && !in_tests {
            for (_, what) in IMPURE.iter().filter(|(name, _)| code.contains(name)) {
                broken("pure", format!("a pure crate has no {what}"));
            }
        }
        if let Some(folder) = machine_path(line, file) {
            broken("path", format!("{folder} is a path of somebody's machine"));
        }
        for (start, end) in REGISTRY_HOSTS {
            if line.contains(&format!("{start}{end}")) {
                broken("host", format!("{start}{end} is the host of a package registry: use its client's own setting"));
            }
        }
        before = line;
    }
    violations
}

/// How many lines of a Rust file come before its tests.
fn production_lines(file: &str, text: &str) -> usize {
    if !file.ends_with(".rs") || holds_tests_only(file) {
        return 0;
    }
    text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count()
}

/// Whether all of the file is tests: in a folder `tests` of a crate, in `tests.rs`, or in the crate of scenarios. The
/// other crates under the folder `tests` are libraries that tests use.
fn holds_tests_only(file: &str) -> bool {
    let within = file.strip_prefix("tests/").unwrap_or(file);
    within.starts_with("e2e/") || within.split('/').any(|part| part == "tests") || within.ends_with("/tests.rs")
}

/// Whether the file is source of a pure crate, its tests aside.
fn pure_crate(file: &str, table: &Table) -> bool {
    let mut parts = file.split('/');
    let name = match (parts.next(), parts.next(), parts.next()) {
        (Some("crates"), Some(name), Some("src")) => name,
        _ => return false,
    };
    table.is_pure(name)
}

fn without_comment(line: &str) -> &str {
    match line.trim_start().starts_with("//") {
        true => "",
        false => line,
    }
}

/// The machine folder that an absolute path in the line starts with. Where boxes are made and used, root's home is the
/// box's own.
fn machine_path(line: &str, file: &str) -> Option<String> {
    let of_a_box = file.starts_with("tests/lab/") || file.starts_with("tests/e2e/");
    MACHINE_FOLDERS.iter().filter(|name| !of_a_box || **name != "root").find_map(|name| {
        let folder = format!("/{name}/");
        let starts_a_path = |index: usize| {
            let before = line[..index].chars().next_back();
            before.is_none_or(|before| before.is_whitespace() || "\"'`(=:[<,".contains(before))
        };
        line.match_indices(&folder).any(|(index, _)| starts_a_path(index)).then_some(folder)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(file: &str, text: &str) -> String {
        let table = Table::parse("```edges\n*packet:\nhost:\n```\n```only\n```\n").0;
        check_file(file, text, &table).iter().map(|violation| format!("{violation}\n")).collect()
    }

    #[test]
    fn a_mod_rs_and_a_long_lib_rs_are_named() {
        assert!(check("crates/host/src/tun/mod.rs", "").contains("thing.rs stands beside"));
        assert!(check("crates/host/src/lib.rs", &"//!\n".repeat(101)).starts_with("crates/host/src/lib.rs:101: "));
        assert_eq!(check("crates/host/src/lib.rs", &"//!\n".repeat(100)), "");
    }

    #[test]
    fn a_long_file_is_named_whose_tests_do_not_count() {
        let long = |lines: usize| {
            check("crates/host/src/a.rs", &format!("{}#[cfg(test)]\nmod tests;\n", "//\n".repeat(lines)))
        };
        assert_eq!(long(800), "");
        assert!(long(801).contains("a file is one noun"));
        assert_eq!(check("crates/host/tests/a.rs", &"//\n".repeat(801)), "");
    }

    #[test]
    fn a_sleep_is_named_in_tests_only() {
        let sleeping = format!("thread::{}(second);", "sleep");
        assert_eq!(check("crates/host/src/a.rs", &sleeping), "");
        assert_eq!(check("tests/lab/src/a.rs", &sleeping), "");
        assert!(check("crates/host/tests/a.rs", &sleeping).contains(":1: tests await"));
        assert!(check("tests/lab/tests/a.rs", &sleeping).contains(":1: tests await"));
        assert!(check("tests/e2e/src/a.rs", &sleeping).contains(":1: tests await"));
        assert!(
            check("crates/host/src/a.rs", &format!("#[cfg(test)]\nmod tests {{\n{sleeping}")).contains(":3: tests")
        );
        assert_eq!(
            check("crates/host/tests/a.rs", &format!("// tidy: sleep, the kernel tells nobody\n{sleeping}")),
            ""
        );
    }

    #[test]
    fn a_path_of_a_machine_is_named_and_one_that_only_ends_so_is_not() {
        let path = |name: &str| format!("see {}{name}/x", '/');
        assert!(check("README.md", &path("root")).contains("path of somebody's machine"));
        assert_eq!(check("tests/lab/src/ssh.rs", &path("root")), "");
        assert!(check("tests/lab/src/ssh.rs", &path("work")).contains("path of somebody's machine"));
        assert!(check("README.md", &path("home")).contains("path of somebody's machine"));
        assert_eq!(check("README.md", "see upper/work/x and ~/x"), "");
        assert_eq!(check("README.md", &format!("{} <!-- tidy: path, inside a box -->", path("root"))), "");
    }

    #[test]
    fn the_host_of_a_registry_is_named_but_not_in_sums() {
        let host = format!("https://{}{}/x", "index.crates", ".io");
        assert!(check("docs/a.md", &host).contains("host of a package registry"));
        assert_eq!(check("tools/a/go.sum", &host), "");
    }

    #[test]
    fn a_pure_crate_may_not_look_at_a_clock_but_its_tests_may() {
        let text = "fn a() { Instant::now(); }\n#[cfg(test)]\nmod tests { fn b() { Instant::now(); } }";
        assert_eq!(check("crates/packet/src/a.rs", text), "crates/packet/src/a.rs:1: a pure crate has no clock\n");
        assert_eq!(check("crates/host/src/a.rs", text), "");
        assert_eq!(check("crates/packet/src/a.rs", "/// Not `Instant::now()`."), "");
    }
}
