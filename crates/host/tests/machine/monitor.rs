use std::time::Duration;

use host::{DefaultRoute, Monitor, NetworkState, Tun, TunConfig};

use crate::namespace::Namespace;

fn within<R: Send>(namespace: &Namespace, inside: impl AsyncFnOnce() -> R + Send) -> R {
    namespace.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), inside()).await.unwrap() })
    })
}

#[test]
fn a_change_is_told_once_it_is_quiet_and_with_everything_in_it() {
    let namespace = Namespace::new();
    namespace.ip("link add eth0 type veth peer name eth1");
    namespace.ip("link set eth1 up");
    within(&namespace, async || {
        let mut monitor = Monitor::new("tailscale0").unwrap();
        assert_eq!(monitor.current().local_addresses(), Vec::<std::net::IpAddr>::new());
        namespace.ip("link set eth0 up");
        namespace.ip("addr add 192.168.50.7/24 dev eth0");
        namespace.ip("route add default via 192.168.50.1");
        let mut state = monitor.changed().await.unwrap();
        while state.default_v4.is_none() {
            state = monitor.changed().await.unwrap();
        }
        let gateway = Some("192.168.50.1".parse().unwrap());
        assert_eq!(state.default_v4, Some(DefaultRoute { interface: "eth0".to_owned(), gateway }));
        assert_eq!(state.local_addresses(), ["192.168.50.7".parse::<std::net::IpAddr>().unwrap()]);
        assert!(state.local_networks().contains(&"192.168.50.0/24".parse().unwrap()));
        namespace.ip("link set eth1 down");
        while monitor.changed().await.unwrap().default_v4.is_some() {}
        assert_eq!(monitor.current().local_addresses(), Vec::<std::net::IpAddr>::new());
    });
}

#[test]
fn the_tunnels_own_changes_are_not_told() {
    let namespace = Namespace::new();
    within(&namespace, async || {
        let mut monitor = Monitor::new("tailscale0").unwrap();
        let _tun = Tun::open(TunConfig::new("tailscale0")).unwrap();
        namespace.ip("addr add 100.64.0.1/32 dev tailscale0");
        namespace.ip("route add default dev tailscale0");
        let moment = Duration::from_secs(1);
        assert!(tokio::time::timeout(moment, monitor.changed()).await.is_err());
        assert_eq!(NetworkState::read("tailscale0").unwrap().default_v4, None);
    });
}
