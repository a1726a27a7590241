use std::collections::BTreeMap;

use super::names::Names;
use super::posture::{PostureValue, read_attributes};
use crate::fields::Fields;
use crate::hujson::{Document, Position, Value};
use crate::problem::Problems;
use crate::{Alias, Autogroup, PolicyError};

const TEST: [&str; 7] = ["src", "proto", "accept", "deny", "srcPostureAttrs", "user", "allow"];
const SSH_TEST: [&str; 6] = ["src", "dst", "accept", "check", "deny", "srcPostureAttrs"];

/// A test of reachability that a policy contains. What it names is looked at when it runs: a wrong name fails the test,
/// not the policy.
#[derive(Clone, Debug, Default)]
pub struct Test {
    /// Where it begins.
    pub position: Option<Position>,
    /// Who tries.
    pub source: String,
    /// The protocol; none means that TCP or UDP will do.
    pub protocol: Option<String>,
    /// `alias:port` that must be reachable.
    pub accept: Vec<String>,
    /// `alias:port` that must not be reachable.
    pub deny: Vec<String>,
    /// The posture attributes of the device that tries.
    pub attributes: BTreeMap<String, PostureValue>,
}

/// A test of SSH that a policy contains.
#[derive(Clone, Debug, Default)]
pub struct SshTest {
    /// Where it begins.
    pub position: Option<Position>,
    /// Who tries.
    pub source: String,
    /// On which devices.
    pub destinations: Vec<String>,
    /// Accounts that must be allowed without a check.
    pub accept: Vec<String>,
    /// Accounts that must be allowed with a check.
    pub check: Vec<String>,
    /// Accounts that must not be allowed.
    pub deny: Vec<String>,
    /// The posture attributes of the device that tries.
    pub attributes: BTreeMap<String, PostureValue>,
}

impl Test {
    /// Reads a list of tests that is no part of a policy; places are those in this text.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the text, up to a bound.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, PolicyError> {
        let document = Document::parse(text)?;
        let mut problems = Problems::new(&document);
        let values = crate::fields::list(document.root(), &mut problems);
        let tests = read_list(values, &mut problems);
        problems.finish()?;
        Ok(tests)
    }
}

/// Reads `tests`.
pub(super) fn read(fields: &Fields<'_>, problems: &mut Problems<'_>) -> Vec<Test> {
    read_list(fields.list("tests", problems), problems)
}

fn read_list(values: &[Value], problems: &mut Problems<'_>) -> Vec<Test> {
    let mut tests = Vec::new();
    for value in values {
        let Some(fields) = Fields::read(value, &TEST, problems) else { continue };
        let attributes = fields.get("srcPostureAttrs").map(|value| read_attributes(value, problems));
        tests.push(Test {
            position: Some(problems.position(value)),
            source: fields
                .either("src", "user", problems)
                .and_then(|value| value.as_str())
                .unwrap_or_default()
                .to_owned(),
            protocol: fields
                .string("proto", problems)
                .map(|(text, _)| text.trim().to_owned())
                .filter(|text| !text.is_empty()),
            accept: texts(fields.either("accept", "allow", problems), problems),
            deny: texts(fields.get("deny"), problems),
            attributes: attributes.unwrap_or_default(),
        });
    }
    tests
}

/// Reads `sshTests`.
pub(super) fn read_ssh(fields: &Fields<'_>, names: &Names, problems: &mut Problems<'_>) -> Vec<SshTest> {
    let mut tests = Vec::new();
    for value in fields.list("sshTests", problems) {
        let Some(fields) = Fields::read(value, &SSH_TEST, problems) else { continue };
        let attributes = fields.get("srcPostureAttrs").map(|value| read_attributes(value, problems));
        let mut destinations = Vec::new();
        for (text, value) in fields.strings("dst", problems) {
            match check_destination(text.trim(), names) {
                Ok(()) => destinations.push(text.trim().to_owned()),
                Err(message) => {
                    problems.at::<()>(value, message);
                }
            }
        }
        tests.push(SshTest {
            position: Some(problems.position(value)),
            source: fields.string("src", problems).map_or(String::new(), |(text, _)| text.to_owned()),
            destinations,
            accept: texts(fields.get("accept"), problems),
            check: texts(fields.get("check"), problems),
            deny: texts(fields.get("deny"), problems),
            attributes: attributes.unwrap_or_default(),
        });
    }
    tests
}

fn texts(value: Option<&Value>, problems: &mut Problems<'_>) -> Vec<String> {
    let listed = value.map(|value| crate::fields::strings(value, problems)).unwrap_or_default();
    listed.into_iter().map(|(text, _)| text.to_owned()).collect()
}

fn check_destination(text: &str, names: &Names) -> Result<(), String> {
    if text.starts_with("tag:") && !matches!(names.alias(text), Ok(Alias::Tag(_))) {
        return Err(format!("SSH tests dst contains unknown tag \"{text}\""));
    }
    let single = |alias: &Alias| names.ranges(alias).is_some_and(|ranges| ranges.iter().all(|range| range.is_single()));
    match names.alias(text) {
        Ok(
            Alias::Tag(_) | Alias::User(_) | Alias::Auto(Autogroup::Member | Autogroup::Tagged | Autogroup::Role(_)),
        ) => Ok(()),
        Ok(alias) if single(&alias) => Ok(()),
        _ => Err(format!("SSH tests dst contains disallowed element \"{text}\"")),
    }
}
