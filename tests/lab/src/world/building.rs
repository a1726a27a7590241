//! How a world is made: what others need first, what is independent at once, what is there already not at all.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use cache::Cache;

use super::{Options, RECORD_VERSION, World, WorldRecord, record_of, record_path};
use crate::authority::{Authority, Subject};
use crate::cluster;
use crate::congestion;
use crate::folder::{WorldFolder, WorldLock, write_record};
use crate::lab_box::{self, BoxRecord, LabBox, Materials};
use crate::names::{self, CONTROL_NAME, RELAY1_NAME, RELAY2_NAME};
use crate::network;
use crate::parallel;
use crate::plan::{BoxPlan, FABRIC, Forwarding, Plan};
use crate::progress::{Listener, step};
use crate::readiness::Ready;
use crate::ssh;
use crate::traffic::{self, Udp};

/// Makes or completes a world whose lock the caller holds.
pub(super) fn build(
    folder: WorldFolder,
    options: &Options,
    listener: Listener<'_>,
    _lock: &WorldLock,
) -> Result<World> {
    let record = prepare(&folder, options)?;
    let world = World { folder, plan: record.plan.clone(), cluster: record.cluster };
    let materials = materials(&world.folder, options)?;
    congestion::allow()?;
    let fresh = step(listener, "boxes", || make_boxes(&world, &materials))?;
    let boxes = world.boxes()?;
    step(listener, "network", || connect(&world, &boxes, &fresh, record.udp))?;
    step(listener, "services", || serve(&world, &record))?;
    if world.cluster {
        cluster::start(&world, &options.cache, listener)?;
    }
    Ok(world)
}

/// Checks what is needed and writes down what is wanted.
fn prepare(folder: &WorldFolder, options: &Options) -> Result<WorldRecord> {
    let earlier = record_of(folder)?;
    // Asking for less than there is takes nothing away: that is what `down` is for.
    let cluster = options.cluster || earlier.as_ref().is_some_and(|record| record.cluster);
    let plan = if cluster { options.plan.clone().with_cluster() } else { options.plan.clone() };
    plan.check()?;
    require(&options.cache, &["coredns"])?;
    if cluster {
        require(&options.cache, &cluster::PROGRAMS)?;
        require_room(&folder.disk(), free_on_the_disk_of(&folder.disk())?)?;
    }
    let record = WorldRecord {
        version: RECORD_VERSION,
        plan,
        cluster,
        udp: earlier.as_ref().map_or(Udp::Open, |record| record.udp),
        zone: earlier.map_or_else(names::usual, |record| record.zone),
        owner: options.owner,
    };
    write_record(&record_path(folder), &record)?;
    Ok(record)
}

/// What the nodes of a cluster unpack and write, and as much again before kubelets find their disk too full.
const ROOM_FOR_A_CLUSTER: u64 = 4 << 30;

/// Checks that the disk has room for a cluster: where it has not, kubelets end pods, which looks like anything but that.
fn require_room(folder: &Path, free: u64) -> Result<()> {
    let gigabytes = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    ensure!(
        free >= ROOM_FOR_A_CLUSTER,
        "the disk of {} has {:.1} GiB free, and a cluster needs {:.0}: make room there, and try again",
        folder.display(),
        gigabytes(free),
        gigabytes(ROOM_FOR_A_CLUSTER)
    );
    Ok(())
}

