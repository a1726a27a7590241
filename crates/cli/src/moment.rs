//! Times as people read them. Programs get them whole, by `-o json`.

use jiff::Timestamp;

/// A time to the second, such as `2026-02-01T09:30:00Z`.
pub(crate) fn second(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// How long ago a time was, in its largest whole unit: `12s ago`, `5m ago`, `3h ago`, `40d ago`.
pub(crate) fn ago(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(at).as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds}s ago"),
        60..3_600 => format!("{}m ago", seconds / 60),
        3_600..86_400 => format!("{}h ago", seconds / 3_600),
        _ => format!("{}d ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_to_the_second() {
        assert_eq!(second("2026-02-01T09:30:00.123456789Z".parse().unwrap()), "2026-02-01T09:30:00Z");
    }

    #[test]
    fn what_is_past_is_told_in_its_largest_whole_unit() {
        let now: Timestamp = "2026-02-01T00:00:00Z".parse().unwrap();
        for (at, told) in [
            ("2026-01-31T23:59:48Z", "12s ago"),
            ("2026-01-31T23:00:01Z", "59m ago"),
            ("2026-01-31T00:00:01Z", "23h ago"),
            ("2025-12-31T00:00:00Z", "32d ago"),
            // The server's clock may be ahead of this one.
            ("2026-02-01T00:00:05Z", "0s ago"),
        ] {
            assert_eq!(ago(at.parse().unwrap(), now), told);
        }
    }
}
