//! The form that a policy's ETag is taken of, compared with the formatter that other tools of this protocol use.
//!
//! `TOWLINE_FORMAT_PAIRS` may name a file of more comparisons: one JSON list a line, a text and that formatter's answer.

use policy::hujson::{Document, format};

/// Texts and what the other formatter makes of them.
const PAIRS: &[(&str, &str)] = &[
    ("{\"a\":1,\"b\":[1,2,3]}", "{\"a\": 1, \"b\": [1, 2, 3]}\n"),
    ("{\"a\":1,\n\"b\":[1,2,3]}", "{\n\t\"a\": 1,\n\t\"b\": [1, 2, 3]\n}\n"),
    ("{\"a\":1,\"b\":[1,\n2,3]}", "{\"a\": 1, \"b\": [\n\t1,\n\t2,\n\t3\n]}\n"),
    ("[1,2,3,\n]", "[\n\t1,\n\t2,\n\t3,\n]\n"),
    ("[1,2,3,]", "[1, 2, 3]\n"),
    ("{\n\n}", "{}\n"),
    ("{//c\n}", "{ //c\n}\n"),
    ("[\n\n// c\n\n]", "[\n\t// c\n]\n"),
    ("{\"a\":{\"b\":{\n\"c\":1}}}", "{\"a\": {\"b\": {\n\t\"c\": 1\n}}}\n"),
    ("{ // c\n\"a\":1}", "{ // c\n\t\"a\": 1,\n}\n"),
    ("{\"a\":1, // c\n\"b\":2}", "{\n\t\"a\": 1, // c\n\t\"b\": 2,\n}\n"),
    ("{\"a\":1 // c\n,\"b\":2}", "{\"a\": 1 // c\n\t\t, \"b\": 2}\n"),
    ("{\n\n\n\"a\":1,\n\n\n\"b\":2\n\n\n}", "{\n\t\"a\": 1,\n\n\t\"b\": 2\n}\n"),
    ("{\n\"a\":1,\n\"bbbb\":2,\n// x\n\"cc\":3\n}", "{\n\t\"a\":    1,\n\t\"bbbb\": 2,\n\t// x\n\t\"cc\": 3,\n}\n"),
    ("{\n\"a\":1,\n\"bbbb\":[\n1],\n\"cc\":3\n}", "{\n\t\"a\": 1,\n\t\"bbbb\": [\n\t\t1\n\t],\n\t\"cc\": 3\n}\n"),
    ("\n\n// x\n\n\n// y\n\n{\"a\":1}\n\n//z\n\n", "// x\n\n// y\n\n{\"a\": 1}\n\n//z\n"),
    ("{\"a\":\"\\u0041\\/<>\"}", "{\"a\": \"A/<>\"}\n"),
    ("{\n\"é\":1,\n\"bbb\":2\n}", "{\n\t\"é\":  1,\n\t\"bbb\": 2\n}\n"),
    ("{\"a\"\n:\n1\n,\n\"b\"\n:\n2\n}", "{\n\t\"a\":\n\t\t1,\n\t\"b\":\n\t\t2\n}\n"),
    ("{\"a\"/*x*/:/*y*/1/*z*/,/*w*/\"b\":2}", "{\"a\" /*x*/ : /*y*/ 1 /*z*/ , /*w*/ \"b\": 2}\n"),
    ("[1,\n  /* b\n     c\n  */\n2]", "[\n\t1,\n\t/* b\n\tc\n\t*/\n\t2,\n]\n"),
    ("[\n/*\n * a\n */\n1]", "[\n\t/*\n\t * a\n\t */\n\t1,\n]\n"),
];

fn formatted(text: &str) -> String {
    format(&Document::parse(text).unwrap())
}

#[test]
fn texts_are_laid_out_as_other_tools_do() {
    for (text, expected) in PAIRS {
        assert_eq!(formatted(text), *expected, "{text:?}");
    }
}

#[test]
fn a_line_holds_eighty_columns() {
    for (fits, element) in [(true, "a".repeat(74)), (false, "a".repeat(75))] {
        let expected = if fits { format!("[\"{element}\"]\n") } else { format!("[\n\t\"{element}\"\n]\n") };
        assert_eq!(formatted(&format!("[\"{element}\"]")), expected);
    }
}

#[test]
fn formatting_twice_changes_nothing() {
    for (_, expected) in PAIRS {
        assert_eq!(formatted(expected), *expected);
    }
    let default = policy::Policy::default_for_new_tailnet();
    assert_eq!(formatted(default), default, "the default policy is kept in this form");
}

#[test]
fn more_texts_are_laid_out_as_other_tools_do() {
    let Some(path) = std::env::var_os("TOWLINE_FORMAT_PAIRS") else {
        println!("skipped: TOWLINE_FORMAT_PAIRS names no file of texts and answers");
        return;
    };
    let mut wrong = Vec::new();
    let pairs = std::fs::read_to_string(path).unwrap();
    for line in pairs.lines() {
        let (text, expected): (String, String) = serde_json::from_str(line).unwrap();
        if formatted(&text) != expected {
            wrong.push((text.clone(), formatted(&text), expected));
        }
    }
    wrong.sort_by_key(|(text, ..)| text.len());
    println!("{} of {} differ", wrong.len(), pairs.lines().count());
    assert!(wrong.len() * 1000 < pairs.lines().count(), "{:#?}", &wrong[..wrong.len().min(3)]);
}
