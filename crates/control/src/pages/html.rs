//! HTML, written so that nothing that anybody else wrote becomes part of its structure.

use std::fmt::Write;

/// Makes a text harmless between tags and within quoted attributes.
///
/// What is invisible or changes the direction of what follows is shown by its number: a name must look like what it is.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            hidden if hidden.is_control() || is_invisible(hidden) => {
                // Writing to a String can't fail.
                let _ = write!(out, "\\u{{{:x}}}", u32::from(hidden));
            }
            plain => out.push(plain),
        }
    }
    out
}

fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
    )
}

/// The look of every page; the policy that pages are sent with allows exactly this text.
pub(crate) const STYLE: &str = "\
:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}\
body{max-width:34rem;margin:3rem auto;padding:0 1rem}\
h1{font-size:1.4rem}\
dl{display:grid;grid-template-columns:max-content 1fr;gap:.3rem 1rem}\
dt{opacity:.7}dd{margin:0;overflow-wrap:anywhere}\
label{display:block;margin:.8rem 0 .2rem}\
input{font:inherit;width:100%;box-sizing:border-box;padding:.5rem}\
button{font:inherit;padding:.5rem 1rem;margin:1rem .5rem 0 0}\
.problem{border-left:4px solid #c33;padding:.3rem .8rem}\
code{overflow-wrap:anywhere}";

/// A page: a title that is plain text, and content that is HTML already.
pub(crate) fn page(title: &str, content: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title} · Towline</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><meta name=\"robots\" content=\"noindex\">\
         <style>{STYLE}</style></head><body><main><h1>{title}</h1>\n{content}\n</main></body></html>\n"
    )
}

/// A list of names and values, all plain text; values that are empty are left out.
pub(crate) fn facts(facts: &[(&str, &str)]) -> String {
    let known = facts.iter().filter(|(_, value)| !value.is_empty());
    let rows: String =
        known.map(|(name, value)| format!("<dt>{}</dt><dd>{}</dd>", escape(name), escape(value))).collect();
    format!("<dl>{rows}</dl>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_stays_a_name() {
        let name = "<script>alert(\"1\")</script>'&\u{202e}gpj.exe\n";
        let shown = facts(&[("Name", name), ("Empty", "")]);
        let expected = "<dl><dt>Name</dt><dd>&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&#39;&amp;\
                        \\u{202e}gpj.exe\\u{a}</dd></dl>";
        assert_eq!(shown, expected);
    }

    #[test]
    fn letters_of_every_language_stay_readable() {
        assert_eq!(escape("Zoë 東京 עברית"), "Zoë 東京 עברית");
    }
}
