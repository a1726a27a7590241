use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::fields::{Fields, strings};
use crate::hujson::{Kind, Value};
use crate::problem::Problems;

/// The most conditions of all postures together: each is asked of every device.
const MOST_CONDITIONS: usize = 1_000;

/// The longest condition, in bytes.
const LONGEST_CONDITION: usize = 4 << 10;

/// The most bytes of all conditions together.
const MOST_BYTES: usize = 128 << 10;

/// The most postures that one list names.
const MOST_NAMES: usize = 50;

/// A value of a device's posture attribute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PostureValue {
    /// A text; where order matters it is compared as a version.
    Text(String),
    /// A number.
    Number(i64),
    /// Yes or no.
    Bool(bool),
}

/// One condition of a posture, such as `node:tsVersion >= '1.60'`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The attribute's key with its namespace.
    pub key: String,
    /// What must hold of its value.
    pub requirement: Requirement,
}

/// What must hold of an attribute's value. An attribute that isn't set fulfils only [`Requirement::NotSet`],
/// [`Requirement::NotEqual`] and [`Requirement::NotIn`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// `==`
    Equal(PostureValue),
    /// `!=`
    NotEqual(PostureValue),
    /// `<`
    Less(PostureValue),
    /// `<=`
    AtMost(PostureValue),
    /// `>`
    Greater(PostureValue),
    /// `>=`
    AtLeast(PostureValue),
    /// `IN [...]`
    In(Vec<PostureValue>),
    /// `NOT IN [...]`
    NotIn(Vec<PostureValue>),
    /// `IS SET`
    Set,
    /// `NOT SET`
    NotSet,
}

impl fmt::Display for PostureValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) if text.contains('\'') => write!(formatter, "\"{text}\""),
            Self::Text(text) => write!(formatter, "'{text}'"),
            Self::Number(number) => write!(formatter, "{number}"),
            Self::Bool(on) => write!(formatter, "{on}"),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |values: &[PostureValue]| values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let key = &self.key;
        match &self.requirement {
            Requirement::Equal(value) => write!(formatter, "{key} == {value}"),
            Requirement::NotEqual(value) => write!(formatter, "{key} != {value}"),
            Requirement::Less(value) => write!(formatter, "{key} < {value}"),
            Requirement::AtMost(value) => write!(formatter, "{key} <= {value}"),
            Requirement::Greater(value) => write!(formatter, "{key} > {value}"),
            Requirement::AtLeast(value) => write!(formatter, "{key} >= {value}"),
            Requirement::In(values) => write!(formatter, "{key} IN [{}]", list(values)),
            Requirement::NotIn(values) => write!(formatter, "{key} NOT IN [{}]", list(values)),
            Requirement::Set => write!(formatter, "{key} IS SET"),
            Requirement::NotSet => write!(formatter, "{key} NOT SET"),
        }
    }
}

impl Condition {
    /// Whether a device with these attributes fulfils the condition.
    pub fn holds(&self, attributes: &BTreeMap<String, PostureValue>) -> bool {
        let value = attributes.get(&self.key);
        let order = |limit: &PostureValue| value.and_then(|value| compare(value, limit));
        match &self.requirement {
            Requirement::Equal(wanted) => value == Some(wanted),
            Requirement::NotEqual(wanted) => value != Some(wanted),
            Requirement::Less(limit) => order(limit) == Some(Ordering::Less),
            Requirement::AtMost(limit) => order(limit).is_some_and(Ordering::is_le),
            Requirement::Greater(limit) => order(limit) == Some(Ordering::Greater),
            Requirement::AtLeast(limit) => order(limit).is_some_and(Ordering::is_ge),
            Requirement::In(wanted) => value.is_some_and(|value| wanted.contains(value)),
            Requirement::NotIn(wanted) => value.is_none_or(|value| !wanted.contains(value)),
            Requirement::Set => value.is_some(),
            Requirement::NotSet => value.is_none(),
        }
    }

    /// Reads a condition.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let end = text.find(|c: char| c.is_whitespace() || matches!(c, '=' | '!' | '<' | '>'))?;
        let (key, rest) = (&text[..end], text[end..].trim());
        if !matches!(key.split_once(':'), Some((namespace, name)) if !namespace.is_empty() && !name.is_empty()) {
            return None;
        }
        Some(Self { key: key.to_owned(), requirement: parse_requirement(rest)? })
    }
}

