//! Sockets and address families: what this machine's network offers, and what happens when it is another.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crypto::SystemEntropy;
use path::{Families, Sockets as Ports};

use super::Driver;
use crate::sockets::Sockets;

impl Driver {
    /// Opens the sockets anew, and has everything prove itself again.
    pub(super) async fn change_network(&mut self) {
        self.network_due = None;
        let now = Instant::now();
        self.network_changed = Some(now);
        self.reopen_sockets().await;
        self.names.forget();
        self.names.look_up(&self.shared.table.load().view.relays.clone());
        self.endpoints.handle_network_change(now);
        self.paths.handle_network_change(now, &mut SystemEntropy);
        self.netcheck.handle_network_change(now, &mut SystemEntropy);
        self.relays.network_changed();
    }

    async fn reopen_sockets(&mut self) {
        let before = self.shared.sockets.load_full();
        let port = before.v4_port().or(before.v6_port()).unwrap_or(self.config.port);
        let closed = Sockets::closed(&self.shared.counters);
        drop(before);
        let old = self.shared.sockets.swap(Arc::new(closed));
        // The port is free once the data threads let go of the old sockets, which they do as soon as they are woken.
        for _ in 0..200 {
            if Arc::strong_count(&old) == 1 {
                break;
            }
            self.shared.wakeup.wake();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(old);
        let counters = &self.shared.counters;
        let opened = Sockets::open(port, &self.config, counters).or_else(|_| Sockets::open(0, &self.config, counters));
        match opened {
            Ok(sockets) => {
                self.shared.sockets.store(Arc::new(sockets));
                self.health.set("udp-sockets", None);
            }
            Err(error) => {
                let text = format!("UDP sockets can't be opened: {error}. Everything goes by relay until that works");
                self.health.set("udp-sockets", Some(text));
                self.network_due = Some(Instant::now() + Duration::from_secs(5));
            }
        }
        self.shared.wakeup.wake();
        self.take_sockets(Instant::now());
    }

    /// Tells everybody at which ports this node listens, and in which families it sends.
    pub(super) fn take_sockets(&mut self, now: Instant) {
        let sockets = self.shared.sockets.load();
        let (v4_port, v6_port) = (sockets.v4_port(), sockets.v6_port());
        self.endpoints.handle_sockets(Ports { v4_port, v6_port, port_is_fixed: self.config.port != 0 }, now);
        drop(sockets);
        self.take_families(now);
    }

    pub(super) fn take_families(&mut self, now: Instant) {
        let sockets = self.shared.sockets.load();
        let families = Families { v4: sockets.v4.is_some(), v6: sockets.v6.is_some() && self.interfaces_have_ipv6() };
        drop(sockets);
        self.netcheck.handle_families(families, now, &mut SystemEntropy);
        let direct = if self.config.relay_only { Families { v4: false, v6: false } } else { families };
        self.paths.handle_families(direct, now, &mut SystemEntropy);
    }

    /// Whether an interface has an IPv6 address that leads anywhere; true while no interfaces are known.
    fn interfaces_have_ipv6(&self) -> bool {
        let only_loopback = self.interfaces.iter().all(IpAddr::is_loopback);
        let leads_on = |address: &IpAddr| match address {
            IpAddr::V6(v6) => !v6.is_unicast_link_local() && (only_loopback || !v6.is_loopback()),
            IpAddr::V4(_) => false,
        };
        self.interfaces.is_empty() || self.interfaces.iter().any(leads_on)
    }
}