fn free_on_the_disk_of(folder: &Path) -> Result<u64> {
    let there = folder.ancestors().find(|folder| folder.exists()).unwrap_or(folder);
    let found = rustix::fs::statvfs(there);
    let found = found.with_context(|| format!("asking how full the disk of {} is", there.display()))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Checks that the cache holds the tree and some programs.
fn require(cache: &Cache, programs: &[&str]) -> Result<()> {
    let fill = "run `cargo xtask up` or `cargo xtask test` once: they fill the cache";
    let tree = cache.tree();
    ensure!(tree.join("usr/bin").is_dir(), "no Debian tree at {}; {fill}", tree.display());
    let missing = programs.iter().map(|name| cache.program(name)).find(|path| !path.is_file());
    ensure!(missing.is_none(), "no program {}; {fill}", missing.unwrap_or_default().display());
    Ok(())
}

fn materials(folder: &WorldFolder, options: &Options) -> Result<Materials> {
    install(folder, &options.init)?;
    let root = public_authority(folder)?;
    for name in [CONTROL_NAME, RELAY1_NAME, RELAY2_NAME] {
        root.issue(name, &Subject::server(name))?;
    }
    Ok(Materials {
        tree: options.cache.tree(),
        programs: options.cache.programs(),
        init: folder.own_programs().join("lab-init"),
        root_certificate: root.certificate().to_owned(),
    })
}

/// The authority that stands for the public web's.
pub(super) fn public_authority(folder: &WorldFolder) -> Result<Authority> {
    Authority::open(&folder.records().join("pki"), "Laboratory Public Root")
}

/// Copies a program to where all boxes see it, unless it is there already.
pub(super) fn install(folder: &WorldFolder, program: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let what = || format!("installing {}", program.display());
    let name = program.file_name().with_context(what)?;
    let target = folder.own_programs().join(name);
    let stamp = |path: &Path| fs::metadata(path).and_then(|found| Ok((found.len(), found.modified()?)));
    let wanted = stamp(program).with_context(what)?;
    if stamp(&target).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    fs::create_dir_all(folder.own_programs()).with_context(what)?;
    // Boxes' users other than root may run it too; the folder above keeps the machine's other users out.
    fs::set_permissions(folder.own_programs(), fs::Permissions::from_mode(0o755)).with_context(what)?;
    let neighbour = target.with_extension("new");
    fs::copy(program, &neighbour).with_context(what)?;
    fs::File::open(&neighbour).and_then(|file| file.set_modified(wanted.1)).with_context(what)?;
    fs::rename(&neighbour, &target).with_context(what)
}

/// Makes the boxes that are missing, dead, half made or drawn differently; returns the names of those.
fn make_boxes(world: &World, materials: &Materials) -> Result<Vec<String>> {
    let fabric = BoxPlan {
        name: FABRIC.to_owned(),
        links: Vec::new(),
        forwarding: Forwarding::None,
        routes: Vec::new(),
        disk: Vec::new(),
    };
    remove_others(world)?;
    let fabric_stays = find_whole(world, &fabric)?;
    let mut missing = Vec::new();
    for plan in &world.plan.boxes {
        // A box is joined to one fabric; with a new one its links are to be made anew, and that is a new box.
        if !(fabric_stays && find_whole(world, plan)?) {
            missing.push(plan.clone());
        }
    }
    let fabric = (!fabric_stays).then_some(fabric);
    let wanted: Vec<&BoxPlan> = missing.iter().chain(&fabric).collect();
    parallel::for_each(&wanted, |plan| {
        if let Some((old, _)) = LabBox::find(&world.folder, &plan.name)? {
            old.kill()?;
        }
        lab_box::create(&world.folder, plan, materials).map(drop)
    })?;
    Ok(wanted.iter().map(|plan| plan.name.clone()).collect())
}

/// Ends boxes that the drawing no longer has.
fn remove_others(world: &World) -> Result<()> {
    for entry in fs::read_dir(world.folder.records().join("boxes")).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name == FABRIC || drawn(&world.plan, &name) {
            continue;
        }
        // A record that cannot be read is half a box, which has ended or will with its cgroup.
        if let Ok(Some((lab_box, _))) = LabBox::find(&world.folder, &name) {
            lab_box.kill()?;
        }
        lab_box::remove(&world.folder, &name)?;
    }
    Ok(())
}

/// Whether a box runs that is drawn like this and has its links.
fn find_whole(world: &World, plan: &BoxPlan) -> Result<bool> {
    let found = LabBox::find(&world.folder, &plan.name);
    // A record that cannot be read is half a box.
    Ok(found.ok().flatten().is_some_and(|(_, record)| record.plan == *plan && record.wired))
}

