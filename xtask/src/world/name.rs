//! The worlds' names, as people type them.

use anyhow::{Result, bail};
use lab::{World, WorldName};

/// The world that people work in, when they name none.
pub(crate) const DEMO: &str = "demo";

/// How a command names a world: not at all, where it is the one that is meant without.
pub(crate) fn option(name: &str) -> String {
    if name == DEMO { String::new() } else { format!(" --world {name}") }
}

/// Finds the world that somebody named.
///
/// # Errors
/// When there is none; says how to make it, and which there are.
pub(crate) fn attach(name: &str) -> Result<World> {
    let name = WorldName::parse(name)?;
    if !World::has_traces(&name) {
        let (option, there) = (option(name.as_str()), those(&World::all()));
        bail!("no world {name} is up: `cargo xtask up{option}` makes it{there}");
    }
    World::attach(&name)
}

/// The worlds that there are, behind what is said of one that there isn't.
pub(super) fn those(there: &[WorldName]) -> String {
    if there.is_empty() {
        return String::new();
    }
    let names: Vec<&str> = there.iter().map(WorldName::as_str).collect();
    format!("; there {} {}", if names.len() == 1 { "is" } else { "are" }, names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_world_that_is_not_there_is_told_with_those_that_are_and_how_to_make_it() {
        let message = attach("never-made").unwrap_err().to_string();
        assert!(
            message.starts_with("no world never-made is up: `cargo xtask up --world never-made` makes it"),
            "{message}"
        );
        let names = ["demo", "other"].map(|name| WorldName::parse(name).unwrap());
        assert_eq!(those(&names), "; there are demo, other");
        assert_eq!(those(&names[..1]), "; there is demo");
        assert_eq!(those(&[]), "");
    }
}
