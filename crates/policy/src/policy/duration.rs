use std::time::Duration;

/// Units of a duration's text with their nanoseconds.
const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// A duration with its sign: whether it is negative, and how long.
pub(super) type SignedDuration = (bool, Duration);

/// Reads a duration such as `1h30m`, `-1m` or `1.5s`.
///
/// # Errors
/// The message of the hosted service.
pub(super) fn parse(text: &str) -> Result<SignedDuration, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok((false, Duration::ZERO));
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0_u128;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let unit = rest[number..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |at| number + at);
        let nanos = UNITS.iter().find(|(name, _)| *name == &rest[number..unit]).map(|(_, nanos)| *nanos);
        let part = nanos.and_then(|nanos| scale(&rest[..number], nanos)).ok_or_else(invalid)?;
        total = total.checked_add(part).filter(|total| *total < i64::MAX as u128).ok_or_else(invalid)?;
        rest = &rest[unit..];
    }
    Ok((negative && total > 0, Duration::from_nanos(total as u64)))
}

fn scale(digits: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut total = if whole.is_empty() { 0 } else { whole.parse::<u128>().ok()?.checked_mul(unit)? };
    let mut place = unit;
    for digit in fraction.bytes() {
        place /= 10;
        total = total.checked_add(u128::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?) * place)?;
    }
    Some(total)
}

/// Writes a duration as the hosted service does: `1h0m0s`, `1m0s`, `1.5s`, `0s`.
pub(super) fn write((negative, duration): SignedDuration) -> String {
    let sign = if negative { "-" } else { "" };
    let seconds = duration.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let fraction = duration.subsec_nanos();
    let mut rest = format!("{}", seconds % 60);
    if fraction > 0 {
        rest.push('.');
        rest.push_str(format!("{fraction:09}").trim_end_matches('0'));
    }
    match (hours, minutes) {
        (0, 0) => format!("{sign}{rest}s"),
        (0, _) => format!("{sign}{minutes}m{rest}s"),
        _ => format!("{sign}{hours}h{minutes}m{rest}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_write() {
        for (text, written) in [
            ("1h", "1h0m0s"),
            ("-1m", "-1m0s"),
            ("168h0m1s", "168h0m1s"),
            ("1.5s", "1.5s"),
            ("0s", "0s"),
            ("90m", "1h30m0s"),
            ("0", "0s"),
        ] {
            assert_eq!(write(parse(text).unwrap()), written);
        }
    }

    #[test]
    fn texts_that_are_no_duration_are_refused() {
        for text in ["", "abc", "1", "-", "1x", ".s", "1h.", "99999999999999999999h", "1.2.3s"] {
            assert_eq!(parse(text), Err(format!("time: invalid duration {text:?}")), "{text}");
        }
    }
}
