use std::borrow::Cow;

/// Blanks and comments between two tokens.
#[derive(Clone, Default)]
pub(super) struct Gap<'t> {
    comments: Vec<Comment<'t>>,
    /// Line ends behind the last comment.
    line_ends: usize,
    /// Whether a line ends anywhere in it, comments included.
    broken: bool,
}

#[derive(Clone)]
struct Comment<'t> {
    /// Line ends before it.
    line_ends: usize,
    text: &'t str,
}

/// How a gap is laid out.
pub(super) struct Style<'i> {
    /// The indentation of comments on lines of their own.
    pub(super) comments: &'i str,
    /// The indentation of what follows.
    pub(super) next: &'i str,
    /// No blank line at the beginning.
    pub(super) tight_start: bool,
    /// No blank line at the end.
    pub(super) tight_end: bool,
}

impl<'t> Gap<'t> {
    pub(super) fn read(text: &'t str) -> Self {
        let mut gap = Self { broken: text.contains('\n'), ..Self::default() };
        let mut rest = text;
        while !rest.is_empty() {
            let end = match rest.as_bytes() {
                [b'/', b'/', ..] => rest.find('\n').unwrap_or(rest.len()),
                [b'/', ..] => rest[2..].find("*/").map_or(rest.len(), |end| end + 4),
                [byte, ..] => {
                    gap.line_ends += usize::from(*byte == b'\n');
                    rest = &rest[1..];
                    continue;
                }
                [] => break,
            };
            gap.comments.push(Comment { line_ends: std::mem::take(&mut gap.line_ends), text: &rest[..end] });
            rest = &rest[end..];
        }
        gap
    }

    /// Whether there are no comments.
    pub(super) fn is_blank(&self) -> bool {
        self.comments.is_empty()
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    pub(super) fn breaks_with_comment(&self) -> bool {
        self.broken && !self.is_blank()
    }

    /// With a line end at its beginning, unless there is one somewhere.
    pub(super) fn broken(mut self) -> Self {
        if !self.broken {
            self.broken = true;
            match self.comments.first_mut() {
                Some(first) => first.line_ends = 1,
                None => self.line_ends = 1,
            }
        }
        self
    }

    /// With a line end at its end.
    pub(super) fn ended(mut self) -> Self {
        self.line_ends = self.line_ends.max(1);
        self.broken = true;
        self
    }

    /// Without line ends that no comment asks for.
    pub(super) fn without_idle_ends(mut self) -> Self {
        if self.is_blank() {
            self.line_ends = 0;
        }
        self
    }

    /// Without a line end behind the last comment.
    pub(super) fn open_ended(mut self) -> Self {
        self.line_ends = 0;
        self
    }

    /// Columns up to the first line end, and those behind the last one if there is any.
    pub(super) fn widths(&self) -> (usize, Option<usize>) {
        let line = |text: &str| text.len() + 1;
        if !self.broken {
            let comments: usize = self.comments.iter().map(|comment| line(comment.text)).sum();
            return (comments + usize::from(!self.is_blank()), None);
        }
        let mut before = 0;
        for comment in self.comments.iter().take_while(|comment| comment.line_ends == 0) {
            before += line(comment.text);
            if comment.text.contains('\n') {
                break;
            }
        }
        let mut after = 0;
        if self.line_ends == 0 {
            for comment in self.comments.iter().rev() {
                after += line(comment.text.rsplit('\n').next().unwrap_or_default());
                if comment.line_ends > 0 {
                    break;
                }
            }
        }
        (before, Some(after))
    }

    /// Lays the gap out. Comments that share a line with what is before or behind them keep to it.
    pub(super) fn render(&self, style: &Style<'_>) -> String {
        let mut out = String::new();
        for (at, comment) in self.comments.iter().enumerate() {
            match comment.line_ends {
                0 => out.push(' '),
                ends => break_line(&mut out, ends > 1 && !(style.tight_start && at == 0), style.comments),
            }
            out.push_str(&tidy(comment.text, style.comments));
        }
        let tight = style.tight_end || (self.is_blank() && style.tight_start);
        match self.line_ends {
            0 if self.is_blank() => {}
            0 => out.push(' '),
            ends => break_line(&mut out, ends > 1 && !tight, style.next),
        }
        out
    }
}

fn break_line(out: &mut String, blank: bool, indent: &str) {
    out.push_str(if blank { "\n\n" } else { "\n" });
    out.push_str(indent);
}

/// A comment without blanks at the ends of its lines, its lines indented alike.
fn tidy<'t>(comment: &'t str, indent: &str) -> Cow<'t, str> {
    const BLANKS: [char; 3] = [' ', '\t', '\r'];
    let Some((first, rest)) = comment.split_once('\n') else {
        return comment.trim_end_matches(BLANKS).into();
    };
    let rest: Vec<&str> = rest.split('\n').map(|line| line.trim_matches(BLANKS)).collect();
    let starred = rest.iter().all(|line| line.starts_with('*'));
    let mut out = first.trim_end_matches(BLANKS).to_owned();
    for line in rest {
        break_line(&mut out, false, indent);
        if starred {
            out.push(' ');
        }
        out.push_str(line);
    }
    out.into()
}