/// Joins fresh boxes to the fabric.
fn connect(world: &World, boxes: &[LabBox], fresh: &[String], udp: Udp) -> Result<()> {
    let fabric = world.fabric()?;
    let is_fresh = |name: &str| fresh.iter().any(|fresh| fresh == name);
    if is_fresh(FABRIC) {
        network::lay(&fabric, &world.plan)?;
    }
    let joining: Vec<&LabBox> = boxes.iter().filter(|lab_box| is_fresh(lab_box.name())).collect();
    network::join(&fabric, &world.plan, &joining)?;
    if is_fresh(FABRIC) && udp != Udp::Open {
        traffic::apply(&fabric, &world.plan, &[], udp)?;
    }
    for lab_box in joining.iter().copied().chain([&fabric]) {
        let record = BoxRecord { plan: lab_box.plan().clone(), init: lab_box.init(), wired: true };
        write_record(&world.folder.of_box(lab_box.name()).join("box.json"), &record)?;
    }
    Ok(())
}

/// Starts what runs in the boxes whatever the test is about.
fn serve(world: &World, record: &WorldRecord) -> Result<()> {
    let on_port_80 = || Ready::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 80)));
    let init = "/opt/towline/own/lab-init";
    let web = |name: &'static str, text: &'static str| {
        move || {
            let server = world.lab_box(name)?.daemon("web", [init, "web", text]).ready(on_port_80()).start();
            server.map(drop)
        }
    };
    let echo = || world.lab_box("echo")?.daemon("echo", [init, "echo"]).ready(on_port_80()).start().map(drop);
    let names = || names::serve(&world.lab_box("names")?, &record.zone).map(drop);
    let sshd = || {
        let server = world.lab_box("robbinsdale")?;
        let key = ssh::user_key(&world.folder, &server)?;
        ssh::equip_client(&world.lab_box("laptop")?, &key)?;
        ssh::serve(&server, &key).map(drop)
    };
    let certificates = || hand_out_certificates(world);
    let printer = web("printer", "printer: ready");
    let robbinsdale = web("robbinsdale", "robbinsdale: hello");
    let work: [(&str, &(dyn Fn() -> Result<()> + Sync)); 6] = [
        ("names", &names),
        ("echo", &echo),
        ("printer", &printer),
        ("robbinsdale", &robbinsdale),
        ("robbinsdale", &sshd),
        ("control", &certificates),
    ];
    parallel::for_each(&work, |(name, start)| if drawn(&world.plan, name) { start() } else { Ok(()) })
}

/// Puts certificate and key of each public server into its box, as `/etc/towline/tls/NAME.crt` and `.key`.
fn hand_out_certificates(world: &World) -> Result<()> {
    let root = world.public_authority()?;
    for (place, name) in [("control", CONTROL_NAME), ("control", RELAY1_NAME), ("relay2", RELAY2_NAME)] {
        if !drawn(&world.plan, place) {
            continue;
        }
        let credential = root.issue(name, &Subject::server(name))?;
        let lab_box = world.lab_box(place)?;
        lab_box.write(&format!("/etc/towline/tls/{name}.crt"), &credential.certificate, 0o644)?;
        lab_box.write(&format!("/etc/towline/tls/{name}.key"), &credential.key, 0o600)?;
    }
    Ok(())
}

fn drawn(plan: &Plan, name: &str) -> bool {
    plan.find(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_without_room_for_a_cluster_is_named() {
        let folder = Path::new("/var/lib/world");
        assert!(require_room(folder, ROOM_FOR_A_CLUSTER).is_ok());
        let refused = require_room(folder, 1_610_612_736).unwrap_err().to_string();
        assert!(
            refused.starts_with("the disk of /var/lib/world has 1.5 GiB free, and a cluster needs 4:"),
            "{refused}"
        );
        assert!(free_on_the_disk_of(Path::new("/not/there")).unwrap() > 0);
    }
}
