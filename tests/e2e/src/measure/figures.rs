use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::Row;

/// A value or why there is none, by round.
type Rounds = BTreeMap<usize, Result<f64, String>>;

/// What was measured: by row and system, one value or failure a round.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    values: BTreeMap<(Row, &'static str), Rounds>,
    round: usize,
    congestion_controls: BTreeSet<String>,
}

impl Figures {
    /// Begins a round; what is noted from now on belongs to it.
    pub fn begin(&mut self, round: usize) {
        self.round = round;
    }

    /// Notes what was measured of a system.
    pub fn note(&mut self, row: Row, system: &'static str, measured: Result<f64>) {
        let measured = measured.map_err(|error| format!("{error:#}"));
        self.values.entry((row, system)).or_default().insert(self.round, measured);
    }

    /// Notes several values that come of one measurement, or its failure in the place of each.
    pub fn note_all<const N: usize>(&mut self, rows: [Row; N], system: &'static str, measured: Result<[f64; N]>) {
        match measured {
            Ok(values) => rows.into_iter().zip(values).for_each(|(row, value)| self.note(row, system, Ok(value))),
            Err(error) => {
                let error = format!("{error:#}");
                rows.into_iter().for_each(|row| self.note(row, system, Err(anyhow::anyhow!(error.clone()))));
            }
        }
    }

    /// Notes that a row of this round could not be measured, unless it was.
    pub fn note_missing(&mut self, row: Row, system: &'static str, why: &str) {
        let rounds = self.values.entry((row, system)).or_default();
        rounds.entry(self.round).or_insert_with(|| Err(why.to_owned()));
    }

    /// Notes which congestion control TCP used.
    pub fn congestion_control(&mut self, name: &str) {
        self.congestion_controls.insert(name.to_owned());
    }

    /// Which congestion controls TCP used.
    pub fn congestion_controls(&self) -> Vec<&str> {
        self.congestion_controls.iter().map(String::as_str).collect()
    }

    /// The values of a row, by round.
    pub fn values(&self, row: Row, system: &'static str) -> BTreeMap<usize, f64> {
        let rounds = self.values.get(&(row, system)).into_iter().flatten();
        rounds.filter_map(|(round, value)| Some((*round, *value.as_ref().ok()?))).collect()
    }

    /// The failures of a row, by round.
    pub fn failures(&self, row: Row, system: &'static str) -> Vec<(usize, &str)> {
        let rounds = self.values.get(&(row, system)).into_iter().flatten();
        rounds.filter_map(|(round, value)| Some((*round, value.as_ref().err()?.as_str()))).collect()
    }

    /// The first system's values divided by the second's, of the rounds in which both were measured; ascending.
    pub fn ratios(&self, row: Row, own: &'static str, other: &'static str) -> Vec<f64> {
        let others = self.values(row, other);
        let pairs = self.values(row, own).into_iter().filter_map(|(round, own)| Some((own, *others.get(&round)?)));
        let mut ratios: Vec<f64> = pairs.filter(|(_, other)| *other > 0.0).map(|(own, other)| own / other).collect();
        ratios.sort_by(f64::total_cmp);
        ratios
    }
}

/// The middle value; the mean of the two in the middle.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_rounds_in_which_both_were_measured() {
        let mut figures = Figures::default();
        for (round, stock, own) in [(1, Ok(2.0), Ok(1.0)), (2, Err("gone"), Ok(9.0)), (3, Ok(4.0), Ok(1.0))] {
            figures.begin(round);
            figures.note(Row::FullRate, "stock", stock.map_err(|error: &str| anyhow::anyhow!(error)));
            figures.note(Row::FullRate, "towline", own.map_err(|error: &str| anyhow::anyhow!(error)));
        }
        assert_eq!(figures.ratios(Row::FullRate, "towline", "stock"), [0.25, 0.5]);
        assert_eq!(figures.failures(Row::FullRate, "stock"), [(2, "gone")]);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([]), None);
    }
}
