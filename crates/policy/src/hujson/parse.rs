use std::collections::HashSet;
use std::ops::Range;

use super::{Array, Kind, MAX_DEPTH, MAX_VALUES, Member, Object, Tail, Value};

/// A recursive-descent parser; its recursion is bounded by [`MAX_DEPTH`].
pub(super) struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    values: usize,
}

/// What is wrong, and at which byte.
pub(super) struct ParseError {
    pub(super) message: String,
    pub(super) offset: usize,
}

type Parsed<T> = Result<T, ParseError>;

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0, values: 0 }
    }

    pub(super) fn document(mut self) -> Parsed<Value> {
        let root = self.value()?;
        if self.at < self.text.len() {
            let found = self.found();
            return self.fail(format!("unexpected {found} after the end of the document"));
        }
        Ok(root)
    }

    /// A value with the blanks on both sides.
    fn value(&mut self) -> Parsed<Value> {
        let before = self.blank()?;
        let start = self.at;
        self.count_value()?;
        let kind = match self.peek() {
            Some(b'{') => self.nested(Self::object)?,
            Some(b'[') => self.nested(Self::array)?,
            Some(b'"') => Kind::String(self.string()?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b',' | b':' | b']' | b'}') | None => return self.fail("a value is missing"),
            Some(_) => self.word()?,
        };
        let span = start..self.at;
        let after = self.blank()?;
        Ok(Value { span, before, after, kind })
    }

    fn count_value(&mut self) -> Parsed<()> {
        self.values += 1;
        if self.values > MAX_VALUES { self.fail(format!("more than {MAX_VALUES} values")) } else { Ok(()) }
    }

    fn nested(&mut self, inner: fn(&mut Self) -> Parsed<Kind>) -> Parsed<Kind> {
        if self.depth == MAX_DEPTH {
            return self.fail(format!("nested deeper than {MAX_DEPTH}"));
        }
        self.depth += 1;
        self.at += 1;
        let kind = inner(self);
        self.depth -= 1;
        kind
    }

    fn array(&mut self) -> Parsed<Kind> {
        let mut elements = Vec::new();
        loop {
            if let Some(tail) = self.closing(b']', elements.is_empty())? {
                return Ok(Kind::Array(Array { elements, tail }));
            }
            elements.push(self.value()?);
            if self.separator(b']', "a list")? {
                return Ok(Kind::Array(Array { elements, tail: Tail::default() }));
            }
        }
    }

    fn object(&mut self) -> Parsed<Kind> {
        let mut members: Vec<Member> = Vec::new();
        let mut names = HashSet::new();
        loop {
            if let Some(tail) = self.closing(b'}', members.is_empty())? {
                return Ok(Kind::Object(Object { members, tail }));
            }
            let name = self.name()?;
            let text = name.as_str().unwrap_or_default();
            if !names.insert(text.to_owned()) {
                return Err(ParseError { message: format!("duplicate name {text:?}"), offset: name.span.start });
            }
            if self.peek() != Some(b':') {
                let found = self.found();
                return self.fail(format!("expected \":\", found {found}"));
            }
            self.at += 1;
            let value = self.value()?;
            members.push(Member { name, value });
            if self.separator(b'}', "an object")? {
                return Ok(Kind::Object(Object { members, tail: Tail::default() }));
            }
        }
    }

    fn name(&mut self) -> Parsed<Value> {
        let before = self.blank()?;
        match self.peek() {
            Some(b'"') => {}
            None => return self.fail("an object has no closing \"}\""),
            Some(_) => {
                let found = self.found();
                return self.fail(format!("expected a name in double quotes, found {found}"));
            }
        }
        let start = self.at;
        self.count_value()?;
        let kind = Kind::String(self.string()?);
        let span = start..self.at;
        let after = self.blank()?;
        Ok(Value { span, before, after, kind })
    }

    /// Looks over blanks for the closing bracket where an element may begin; without one it stays where it was.
    fn closing(&mut self, bracket: u8, empty: bool) -> Parsed<Option<Tail>> {
        let start = self.at;
        let blank = self.blank()?;
        if self.peek() == Some(bracket) {
            self.at += 1;
            return Ok(Some(Tail { trailing_comma: !empty, blank }));
        }
        if self.peek().is_none() {
            let what = if bracket == b']' { "a list" } else { "an object" };
            return self.fail(format!("{what} has no closing {:?}", char::from(bracket).to_string()));
        }
        self.at = start;
        Ok(None)
    }

    /// Takes a comma (`false`) or the closing bracket (`true`).
    fn separator(&mut self, bracket: u8, what: &str) -> Parsed<bool> {
        let close = char::from(bracket).to_string();
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(false)
            }
            Some(byte) if byte == bracket => {
                self.at += 1;
                Ok(true)
            }
            None => self.fail(format!("{what} has no closing {close:?}")),
            Some(_) => {
                let found = self.found();
                self.fail(format!("expected \",\" or {close:?}, found {found}"))
            }
        }
    }

    /// Skips blanks and comments.
    fn blank(&mut self) -> Parsed<Range<usize>> {
        let start = self.at;
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            match rest {
                [b' ' | b'\t' | b'\r' | b'\n', ..] => self.at += 1,
                [b'/', b'/', ..] => {
                    let end = rest.iter().position(|byte| *byte == b'\n');
                    self.at += end.unwrap_or(rest.len());
                }
                [b'/', b'*', ..] => match self.text[self.at + 2..].find("*/") {
                    Some(end) => self.at += end + 4,
                    None => return self.fail("a comment has no end"),
                },
                _ => return Ok(start..self.at),
            }
        }
    }

    fn string(&mut self) -> Parsed<String> {
        let opening = self.at;
        self.at += 1;
        let mut out = String::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.find(|c: char| c == '"' || c == '\\' || c < ' ').unwrap_or(rest.len());
            out.push_str(&rest[..plain]);
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => out.push(self.escape()?),
                Some(byte) => return self.fail(format!("a string holds a control character; write \\u{byte:04x}")),
                None => {
                    return Err(ParseError { message: "a string has no closing quote".to_owned(), offset: opening });
                }
            }
        }
    }

    fn escape(&mut self) -> Parsed<char> {
        let start = self.at;
        let resolved = match self.text.as_bytes().get(start + 1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            _ => {
                let wrong: String = self.text[start..].chars().take(2).collect();
                return self.fail(format!("\"{wrong}\" is not an escape"));
            }
        };
        self.at += 2;
        Ok(resolved)
    }

    fn unicode_escape(&mut self) -> Parsed<char> {
        let start = self.at;
        let unit = |at: usize| {
            let digits = self.text.get(at + 2..at + 6).filter(|_| self.text[at..].starts_with("\\u"))?;
            digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then_some(digits)?;
            u32::from_str_radix(digits, 16).ok()
        };
        let Some(high) = unit(start) else {
            return self.fail("\"\\u\" needs four hexadecimal digits");
        };
        if let Some(resolved) = char::from_u32(high) {
            self.at += 6;
            return Ok(resolved);
        }
        let low = unit(start + 6).filter(|low| high < 0xdc00 && (0xdc00..0xe000).contains(low));
        let resolved = low.and_then(|low| char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)));
        match resolved {
            Some(resolved) => {
                self.at += 12;
                Ok(resolved)
            }
            None => self.fail("half of a surrogate pair"),
        }
    }

    fn number(&mut self) -> Parsed<Kind> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let mut at = start + usize::from(bytes[start] == b'-');
        let mut whole = if bytes.get(at) == Some(&b'0') { 1 } else { digits(at) };
        let mut good = whole > 0;
        at += whole;
        if bytes.get(at) == Some(&b'.') {
            whole = digits(at + 1);
            good &= whole > 0;
            at += 1 + whole;
        }
        if matches!(bytes.get(at), Some(b'e' | b'E')) {
            at += 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
            whole = digits(at);
            good &= whole > 0;
            at += whole;
        }
        if !good {
            return self.fail(format!("{:?} is not a number", &self.text[start..at]));
        }
        self.at = at;
        Ok(Kind::Number)
    }

    fn word(&mut self) -> Parsed<Kind> {
        let rest = &self.text[self.at..];
        let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let kind = match &rest[..length] {
            "null" => Kind::Null,
            "true" => Kind::Bool(true),
            "false" => Kind::Bool(false),
            _ => {
                let found = self.found();
                return self.fail(format!("unexpected {found}"));
            }
        };
        self.at += length;
        Ok(kind)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// What stands here, quoted: a word or one character.
    fn found(&self) -> String {
        let rest = &self.text[self.at..];
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len()).min(rest.len());
        let found: String =
            if word == 0 { rest.chars().take(1).collect() } else { rest[..word].chars().take(20).collect() };
        format!("{found:?}")
    }

    fn fail<T>(&self, message: impl Into<String>) -> Parsed<T> {
        Err(ParseError { message: message.into(), offset: self.at })
    }
}
