//! The file system of a box: an overlay in memory over the Debian tree, and what a system expects around it.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, mount_remount, unmount,
};
use rustix::process::{chdir, pivot_root};
use rustix::stdio::{dup2_stdin, dup2_stdout};

use super::{Bind, BoxFile, BoxSpec};
use crate::cgroup::{self, Hierarchy, MOUNTS};

/// What a box may write over the tree; its disk folders are not counted.
const OVERLAY_SIZE: &str = "size=2g,mode=755";

/// Puts the box's root together in this mount namespace and makes it `/`; nothing of the machine's own tree stays.
pub(super) fn enter_root(spec: &BoxSpec) -> Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).context("cutting propagation")?;
    let root = overlay(spec)?;
    kernel_folders(&root)?;
    hierarchies(&root, &spec.hierarchies)?;
    devices(&root.join("dev"))?;
    for (folder, options) in [("run", "mode=755,size=1g"), ("tmp", "mode=1777,size=4g")] {
        mount_named("tmpfs", &root.join(folder), "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, options)?;
    }
    for wanted in &spec.binds {
        bind(&root, wanted)?;
    }
    pretend(&root, &spec.pretended)?;
    for file in &spec.files {
        place(&root, file)?;
    }
    chdir(&root).context("entering the box's root")?;
    // Both roots on one folder: the old one lies on top and comes off at once.
    pivot_root(".", ".").context("changing the root")?;
    unmount(".", UnmountFlags::DETACH).context("leaving the machine's root")?;
    chdir("/").context("entering /")?;
    // As a machine's own init has it: volumes of pods with mount propagation ask for it.
    mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC).context("sharing mounts")
}

/// Replaces the pipes to the maker of the box by `/dev/null`, which closes them.
pub(super) fn detach_standard_streams() -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    Ok(())
}

fn overlay(spec: &BoxSpec) -> Result<PathBuf> {
    let base = &spec.mount_point;
    mount_named("tmpfs", base, "tmpfs", MountFlags::empty(), OVERLAY_SIZE)?;
    let [upper, work, root] = ["upper", "work", "root"].map(|name| base.join(name));
    for folder in [&upper, &work, &root] {
        fs::create_dir(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    fs::set_permissions(&upper, fs::Permissions::from_mode(0o755)).context("opening the box's root")?;
    let options = format!("lowerdir={},upperdir={},workdir={}", spec.tree.display(), upper.display(), work.display());
    mount_named("overlay", &root, "overlay", MountFlags::empty(), &options)?;
    Ok(root)
}

/// `/proc`, and a `/sys` of the box's own network namespace.
fn kernel_folders(root: &Path) -> Result<()> {
    let plain = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount_named("proc", &root.join("proc"), "proc", plain, "")?;
    mount_named("sysfs", &root.join("sys"), "sysfs", plain, "")
}

/// The cgroup hierarchies as the box's cgroup namespace shows them, laid out as on the machine.
fn hierarchies(root: &Path, hierarchies: &[Hierarchy]) -> Result<()> {
    let plain = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let top = root.join(MOUNTS.trim_start_matches('/'));
    if hierarchies.iter().all(|hierarchy| hierarchy.mount != Path::new(MOUNTS)) {
        mount_named("tmpfs", &top, "tmpfs", plain, "mode=755,size=64k")?;
    }
    for hierarchy in hierarchies {
        let target = root.join(hierarchy.mount.strip_prefix("/").context("a relative cgroup mount")?);
        fs::create_dir_all(&target).with_context(|| format!("making {}", target.display()))?;
        mount_named(&hierarchy.kind, &target, &hierarchy.kind, plain, &hierarchy.mount_options())?;
        // Where several controllers share a hierarchy, each is looked for under its own name.
        for controller in hierarchy.controllers.iter().filter(|_| hierarchy.controllers.len() > 1) {
            let name = target.file_name().context("a cgroup mount without a name")?;
            symlink(name, top.join(controller)).with_context(|| format!("linking {controller}"))?;
        }
    }
    cgroup::settle(root, hierarchies)
}

/// A `/dev` with the devices that programs expect, terminals of its own, and the TUN driver.
fn devices(dev: &Path) -> Result<()> {
    mount_named("tmpfs", dev, "tmpfs", MountFlags::NOSUID, "mode=755,size=64k")?;
    fs::create_dir(dev.join("net")).context("making /dev/net")?;
    let nodes = [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("kmsg", 1, 11),
        ("tty", 5, 0),
        ("net/tun", 10, 200),
    ];
    for (name, major, minor) in nodes {
        let path = dev.join(name);
        mknodat(CWD, &path, FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(major, minor))
            .with_context(|| format!("making {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).context("opening a device")?;
    }
    let links =
        [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2"), ("ptmx", "pts/ptmx")];
    for (name, target) in links {
        symlink(target, dev.join(name)).with_context(|| format!("linking /dev/{name}"))?;
    }
    let quiet = MountFlags::NOSUID | MountFlags::NOEXEC;
    let mounts = [
        ("pts", "devpts", quiet, "newinstance,ptmxmode=0666,mode=0620,gid=5"),
        ("shm", "tmpfs", quiet | MountFlags::NODEV, "mode=1777"),
        ("mqueue", "mqueue", quiet | MountFlags::NODEV, ""),
    ];
    for (name, kind, flags, options) in mounts {
        let target = dev.join(name);
        fs::create_dir(&target).with_context(|| format!("making {}", target.display()))?;
        mount_named(kind, &target, kind, flags, options)?;
    }
    Ok(())
}

fn bind(root: &Path, wanted: &Bind) -> Result<()> {
    let target = root.join(wanted.target.trim_start_matches('/'));
    let what = || format!("binding {} to {}", wanted.source.display(), target.display());
    fs::create_dir_all(&target).with_context(what)?;
    mount_bind(&wanted.source, &target).with_context(what)?;
    if wanted.read_only {
        mount_remount(&target, MountFlags::BIND | MountFlags::RDONLY, c"").with_context(what)?;
    }
    Ok(())
}

/// Lays files over settings that are the whole machine's, so that a kubelet finds what it wants and changes nothing outside.
fn pretend(root: &Path, settings: &[(String, String)]) -> Result<()> {
    for (number, (setting, value)) in settings.iter().enumerate() {
        let target = root.join("proc/sys").join(setting);
        let file = root.join("run").join(format!(".setting-{number}"));
        let what = || format!("pretending {setting}={value}");
        fs::write(&file, format!("{value}\n")).with_context(what)?;
        mount_bind(&file, &target).with_context(what)?;
        fs::remove_file(&file).with_context(what)?;
    }
    Ok(())
}

fn place(root: &Path, file: &BoxFile) -> Result<()> {
    let path = root.join(file.path.trim_start_matches('/'));
    let what = || format!("writing {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(what)?;
    }
    let mut target = if file.append {
        OpenOptions::new().append(true).create(true).open(&path).with_context(what)?
    } else {
        // A link of the tree must not lead the write elsewhere.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).with_context(what),
            _ => File::create(&path).with_context(what)?,
        }
    };
    target.write_all(file.content.as_bytes()).with_context(what)
}

fn mount_named(source: &str, target: &Path, kind: &str, flags: MountFlags, options: &str) -> Result<()> {
    let options = CString::new(options).with_context(|| format!("mount options {options:?}"))?;
    mount(source, target, kind, flags, options.as_c_str())
        .with_context(|| format!("mounting {kind} on {}", target.display()))
}