fn parse_requirement(text: &str) -> Option<Requirement> {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.as_slice() {
        ["IS", "SET"] => return Some(Requirement::Set),
        ["NOT", "SET"] => return Some(Requirement::NotSet),
        ["IN", ..] => return parse_list(text.strip_prefix("IN")?).map(Requirement::In),
        ["NOT", "IN", ..] => {
            let list = text.strip_prefix("NOT")?.trim_start().strip_prefix("IN")?;
            return parse_list(list).map(Requirement::NotIn);
        }
        _ => {}
    }
    type Make = fn(PostureValue) -> Requirement;
    let make: [(&str, Make); 6] = [
        ("==", Requirement::Equal),
        ("!=", Requirement::NotEqual),
        ("<=", Requirement::AtMost),
        (">=", Requirement::AtLeast),
        ("<", Requirement::Less),
        (">", Requirement::Greater),
    ];
    let (operator, make) = make.into_iter().find(|(operator, _)| text.starts_with(operator))?;
    parse_value(&text[operator.len()..]).map(make)
}

fn parse_list(text: &str) -> Option<Vec<PostureValue>> {
    let inner = text.trim().strip_prefix('[')?.strip_suffix(']')?;
    inner.split(',').map(parse_value).collect()
}

fn parse_value(text: &str) -> Option<PostureValue> {
    let text = text.trim();
    for quote in ['\'', '"'] {
        if let Some(inner) = text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return Some(PostureValue::Text(inner.to_owned())).filter(|_| !inner.contains(quote));
        }
    }
    match text {
        "true" => Some(PostureValue::Bool(true)),
        "false" => Some(PostureValue::Bool(false)),
        _ => text.parse().ok().map(PostureValue::Number),
    }
}

fn compare(value: &PostureValue, limit: &PostureValue) -> Option<Ordering> {
    match (value, limit) {
        (PostureValue::Number(value), PostureValue::Number(limit)) => Some(value.cmp(limit)),
        (PostureValue::Text(value), PostureValue::Text(limit)) => Some(version(value).cmp(&version(limit))),
        _ => None,
    }
}

/// The numbers of a version, without zeros at its end: 1.60 and 1.60.0 are the same.
fn version(text: &str) -> Vec<u64> {
    let mut parts: Vec<u64> = text
        .split(|c: char| !c.is_ascii_digit())
        .filter(|digits| !digits.is_empty())
        .map(|digits| digits.parse().unwrap_or(u64::MAX))
        .collect();
    while parts.last() == Some(&0) {
        parts.pop();
    }
    parts
}

/// Reads `postures`.
pub(super) fn read(fields: &Fields<'_>, problems: &mut Problems<'_>) -> BTreeMap<Arc<str>, Vec<Condition>> {
    let mut postures = BTreeMap::new();
    let (mut count, mut bytes) = (0, 0);
    for (name, place, value) in fields.map("postures", problems) {
        if name.strip_prefix("posture:").is_none_or(str::is_empty) {
            problems.at::<()>(place, format!("postures[{name:?}]: names of postures must start with 'posture:'"));
            continue;
        }
        let mut conditions = Vec::new();
        for (text, value) in strings(value, problems) {
            bytes += text.len();
            if text.len() > LONGEST_CONDITION || bytes > MOST_BYTES {
                let message = match text.len() > LONGEST_CONDITION {
                    true => format!("a condition of more than {LONGEST_CONDITION} bytes"),
                    false => format!("from here on, conditions of more than {MOST_BYTES} bytes in all"),
                };
                problems.at::<()>(value, format!("postures[{name:?}]: {message}"));
                return postures;
            }
            let parsed = Condition::parse(text).or_else(|| {
                problems.at(
                    value,
                    format!("postures[{name:?}]: {text:?} is no condition; write for example node:os == 'linux'"),
                )
            });
            conditions.extend(parsed);
        }
        count += conditions.len();
        if count > MOST_CONDITIONS {
            problems.at::<()>(place, format!("postures: more than {MOST_CONDITIONS} conditions in all"));
            break;
        }
        postures.insert(name.into(), conditions);
    }
    postures
}

/// Reads names of postures that exist.
pub(super) fn read_names(
    listed: Vec<(&str, &Value)>,
    known: &BTreeMap<Arc<str>, Vec<Condition>>,
    problems: &mut Problems<'_>,
) -> Vec<Arc<str>> {
    let mut names = Vec::new();
    for (name, value) in listed {
        if names.len() == MOST_NAMES {
            problems.at::<()>(value, format!("more than {MOST_NAMES} postures in one list"));
            break;
        }
        match known.get_key_value(name.trim()) {
            Some((name, _)) => names.push(name.clone()),
            None => {
                problems.at::<()>(value, format!("posture not found: {name:?}"));
            }
        }
    }
    names
}

