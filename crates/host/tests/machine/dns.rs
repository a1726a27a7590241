use std::fs;
use std::thread;
use std::time::Duration;

use host::{DnsConfig, DnsRestored, ResolvConf, SystemDns};
use rustix::thread::UnshareFlags;

const BEFORE: &str = "nameserver 10.96.0.10\nsearch svc.cluster.local\n";

fn config() -> DnsConfig {
    DnsConfig { nameservers: vec!["100.100.100.100".parse().unwrap()], search: vec!["taila31de.ts.net".to_owned()] }
}

#[test]
fn a_mounted_file_is_written_in_place_and_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let (source, path) = (folder.path().join("kubelets"), folder.path().join("resolv.conf"));
    fs::write(&source, BEFORE).unwrap();
    fs::write(&path, "").unwrap();
    let inside = thread::spawn(move || {
        // SAFETY: the thread gets a mount table and a working folder of its own, and ends with this test.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }
            .expect("these tests mount in namespaces of their own: run them as root");
        let private = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).unwrap();
        rustix::mount::mount_bind(&source, &path).unwrap();
        let dns = SystemDns::at(&path);
        dns.apply(&config()).unwrap();
        let text = fs::read_to_string(&source).unwrap();
        assert!(text.contains("\nnameserver 100.100.100.100\nsearch taila31de.ts.net svc.cluster.local\n"), "{text}");
        assert_eq!(dns.base().unwrap(), ResolvConf::parse(BEFORE));
        assert_eq!(dns.restore().unwrap(), DnsRestored::Restored);
        assert_eq!(fs::read_to_string(&source).unwrap(), BEFORE);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    });
    inside.join().unwrap();
}

#[tokio::test]
async fn somebody_elses_writing_is_noticed_and_ours_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resolv.conf");
    fs::write(&path, BEFORE).unwrap();
    let dns = SystemDns::at(&path);
    dns.apply(&config()).unwrap();
    let mut watch = dns.watch().unwrap();
    dns.apply(&DnsConfig { search: Vec::new(), ..config() }).unwrap();
    let moment = Duration::from_millis(200);
    assert!(tokio::time::timeout(moment, watch.overwritten()).await.is_err(), "our own writing");
    for how in ["in place", "replaced"] {
        if how == "in place" {
            fs::write(&path, BEFORE).unwrap();
        } else {
            fs::write(folder.path().join("new"), BEFORE).unwrap();
            fs::rename(folder.path().join("new"), &path).unwrap();
        }
        tokio::time::timeout(Duration::from_secs(5), watch.overwritten()).await.expect(how).unwrap();
        dns.apply(&config()).unwrap();
    }
}
