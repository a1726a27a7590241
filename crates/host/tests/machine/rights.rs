use std::fs;

use host::{Firewall, FirewallConfig, Forwarding, Router, RouterConfig, Tun, TunConfig};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

use crate::namespace::Namespace;

/// Leaves the calling thread these capabilities and no other.
fn keep(capabilities: CapabilitySet) {
    let sets = CapabilitySets { effective: capabilities, permitted: capabilities, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).unwrap();
}

/// Gives the calling thread what a container has of `/proc/sys`.
fn hide_settings() {
    // SAFETY: the thread gets a mount table and a working folder of its own, and ends with this test.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    rustix::mount::mount_bind("/proc/sys", "/proc/sys").unwrap();
    rustix::mount::mount_remount("/proc/sys", MountFlags::BIND | MountFlags::RDONLY, "").unwrap();
    assert!(fs::write("/proc/sys/net/ipv4/ip_forward", "1").is_err());
}

fn router() -> RouterConfig {
    RouterConfig {
        interface: "tailscale0".to_owned(),
        addresses: ["100.64.0.1/32".parse().unwrap()].into(),
        routes: ["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()].into(),
        ..Default::default()
    }
}

#[test]
fn a_pod_with_net_admin_alone_can_have_everything_but_ipv6_forwarding() {
    let namespace = Namespace::new();
    namespace.ip("link add eth0 type veth peer name eth1");
    namespace.set("ipv4/ip_forward", "0");
    namespace.run(|| {
        hide_settings();
        keep(CapabilitySet::NET_ADMIN);
        let tun = Tun::open(TunConfig::new("tailscale0")).unwrap();
        let applied = Router::new().unwrap().apply(&router()).unwrap();
        assert!(applied.failures.is_empty(), "{:?}", applied.failures);
        let config = FirewallConfig {
            forward: true,
            masquerade: true,
            clamp_segments: true,
            ..FirewallConfig::node("tailscale0")
        };
        Firewall::new().unwrap().install(&config.ruleset().unwrap()).unwrap();
        let mut forwarding = Forwarding::new().unwrap();
        let applied = forwarding.forward_ipv4().unwrap();
        assert!(applied.failures.is_empty(), "{:?}", applied.failures);
        assert!(forwarding.ipv4().unwrap().iter().all(|(_, on)| *on));
        let refused = forwarding.forward_ipv6().failures.remove(0).to_string();
        assert!(refused.contains("in the pod's securityContext.sysctls"), "{refused}");
        host::socket::set_bypass_mark(&std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
        drop(tun);
    });
}

#[test]
fn without_the_right_every_part_says_which_one_it_wants() {
    let namespace = Namespace::new();
    namespace.run(|| {
        let _tun = Tun::open(TunConfig::new("tailscale0")).unwrap();
        hide_settings();
        keep(CapabilitySet::empty());
        let mut refusals = vec![Tun::open(TunConfig::new("tailscale1")).unwrap_err()];
        refusals.extend(Router::new().unwrap().apply(&router()).unwrap().failures);
        let ruleset = FirewallConfig::node("tailscale0").ruleset().unwrap();
        refusals.push(Firewall::new().unwrap().install(&ruleset).unwrap_err());
        refusals.push(Firewall::new().unwrap().cleanup().unwrap_err());
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        refusals.push(host::socket::set_bypass_mark(&socket).unwrap_err());
        assert!(refusals.len() > 10);
        for refusal in refusals {
            assert!(refusal.is_permission() && refusal.to_string().contains("NET_ADMIN"), "{refusal}");
        }
    });
}
