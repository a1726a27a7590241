use crate::hujson::{Kind, Value};
use crate::problem::Problems;

/// The members of an object that has a fixed set of fields.
///
/// As in the hosted service, the case of a field's name doesn't matter, `null` is the same as leaving the field out, and
/// a field that isn't known is refused.
pub(crate) struct Fields<'v> {
    object: &'v Value,
    found: Vec<(&'static str, &'v Value)>,
    /// Fields that are there and null.
    nulls: Vec<&'static str>,
}

impl<'v> Fields<'v> {
    pub(crate) fn read(value: &'v Value, known: &[&'static str], problems: &mut Problems<'_>) -> Option<Self> {
        let Some(members) = value.members() else {
            return problems.at(value, format!("expected an object, found {}", value.kind_name()));
        };
        let mut found: Vec<(&'static str, &Value)> = Vec::new();
        for member in members {
            let name = member.name();
            match known.iter().find(|field| field.eq_ignore_ascii_case(name)) {
                None if problems.is_full() => {}
                None => {
                    problems.at::<()>(member.name_value(), unknown_field(name, known));
                }
                Some(field) if found.iter().any(|(other, _)| other == field) => {
                    problems.at::<()>(member.name_value(), format!("duplicate name {name:?}"));
                }
                Some(field) => found.push((field, member.value())),
            }
        }
        let (nulls, found): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|(_, value)| matches!(value.kind(), Kind::Null));
        Some(Self { object: value, found, nulls: nulls.into_iter().map(|(field, _)| field).collect() })
    }

    /// Whether the field is there, be it null.
    pub(crate) fn mentions(&self, name: &str) -> bool {
        self.nulls.contains(&name) || self.get(name).is_some()
    }

    /// The object itself, for problems with the whole.
    pub(crate) fn object(&self) -> &'v Value {
        self.object
    }

    pub(crate) fn get(&self, name: &str) -> Option<&'v Value> {
        self.found.iter().find(|(field, _)| *field == name).map(|(_, value)| *value)
    }

    /// The first of several names for the same field; two of them at once are refused.
    pub(crate) fn either(&self, name: &str, legacy: &str, problems: &mut Problems<'_>) -> Option<&'v Value> {
        let (value, old) = (self.get(name), self.get(legacy));
        if let (Some(_), Some(old)) = (value, old) {
            problems.at::<()>(old, format!("{legacy:?} is the old name of {name:?}; give only one of them"));
        }
        value.or(old)
    }

    pub(crate) fn string(&self, name: &str, problems: &mut Problems<'_>) -> Option<(&'v str, &'v Value)> {
        let value = self.get(name)?;
        Some((string(value, problems)?, value))
    }

    pub(crate) fn boolean(&self, name: &str, problems: &mut Problems<'_>) -> Option<bool> {
        let value = self.get(name)?;
        match value.kind() {
            Kind::Bool(on) => Some(*on),
            _ => problems.at(value, format!("{name} must be true or false, not {}", value.kind_name())),
        }
    }

    /// The strings of a list; a field that is missing is an empty list.
    pub(crate) fn strings(&self, name: &str, problems: &mut Problems<'_>) -> Vec<(&'v str, &'v Value)> {
        self.get(name).map(|value| strings(value, problems)).unwrap_or_default()
    }

    /// The values of a list; a field that is missing is an empty list.
    pub(crate) fn list(&self, name: &str, problems: &mut Problems<'_>) -> &'v [Value] {
        self.get(name).map(|value| list(value, problems)).unwrap_or_default()
    }

    /// Name and value of each member of an object; a field that is missing is an empty object.
    pub(crate) fn map(&self, name: &str, problems: &mut Problems<'_>) -> Vec<(&'v str, &'v Value, &'v Value)> {
        self.get(name).map(|value| map(value, problems)).unwrap_or_default()
    }
}

pub(crate) fn string<'v>(value: &'v Value, problems: &mut Problems<'_>) -> Option<&'v str> {
    value.as_str().or_else(|| problems.at(value, format!("expected a string, found {}", value.kind_name())))
}

pub(crate) fn strings<'v>(value: &'v Value, problems: &mut Problems<'_>) -> Vec<(&'v str, &'v Value)> {
    list(value, problems).iter().filter_map(|element| Some((string(element, problems)?, element))).collect()
}

pub(crate) fn list<'v>(value: &'v Value, problems: &mut Problems<'_>) -> &'v [Value] {
    match value.kind() {
        Kind::Null => &[],
        _ => value.elements().unwrap_or_else(|| {
            problems.at::<()>(value, format!("expected a list, found {}", value.kind_name()));
            &[]
        }),
    }
}

/// Name, the name as a value, and value.
pub(crate) fn map<'v>(value: &'v Value, problems: &mut Problems<'_>) -> Vec<(&'v str, &'v Value, &'v Value)> {
    let Some(members) = value.members() else {
        if !matches!(value.kind(), Kind::Null) {
            problems.at::<()>(value, format!("expected an object, found {}", value.kind_name()));
        }
        return Vec::new();
    };
    members.iter().map(|member| (member.name(), member.name_value(), member.value())).collect()
}

fn unknown_field(name: &str, known: &[&'static str]) -> String {
    let near = known.iter().map(|field| (distance(&name.to_lowercase(), &field.to_lowercase()), field)).min();
    match near {
        Some((far, field)) if far <= 2 && far < name.len() => {
            format!("unknown field {name:?}; did you mean {field:?}?")
        }
        _ => format!("unknown field {name:?}"),
    }
}

/// How many letters to add, take or change from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().take(40).collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (at, letter) in from.chars().take(40).enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, other) in to.iter().enumerate() {
            let cost = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = cost.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}
