//! Lists and times as people read them.

use std::time::Duration;

/// How many of a list are shown.
const SHOWN: usize = 6;

/// Names in a list that stays readable.
pub(crate) fn listed(names: impl IntoIterator<Item = impl ToString>) -> String {
    let mut names = names.into_iter();
    let shown: Vec<String> = names.by_ref().take(SHOWN).map(|name| name.to_string()).collect();
    match names.count() {
        0 => shown.join(", "),
        rest => format!("{} and {rest} more", shown.join(", ")),
    }
}

/// How long something holds: `12h`, `1h30m`, `90s` as `1m30s`.
pub(crate) fn period(length: Duration) -> String {
    let seconds = length.as_secs();
    let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let text: String =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count}{unit}")).collect();
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_cut_and_counted() {
        assert_eq!(listed(["a", "b"]), "a, b");
        assert_eq!(listed(1..=9), "1, 2, 3, 4, 5, 6 and 3 more");
    }

    #[test]
    fn a_period_is_told_to_the_second_without_what_is_zero() {
        for (seconds, text) in [(90, "1m30s"), (5400, "1h30m"), (43_200, "12h"), (3601, "1h1s"), (0, "0s")] {
            assert_eq!(period(Duration::from_secs(seconds)), text);
        }
    }
}
