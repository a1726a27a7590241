use std::fmt;

/// A table for people to read: each column as wide as what is in it, the last one as long as it is.
pub(crate) struct Table<const COLUMNS: usize> {
    rows: Vec<[String; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    pub(crate) fn new(head: [&str; COLUMNS], rows: impl IntoIterator<Item = [String; COLUMNS]>) -> Self {
        Self { rows: std::iter::once(head.map(str::to_owned)).chain(rows).collect() }
    }

    fn width(&self, column: usize) -> usize {
        if column + 1 == COLUMNS {
            return 0;
        }
        self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    }
}

impl<const COLUMNS: usize> fmt::Display for Table<COLUMNS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            for (column, cell) in row.iter().enumerate() {
                let (gap, width) = (if column == 0 { "" } else { "  " }, self.width(column));
                write!(f, "{gap}{cell:<width$}")?;
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
    fn columns_are_as_wide_as_their_longest_cell() {
        let rows = [["tailscale-apiserver-proxy", "a"], ["home", "web"]].map(|row| row.map(str::to_owned));
        let shown = Table::new(["NAMESPACE", "POD"], rows).to_string();
        assert_eq!(
            shown,
            "NAMESPACE                  POD\n\
             tailscale-apiserver-proxy  a\n\
             home                       web\n"
        );
    }
}
