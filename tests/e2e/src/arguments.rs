use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};
use lab::{LabBox, World};
use serde::{Deserialize, Serialize};

use crate::{Client, Habits, Operator, Parts};

/// Play the walkthrough: what a user of this product does on the first day, row by row
///
/// Every row plays in a world of its own making, together with those that it needs, and says what it saw. The world is as
/// large as the rows need it, and goes when they have ended.
#[derive(Clone, Debug, Parser)]
pub struct Arguments {
    /// A row to play, 1 to 17, with those that it needs; may be repeated. Without any: all that are played on Kubernetes
    #[arg(long = "row", value_name = "NUMBER")]
    pub rows: Vec<u8>,

    /// Whose operator and proxies play: stock or towline
    #[arg(long, value_enum, default_value = "stock", hide_possible_values = true)]
    operator: Program,

    /// Whose client plays on the laptop
    #[arg(long, value_enum, default_value = "stock")]
    laptop: Program,

    /// Whose client plays on robbinsdale
    #[arg(long, value_enum, default_value = "stock")]
    robbinsdale: Program,
}

/// Whose program it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Program {
    /// The stock one.
    Stock,
    /// Ours.
    Towline,
    /// Our daemon under the stock command line.
    Mixed,
}

/// Whose programs play.
#[derive(Clone, Copy, Debug)]
pub struct Cast {
    /// Prepares the operator.
    pub operator: fn(&World, &Parts) -> Result<Operator>,
    /// Starts the client on the laptop.
    pub laptop: fn(LabBox) -> Result<Client>,
    /// Starts the client on robbinsdale.
    pub robbinsdale: fn(LabBox) -> Result<Client>,
}

impl Arguments {
    /// Who plays.
    pub fn cast(&self) -> Result<Cast> {
        Cast::of(self.operator, self.laptop, self.robbinsdale)
    }

    /// What to expect of the operator that plays.
    pub fn habits(&self) -> Habits {
        match self.operator {
            Program::Stock => Habits::STOCK,
            Program::Towline | Program::Mixed => Habits::TOWLINE,
        }
    }

    /// Whether our daemon runs on the laptop.
    pub fn laptop_is_ours(&self) -> bool {
        self.laptop != Program::Stock
    }
}

impl Cast {
    /// Whose operator plays, and whose clients on the laptop and on robbinsdale.
    ///
    /// # Errors
    /// When the operator is to be mixed: it comes with its proxies.
    pub fn of(operator: Program, laptop: Program, robbinsdale: Program) -> Result<Self> {
        let operator = match operator {
            Program::Stock => Operator::stock,
            Program::Towline => Operator::towline,
            Program::Mixed => bail!("--operator is stock or towline: an operator and its proxies come together"),
        };
        Ok(Self { operator, laptop: laptop.client(), robbinsdale: robbinsdale.client() })
    }
}

impl Program {
    fn client(self) -> fn(LabBox) -> Result<Client> {
        match self {
            Self::Stock => Client::stock,
            Self::Towline => Client::towline,
            Self::Mixed => Client::towline_by_stock_commands,
        }
    }
}
