use super::{Document, Kind, Value};
use crate::Problem;

/// A step from a value to one inside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// The member of an object with this name.
    Name(&'a str),
    /// The element of a list with this number, from 0.
    Index(usize),
}

/// Why an edit was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The path leads nowhere.
    #[error("{0}: no such value")]
    Missing(String),
    /// The value at the path is no list, or no object.
    #[error("{0} is {1}; it can't be added to")]
    NoContainer(String, &'static str),
    /// The text to put in is no HuJSON, or what it makes of the document isn't.
    #[error("the text to put in: {0}")]
    Text(Problem),
}

impl Document {
    /// The value at a path.
    ///
    /// # Errors
    /// The path leads nowhere.
    pub fn at(&self, path: &[Step<'_>]) -> Result<&Value, EditError> {
        let mut value = self.root();
        for (depth, step) in path.iter().enumerate() {
            let next = match step {
                Step::Name(name) => value.get(name),
                Step::Index(at) => value.elements().and_then(|elements| elements.get(*at)),
            };
            value = next.ok_or_else(|| EditError::Missing(write_path(&path[..=depth])))?;
        }
        Ok(value)
    }

    /// Replaces the value at a path; everything around it stays as it is.
    ///
    /// # Errors
    /// The path leads nowhere, or the text is no HuJSON.
    pub fn replace(&self, path: &[Step<'_>], text: &str) -> Result<Self, EditError> {
        let span = self.at(path)?.span.clone();
        self.splice(span.start, span.end, text, text)
    }

    /// Adds an element to the end of the list at a path, in the layout of the last one.
    ///
    /// # Errors
    /// The path leads nowhere or to no list, or the text is no HuJSON.
    pub fn append(&self, path: &[Step<'_>], text: &str) -> Result<Self, EditError> {
        let list = self.at(path)?;
        let Kind::Array(array) = &list.kind else {
            return Err(EditError::NoContainer(write_path(path), list.kind_name()));
        };
        let last = array.elements.last();
        self.insert(list, last.map(|last| (last, last.before.clone())), array.tail.trailing_comma, text, text)
    }

    /// Adds a member to the end of the object at a path, in the layout of the last one. A member that has the name already
    /// is replaced.
    ///
    /// # Errors
    /// The path leads nowhere or to no object, or the text is no HuJSON.
    pub fn set(&self, path: &[Step<'_>], name: &str, text: &str) -> Result<Self, EditError> {
        let container = self.at(path)?;
        let Kind::Object(object) = &container.kind else {
            return Err(EditError::NoContainer(write_path(path), container.kind_name()));
        };
        if let Some(value) = container.get(name) {
            return self.splice(value.span.start, value.span.end, text, text);
        }
        let member = format!("{}: {text}", serde_json::Value::from(name));
        let last = object.members.last().map(|last| (&last.value, last.name.before.clone()));
        self.insert(container, last, object.tail.trailing_comma, &member, text)
    }

    /// Removes the value at a path, with its name, its comma and the comments right before it on lines of their own.
    ///
    /// # Errors
    /// The path is empty or leads nowhere.
    pub fn remove(&self, path: &[Step<'_>]) -> Result<Self, EditError> {
        let Some((step, parent)) = path.split_last() else {
            return Err(EditError::Missing("the whole document".to_owned()));
        };
        let value = self.at(path)?;
        let mut start = match (step, &self.at(parent)?.kind) {
            (Step::Name(name), Kind::Object(object)) => {
                let member = object.members.iter().find(|member| member.name() == *name);
                member.map_or(value.before.start, |member| member.name.before.start)
            }
            _ => value.before.start,
        };
        let mut end = value.after.end;
        let bytes = self.text.as_bytes();
        if bytes.get(end) == Some(&b',') {
            end += 1;
        } else if start > 0 && bytes[start - 1] == b',' {
            // The last of several: the comma before it goes.
            start -= 1;
            end = value.span.end;
        }
        let text = format!("{}{}", &self.text[..start], &self.text[end..]);
        Self::parse(&text).map_err(EditError::Text)
    }

    fn insert(
        &self,
        container: &Value,
        last: Option<(&Value, std::ops::Range<usize>)>,
        trailing_comma: bool,
        text: &str,
        checked: &str,
    ) -> Result<Self, EditError> {
        let Some((last, before)) = last else {
            let inside = container.span.start + 1;
            return self.splice(inside, inside, text, checked);
        };
        let blank = &self.text[before];
        let indent: String = match blank.rfind('\n') {
            Some(line) => {
                format!("\n{}", blank[line + 1..].chars().take_while(|c| c.is_whitespace()).collect::<String>())
            }
            None => " ".to_owned(),
        };
        if trailing_comma {
            let comma = last.after.end + 1;
            return self.splice(comma, comma, &format!("{indent}{text},"), checked);
        }
        self.splice(last.span.end, last.span.end, &format!(",{indent}{text}"), checked)
    }

    /// Puts a text in place of a span. `value` is the part of it that must be a value by itself.
    fn splice(&self, start: usize, end: usize, text: &str, value: &str) -> Result<Self, EditError> {
        Self::parse(value).map_err(EditError::Text)?;
        // A line comment at the end of the text must not swallow what follows: only there would a stray bracket do no harm.
        let close = if Self::parse(&format!("{value}]")).is_ok() { "\n" } else { "" };
        let text = format!("{}{text}{close}{}", &self.text[..start], &self.text[end..]);
        Self::parse(&text).map_err(EditError::Text)
    }
}

fn write_path(path: &[Step<'_>]) -> String {
    let mut out = String::new();
    for step in path {
        match step {
            Step::Name(name) if out.is_empty() => out.push_str(name),
            Step::Name(name) => out.push_str(&format!(".{name}")),
            Step::Index(at) => out.push_str(&format!("[{at}]")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "// policy\n{\n\t\"a\": [1, 2], // pair\n\t// about b\n\t\"b\": {\"x\": true},\n}\n";

    fn document() -> Document {
        Document::parse(TEXT).unwrap()
    }

    #[test]
    fn replacing_keeps_every_comment() {
        let edited = document().replace(&[Step::Name("a"), Step::Index(1)], "[3]").unwrap();
        assert_eq!(&**edited.text(), TEXT.replace("2]", "[3]]"));
    }

    #[test]
    fn a_value_in_its_own_place_changes_no_byte() {
        let text = "{\"a\": \"https://example.com\", \"b\": 1}";
        let document = Document::parse(text).unwrap();
        let edited = document.replace(&[Step::Name("a")], "\"https://example.com\"").unwrap();
        assert_eq!(&**edited.text(), text);
    }

    #[test]
    fn a_line_comment_behind_a_value_swallows_nothing() {
        for (text, expected) in
            [("[3] // three", "[[3] // three\n, 2]"), ("3 /* // */", "[3 /* // */, 2]"), ("3 //\n", "[3 //\n, 2]")]
        {
            let edited = Document::parse("[1, 2]").unwrap().replace(&[Step::Index(0)], text).unwrap();
            assert_eq!(&**edited.text(), expected);
        }
    }

    #[test]
    fn an_element_is_added_in_the_layout_of_the_last() {
        assert!(document().append(&[Step::Name("a")], "3").unwrap().text().contains("[1, 2, 3], // pair"));
        let lines = Document::parse("[\n  1,\n  2, // two\n]").unwrap();
        assert_eq!(&**lines.append(&[], "3").unwrap().text(), "[\n  1,\n  2,\n  3, // two\n]");
        assert_eq!(&**Document::parse("[]").unwrap().append(&[], "3").unwrap().text(), "[3]");
    }

    #[test]
    fn a_member_is_added_or_replaced() {
        let edited = document().set(&[Step::Name("b")], "y", "null").unwrap();
        assert!(edited.text().contains("{\"x\": true, \"y\": null}"));
        let edited = document().set(&[], "c", "1").unwrap();
        assert_eq!(&**edited.text(), TEXT.replace("true},", "true},\n\t\"c\": 1,"));
        let edited = document().set(&[], "a", "[]").unwrap();
        assert_eq!(&**edited.text(), TEXT.replace("[1, 2]", "[]"));
    }

    #[test]
    fn a_value_is_removed_with_its_comma() {
        let removed = document().remove(&[Step::Name("a"), Step::Index(0)]).unwrap();
        assert!(removed.text().contains("\"a\": [ 2], // pair"));
        let removed = document().remove(&[Step::Name("a"), Step::Index(1)]).unwrap();
        assert!(removed.text().contains("\"a\": [1], // pair"));
        let removed = document().remove(&[Step::Name("b")]).unwrap();
        assert!(removed.root().get("b").is_none());
    }

    #[test]
    fn a_text_that_is_no_value_changes_nothing() {
        for text in ["", "1, 2", "1]", "{", "// x"] {
            assert!(matches!(document().replace(&[Step::Name("a")], text), Err(EditError::Text(_))), "{text:?}");
        }
        assert!(document().replace(&[Step::Name("a")], "1 // one").is_ok());
    }

    #[test]
    fn a_path_that_leads_nowhere_is_told() {
        let error = document().at(&[Step::Name("a"), Step::Index(5)]).unwrap_err();
        assert_eq!(error.to_string(), "a[5]: no such value");
        let error = document().append(&[Step::Name("b")], "1").unwrap_err();
        assert_eq!(error.to_string(), "b is an object; it can't be added to");
    }
}
