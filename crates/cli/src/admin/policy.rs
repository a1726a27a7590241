use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use api::{
    Client, Finding, HistoryQuery, InTailnet, Json, PolicyBody, PolicyCheck, PolicyForm, PolicyPrecondition,
    PolicyQuery, PolicyReach, PolicyUpload, PolicyVerdict, PolicyVersion,
};
use clap::Subcommand;
use crypto::{Entropy, SystemEntropy};
use policy::{Difference, Reach, Report};

use crate::moment;
use crate::output::{note, note_painted};
use crate::text_diff::{diff, paint};
use crate::{Failure, Output, Table};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the policy in force, as it was saved
    Get,
    /// Check a policy file and run its tests, without setting it
    Check {
        /// The policy file, HuJSON
        file: PathBuf,
    },
    /// Show what a policy file would change: its text, and what it opens and closes, by user, tag and port
    Diff {
        /// The policy file, HuJSON
        file: PathBuf,
    },
    /// Put a policy file in force, after showing what it changes
    Set {
        /// The policy file, HuJSON
        file: PathBuf,
        /// Set it even if the server warns, for example that it cuts you off
        #[arg(long)]
        yes: bool,
        /// Show what would change and stop
        #[arg(long)]
        dry_run: bool,
        /// Why, for the history
        #[arg(short = 'm', long = "message", default_value = "", hide_default_value = true)]
        why: String,
    },
    /// Edit the policy in force in $VISUAL or $EDITOR, and set it
    Edit {
        /// Set it even if the server warns
        #[arg(long)]
        yes: bool,
        /// Why, for the history
        #[arg(short = 'm', long = "message", default_value = "", hide_default_value = true)]
        why: String,
    },
    /// List the policies that were in force, the newest first: when, by whom and why
    History {
        /// Print this one
        #[arg(value_name = "VERSION")]
        of: Option<u64>,
    },
}

/// How many lines are shown around one that changes, as other tools do.
const CONTEXT: usize = 3;

/// How a policy is set.
struct Setting {
    /// Also if the server warns.
    yes: bool,
    dry_run: bool,
    why: String,
}

/// The policy in force and the mark by which a change of it is noticed.
struct InForce {
    text: String,
    etag: String,
}

pub(super) async fn run<W: Write>(command: Command, client: &Client, output: &mut Output<W>) -> Result<(), Failure> {
    match command {
        Command::Get => {
            let now = in_force(client).await?;
            let answer = serde_json::json!({"policy": now.text, "etag": now.etag});
            Ok(output.print(&answer, |_| now.text.clone()).context("printing the policy")?)
        }
        Command::Check { file } => {
            let verdict = check(client, &read(&file)?).await?;
            let report = report(&verdict);
            output.print(&verdict, |_| report.of_file(file.display())).context("printing the verdict")?;
            if report.is_wrong() {
                Err(Failure::refused(format!("{} would be refused", file.display())))
            } else {
                Ok(())
            }
        }
        Command::Diff { file } => {
            let (now, new) = (in_force(client).await?, read(&file)?);
            let verdict = check(client, &new).await?;
            let report = report(&verdict);
            if report.is_wrong() {
                return Err(Failure::refused(format!("{}{} would be refused", report.verdict(), file.display())));
            }
            show_change(&now.text, &new, &verdict, output)
        }
        Command::Set { file, yes, dry_run, why } => {
            let (now, new) = (in_force(client).await?, read(&file)?);
            set(client, &now, new, Setting { yes, dry_run, why }, output).await
        }
        Command::Edit { yes, why } => {
            let now = in_force(client).await?;
            let (path, new) = edit(&now.text)?;
            let done = set(client, &now, new, Setting { yes, dry_run: false, why }, output).await;
            match &done {
                Ok(()) => std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?,
                Err(_) => note(&format!("Your text is in {}.", path.display())),
            }
            done
        }
        Command::History { of } => history(client, of, output).await,
    }
}

async fn set<W: Write>(
    client: &Client,
    now: &InForce,
    new: String,
    setting: Setting,
    output: &mut Output<W>,
) -> Result<(), Failure> {
    let verdict = check(client, &new).await?;
    let report = report(&verdict);
    if report.is_wrong() {
        return Err(Failure::refused(format!("{}the policy in force stays", report.verdict())));
    }
    let warnings: Vec<&String> = verdict.data.iter().flat_map(|finding| &finding.warnings).collect();
    note_painted([&change_of(&now.text, &new), &report.effects()], paint);
    for warning in &warnings {
        note(&format!("warning: {warning}"));
    }
    if setting.dry_run {
        let answer = serde_json::json!({"set": false, "warnings": warnings, "difference": verdict.difference});
        return Ok(output.print(&answer, |_| "Nothing was changed.".to_owned()).context("printing the answer")?);
    }
    if !warnings.is_empty() && !setting.yes {
        return Err(Failure::refused("the policy in force stays: read the warnings above, and add --yes to set it"));
    }
    let upload = PolicyUpload {
        text: new,
        precondition: Some(PolicyPrecondition::Etag(now.etag.clone())),
        why: setting.why,
        form: PolicyForm::Hujson,
    };
    let document = client.set_policy(&InTailnet::own(), &upload).await.map_err(|error| match error.status() {
        Some(status) if status.as_u16() == 412 => Failure::refused(
            "somebody else changed the policy meanwhile: look at it with `towline policy diff`, and try again",
        ),
        _ => error.into(),
    })?;
    let answer = serde_json::json!({"set": true, "etag": document.etag, "warnings": warnings});
    Ok(output.print(&answer, |_| "The policy is in force.".to_owned()).context("printing the answer")?)
}

