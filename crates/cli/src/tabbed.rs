/// Lines of cells in columns, laid out as the stock command lays its tables out: two spaces after the widest cell of a
/// column, also the last one.
///
/// A column is as wide as the widest of its cells on neighbouring lines: a line without a cell there starts it anew.
#[derive(Debug, Default)]
pub(crate) struct Tabbed {
    lines: Vec<Vec<String>>,
}

impl Tabbed {
    /// Adds a line of cells.
    pub(crate) fn line<const N: usize>(&mut self, cells: [String; N]) {
        self.lines.push(cells.to_vec());
    }

    fn width(&self, line: usize, column: usize) -> usize {
        let has = |line: &&Vec<String>| line.len() > column;
        let before = self.lines[..line].iter().rev().take_while(has);
        let after = self.lines[line..].iter().take_while(has);
        before.chain(after).map(|line| line[column].chars().count()).max().unwrap_or(0)
    }
}

impl std::fmt::Display for Tabbed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The widths of the columns change only where the number of cells does.
        let mut widths: Vec<usize> = Vec::new();
        for (at, line) in self.lines.iter().enumerate() {
            if at == 0 || self.lines[at - 1].len() != line.len() {
                widths = (0..line.len()).map(|column| self.width(at, column)).collect();
            }
            for (cell, width) in line.iter().zip(&widths) {
                let padding = (width + 2).saturating_sub(cell.chars().count());
                // An empty column takes no room at all.
                let padding = if *width == 0 { 0 } else { padding };
                write!(f, "{cell}{}", " ".repeat(padding))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_is_padded_and_a_line_alone_stands_for_itself() {
        let mut table = Tabbed::default();
        table.line(["100.64.0.1".into(), "a".into()]);
        table.line(["1".into(), "longer".into()]);
        table.line([]);
        table.line(["one cell".into()]);
        assert_eq!(table.to_string(), "100.64.0.1  a       \n1           longer  \n\none cell  \n");
    }
}
