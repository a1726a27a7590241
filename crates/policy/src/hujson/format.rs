//! The one form that tools agree on, so that a policy has one ETag however it is laid out.
//!
//! The rules were found by comparing with the formatter that other tools of this protocol use, and are checked against its
//! answers in `tests/format.rs`: indentation by tabs; a list or object stays on one line unless its author broke it or it
//! would be longer than 80 columns; values of neighbouring members are aligned; at most one blank line; a comma behind the
//! last element of a broken list if the text is HuJSON rather than JSON.

mod gap;
mod render;

use gap::Gap;

use super::{Document, Kind, Tail, Value};

/// The most columns of a line with a list or object on it.
const LINE: usize = 80;

/// Lays a document out anew. Formatting what was formatted changes nothing.
pub fn format(document: &Document) -> String {
    let mut root = Item::read(document.text(), document.root());
    let is_json = root.is_json();
    root.measure();
    render::document(&root, is_json)
}

/// A value with the blanks and comments around it.
struct Item<'t> {
    before: Gap<'t>,
    after: Gap<'t>,
    body: Body<'t>,
}

enum Body<'t> {
    Scalar(String),
    Composite(Composite<'t>),
}

/// A list or an object.
struct Composite<'t> {
    brackets: (char, char),
    rows: Vec<Row<'t>>,
    trailing_comma: bool,
    /// Behind the trailing comma, or inside an empty pair of brackets.
    tail: Gap<'t>,
    /// Whether each row has a line of its own.
    expanded: bool,
}

/// An element, or a member with its name.
struct Row<'t> {
    name: Option<Name<'t>>,
    value: Item<'t>,
}

struct Name<'t> {
    before: Gap<'t>,
    text: String,
    after: Gap<'t>,
}

/// How much of the lines that it begins and ends on an item takes.
enum Width {
    OneLine(usize),
    Broken { first: usize, last: usize },
}

/// A line that is being filled, and what became of those before it.
struct Line {
    current: usize,
    first: Option<usize>,
    too_long: bool,
}

impl<'t> Item<'t> {
    fn read(text: &'t str, value: &Value) -> Self {
        let gap = |range: &std::ops::Range<usize>| Gap::read(&text[range.clone()]);
        let body = match &value.kind {
            Kind::Array(array) => {
                let rows = array.elements.iter().map(|element| Row { name: None, value: Self::read(text, element) });
                Body::Composite(Composite::new(('[', ']'), rows.collect(), &array.tail, gap(&array.tail.blank)))
            }
            Kind::Object(object) => {
                let rows = object.members.iter().map(|member| Row {
                    name: Some(Name {
                        before: gap(&member.name.before),
                        text: quote(member.name()),
                        after: gap(&member.name.after),
                    }),
                    value: Self::read(text, &member.value),
                });
                Body::Composite(Composite::new(('{', '}'), rows.collect(), &object.tail, gap(&object.tail.blank)))
            }
            Kind::String(string) => Body::Scalar(quote(string)),
            _ => Body::Scalar(text[value.span.clone()].to_owned()),
        };
        Self { before: gap(&value.before), after: gap(&value.after), body }
    }

    /// Whether the text is JSON: no comments, no trailing commas.
    fn is_json(&self) -> bool {
        let own = self.before.is_blank() && self.after.is_blank();
        own && match &self.body {
            Body::Scalar(_) => true,
            Body::Composite(composite) => {
                !composite.trailing_comma
                    && composite.tail.is_blank()
                    && composite.rows.iter().all(|row| {
                        let name = row.name.as_ref().is_none_or(|name| name.before.is_blank() && name.after.is_blank());
                        name && row.value.is_json()
                    })
            }
        }
    }

    /// Decides what is expanded, from the inside out.
    fn measure(&mut self) -> Width {
        match &mut self.body {
            Body::Scalar(text) => Width::OneLine(text.len()),
            Body::Composite(composite) => composite.measure(),
        }
    }

    /// Whether the value takes several lines, as far as alignment is concerned.
    fn is_broken(&self) -> bool {
        match &self.body {
            Body::Scalar(_) => false,
            Body::Composite(composite) => {
                composite.expanded
                    || composite.rows.iter().any(|row| {
                        row.value.is_broken()
                            || row.value.before.is_broken()
                            || row.value.after.breaks_with_comment()
                            || row.name.as_ref().is_some_and(|name| name.after.breaks_with_comment())
                    })
            }
        }
    }
}

impl<'t> Composite<'t> {
    fn new(brackets: (char, char), rows: Vec<Row<'t>>, tail: &Tail, blank: Gap<'t>) -> Self {
        Self { brackets, rows, trailing_comma: tail.trailing_comma, tail: blank, expanded: false }
    }

    fn measure(&mut self) -> Width {
        let broken_by_author = self.is_broken_by_author();
        let mut line = Line { current: 1, first: None, too_long: false };
        let last = self.rows.len().saturating_sub(1);
        for (at, row) in self.rows.iter_mut().enumerate() {
            if let Some(name) = &row.name {
                line.add_gap(&name.before, true);
                line.current += name.text.len();
                line.add_gap(&name.after, false);
                line.current += 2;
            }
            let width = row.value.measure();
            line.add_gap(&row.value.before, true);
            match width {
                Width::OneLine(width) => line.current += width,
                Width::Broken { first, last } => {
                    line.current += first;
                    line.end(last);
                }
            }
            if at < last || self.trailing_comma {
                line.add_gap(&row.value.after, false);
            }
            line.current += 2;
        }
        line.current += 1;
        let too_long = line.too_long || line.current > LINE;
        self.expanded = !self.rows.is_empty() && (broken_by_author || too_long);
        match (self.expanded, line.first) {
            (true, _) => Width::Broken { first: 1, last: 1 },
            (false, Some(first)) => Width::Broken { first, last: line.current },
            (false, None) => Width::OneLine(line.current),
        }
    }

    /// Whether a line ends before an element or the closing bracket.
    fn is_broken_by_author(&self) -> bool {
        let Some(last) = self.rows.last() else {
            return false;
        };
        let closing = match self.trailing_comma {
            true => self.tail.is_broken() || last.value.after.breaks_with_comment(),
            false => last.value.after.is_broken(),
        };
        closing || self.rows.iter().any(|row| row.lead().is_broken())
    }
}

impl<'t> Row<'t> {
    /// What stands before the row.
    fn lead(&self) -> &Gap<'t> {
        self.name.as_ref().map_or(&self.value.before, |name| &name.before)
    }
}

impl Line {
    fn end(&mut self, next: usize) {
        self.first.get_or_insert(self.current);
        self.too_long |= self.current > LINE;
        self.current = next;
    }

    /// Adds what is between two tokens; without a comment it only matters where line ends are kept.
    fn add_gap(&mut self, gap: &Gap<'_>, keeps_line_ends: bool) {
        if gap.is_blank() && !keeps_line_ends {
            return;
        }
        let (before, after) = gap.widths();
        self.current += before;
        if let Some(after) = after {
            self.end(after);
        }
    }
}

/// The shortest JSON of a string.
fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
