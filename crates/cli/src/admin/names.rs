use std::io::Write;

use anyhow::Context;
use api::{Client, InTailnet, Json, SetTailnetNames, TailnetNames};
use clap::Args;
use serde::Serialize;

use super::devices;
use crate::{Failure, Output};

/// How many devices a preview names.
const MOST_DEVICES: usize = 12;

#[derive(Debug, Args)]
#[group(skip)]
pub struct Arguments {
    /// What people call the tailnet; goes with the domain while they are the same
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Where the names of its devices live, such as example.ts.net
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,
    /// Don't only say what would change
    #[arg(long)]
    yes: bool,
}

/// What another name or domain changes.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Renaming {
    before: TailnetNames,
    after: TailnetNames,
    /// The full names of devices, as they are and as they would be.
    devices: Vec<(String, String)>,
}

pub(super) async fn run<W: Write>(
    arguments: Arguments,
    client: &Client,
    output: &mut Output<W>,
) -> Result<(), Failure> {
    let own = InTailnet::own();
    let Json(before) = client.get_names(&own).await?;
    let Some(after) = arguments.after(&before) else {
        let shown = |names: &TailnetNames| format!("name:   {}\ndomain: {}", names.name, names.domain);
        return Ok(output.print(&before, shown).context("printing the answer")?);
    };
    let devices = devices::all(client).await?;
    let renaming = Renaming::new(before, after, devices.into_iter().map(|device| device.name));
    if !arguments.yes {
        output.print(&renaming, Renaming::preview).context("printing the answer")?;
        return Err(Failure::usage("nothing was changed: add --yes to do it"));
    }
    let set = SetTailnetNames { name: Some(renaming.after.name.clone()), domain: Some(renaming.after.domain.clone()) };
    let Json(now) = client.set_names(&own, &Json(set)).await?;
    let done = |now: &TailnetNames| {
        let anchor =
            if renaming.changes_domain() { "\nPeople install its new anchor: towline trust install" } else { "" };
        format!("The tailnet is called {} now, and its devices live in {}.{anchor}", now.name, now.domain)
    };
    Ok(output.print(&now, done).context("printing the answer")?)
}

impl Arguments {
    /// What the tailnet would be called; `None` where nothing else is asked for.
    fn after(&self, before: &TailnetNames) -> Option<TailnetNames> {
        if self.name.is_none() && self.domain.is_none() {
            return None;
        }
        let domain = self.domain.clone().unwrap_or_else(|| before.domain.clone());
        let domain = domain.trim_end_matches('.').to_ascii_lowercase();
        let kept = if before.name == before.domain { domain.clone() } else { before.name.clone() };
        Some(TailnetNames { name: self.name.clone().unwrap_or(kept), domain })
    }
}

impl Renaming {
    fn new(before: TailnetNames, after: TailnetNames, devices: impl Iterator<Item = String>) -> Self {
        let renamed = |name: String| {
            let label = name.trim_end_matches('.').strip_suffix(&before.domain)?.strip_suffix('.')?.to_owned();
            let new = format!("{label}.{}", after.domain);
            (new != name).then_some((name, new))
        };
        Self { devices: devices.filter_map(renamed).collect(), before, after }
    }

    fn changes_domain(&self) -> bool {
        self.before.domain != self.after.domain
    }

    fn preview(&self) -> String {
        let Self { before, after, devices } = self;
        let mut lines = Vec::new();
        if before.name != after.name {
            lines.push(format!("name:   {} -> {}", before.name, after.name));
        }
        if self.changes_domain() {
            lines.push(format!("domain: {} -> {}", before.domain, after.domain));
        }
        lines.extend(devices.iter().take(MOST_DEVICES).map(|(old, new)| format!("device: {old} -> {new}")));
        if devices.len() > MOST_DEVICES {
            lines.push(format!("        and {} more", devices.len() - MOST_DEVICES));
        }
        if self.changes_domain() {
            lines.push("Old names resolve no more, and certificates for them are not renewed.".to_owned());
            lines.push("People have to install the tailnet's new anchor: towline trust install".to_owned());
        }
        if lines.is_empty() {
            lines.push("The tailnet is called so already.".to_owned());
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(name: &str, domain: &str) -> TailnetNames {
        TailnetNames { name: name.to_owned(), domain: domain.to_owned() }
    }

    fn asked(name: Option<&str>, domain: Option<&str>) -> Arguments {
        Arguments { name: name.map(str::to_owned), domain: domain.map(str::to_owned), yes: false }
    }

    #[test]
    fn a_name_that_is_the_domain_goes_with_it_and_another_stays() {
        let same = names("a.ts.net", "a.ts.net");
        assert_eq!(asked(None, None).after(&same), None);
        assert_eq!(asked(None, Some("B.ts.net.")).after(&same), Some(names("b.ts.net", "b.ts.net")));
        assert_eq!(asked(Some("c"), None).after(&same), Some(names("c", "a.ts.net")));
        assert_eq!(asked(None, Some("b.ts.net")).after(&names("c", "a.ts.net")), Some(names("c", "b.ts.net")));
    }

    #[test]
    fn a_preview_names_each_device_as_it_would_be_called() {
        let devices = ["web.a.ts.net", "db.a.ts.net"].map(str::to_owned);
        let renaming = Renaming::new(names("a", "a.ts.net"), names("a", "b.ts.net"), devices.into_iter());
        let told = renaming.preview();
        assert!(told.starts_with("domain: a.ts.net -> b.ts.net\ndevice: web.a.ts.net -> web.b.ts.net\n"), "{told}");
        assert!(told.ends_with("towline trust install"), "{told}");
        let renaming =
            Renaming::new(names("a", "a.ts.net"), names("b", "a.ts.net"), ["web.a.ts.net".to_owned()].into_iter());
        assert_eq!(renaming.preview(), "name:   a -> b");
    }
}
