use std::time::Duration;

/// Reads `90d`, `12h`, `30m` or `45s`.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration: a whole number and a unit, such as 90d, 12h, 30m or 45s");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        'd' => 86_400,
        'h' => 3_600,
        'm' => 60,
        's' => 1,
        _ => return Err(wrong()),
    };
    let count: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    count.checked_mul(seconds).filter(|seconds| *seconds > 0).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_and_nonsense_is_not() {
        assert_eq!(parse("90d").unwrap(), Duration::from_secs(7_776_000));
        assert_eq!(parse("45s").unwrap(), Duration::from_secs(45));
        for text in ["", "d", "90", "0h", "-1h", "1w", "99999999999999999d", "é"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
