//! Files that only this server may read: keys and what goes with them.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A file of the server's own can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{what} {path:?}: {reason}")]
pub struct FileError {
    what: &'static str,
    path: PathBuf,
    /// Told in the message itself: as its source, it would be told twice.
    reason: io::Error,
}

impl FileError {
    /// Whether the file is not there at all.
    pub fn is_missing(&self) -> bool {
        self.reason.kind() == io::ErrorKind::NotFound
    }
}

fn failed<'a>(what: &'static str, path: &'a Path) -> impl Fn(io::Error) -> FileError + 'a {
    move |source| FileError { what, path: path.to_owned(), reason: with_the_folder_in_the_way(path, source) }
}

/// Names the folder that this user may not enter, where that is why something is refused: it is seldom the last one.
fn with_the_folder_in_the_way(path: &Path, source: io::Error) -> io::Error {
    if source.kind() != io::ErrorKind::PermissionDenied {
        return source;
    }
    let folders: Vec<&Path> = path.ancestors().collect();
    let closed = folders.into_iter().rev().find(|folder| {
        let looked = std::fs::symlink_metadata(folder.join("."));
        looked.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    });
    let Some(folder) = closed else { return source };
    let cure = match folder == path || path.parent() == Some(folder) {
        true => "run this as its owner".to_owned(),
        false => format!("it is only on the way, so let others through: chmod 755 {}", folder.display()),
    };
    io::Error::new(source.kind(), format!("this user may not enter the folder {}; {cure}", folder.display()))
}

/// Makes a folder that only its owner may enter. Folders above it that are not there are made as others are: they may lead
/// to what belongs to somebody else.
pub(crate) fn private_folder(path: &Path) -> Result<(), FileError> {
    let make = || {
        if let Some(above) = path.parent() {
            std::fs::create_dir_all(above)?;
        }
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
    };
    make().map_err(failed("can't make the folder", path))
}

/// Writes a new file that only its owner may read, as a whole or not at all; one that is there already is an error.
///
/// When this returns, the file survives a power cut.
pub(crate) fn write_new_private(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let failed = failed("can't write the file", path);
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}", std::process::id()));
    // Left over from a run that broke off with the same process id.
    let _ = std::fs::remove_file(&temporary);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        // Unlike a rename, a link never replaces what is there.
        std::fs::hard_link(&temporary, path)?;
        File::open(folder)?.sync_all()
    })();
    let _ = std::fs::remove_file(&temporary);
    written.map_err(failed)
}

/// Takes away what writing files left over in a folder when it was cut off.
pub(crate) fn remove_leftovers(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix('.').and_then(|name| name.rsplit_once('.')).map(|(_, process)| process);
        if process.is_some_and(|process| !process.is_empty() && process.bytes().all(|byte| byte.is_ascii_digit())) {
            // One that stays is in nobody's way.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Gives a file another name, in the same folder; an existing one of that name is replaced.
///
/// When this returns, the new name survives a power cut.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    let folder = to.parent().unwrap_or(Path::new("."));
    let renamed = std::fs::rename(from, to).and_then(|()| File::open(folder)?.sync_all());
    renamed.map_err(failed("can't rename the file", from))
}

/// Takes a file away that may not be there.
pub(crate) fn remove_if_there(path: &Path) -> Result<(), FileError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("can't remove the file", path)(error)),
        _ => Ok(()),
    }
}

/// Reads a file that holds a secret; one that others may read is refused.
pub(crate) fn read_private(path: &Path) -> Result<Vec<u8>, FileError> {
    let failed = failed("can't read the file", path);
    let mode = std::fs::metadata(path).map_err(&failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        let message = format!("others may read it (mode {:03o}); run: chmod 600 {}", mode & 0o777, path.display());
        return Err(failed(io::Error::new(io::ErrorKind::PermissionDenied, message)));
    }
    std::fs::read(path).map_err(&failed)
}

/// Reads a file that anybody may read.
pub(crate) fn read_public(path: &Path) -> Result<Vec<u8>, FileError> {
    std::fs::read(path).map_err(failed("can't read the file", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_folder_is_closed_to_others() {
        let home = tempfile::tempdir().unwrap();
        let leaf = home.path().join("towline/control");
        private_folder(&leaf).unwrap();
        let closed_to_others = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o005 == 0;
        assert!(closed_to_others(&leaf) && !closed_to_others(&home.path().join("towline")));
        private_folder(&leaf).unwrap();
    }

    #[test]
    fn a_private_file_reads_back_and_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write_new_private(&path, b"secret").unwrap();
        assert_eq!(read_private(&path).unwrap(), b"secret");
        assert!(write_new_private(&path, b"other").is_err());
        assert_eq!(read_private(&path).unwrap(), b"secret");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused_with_the_cure() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, b"secret").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let message = read_private(&path).unwrap_err().to_string();
        assert!(message.contains("mode 644") && message.contains("chmod 600"), "{message}");
    }

    #[test]
    fn a_missing_file_is_told_apart() {
        assert!(read_private(Path::new("/nowhere/key")).unwrap_err().is_missing());
    }
}
