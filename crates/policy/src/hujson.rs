//! HuJSON: JSON with comments and trailing commas, kept together with its text.
//!
//! A [`Document`] owns the exact text; every [`Value`] knows where in it it stands. Edits splice the text and leave
//! everything else, comments above all, as the author wrote it. What JSON leaves open is refused: duplicate names, lone
//! surrogates, and documents beyond [`MAX_BYTES`], [`MAX_DEPTH`] or [`MAX_VALUES`].
//!
//! Edits are for programs that change one thing of somebody else's policy: a console, or a call of the API that adds a rule.
//! There is none yet. Who edits the text themselves, as with `towline policy edit`, keeps their comments without them.

mod edit;
mod format;
mod parse;
mod position;

use std::ops::Range;
use std::sync::Arc;

pub use edit::{EditError, Step};
pub use format::format;
pub use position::Position;

use crate::Problem;
use parse::Parser;
use position::LineIndex;

/// The longest text that is read.
pub const MAX_BYTES: usize = 16 << 20;

/// The deepest nesting of lists and objects.
pub const MAX_DEPTH: usize = 64;

/// The most values and names: each costs some fifty times the two bytes that it can be written in.
pub const MAX_VALUES: usize = 2_000_000;

/// A parsed HuJSON text.
#[derive(Clone, Debug)]
pub struct Document {
    text: Arc<str>,
    lines: LineIndex,
    root: Value,
}

/// A value and its place in the text.
#[derive(Clone, Debug)]
pub struct Value {
    /// The value alone, without what surrounds it.
    span: Range<usize>,
    /// Blanks and comments before it.
    before: Range<usize>,
    /// Blanks and comments between it and the comma, colon or bracket that follows.
    after: Range<usize>,
    kind: Kind,
}

/// What a value is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as it is written.
    Number,
    /// A string, with its escapes resolved.
    String(String),
    /// A list.
    Array(Array),
    /// An object.
    Object(Object),
}

/// A list of values.
#[derive(Clone, Debug, Default)]
pub struct Array {
    elements: Vec<Value>,
    tail: Tail,
}

/// An object: members in the order of the text; no two have the same name.
#[derive(Clone, Debug, Default)]
pub struct Object {
    members: Vec<Member>,
    tail: Tail,
}

/// A named value of an object.
#[derive(Clone, Debug)]
pub struct Member {
    name: Value,
    value: Value,
}

/// What stands between the last element and the closing bracket.
#[derive(Clone, Debug, Default)]
struct Tail {
    trailing_comma: bool,
    /// Blanks and comments behind the trailing comma, or inside an empty pair of brackets.
    blank: Range<usize>,
}

impl Document {
    /// Parses a text.
    ///
    /// # Errors
    /// The first thing that is no HuJSON, with its line and column.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        if text.len() > MAX_BYTES {
            let message = format!("the text has {} bytes; the most that are read is {MAX_BYTES}", text.len());
            return Err(Problem::new(message));
        }
        let lines = LineIndex::new(text);
        let root = Parser::new(text)
            .document()
            .map_err(|error| Problem { message: error.message, position: Some(lines.position(text, error.offset)) })?;
        Ok(Self { text: text.into(), lines, root })
    }

    /// The text, byte for byte as it was parsed.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// The outermost value.
    pub fn root(&self) -> &Value {
        &self.root
    }

    /// Where a value of this document begins.
    pub fn position(&self, value: &Value) -> Position {
        self.lines.position(&self.text, value.span.start)
    }

    /// A value's text as plain JSON: no comments, no trailing commas, no blanks.
    pub fn minify(&self, value: &Value) -> String {
        let mut out = String::with_capacity(value.span.len());
        self.minify_into(value, &mut out, usize::MAX);
        out
    }

    /// At least so many characters of that from its beginning, if there are so many, and not much more: for what is only
    /// shown in part.
    pub(crate) fn minify_start(&self, value: &Value, characters: usize) -> String {
        let mut out = String::new();
        self.minify_into(value, &mut out, characters);
        out
    }

    fn minify_into(&self, value: &Value, out: &mut String, characters: usize) {
        let separate = |at: usize, out: &mut String| {
            if at > 0 {
                out.push(',');
            }
        };
        // A character has at most four bytes.
        let is_enough = |out: &String| out.len() / 4 > characters;
        match &value.kind {
            Kind::Array(array) => {
                out.push('[');
                for (at, element) in array.elements.iter().enumerate() {
                    if is_enough(out) {
                        return;
                    }
                    separate(at, out);
                    self.minify_into(element, out, characters);
                }
                out.push(']');
            }
            Kind::Object(object) => {
                out.push('{');
                for (at, member) in object.members.iter().enumerate() {
                    if is_enough(out) {
                        return;
                    }
                    separate(at, out);
                    out.push_str(&self.text[member.name.span.clone()]);
                    out.push(':');
                    self.minify_into(&member.value, out, characters);
                }
                out.push('}');
            }
            _ if characters == usize::MAX => out.push_str(&self.text[value.span.clone()]),
            _ => out.extend(self.text[value.span.clone()].chars().take(characters)),
        }
    }
}

