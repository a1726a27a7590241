//! Go modules: the pinned version, the Go command, and a module with a line left out.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use cache::{Cache, Entry, Key};

use crate::progress::Step;

/// A line of a module that is left out of the build.
pub(crate) struct Omission {
    pub(crate) module: &'static str,
    pub(crate) file: &'static str,
    /// The whole line, which must occur once.
    pub(crate) line: &'static str,
}

/// The Go command in `folder`, with nothing of the user's settings that would change what is built.
pub(super) fn go(folder: &Path) -> Command {
    let mut command = Command::new("go");
    command.current_dir(folder);
    // A module may ask for a newer Go than the machine's: Go fetches that as a module too.
    command.env("GOTOOLCHAIN", "auto");
    command.env("GOFLAGS", "-mod=readonly -buildvcs=false");
    command.env("GOWORK", "off");
    command
}

/// The version, without its `v`, of `module` that the go.mod in `folder` pins.
pub(super) fn pinned_version(folder: &Path, module: &str) -> Result<String> {
    let path = folder.join("go.mod");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let pinned = text.lines().find_map(|line| {
        let mut words = line.trim().strip_prefix("require ").unwrap_or(line.trim()).split(' ');
        (words.next() == Some(module)).then(|| words.next())?
    });
    match pinned.and_then(|version| version.strip_prefix('v')) {
        Some(version) => Ok(version.to_owned()),
        None => bail!("{} requires no version of {module}", path.display()),
    }
}

/// A folder whose go.mod and go.sum are those in `folder`, but with a copy of the module that lacks the line.
///
/// Go's own `-overlay` refuses to replace files of its module cache, so the copy stands beside.
pub(super) fn without_line(cache: &Cache, folder: &Path, omission: &Omission, step: &Step<'_>) -> Result<PathBuf> {
    let key = Key::of("module without a line")
        .texts("omission", [omission.module, omission.file, omission.line])
        .file(&folder.join("go.mod"))?
        .file(&folder.join("go.sum"))?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let entry = Entry::new(format!("src/{name}"), key.finish());
    cache.ensure(&entry, &mut |holder| step.waiting(holder), |draft| {
        step.run_over_network(4, || {
            let mut command = go(folder);
            command.args(["mod", "download", omission.module]);
            command
        })?;
        let source = step.output(go(folder).args(["list", "-m", "-f", "{{.Dir}}", omission.module]))?;
        copy_without_line(folder, Path::new(source.trim_end()), draft, omission, step, &cache.path(&entry))
    })?;
    Ok(cache.path(&entry))
}

fn copy_without_line(
    folder: &Path,
    source: &Path,
    draft: &Path,
    omission: &Omission,
    step: &Step<'_>,
    final_place: &Path,
) -> Result<()> {
    let copy = draft.join(omission.module);
    fs::create_dir_all(draft).with_context(|| format!("making {}", draft.display()))?;
    step.run(Command::new("cp").args(["-rT", "--no-preserve=mode"]).arg(source).arg(&copy))?;
    let file = copy.join(omission.file);
    let problem = || format!("editing {}", file.display());
    let text = fs::read_to_string(&file).with_context(problem)?;
    let times = text.matches(omission.line).count();
    ensure!(times == 1, "{} has the line {:?} {times} times, once is expected", file.display(), omission.line);
    fs::write(&file, text.replace(omission.line, "")).with_context(problem)?;
    let mut modules = fs::read_to_string(folder.join("go.mod"))?;
    modules.push_str(&format!("\nreplace {} => {}\n", omission.module, final_place.join(omission.module).display()));
    fs::write(draft.join("go.mod"), modules)?;
    fs::copy(folder.join("go.sum"), draft.join("go.sum"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_in_a_block_and_on_a_line_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let text = "module a\n\nrequire one.test/x v1.2.3\n\nrequire (\n\ttwo.test/y/v3 v3.1.2 // indirect\n)\n";
        fs::write(folder.path().join("go.mod"), text).unwrap();
        assert_eq!(pinned_version(folder.path(), "one.test/x").unwrap(), "1.2.3");
        assert_eq!(pinned_version(folder.path(), "two.test/y/v3").unwrap(), "3.1.2");
        let message = pinned_version(folder.path(), "two.test/y").unwrap_err().to_string();
        assert!(message.contains("two.test/y") && message.contains("go.mod"), "{message}");
    }
}
