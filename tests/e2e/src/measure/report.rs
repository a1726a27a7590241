use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

use super::figures::median;
use super::row::Verdict;
use super::{Extent, Figures, ROWS, Row};

/// What is compared, and what with.
const OWN: &str = "towline";
const OTHER: &str = "stock";

/// The figures of both systems beside each other.
#[derive(Debug)]
pub struct Report {
    /// What was measured.
    pub figures: Figures,
    /// How much of it.
    pub extent: Extent,
    /// How often.
    pub rounds: usize,
}

/// One row, ready to be shown.
struct Line {
    row: Row,
    stock: Option<f64>,
    own: Option<f64>,
    /// Lowest, middle and highest ratio of the rounds.
    ratio: Option<[f64; 3]>,
    verdict: Option<Verdict>,
}

impl Report {
    fn lines(&self) -> impl Iterator<Item = Line> + use<'_> {
        ROWS.into_iter().filter(|row| self.is_known(*row)).map(|row| {
            let values = |system| self.figures.values(row, system).into_values().collect::<Vec<f64>>();
            let (stock, own) = (median(values(OTHER)), median(values(OWN)));
            let ratios = self.figures.ratios(row, OWN, OTHER);
            let ratio =
                median(ratios.iter().copied()).and_then(|middle| Some([*ratios.first()?, middle, *ratios.last()?]));
            let verdict = row.target().and_then(|target| target.verdict(&values(OWN), &ratios));
            Line { row, stock, own, ratio, verdict }
        })
    }

    fn is_known(&self, row: Row) -> bool {
        let noted =
            |system| !self.figures.values(row, system).is_empty() || !self.figures.failures(row, system).is_empty();
        noted(OWN) || noted(OTHER)
    }

    fn failures(&self) -> Vec<(Row, &'static str, usize, &str)> {
        let of =
            |row, system| self.figures.failures(row, system).into_iter().map(move |(n, why)| (row, system, n, why));
        ROWS.into_iter().flat_map(|row| of(row, OTHER).chain(of(row, OWN)).collect::<Vec<_>>()).collect()
    }

    /// The report for programs.
    pub fn to_json(&self) -> Value {
        let values = |row, system| -> Vec<Value> {
            let values = self.figures.values(row, system);
            values.into_iter().map(|(round, value)| json!({"round": round, "value": value})).collect()
        };
        let rows: Vec<Value> = self
            .lines()
            .map(|Line { row, stock, own, ratio, verdict }| {
                json!({
                    "name": row.name(), "title": row.title().0, "unit": row.title().1,
                    "stock": stock, "towline": own,
                    "ratio": ratio.map(|[low, middle, high]| json!({"median": middle, "lowest": low, "highest": high})),
                    "target": row.target().map(|target| target.to_string()),
                    "met": verdict.and_then(Verdict::is_met), "verdict": verdict.map(|verdict| verdict.to_string()),
                    "rounds": {"stock": values(row, OTHER), "towline": values(row, OWN)},
                })
            })
            .collect();
        let failures: Vec<Value> = self
            .failures()
            .into_iter()
            .map(|(row, system, round, why)| json!({"name": row.name(), "system": system, "round": round, "why": why}))
            .collect();
        json!({
            "rounds": self.rounds, "services": self.extent.services,
            "idle_s": self.extent.idle.as_secs(), "transfer_s": self.extent.transfer.as_secs(),
            "cores": cores(), "congestion_control": self.figures.congestion_controls(),
            "rows": rows, "failures": failures,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
        writeln!(
            formatter,
            "{:44} {:>6} {:>9} {:>9} {:>7} {:>11} {:>13}",
            "", "", OTHER, OWN, "ratio", "of rounds", "target"
        )?;
        for Line { row, stock, own, ratio, verdict } in self.lines() {
            let (title, unit) = row.title();
            let middle = shown(ratio.map(|[_, middle, _]| middle));
            let spread = ratio.filter(|[low, _, high]| low != high);
            let spread = spread.map_or_else(String::new, |[low, _, high]| format!("{low:.2}-{high:.2}"));
            let target = row.target().map(|target| target.to_string()).unwrap_or_default();
            let verdict = verdict.map(|verdict| format!(" {verdict}")).unwrap_or_default();
            let (stock, own) = (self.cell(row, OTHER, stock), self.cell(row, OWN, own));
            let line =
                format!("{title:44} {unit:>6} {stock:>9} {own:>9} {middle:>7} {spread:>11} {target:>13}{verdict}");
            writeln!(formatter, "{}", line.trim_end())?;
        }
        self.notes(formatter)
    }
}

impl Report {
    fn cell(&self, row: Row, system: &'static str, value: Option<f64>) -> String {
        match value {
            Some(value) => number(value),
            None if self.figures.failures(row, system).is_empty() => "-".to_owned(),
            None => "failed".to_owned(),
        }
    }

    fn notes(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { figures, extent, rounds } = self;
        let controls = figures.congestion_controls();
        let controls = if controls.is_empty() { "not used".to_owned() } else { controls.join(", ") };
        write!(
            formatter,
            "\n{} Services, {rounds} {}; medians of rounds, ratios of values of the same round. Whether a target is met is \
             what the median says; where a round says otherwise, rounds differ. Idle: {} s; TCP: {} s from the \
             laptop to robbinsdale through both NATs, congestion control {controls}. Everything, Kubernetes too, shares {} \
             processor cores. Memory is the peak of the cgroup's usage without inactive files, of pods with their pause \
             container, a proxy's the median of all; resident is what its processes have in memory, program files too. Idle calls and writes are those beyond what two nodes and the cluster do by themselves. The stock \
             images are packed from the stock programs over Debian's tools; images are counted uncompressed.\n",
            extent.services,
            if *rounds == 1 { "round" } else { "rounds" },
            extent.idle.as_secs(),
            extent.transfer.as_secs(),
            cores(),
        )?;
        let mut reasons: BTreeMap<(usize, &str, &str), Vec<&str>> = BTreeMap::new();
        for (row, system, round, why) in self.failures() {
            reasons.entry((round, system, why)).or_default().push(row.name());
        }
        for ((round, system, why), rows) in reasons {
            writeln!(formatter, "failed in round {round}, {system}: {}: {}", rows.join(", "), why.trim_end())?;
        }
        Ok(())
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Three digits that count.
fn number(value: f64) -> String {
    match value.abs() {
        0.0..1.0 => format!("{value:.3}"),
        1.0..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn report() -> Report {
        let mut figures = Figures::default();
        for round in 1..=2 {
            figures.begin(round);
            figures.note(Row::OperatorMemory, "stock", Ok(77.0));
            figures.note(Row::OperatorMemory, "towline", Ok(40.0 + round as f64));
            figures.note(Row::ProxyMemory, "stock", Err(anyhow::anyhow!("no pod")));
            figures.note(Row::ProxyMemory, "towline", Ok(12.0));
        }
        figures.congestion_control("cubic");
        let second = Duration::from_secs(1);
        let extent = Extent { services: 50, idle: second, transfer: second, nodes: true, kubernetes: true };
        Report { figures, extent, rounds: 2 }
    }

    #[test]
    fn a_missed_target_and_a_failure_are_named() {
        let text = report().to_string();
        let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
        assert!(line("operator, its largest pod").ends_with("≤ 40 missed"), "{text}");
        let proxy = line("exposed Service, its proxy pod");
        assert!(proxy.contains("failed") && proxy.ends_with("met"), "{text}");
        assert!(text.contains("failed in round 2, stock: proxy_memory_mb: no pod"), "{text}");
        assert!(text.contains("congestion control cubic"), "{text}");
        assert!(!text.contains("first byte"), "{text}");
    }

    #[test]
    fn programs_get_every_round() {
        let json = report().to_json();
        let row = &json["rows"][0];
        assert_eq!(row["name"], "operator_memory_mb");
        assert_eq!(row["towline"], 41.5);
        assert_eq!(row["rounds"]["towline"][1]["value"], 42.0);
        assert_eq!((&row["met"], &row["verdict"]), (&json!(false), &json!("missed")));
        assert_eq!(json["failures"][0]["why"], "no pod");
    }
}
