//! What `down` leaves: nothing, whatever happened before. Needs root and the cache that `cargo xtask` fills.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use lab::*;

#[path = "support/traces.rs"]
mod traces;

use traces::traces;

fn name(what: &str) -> WorldName {
    WorldName::scratch(what).unwrap()
}

#[test]
fn down_leaves_nothing_and_a_world_that_is_down_can_be_taken_down() {
    let name = name("gone");
    World::up(&name, &Options::boxes().unwrap(), &silent).unwrap();
    assert!(!traces(&name).is_empty());
    World::down(&name).unwrap();
    assert_eq!(traces(&name), [""; 0]);
    World::down(&name).unwrap();
    assert_eq!(traces(&name), [""; 0]);
}

#[test]
fn an_up_killed_at_any_moment_is_taken_down_or_completed() {
    let name = name("killed");
    let program = env!("CARGO_BIN_EXE_lab");
    // The whole of `up` takes a few hundred milliseconds; it is cut off all along, which no event marks.
    for moment in (0..400).step_by(25) {
        let mut up = Command::new(program)
            .args(["up", name.as_str()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // tidy: sleep, the moment itself is what is tested
        std::thread::sleep(Duration::from_millis(moment));
        up.kill().unwrap();
        up.wait().unwrap();
        if moment % 100 == 75 {
            let world = World::up(&name, &Options::boxes().unwrap(), &silent).unwrap();
            assert!(world.status().unwrap().is_well(), "{moment} ms: {}", world.status().unwrap());
        }
        World::down(&name).unwrap();
        assert_eq!(traces(&name), [""; 0], "after {moment} ms");
    }
}

#[test]
fn half_written_records_do_not_stop_down() {
    let name = name("torn");
    let world = World::up(&name, &Options::boxes().unwrap(), &silent).unwrap();
    for file in ["world.json", "boxes/laptop/box.json", "boxes/fabric/box.json"] {
        fs::write(world.records().join(file), "{\"ver").unwrap();
    }
    fs::remove_file(world.records().join("boxes/echo/box.json")).unwrap();
    World::down(&name).unwrap();
    assert_eq!(traces(&name), [""; 0]);
}

#[test]
fn two_worlds_live_side_by_side_and_one_going_leaves_the_other() {
    let one = ScratchWorld::up(Options::boxes().unwrap()).unwrap();
    let other = ScratchWorld::up(Options::boxes().unwrap()).unwrap();
    one.set_udp(Udp::Blocked).unwrap();
    let other_laptop = other.lab_box("laptop").unwrap();
    other_laptop.run(["ping", "-c", "1", "-W", "2", "203.0.113.50"]).unwrap();
    let gone = one.name().clone();
    drop(one);
    assert_eq!(traces(&gone), [""; 0]);
    assert!(other.status().unwrap().is_well(), "{}", other.status().unwrap());
    other_laptop.run(["curl", "-sS", "--max-time", "5", "http://echo.towline.test/"]).unwrap();
}

#[test]
fn a_scratch_world_whose_test_was_killed_is_swept_away_by_the_next() {
    let mut test = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let orphan = WorldName::parse(&format!("scratch-{}-0", test.id())).unwrap();
    World::up(&orphan, &Options::boxes().unwrap(), &silent).unwrap();
    test.kill().unwrap();
    test.wait().unwrap();
    let next = ScratchWorld::up(Options::boxes().unwrap()).unwrap();
    assert_eq!(traces(&orphan), [""; 0]);
    assert!(!traces(next.name()).is_empty());
}

#[test]
fn a_world_that_is_only_called_scratch_stays_where_tests_sweep() {
    let of_people = WorldName::parse(&format!("scratch-pad{}", std::process::id())).unwrap();
    World::up(&of_people, &Options::boxes().unwrap(), &silent).unwrap();
    ScratchWorld::sweep().unwrap();
    assert!(World::attach(&of_people).unwrap().status().unwrap().is_well());
    World::down(&of_people).unwrap();
    assert_eq!(traces(&of_people), [""; 0]);
}

const RECORDS: usize = 0;
const DISK: usize = 1;

/// Folders where the product and earlier builds of the laboratory keep something, removed when dropped.
struct Shared {
    name: WorldName,
    folders: [PathBuf; 2],
}

impl Shared {
    fn make(what: &str, files: &[(usize, &str)]) -> Self {
        let name = WorldName::parse(&format!("{what}-{}", std::process::id())).unwrap();
        let folders = ["/run/towline", "/var/lib/towline"].map(|parent| Path::new(parent).join(name.as_str()));
        for (place, file) in files {
            let path = folders[*place].join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        Self { name, folders }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        for folder in &self.folders {
            let _ = fs::remove_dir_all(folder);
            // Stays where somebody has something in it.
            let _ = fs::remove_dir(folder.parent().unwrap());
        }
    }
}

#[test]
fn a_servers_data_is_no_world_that_could_be_taken_down() {
    let server = Shared::make("server", &[(DISK, "control.db"), (DISK, "lock")]);
    assert!(!World::has_traces(&server.name) && !World::all().contains(&server.name));
    World::down(&server.name).unwrap();
    assert!(server.folders[DISK].join("control.db").exists() && server.folders[DISK].join("lock").exists());
    let world = World::up(&server.name, &Options::boxes().unwrap(), &silent).unwrap();
    World::down(world.name()).unwrap();
    assert_eq!(fs::read_dir(&server.folders[DISK]).unwrap().count(), 2);
}

#[test]
fn a_world_of_an_earlier_build_can_only_be_taken_down_and_takes_nothing_along() {
    let files = [(RECORDS, "lock"), (DISK, "own/lab-init"), (DISK, "log/echo/init.log"), (DISK, "control.db")];
    let earlier = Shared::make("earlier", &files);
    assert!(World::all().contains(&earlier.name));
    let refused = [World::attach(&earlier.name), World::up(&earlier.name, &Options::boxes().unwrap(), &silent)];
    for said in refused.map(|refused| refused.unwrap_err().to_string()) {
        assert!(said.contains("made by another version") && said.contains("cargo xtask down --world"), "{said}");
    }
    World::down(&earlier.name).unwrap();
    assert!(!World::has_traces(&earlier.name) && !earlier.folders[RECORDS].exists());
    let left = fs::read_dir(&earlier.folders[DISK]).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["control.db"]);
}

#[test]
fn without_root_the_reason_is_said() {
    use std::os::unix::process::CommandExt;
    let folder = std::env::temp_dir().join(format!("lab-no-root-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    // Where it was built, others than root may have no way.
    let program = folder.join("lab");
    fs::copy(env!("CARGO_BIN_EXE_lab"), &program).unwrap();
    let output = Command::new(&program)
        .args(["up", "nobodys"])
        .env("LAB_INIT", &program)
        .env("TOWLINE_CACHE", &folder)
        .uid(65534)
        .output()
        .unwrap();
    fs::remove_dir_all(&folder).unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("needs root") && said.contains("sudo"), "{said}");
}

#[test]
fn a_drawing_with_fewer_boxes_ends_the_others() {
    let name = name("fewer");
    let mut options = Options::boxes().unwrap();
    let world = World::up(&name, &options, &silent).unwrap();
    let printer = world.lab_box("printer").unwrap();
    options.plan.boxes.retain(|plan| plan.name != "printer");
    let world = World::up(&name, &options, &silent).unwrap();
    assert!(!printer.is_alive() && world.lab_box("printer").is_err());
    assert!(world.status().unwrap().is_well());
    World::down(&name).unwrap();
    assert_eq!(traces(&name), [""; 0]);
}
