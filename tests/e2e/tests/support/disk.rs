//! A disk whose power is cut: what no program has had written through is lost, as it is on a machine.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

/// How large it is; most of it takes no room.
const SIZE: u64 = 64 << 20;
/// Nothing is written through because time has passed or something else is, only because a program asks for it.
const MOUNT: &str = "mount -o loop,commit=600,data=writeback,noauto_da_alloc \"$0\" \"$1\"";

/// A file system on a file, mounted where only the programs see it that are started on it.
///
/// What the file system has written to its disk is in the file at once; what it holds back in memory is not. A copy of the file
/// is the disk as a power cut leaves it.
pub(crate) struct Disk {
    image: PathBuf,
    mounted: PathBuf,
    /// Keeps the mount namespace; the file system goes with it.
    holder: Child,
}

impl Disk {
    /// Makes an empty one, with its file and its place in a folder.
    pub(crate) fn make(folder: &Path) -> Result<Self> {
        let (image, mounted) = (folder.join("disk.image"), folder.join("disk"));
        File::create(&image).and_then(|file| file.set_len(SIZE)).context("making the file of a disk")?;
        fs::create_dir(&mounted).context("making the disk's place")?;
        let options = ["-q", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
        let made = Command::new("mkfs.ext4").args(options).arg(&image).output().context("starting mkfs.ext4")?;
        ensure!(made.status.success(), "mkfs.ext4: {}", String::from_utf8_lossy(&made.stderr));
        let script = format!("{MOUNT} && echo mounted && read _");
        let mut holder = Command::new("unshare");
        holder.args(["--mount", "--propagation=private", "sh", "-c", &script]).args([&image, &mounted]);
        let holder = holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("starting unshare")?;
        let mut disk = Self { image, mounted, holder };
        let mut said = [0; 7];
        let output = disk.holder.stdout.as_mut().context("its output goes elsewhere")?;
        output.read_exact(&mut said).context("mounting a disk, which needs root and a loop device")?;
        Ok(disk)
    }

    /// Where it is mounted, for programs on it.
    pub(crate) fn folder(&self) -> &Path {
        &self.mounted
    }

    /// Begins a command that sees it.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id())).arg(program);
        command
    }

    /// Cuts the power, once the programs on it are killed, and gives it again.
    pub(crate) fn cut(&self) -> Result<()> {
        let left = self.image.with_extension("left");
        fs::copy(&self.image, &left).context("copying what is on the disk")?;
        // What was held back goes to the file that nobody looks at any more.
        self.script("umount \"$1\"")?;
        fs::rename(&left, &self.image).context("putting what was on the disk in its place")?;
        self.script(MOUNT)
    }

    fn script(&self, script: &str) -> Result<()> {
        let mut command = self.command("sh");
        command.args(["-c", script]).args([&self.image, &self.mounted]);
        let done = command.output().context("starting nsenter")?;
        ensure!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A disk forgets what was not written through, and nothing else; were it otherwise, no server could fail on it.
pub(crate) fn forgets() -> Result<()> {
    let folder = std::env::temp_dir().join(format!("towline-disk-{}", std::process::id()));
    fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
    let disk = Disk::make(&folder)?;
    let write = "cd \"$0\" && echo kept >kept && sync kept && echo held back >held-back && echo more >>kept";
    let written = disk.command("sh").args(["-c", write]).arg(disk.folder()).status().context("writing on the disk")?;
    ensure!(written.success(), "writing on the disk ended with {written}");
    disk.cut()?;
    let read = disk.command("cat").arg(disk.folder().join("kept")).output().context("reading the disk")?;
    ensure!(read.stdout == b"kept\n", "what was written through is {:?}", String::from_utf8_lossy(&read.stdout));
    let lost = disk.command("test").arg("-s").arg(disk.folder().join("held-back")).status()?;
    ensure!(!lost.success(), "what was not written through is there");
    drop(disk);
    fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))
}
