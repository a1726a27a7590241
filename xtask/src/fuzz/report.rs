//! What libFuzzer says of a run.

/// How many lines of what a fuzzer complains of are shown.
const SHOWN_LINES: usize = 30;

/// The figures of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// Inputs that were tried.
    pub(super) executions: u64,
    /// Places in the code that some input reached.
    pub(super) coverage: u64,
    /// Inputs that are kept, as each reached something new.
    pub(super) inputs: u64,
}

impl Report {
    /// Reads the last status line of a log, `#4096 pulse cov: 312 ft: 900 corp: 40/2kb …`, and the final statistics.
    pub(super) fn read(log: &str) -> Self {
        let mut report = Self::default();
        for line in log.lines() {
            if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
                report.executions = number(count).unwrap_or(report.executions);
            } else if let Some(rest) = line.strip_prefix('#') {
                report.executions = number(rest).unwrap_or(report.executions);
                report.coverage = after(rest, " cov: ").unwrap_or(report.coverage);
                report.inputs = after(rest, " corp: ").unwrap_or(report.inputs);
            }
        }
        report
    }
}

/// What broke: from the panic on, without the fuzzer's own frames.
pub(super) fn complaint(log: &str) -> Vec<&str> {
    let from = log.lines().skip_while(|line| !line.contains("panicked at") && !line.contains("ERROR: libFuzzer"));
    let mut lines: Vec<&str> = from.take_while(|line| !line.starts_with("stack backtrace")).take(SHOWN_LINES).collect();
    if lines.is_empty() {
        let last: Vec<&str> = log.lines().rev().take(SHOWN_LINES).collect();
        lines.extend(last.into_iter().rev());
    }
    lines
}

fn after(line: &str, label: &str) -> Option<u64> {
    number(line.split_once(label)?.1)
}

/// The number that a text begins with.
fn number(text: &str) -> Option<u64> {
    let text = text.trim_start();
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_told_by_its_last_line_and_its_statistics() {
        let log = "#2\tINITED cov: 10 ft: 11 corp: 1/1b exec/s: 0 rss: 30Mb\n\
            #4096\tpulse  cov: 312 ft: 900 corp: 40/2kb lim: 43 exec/s: 2048 rss: 31Mb\n\
            Done 5000 runs in 2 second(s)\nstat::number_of_executed_units: 5000\n";
        assert_eq!(Report::read(log), Report { executions: 5000, coverage: 312, inputs: 40 });
        assert_eq!(Report::read("error: could not compile"), Report::default());
    }

    #[test]
    fn what_broke_is_shown_from_the_panic_on() {
        let log =
            "#2\tINITED cov: 1\nthread 'x' panicked at src/a.rs:1:2:\nassertion failed\nstack backtrace:\n 0: x\n";
        assert_eq!(complaint(log), ["thread 'x' panicked at src/a.rs:1:2:", "assertion failed"]);
        assert_eq!(complaint("error: no such target"), ["error: no such target"]);
    }
}
