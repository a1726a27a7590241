use super::Citation;
use crate::hujson::{Member, Value};
use crate::{Compiled, Origin, Section};

/// The longest text that is cited.
const MOST_TEXT: usize = 240;

/// An entry of the policy that is no rule of packets: where it is, and what of it doesn't fit.
pub(super) struct Entry {
    pub(super) path: Vec<Part>,
    pub(super) lacks: Vec<String>,
}

/// A step to an entry.
pub(super) enum Part {
    /// A member; the case of fields doesn't matter.
    Field(String),
    /// An element of a list.
    Index(usize),
}

impl Compiled {
    pub(super) fn cite_rule(&self, rule: usize, lacks: Vec<String>) -> Citation {
        self.cite_origin(&self.policy().rules()[rule].origin, lacks)
    }

    pub(super) fn cite_ssh(&self, rule: usize, lacks: Vec<String>) -> Citation {
        self.cite_origin(&self.policy().ssh_rules()[rule].origin, lacks)
    }

    fn cite_origin(&self, origin: &Origin, lacks: Vec<String>) -> Citation {
        let section = match origin.section {
            Section::Grants => "grants",
            Section::Acls => "acls",
            Section::Ssh => "ssh",
            Section::Implied => {
                let place = "there are no acls and no grants, so everything is allowed".to_owned();
                return Citation { line: 0, place, text: String::new(), lacks };
            }
        };
        let path = vec![Part::Field(section.to_owned()), Part::Index(origin.index)];
        let mut citation = self.cite(Entry { path, lacks });
        if let Some(destination) = origin.destination {
            citation.place.push_str(&format!(".dst[{destination}]"));
        }
        citation
    }

    pub(super) fn cite(&self, entry: Entry) -> Citation {
        let document = self.policy().document();
        let mut value = Some(document.root());
        let mut place = String::new();
        let mut position = None;
        for part in &entry.path {
            match part {
                Part::Field(name) => {
                    let separator = if place.is_empty() { "" } else { "." };
                    place.push_str(&if name.contains(['.', ':', '/']) {
                        format!("[\"{name}\"]")
                    } else {
                        format!("{separator}{name}")
                    });
                    let member = value.and_then(|value| member(value, name));
                    position = member.map(|member| document.position(member.name_value()));
                    value = member.map(Member::value);
                }
                Part::Index(at) => {
                    place.push_str(&format!("[{at}]"));
                    value = value.and_then(|value| value.elements()?.get(*at));
                    position = value.map(|value| document.position(value));
                }
            }
        }
        let text = value.map(|value| cut(&document.minify_start(value, MOST_TEXT + 1))).unwrap_or_default();
        Citation { line: position.map_or(0, |position| position.line), place, text, lacks: entry.lacks }
    }

    /// Whether a list of the policy is an entry at all.
    pub(super) fn mentions(&self, path: &[Part]) -> bool {
        let mut value = Some(self.policy().document().root());
        for part in path {
            value = match part {
                Part::Field(name) => value.and_then(|value| member(value, name)).map(Member::value),
                Part::Index(at) => value.and_then(|value| value.elements()?.get(*at)),
            };
        }
        value.is_some()
    }
}

fn member<'v>(value: &'v Value, name: &str) -> Option<&'v Member> {
    let members = value.members()?;
    let exact = members.iter().find(|member| member.name() == name);
    exact.or_else(|| members.iter().find(|member| member.name().eq_ignore_ascii_case(name)))
}

/// A text short enough to be read.
pub(super) fn cut(text: &str) -> String {
    match text.char_indices().nth(MOST_TEXT) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// The steps of a path of fields.
pub(super) fn fields(names: &[&str]) -> Vec<Part> {
    names.iter().map(|name| Part::Field((*name).to_owned())).collect()
}
