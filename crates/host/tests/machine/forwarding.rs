use host::Forwarding;

use crate::namespace::Namespace;

fn namespace() -> Namespace {
    let namespace = Namespace::new();
    namespace.ip("link add eth0 type veth peer name eth1");
    namespace.set("ipv4/ip_forward", "0");
    namespace
}

#[test]
fn forwarding_is_set_by_file_and_taken_back() {
    let namespace = namespace();
    namespace.set("ipv6/conf/eth0/accept_ra", "1");
    let (ipv4, ipv6) = namespace.run(|| {
        let mut forwarding = Forwarding::new().unwrap();
        (forwarding.forward_ipv4().unwrap(), forwarding.forward_ipv6())
    });
    assert!(ipv4.failures.is_empty() && ipv6.failures.is_empty(), "{:?} {:?}", ipv4.failures, ipv6.failures);
    assert_eq!(ipv4.changes[0].to_string(), "set net.ipv4.ip_forward=1 (was 0)");
    assert_eq!(namespace.get("ipv4/ip_forward"), "1");
    assert_eq!(namespace.get("ipv6/conf/all/forwarding"), "1");
    assert_eq!(namespace.get("ipv6/conf/eth0/accept_ra"), "2", "router advertisements are heard on");
    namespace.run(|| {
        let mut forwarding = Forwarding::new().unwrap();
        assert!(forwarding.ipv4().unwrap().iter().all(|(_, on)| *on));
        assert_eq!(forwarding.ipv6(), Some(true));
        assert!(forwarding.restore(&ipv4.changes).is_empty());
        assert!(forwarding.restore(&ipv6.changes).is_empty());
    });
    assert_eq!(namespace.get("ipv4/ip_forward"), "0");
    assert_eq!(namespace.get("ipv6/conf/all/forwarding"), "0");
}

#[test]
fn where_files_are_read_only_each_interface_is_set_by_netlink() {
    let namespace = namespace();
    // What a pod sees: the settings can be read and not be written.
    let hidden = tempfile::tempdir().unwrap();
    let (forward, marks) = namespace.run(|| {
        let mut forwarding = Forwarding::below(hidden.path()).unwrap();
        (forwarding.forward_ipv4().unwrap(), forwarding.trust_marks().unwrap())
    });
    assert!(forward.failures.is_empty(), "{:?}", forward.failures);
    let names: Vec<_> = forward.changes.iter().map(|change| change.setting.as_str()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names.contains(&"net.ipv4.conf.eth0.forwarding"));
    assert_eq!(namespace.get("ipv4/conf/eth0/forwarding"), "1");
    assert_eq!(namespace.get("ipv4/conf/eth1/src_valid_mark"), "1");
    assert_eq!(namespace.get("ipv4/ip_forward"), "0", "nothing but the interfaces");
    namespace.run(|| {
        let mut forwarding = Forwarding::below(hidden.path()).unwrap();
        assert!(forwarding.forward_ipv4().unwrap().changes.is_empty(), "it is on already");
        assert!(forwarding.restore(&forward.changes).is_empty());
        assert!(forwarding.restore(&marks.changes).is_empty());
    });
    assert_eq!(namespace.get("ipv4/conf/eth0/forwarding"), "0");
    assert_eq!(namespace.get("ipv4/conf/eth1/src_valid_mark"), "0");
}

#[test]
fn ipv6_that_cannot_be_forwarded_is_told_with_the_next_step() {
    let namespace = namespace();
    let hidden = tempfile::tempdir().unwrap();
    let applied = namespace.run(|| Forwarding::below(hidden.path()).unwrap().forward_ipv6());
    assert!(applied.failures[0].to_string().contains("forward IPv4 only"), "{:?}", applied.failures);
}
