//! Spans of time as Go's flags read and print them: the stock command's users type and parse these.

use std::time::Duration;

const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads `5s`, `1m30s`, `1.5h`, `300ms` or `0`.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration: numbers with units, such as 500ms, 5s or 1m30s");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut nanoseconds: f64 = 0.0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let end = rest.find(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap_or(rest.len());
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == &rest[..end]).ok_or_else(wrong)?;
        nanoseconds += number * *unit as f64;
        rest = &rest[end..];
    }
    // What Go's durations hold: 292 years.
    if nanoseconds >= i64::MAX as f64 {
        return Err(wrong());
    }
    Ok(Duration::from_nanos(nanoseconds as u64))
}

/// Prints a span as Go does, in whole milliseconds: `0s`, `12ms`, `1.5s`, `1m2s`.
pub(super) fn milliseconds(span: Duration) -> String {
    let rounded = (span.as_micros() + 500) / 1000;
    if rounded == 0 {
        return "0s".to_owned();
    }
    if rounded < 1000 {
        return format!("{rounded}ms");
    }
    let (minutes, rest) = (rounded / 60_000, rounded % 60_000);
    let mut seconds = format!("{}.{:03}", rest / 1000, rest % 1000);
    seconds.truncate(seconds.trim_end_matches('0').trim_end_matches('.').len());
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// Prints a round trip as the stock report of the network does: with a tenth of its unit below a second.
pub(super) fn tenths(span: Duration) -> String {
    let micros = span.as_micros();
    match micros {
        0..1000 => format!("{}\u{b5}s", (micros + 50) / 100 * 100),
        _ => {
            let tenths = (micros + 50) / 100;
            let (whole, tenth) = (tenths / 10, tenths % 10);
            if tenth == 0 { format!("{whole}ms") } else { format!("{whole}.{tenth}ms") }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let millis = |text| parse(text).map(|span| span.as_millis());
        assert_eq!(millis("5s"), Ok(5_000));
        assert_eq!(millis("1m30s"), Ok(90_000));
        assert_eq!(millis("1.5h"), Ok(5_400_000));
        assert_eq!(millis("300ms"), Ok(300));
        assert_eq!(millis("0"), Ok(0));
        for text in ["", "5", "s", "5d", "-5s", "5s6", "1..5s", "99999999999h", "é"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spans_are_printed_as_go_prints_them() {
        let shown = |micros| milliseconds(Duration::from_micros(micros));
        assert_eq!(shown(499), "0s");
        assert_eq!(shown(500), "1ms");
        assert_eq!(shown(12_300), "12ms");
        assert_eq!(shown(1_000_000), "1s");
        assert_eq!(shown(1_500_000), "1.5s");
        assert_eq!(shown(62_000_000), "1m2s");
        assert_eq!(shown(3_600_000_000), "1h0m0s");
        assert_eq!(tenths(Duration::from_micros(340)), "300\u{b5}s");
        assert_eq!(tenths(Duration::from_micros(12_345)), "12.3ms");
    }
}
