//! How a box is made, seen from outside: the first process starts, is written down, and is told to go on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::{BoxRecord, LabBox};
use crate::cgroup;
use crate::command::tail;
use crate::congestion::CONGESTION_CONTROL;
use crate::folder::{WorldFolder, create_private, write_record};
use crate::init::{Bind, BoxFile, BoxSpec};
use crate::plan::{BoxPlan, Forwarding, NAMES};
use crate::process::{ProcessIdentity, wait_readable};

/// How long a box may take to put its root together; it takes some 20 ms.
const PATIENCE: Duration = Duration::from_secs(20);

/// What all boxes of a world are made of.
#[derive(Debug)]
pub(crate) struct Materials {
    /// Debian tree.
    pub(crate) tree: PathBuf,
    /// Folder with the pinned programs.
    pub(crate) programs: PathBuf,
    /// The program `lab-init`.
    pub(crate) init: PathBuf,
    /// Root certificate that stands for the public web's, as PEM.
    pub(crate) root_certificate: String,
}

/// Makes a box without any link. It begins empty: what an earlier one of that name left, on disk too, is removed first.
pub(crate) fn create(folder: &WorldFolder, plan: &BoxPlan, materials: &Materials) -> Result<LabBox> {
    make(folder, plan, materials).with_context(|| format!("making box {}", plan.name))
}

fn make(folder: &WorldFolder, plan: &BoxPlan, materials: &Materials) -> Result<LabBox> {
    let home = folder.of_box(&plan.name);
    remove(folder, &plan.name)?;
    let spec = describe(folder, plan, materials)?;
    for wanted in &spec.binds {
        fs::create_dir_all(&wanted.source).with_context(|| format!("making {}", wanted.source.display()))?;
    }
    create_private(&spec.mount_point)?;
    let spec_path = home.join("spec.json");
    write_record(&spec_path, &spec)?;
    let log_path = folder.log(&plan.name, "init");
    let init = start(folder, plan, materials, &spec_path, &log_path).map_err(|error| {
        let log = fs::read_to_string(&log_path).unwrap_or_default();
        if log.is_empty() { error } else { error.context(format!("it said:\n{}", tail(&log, 5))) }
    })?;
    Ok(LabBox { folder: folder.clone(), plan: plan.clone(), init })
}

/// Starts the chain that ends in the box's first process, and sees it to the point where it takes commands.
fn start(
    folder: &WorldFolder,
    plan: &BoxPlan,
    materials: &Materials,
    spec: &Path,
    log: &Path,
) -> Result<ProcessIdentity> {
    let mut creator = spawn_creator(&materials.init, spec, log)?;
    let (Some(mut tell), Some(hear)) = (creator.stdin.take(), creator.stdout.take()) else {
        bail!("no pipes to {}", materials.init.display());
    };
    let deadline = Instant::now() + PATIENCE;
    let mut hear = BufReader::new(hear);
    let said = read_line(&mut hear, deadline);
    let status = creator.wait().context("waiting for lab-init create")?;
    ensure!(status.success(), "lab-init create ended with {status}");
    let said = said?;
    let pid = said.parse::<i32>().with_context(|| format!("lab-init said {said:?} in place of a process number"))?;
    let init = ProcessIdentity::of(pid).context("looking at the box's first process")?;
    let record = BoxRecord { plan: plan.clone(), init, wired: false };
    write_record(&folder.of_box(&plan.name).join("box.json"), &record)?;
    tell.write_all(b"go\n").context("telling the box's first process to go on")?;
    let said = read_line(&mut hear, deadline)?;
    ensure!(said == "ready", "the box's first process said {said:?} in place of \"ready\"");
    Ok(init)
}

fn spawn_creator(init: &Path, spec: &Path, log: &Path) -> Result<Child> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let spawned = Command::new(init)
            .arg("create")
            .arg(spec)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(open_log(log)?)
            .spawn();
        match spawned {
            // Another thread of this process started a program while this one was being copied; until that program has
            // begun, it holds the copy open for writing.
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            other => return other.with_context(|| format!("starting {}", init.display())),
        }
    }
}

