//! Whose programs run in a world, and which checkout made it: on record, so that a second `up` changes neither by accident.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use e2e::{Cast, Program};
use lab::{World, WorldName};
use serde::{Deserialize, Serialize};

/// What the command line asks for.
#[derive(Default)]
pub(super) struct Wishes {
    pub(super) operator: Option<Program>,
    pub(super) laptop: Option<Program>,
    pub(super) robbinsdale: Option<Program>,
}

/// Who plays in a world.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Roles {
    checkout: PathBuf,
    pub(super) operator: Program,
    pub(super) laptop: Program,
    pub(super) robbinsdale: Program,
}

impl Roles {
    /// What is to play in the world: what plays there already, else what is wished for, else our programs.
    ///
    /// # Errors
    /// When another checkout made the world, or something else plays there than is wished for.
    pub(super) fn settle(name: &WorldName, wishes: &Wishes, checkout: &Path) -> Result<Self> {
        // A world that cannot be attached to is made anew, or refused with a reason of its own.
        let earlier = World::attach(name).ok().map(|world| record(&world)).filter(|path| path.exists());
        let earlier = earlier.map(|path| read(&path)).transpose()?;
        Self::agree(earlier, wishes, checkout, name)
    }

    fn agree(earlier: Option<Self>, wishes: &Wishes, checkout: &Path, name: &WorldName) -> Result<Self> {
        let ours = Program::Towline;
        let Some(earlier) = earlier else {
            return Ok(Self {
                checkout: checkout.to_owned(),
                operator: wishes.operator.unwrap_or(ours),
                laptop: wishes.laptop.unwrap_or(ours),
                robbinsdale: wishes.robbinsdale.unwrap_or(ours),
            });
        };
        ensure!(
            earlier.checkout == checkout,
            "world {name} was made from the checkout {}; take it down first (`cargo xtask down --world {name}`), or give \
             yours another name with --world",
            earlier.checkout.display()
        );
        let roles = [
            ("operator", wishes.operator, earlier.operator),
            ("laptop", wishes.laptop, earlier.laptop),
            ("robbinsdale", wishes.robbinsdale, earlier.robbinsdale),
        ];
        for (role, wished, plays) in roles {
            if wished.is_some_and(|wished| wished != plays) {
                bail!(
                    "world {name} was made with --{role} {}; take it down first (`cargo xtask down --world {name}`), or \
                     make another with --world",
                    word(plays)
                );
            }
        }
        Ok(earlier)
    }

    pub(super) fn cast(&self) -> Result<Cast> {
        Cast::of(self.operator, self.laptop, self.robbinsdale)
    }

    /// Puts it on record.
    pub(super) fn keep(&self, world: &World) -> Result<()> {
        let path = record(world);
        // As a whole or not at all, whenever this is killed.
        let draft = path.with_extension("new");
        let what = || format!("writing {}", path.display());
        fs::write(&draft, serde_json::to_vec(self)?).with_context(what)?;
        fs::rename(&draft, &path).with_context(what)
    }
}

fn record(world: &World) -> PathBuf {
    world.records().join("up.json")
}

fn read(path: &Path) -> Result<Roles> {
    let text = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is not what this version wrote", path.display()))
}

/// A program as people type it.
fn word(program: Program) -> String {
    program.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agree(earlier: Option<Roles>, wishes: Wishes, checkout: &str) -> Result<Roles> {
        Roles::agree(earlier, &wishes, Path::new(checkout), &WorldName::parse("demo").unwrap())
    }

    #[test]
    fn our_programs_play_where_nothing_else_is_said() {
        let roles = agree(None, Wishes { laptop: Some(Program::Stock), ..Wishes::default() }, "a").unwrap();
        assert_eq!((roles.operator, roles.laptop), (Program::Towline, Program::Stock));
    }

    #[test]
    fn what_plays_already_goes_on_unless_something_else_is_asked_for() {
        let stock = || Wishes { operator: Some(Program::Stock), ..Wishes::default() };
        let first = agree(None, stock(), "a").unwrap();
        assert_eq!(agree(Some(first.clone()), Wishes::default(), "a").unwrap(), first);
        assert_eq!(agree(Some(first.clone()), stock(), "a").unwrap(), first);
        let ours = Wishes { operator: Some(Program::Towline), ..Wishes::default() };
        let message = agree(Some(first), ours, "a").unwrap_err().to_string();
        assert!(message.contains("--operator stock") && message.contains("down --world demo"), "{message}");
    }

    #[test]
    fn a_world_of_another_checkout_is_left_alone() {
        let first = agree(None, Wishes::default(), "a").unwrap();
        let message = agree(Some(first), Wishes::default(), "b").unwrap_err().to_string();
        assert!(message.contains("the checkout a") && message.contains("--world"), "{message}");
    }
}