/// Reads posture attributes from an object, such as a test's `srcPostureAttrs`.
pub(super) fn read_attributes(value: &Value, problems: &mut Problems<'_>) -> BTreeMap<String, PostureValue> {
    let mut attributes = BTreeMap::new();
    for (name, _, value) in crate::fields::map(value, problems) {
        let read = match value.kind() {
            Kind::String(text) => Some(PostureValue::Text(text.clone())),
            Kind::Bool(on) => Some(PostureValue::Bool(*on)),
            Kind::Number => problems.document().minify(value).parse().ok().map(PostureValue::Number),
            _ => None,
        };
        match read {
            Some(read) => {
                attributes.insert(name.to_owned(), read);
            }
            None => {
                problems.at::<()>(value, "a posture attribute is a string, a whole number or a boolean");
            }
        }
    }
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(condition: &str, version: &str) -> bool {
        let attributes = [
            ("node:tsVersion".to_owned(), PostureValue::Text(version.to_owned())),
            ("custom:score".to_owned(), PostureValue::Number(7)),
            ("custom:managed".to_owned(), PostureValue::Bool(true)),
        ];
        Condition::parse(condition).unwrap().holds(&attributes.into())
    }

    #[test]
    fn versions_compare_by_number() {
        assert!(holds("node:tsVersion >= '1.9'", "1.60.1"));
        assert!(holds("node:tsVersion >= '1.60.0'", "1.60"));
        assert!(!holds("node:tsVersion<'1.60'", "1.60"));
        assert!(holds("node:tsVersion IN ['1.60', '1.62']", "1.62"));
        assert!(holds("node:tsVersion NOT IN ['1.60']", "1.62"));
    }

    #[test]
    fn values_of_other_kinds_do_not_compare() {
        assert!(holds("custom:score > 6", ""));
        assert!(!holds("custom:score > '6'", ""));
        assert!(holds("custom:managed == true", ""));
        assert!(!holds("custom:managed == 'true'", ""));
    }

    /// Each operator with what is below, equal to and above what it is asked of.
    #[test]
    fn every_operator_holds_where_it_should_and_nowhere_else() {
        for (operator, below, equal, above) in [
            ("==", false, true, false),
            ("!=", true, false, true),
            ("<", true, false, false),
            ("<=", true, true, false),
            (">", false, false, true),
            (">=", false, true, true),
        ] {
            let versions = ["1.9", "1.60", "1.62"].map(|is| holds(&format!("node:tsVersion {operator} '1.60'"), is));
            assert_eq!(versions, [below, equal, above], "versions {operator}");
            // A limit that is above the value leaves the value below it.
            let numbers = [8, 7, 6].map(|limit| holds(&format!("custom:score {operator} {limit}"), ""));
            assert_eq!(numbers, [below, equal, above], "numbers {operator}");
        }
        let is_one = |operator: &str| [6, 7].map(|one| holds(&format!("custom:score {operator} [{one}, 9]"), ""));
        assert_eq!((is_one("IN"), is_one("NOT IN")), ([false, true], [true, false]));
        assert!(holds("custom:managed IN [true, 'yes']", "") && !holds("custom:managed NOT IN [true, 'yes']", ""));
        assert!(holds("custom:managed != false", "") && !holds("custom:managed != true", ""));
        assert!(holds("custom:score IS SET", "") && !holds("custom:score NOT SET", ""));
    }

    #[test]
    fn an_attribute_that_is_not_set_fulfils_only_negations() {
        assert!(holds("custom:none NOT SET", ""));
        assert!(!holds("custom:none IS SET", ""));
        assert!(holds("custom:none != 3", ""));
        assert!(!holds("custom:none <= 3", ""));
        assert!(holds("custom:none NOT IN [3]", "") && !holds("custom:none IN [3]", ""));
        for operator in ["==", "<", ">", ">="] {
            assert!(!holds(&format!("custom:none {operator} 3"), ""), "{operator}");
        }
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        for text in ["", "node:os", "os == 'x'", "node:os = 'x'", "node:os == x", "node:os IN 'x'", "node:os == 'a'b'"]
        {
            assert_eq!(Condition::parse(text), None, "{text}");
        }
    }
}