fn describe(folder: &WorldFolder, plan: &BoxPlan, materials: &Materials) -> Result<BoxSpec> {
    let home = folder.of_box(&plan.name);
    let share = |source: PathBuf, target: &str, read_only| Bind { source, target: target.to_owned(), read_only };
    let group = cgroup::group_of(folder.name(), &plan.name);
    let mut binds = vec![
        share(materials.programs.clone(), "/opt/towline/bin", true),
        share(folder.own_programs(), "/opt/towline/own", true),
    ];
    for path in &plan.disk {
        let name = path.trim_matches('/').replace('/', "-");
        binds.push(share(folder.disk_of_box(&plan.name).join(name), path, false));
    }
    Ok(BoxSpec {
        name: plan.name.clone(),
        tree: materials.tree.clone(),
        mount_point: home.join("root"),
        binds,
        files: files(plan, &materials.root_certificate),
        settings: settings(plan),
        pretended: if plan.forwarding == Forwarding::Plain { crate::cluster::kubelet_settings() } else { Vec::new() },
        hierarchies: cgroup::create(&group)?,
        group,
        socket: home.join("socket"),
    })
}

/// The files in which a box differs from the tree.
fn files(plan: &BoxPlan, root_certificate: &str) -> Vec<BoxFile> {
    let file = |path: &str, content: String, append| BoxFile { path: path.to_owned(), content, append };
    let name = &plan.name;
    let hosts = format!("127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {name}\n");
    vec![
        file("/etc/hostname", format!("{name}\n"), false),
        file("/etc/hosts", hosts, false),
        file("/etc/resolv.conf", format!("nameserver {NAMES}\noptions timeout:2 attempts:2\n"), false),
        // In the bundle for now, and where `update-ca-certificates` finds it when a program makes the bundle anew.
        file("/etc/ssl/certs/ca-certificates.crt", root_certificate.to_owned(), true),
        file("/usr/local/share/ca-certificates/laboratory.crt", root_certificate.to_owned(), false),
        file("/etc/machine-id", format!("{:0>32}\n", hex_of(name)), false),
    ]
}

fn hex_of(name: &str) -> String {
    name.bytes().take(16).map(|byte| format!("{byte:02x}")).collect()
}

fn settings(plan: &BoxPlan) -> Vec<(String, String)> {
    let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut settings = vec![
        setting("net/ipv4/tcp_congestion_control", CONGESTION_CONTROL),
        setting("net/ipv4/ping_group_range", "0 2147483647"),
    ];
    if plan.forwarding != Forwarding::None {
        settings.push(setting("net/ipv4/ip_forward", "1"));
    }
    if plan.name == crate::plan::FABRIC {
        // Bridges only: no address of their own, and no filtering of frames by rules meant for packets.
        settings.push(setting("net/ipv6/conf/default/disable_ipv6", "1"));
    }
    settings
}

/// Removes cgroups, records and disk folders of a box that does not run, but not its logs.
pub(crate) fn remove(folder: &WorldFolder, name: &str) -> Result<()> {
    cgroup::remove(&cgroup::group_of(folder.name(), name), PATIENCE)?;
    for path in [folder.of_box(name), folder.disk_of_box(name)] {
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

pub(crate) fn open_log(path: &Path) -> Result<File> {
    if let Some(folder) = path.parent() {
        create_private(folder)?;
    }
    OpenOptions::new().create(true).append(true).open(path).with_context(|| format!("opening {}", path.display()))
}

fn read_line(pipe: &mut BufReader<ChildStdout>, deadline: Instant) -> Result<String> {
    use std::os::fd::AsFd;
    // A line may be in the buffer already, with nothing left in the pipe.
    let left = deadline.saturating_duration_since(Instant::now());
    ensure!(!pipe.buffer().is_empty() || wait_readable(pipe.get_ref().as_fd(), left), "no word in {PATIENCE:?}");
    let mut line = String::new();
    pipe.read_line(&mut line).context("listening to lab-init")?;
    ensure!(!line.is_empty(), "lab-init ended without a word");
    Ok(line.trim_end().to_owned())
}
