//! `application/x-www-form-urlencoded` and percent encoding, as queries, forms and paths use them.

/// Reads names and values of a form or query, `a=1&b=2`; a pair without `=` has an empty value.
///
/// Bytes that are no UTF-8 become replacement characters.
pub fn decode_pairs(text: &str) -> Vec<(String, String)> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name, true), decode(value, true)))
        .collect()
}

/// Writes `a=1&b=2`.
pub(crate) fn encode_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::new();
    for (name, value) in pairs {
        if !out.is_empty() {
            out.push('&');
        }
        encode_into(name, &mut out);
        out.push('=');
        encode_into(value, &mut out);
    }
    out
}

/// Percent-encodes everything that has a meaning anywhere in a URL.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    encode_into(text, &mut out);
    out
}

/// Undoes percent encoding, and `+` for a space where `plus` says so; a `%` that starts no escape stands for itself.
pub(crate) fn decode(text: &str, plus: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let escaped = (*byte == b'%').then(|| hex(bytes.get(at + 1..at + 3)?)).flatten();
        match (escaped, byte) {
            (Some(value), _) => {
                out.push(value);
                at += 2;
            }
            (None, b'+') if plus => out.push(b' '),
            (None, byte) => out.push(*byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn encode_into(text: &str, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
}

fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(*digits.first()?)? << 4 | digit(*digits.get(1)?)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_form_decodes_plus_and_percent() {
        let pairs = decode_pairs("scope=devices%3Acore+auth_keys&x&=&tags=tag%3Ax%2");
        let expected = [("scope", "devices:core auth_keys"), ("x", ""), ("", ""), ("tags", "tag:x%2")];
        assert_eq!(pairs, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn a_path_keeps_its_plus() {
        assert_eq!(decode("a+b%20c", false), "a+b c");
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_again(name in ".*", value in ".*") {
            let text = encode_pairs([(name.as_str(), value.as_str())]);
            prop_assert_eq!(decode_pairs(&text), vec![(name, value)]);
        }

        #[test]
        fn decoding_takes_any_text(text in ".*") {
            decode_pairs(&text);
        }
    }
}
