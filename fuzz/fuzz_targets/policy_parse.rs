//! Any text: it is read or refused, what is read stays the same through the form that all tools agree on, and an edit
//! changes what it is about and nothing else.
#![no_main]

use libfuzzer_sys::fuzz_target;
use policy::Policy;
use policy::hujson::{Document, EditError, Kind, Step, Value, format};

/// How many values of a document are edited.
const EDITED: usize = 12;

fuzz_target!(|text: &str| {
    if let Ok(document) = Document::parse(text) {
        check_format(&document);
        let mut paths = Vec::new();
        collect(document.root(), &mut Vec::new(), &mut paths);
        paths.truncate(EDITED);
        paths.iter().for_each(|path| check_edits(&document, path));
    }
    match Policy::parse(text) {
        Ok(policy) => {
            let again = Policy::parse(&policy.formatted()).expect("what is formatted is a policy");
            assert_eq!(meaning(&again), meaning(&policy), "formatting changes no rule");
        }
        Err(error) => assert!(!error.to_string().is_empty(), "a refusal says why"),
    }
});

/// The rules without where they stand.
fn meaning(policy: &Policy) -> Vec<String> {
    let rules = policy.rules().iter().map(|rule| {
        format!("{:?} {:?} {:?} {:?} {:?}", rule.sources, rule.postures, rule.destinations, rule.via, rule.effect)
    });
    let logins = policy.ssh_rules().iter().map(|rule| {
        format!("{:?} {:?} {:?} {:?} {:?}", rule.sources, rule.postures, rule.destinations, rule.users, rule.action)
    });
    rules.chain(logins).collect()
}

fn check_format(document: &Document) {
    let formatted = format(document);
    let again = Document::parse(&formatted).expect("what is formatted is HuJSON");
    assert_eq!(format(&again), formatted, "formatting twice changes nothing more");
    assert!(same(document, document.root(), &again, again.root()), "formatting changes no value");
    let plain = document.minify(document.root());
    let json = Document::parse(&plain).expect("without comments it is still HuJSON");
    assert!(same(document, document.root(), &json, json.root()), "minifying changes no value");
}

/// Whether two values are the same; numbers are by their text.
fn same(one: &Document, a: &Value, other: &Document, b: &Value) -> bool {
    match (a.kind(), b.kind()) {
        (Kind::Null, Kind::Null) => true,
        (Kind::Bool(a), Kind::Bool(b)) => a == b,
        (Kind::Number, Kind::Number) => one.minify(a) == other.minify(b),
        (Kind::String(a), Kind::String(b)) => a == b,
        (Kind::Array(_), Kind::Array(_)) => {
            let (a, b) = (a.elements().expect("a list"), b.elements().expect("a list"));
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(one, a, other, b))
        }
        (Kind::Object(_), Kind::Object(_)) => {
            let (a, b) = (a.members().expect("an object"), b.members().expect("an object"));
            let both = |(a, b): (&policy::hujson::Member, &policy::hujson::Member)| {
                a.name() == b.name() && same(one, a.value(), other, b.value())
            };
            a.len() == b.len() && a.iter().zip(b).all(both)
        }
        _ => false,
    }
}

/// The paths to all values below a value, up to a bound.
fn collect<'v>(value: &'v Value, path: &mut Vec<Step<'v>>, paths: &mut Vec<Vec<Step<'v>>>) {
    let elements = value.elements().unwrap_or_default().iter().enumerate();
    let members = value.members().unwrap_or_default().iter();
    let children = elements
        .map(|(at, element)| (Step::Index(at), element))
        .chain(members.map(|member| (Step::Name(member.name()), member.value())));
    for (step, child) in children {
        if paths.len() >= EDITED {
            return;
        }
        path.push(step);
        paths.push(path.clone());
        collect(child, path, paths);
        path.pop();
    }
}

fn check_edits(document: &Document, path: &[Step<'_>]) {
    let value = document.at(path).expect("the path was found");
    let raw = document.minify(value);
    if !matches!(value.kind(), Kind::Array(_) | Kind::Object(_)) {
        let edited = document.replace(path, &raw).expect("a value may stand where it stood");
        assert_eq!(edited.text(), document.text(), "a value in its own place changes no byte");
    }
    let edited = document.replace(path, "\"new\" // edited").expect("a value may be replaced");
    assert_eq!(edited.at(path).expect("it is still there").as_str(), Some("new"));
    let back = edited.replace(path, &raw).expect("and be put back");
    assert!(same(document, document.root(), &back, back.root()), "putting it back undoes the edit");
    let inner = document.root().elements().map_or(0, <[Value]>::len) + document.root().members().map_or(0, <[_]>::len);
    let removed = document.remove(path).expect("a value that is there may be removed");
    if let [_] = path {
        let left = removed.root();
        let left = left.elements().map_or(0, <[Value]>::len) + left.members().map_or(0, <[_]>::len);
        assert_eq!(left + 1, inner, "one value goes, and no other");
    }
    match (document.append(path, "[1]"), value.elements()) {
        (Ok(longer), Some(before)) => {
            let after = longer.at(path).expect("the list").elements().expect("a list");
            assert_eq!(after.len(), before.len() + 1);
            assert_eq!(longer.minify(&after[before.len()]), "[1]");
        }
        (Err(EditError::NoContainer(..)), None) => {}
        (other, _) => panic!("appending: {other:?}"),
    }
    match (document.set(path, "a \"name\"", "[1]"), value.members()) {
        (Ok(wider), Some(_)) => {
            let set = wider.at(path).expect("the object").get("a \"name\"").expect("the new member");
            assert_eq!(wider.minify(set), "[1]");
        }
        (Err(EditError::NoContainer(..)), None) => {}
        (other, _) => panic!("setting: {other:?}"),
    }
}
