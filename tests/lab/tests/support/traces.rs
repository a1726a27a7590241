//! What is left of a world on the machine.

use std::fs;
use std::path::Path;

use lab::WorldName;

/// Everything on the machine that names a world.
pub(crate) fn traces(name: &WorldName) -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["/run/towline-lab", "/var/lib/towline-lab"] {
        let path = Path::new(folder).join(name.as_str());
        if path.exists() {
            found.push(format!("folder {}", path.display()));
        }
    }
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path()) {
        for path in
            [hierarchy.join("towline").join(name.as_str()), Path::new("/sys/fs/cgroup/towline").join(name.as_str())]
        {
            if path.exists() {
                found.push(format!("cgroup {}", path.display()));
            }
        }
    }
    let marks = ["towline", "towline-lab"].map(|parent| format!("{parent}/{name}"));
    for process in fs::read_dir("/proc").unwrap().flatten() {
        // Ended, and waiting for the machine's first process to notice: nothing that anybody could still take down.
        let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        if stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z")) {
            continue;
        }
        for file in ["mountinfo", "cgroup", "cmdline"] {
            let path = process.path().join(file);
            let text = fs::read(&path).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default();
            let is_named =
                |mark: &String| text.contains(&format!("{mark}/")) || text.lines().any(|line| line.ends_with(mark));
            if marks.iter().any(is_named) {
                found.push(format!("process: {}", path.display()));
            }
        }
    }
    found
}