impl Value {
    /// What the value is.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match &self.kind {
            Kind::String(text) => Some(text),
            _ => None,
        }
    }

    /// The list's values, if it is one.
    pub fn elements(&self) -> Option<&[Value]> {
        match &self.kind {
            Kind::Array(array) => Some(&array.elements),
            _ => None,
        }
    }

    /// The object's members, if it is one.
    pub fn members(&self) -> Option<&[Member]> {
        match &self.kind {
            Kind::Object(object) => Some(&object.members),
            _ => None,
        }
    }

    /// The value of the member with this exact name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.members()?.iter().find(|member| member.name() == name).map(|member| &member.value)
    }

    /// The kind in words, for messages.
    pub fn kind_name(&self) -> &'static str {
        match &self.kind {
            Kind::Null => "null",
            Kind::Bool(_) => "a boolean",
            Kind::Number => "a number",
            Kind::String(_) => "a string",
            Kind::Array(_) => "a list",
            Kind::Object(_) => "an object",
        }
    }
}

impl Member {
    /// The name, with its escapes resolved.
    pub fn name(&self) -> &str {
        self.name.as_str().unwrap_or_default()
    }

    /// The name as a value, for its position.
    pub fn name_value(&self) -> &Value {
        &self.name
    }

    /// The value.
    pub fn value(&self) -> &Value {
        &self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Document::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn comments_and_trailing_commas_are_read() {
        let document =
            Document::parse("// a\n{ /* b */ \"x\": [1, 2.50e3,], // c\n \"y\": {\"z\": null,}, }\n// d").unwrap();
        assert_eq!(document.minify(document.root()), r#"{"x":[1,2.50e3],"y":{"z":null}}"#);
    }

    #[test]
    fn escapes_are_resolved() {
        let document = Document::parse(r#"["\u0041\n\"\\\/\ud83d\ude80é"]"#).unwrap();
        assert_eq!(document.root().elements().unwrap()[0].as_str(), Some("A\n\"\\/🚀é"));
    }

    #[test]
    fn a_value_knows_its_line_and_column() {
        let document = Document::parse("{\n  \"é\": [\n\t\"x\"]}").unwrap();
        let list = document.root().get("é").unwrap();
        assert_eq!(document.position(list), Position { line: 2, column: 8 });
        assert_eq!(document.position(&list.elements().unwrap()[0]), Position { line: 3, column: 2 });
    }

    #[test]
    fn what_is_no_hujson_is_refused_with_its_place() {
        for (text, message) in [
            ("", "line 1, column 1: a value is missing"),
            ("{\"a\":1}\n x", "line 2, column 2: unexpected \"x\" after the end of the document"),
            ("{\"a\" 1}", "line 1, column 6: expected \":\", found \"1\""),
            ("[1 2]", "line 1, column 4: expected \",\" or \"]\", found \"2\""),
            ("[1,,2]", "line 1, column 4: a value is missing"),
            ("{,}", "line 1, column 2: expected a name in double quotes, found \",\""),
            ("{\"a\":1,\n\"a\":2}", "line 2, column 1: duplicate name \"a\""),
            ("[\"a\nb\"]", "line 1, column 4: a string holds a control character; write \\u000a"),
            ("[\"ab", "line 1, column 2: a string has no closing quote"),
            ("[\"\\x\"]", "line 1, column 3: \"\\x\" is not an escape"),
            ("[\"\\ud83d\"]", "line 1, column 3: half of a surrogate pair"),
            ("[01]", "line 1, column 3: expected \",\" or \"]\", found \"1\""),
            ("[1.]", "line 1, column 2: \"1.\" is not a number"),
            ("[+1]", "line 1, column 2: unexpected \"+\""),
            ("[tru]", "line 1, column 2: unexpected \"tru\""),
            ("/* x", "line 1, column 1: a comment has no end"),
            ("[1] /", "line 1, column 5: unexpected \"/\" after the end of the document"),
            ("[", "line 1, column 2: a list has no closing \"]\""),
            ("{\"a\":1", "line 1, column 7: an object has no closing \"}\""),
        ] {
            assert_eq!(refusal(text), message, "{text:?}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        assert!(Document::parse(&format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH))).is_ok());
        assert_eq!(
            refusal(&"[".repeat(100_000)),
            format!("line 1, column {}: nested deeper than {MAX_DEPTH}", MAX_DEPTH + 1)
        );
    }

    #[test]
    fn the_number_of_values_is_bounded() {
        let message = refusal(&format!("[{}]", "0,".repeat(MAX_VALUES)));
        assert_eq!(message, format!("line 1, column {}: more than {MAX_VALUES} values", 2 * MAX_VALUES));
    }
}
