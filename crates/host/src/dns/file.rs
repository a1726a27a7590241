//! Reading and replacing a small file that may be mounted.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// More than any resolver reads.
const LIMIT: u64 = 64 * 1024;

/// Reads a file of at most 64 KiB.
pub(super) fn read_bounded(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LIMIT {
        return Err(io::Error::other("the file is longer than 64 KiB"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Replaces a file in one step, so that a reader never sees half of it; where it is mounted (a pod's resolv.conf is) or
/// its folder can't be written, in place.
pub(super) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".towline-{}", std::process::id()));
    let beside = Path::new(&beside);
    // A process that died while it wrote had the same number, in a container.
    let _ = fs::remove_file(beside);
    let moved = write_new(beside, text).and_then(|()| fs::rename(beside, path));
    if moved.is_err() {
        let _ = fs::remove_file(beside);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
    }
    Ok(())
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
