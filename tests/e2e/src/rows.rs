//! Rows of the walkthrough, one file a theme: each plays on a [`Stage`] and tells [`Checks`].

use anyhow::{Context, Result};

use crate::{Checks, Stage};

mod api_server;
mod connector;
mod credentials;
mod egress;
mod exit_node;
mod expose;
mod flows;
mod install;
mod refusal;
mod removal;
mod trouble;

/// Rows that are played together.
pub struct Act {
    /// The rows of the walkthrough.
    rows: &'static [u8],
    /// Rows that must have been played before; row 3 always is.
    needs: &'static [u8],
    /// Plays them.
    pub play: fn(&Stage, &mut Checks),
}

/// All acts, in the order in which they are played.
static ACTS: [Act; 11] = [
    Act { rows: &[3], needs: &[], play: install::play },
    Act { rows: &[4, 5, 6], needs: &[], play: api_server::play },
    Act { rows: &[7, 8], needs: &[], play: egress::play },
    Act { rows: &[9, 10, 11], needs: &[], play: connector::play },
    Act { rows: &[14], needs: &[9], play: flows::play },
    Act { rows: &[13], needs: &[], play: expose::play },
    Act { rows: &[15], needs: &[], play: exit_node::play },
    Act { rows: &[17], needs: &[7, 13], play: trouble::play },
    // Beside the rows: bad input, and what only the stock operator has yet.
    Act { rows: &[], needs: &[], play: refusal::play },
    Act { rows: &[], needs: &[], play: credentials::play },
    Act { rows: &[16], needs: &[7, 9, 13, 15], play: removal::play },
];

/// The acts with these rows, and what they need; all when there are none.
///
/// # Errors
/// When a row is not played on a cluster.
pub fn chosen(rows: &[u8]) -> Result<Vec<&'static Act>> {
    if rows.is_empty() {
        return Ok(ACTS.iter().collect());
    }
    let mut wanted = vec![3];
    for row in rows {
        let act = ACTS.iter().find(|act| act.rows.contains(row));
        let act = act.with_context(|| format!("row {row} is not played on a cluster, or there is no such row"))?;
        wanted.push(*row);
        wanted.extend(act.needs);
    }
    Ok(ACTS.iter().filter(|act| act.rows.iter().any(|row| wanted.contains(row))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows_of(rows: &[u8]) -> Vec<u8> {
        chosen(rows).unwrap().iter().flat_map(|act| act.rows).copied().collect()
    }

    #[test]
    fn a_row_comes_with_what_it_needs() {
        assert_eq!(rows_of(&[8]), [3, 7, 8]);
        assert_eq!(rows_of(&[17]), [3, 7, 8, 13, 17]);
        assert!(chosen(&[99]).is_err());
    }

    #[test]
    fn without_a_choice_every_act_is_played() {
        assert_eq!(chosen(&[]).unwrap().len(), ACTS.len());
    }
}