async fn history<W: Write>(client: &Client, version: Option<u64>, output: &mut Output<W>) -> Result<(), Failure> {
    let Json(history) = client.policy_history(&InTailnet::own(), &HistoryQuery { version }).await?;
    if let Some(version) = version {
        let found = history.versions.iter().find(|known| known.version == version);
        let found = found.ok_or_else(|| Failure::refused(format!("there was no policy {version}")))?;
        return Ok(output.print(found, |found| found.policy.clone()).context("printing the policy")?);
    }
    let printed = output.print(&history, |history| {
        let mut table = Table::new(["VERSION", "WHEN", "WHO", "WHY"]);
        for PolicyVersion { version, who, why, when, .. } in &history.versions {
            let when = when.map(moment::second).unwrap_or_default();
            table.row([version.to_string(), when, who.clone(), why.clone()]);
        }
        table.to_string()
    });
    Ok(printed.context("printing the history")?)
}

fn show_change<W: Write>(old: &str, new: &str, verdict: &PolicyVerdict, output: &mut Output<W>) -> Result<(), Failure> {
    let change = change_of(old, new);
    let answer = serde_json::json!({"changed": !change.is_empty(), "diff": change, "difference": verdict.difference});
    let printed = match change.is_empty() {
        true => output.print(&answer, |_| "Nothing would change.".to_owned()),
        false => output.print_painted(&answer, [&change, &format!("\n{}", report(verdict).effects())], paint),
    };
    Ok(printed.context("printing the difference")?)
}

/// How the text of the policy in force differs from another.
fn change_of(old: &str, new: &str) -> String {
    diff(old, new, CONTEXT)
}

/// What the server found, in the words that the policy's reference shows.
fn report(verdict: &PolicyVerdict) -> Report {
    let finding = |Finding { user, errors, warnings }: Finding| policy::Finding { user, errors, warnings };
    let reach = |PolicyReach { source, destination, what }: PolicyReach| Reach { source, destination, what };
    let difference = verdict.difference.clone().map(|told| Difference {
        opened: told.opens.into_iter().map(reach).collect(),
        closed: told.closes.into_iter().map(reach).collect(),
        changed: told.changes,
        cut_short: told.cut_short,
    });
    let findings = verdict.data.iter().cloned().map(finding).collect();
    Report { message: verdict.message.clone(), findings, difference }
}

async fn in_force(client: &Client) -> Result<InForce, Failure> {
    let document = client.get_policy(&InTailnet::own(), &PolicyQuery::default(), &PolicyForm::Hujson).await?;
    match document.body {
        PolicyBody::Hujson(text) | PolicyBody::Json(text) => Ok(InForce { text, etag: document.etag }),
        PolicyBody::Details(_) => Err(Failure::refused("the server sent details where the policy was asked for")),
    }
}

async fn check(client: &Client, text: &str) -> Result<PolicyVerdict, Failure> {
    let Json(verdict) = client.validate_policy(&InTailnet::own(), &PolicyCheck::Policy(text.to_owned())).await?;
    Ok(verdict)
}

fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| {
        let way = "`towline policy get > policy.hujson` writes the one in force to a file";
        format!("the policy {} can't be read ({way})", file.display())
    })
}

/// Lets the user edit a copy of `text`; answers where it is, and how it reads then.
fn edit(text: &str) -> Result<(PathBuf, String), Failure> {
    let editor =
        ["VISUAL", "EDITOR"].iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    let editor = editor.ok_or_else(|| Failure::usage("set VISUAL or EDITOR to the editor that you want"))?;
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or("vi");
    let path = draft(&std::env::temp_dir(), text)?;
    let ended = std::process::Command::new(program).args(words).arg(&path).status();
    let ended = ended.with_context(|| format!("starting the editor {program:?}"))?;
    if !ended.success() {
        let kept = path.display();
        return Err(Failure::refused(format!(
            "the editor ended with {ended}; the policy in force stays, your text is in {kept}"
        )));
    }
    let edited = read(&path)?;
    Ok((path, edited))
}

/// Writes a text to a new file that nobody else can read, or could have put there before.
fn draft(folder: &Path, text: &str) -> anyhow::Result<PathBuf> {
    let number = SystemEntropy.below(u64::MAX);
    let path = folder.join(format!("towline-policy-{number:016x}.hujson"));
    let file = File::options().write(true).create_new(true).mode(0o600).open(&path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_that_is_not_there_is_told_with_a_way_to_one() {
        let told = format!("{:#}", read(Path::new("/nonexistent/policy.hujson")).unwrap_err());
        assert!(told.contains("/nonexistent/policy.hujson") && told.contains("towline policy get"), "{told}");
    }

    #[test]
    fn a_draft_is_a_new_file_of_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (draft(folder.path(), "{}").unwrap(), draft(folder.path(), "{}").unwrap());
        assert_ne!(one, other, "nobody can tell its name before");
        assert_eq!(std::fs::read_to_string(&one).unwrap(), "{}");
        assert_eq!(std::fs::metadata(&one).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
