use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use derp::client::SocketSetup;
use engine::Device;
use host::{
    Firewall, FirewallConfig, Forwarding, Monitor, NetworkState, Router, RouterConfig, SettingChange, Tun, TunConfig,
};
use ipnet::IpNet;
use mesh::{Names, Routing, SERVICE_V4, SystemDns};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use tailcfg::DnsConfig;

use crate::NodeError;
use crate::config::{Config, DeviceConfig};
use crate::dns::{Served, Service};

/// What the node has changed of the machine's network, and what it knows of it. In user space it changes nothing.
pub(super) struct MachineNetwork {
    tun: Option<TunSide>,
    mark: bool,
    monitor: Option<Monitor>,
    problems: Vec<String>,
}

/// The addresses of the machine's interfaces, other than the node's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NetworkChange {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) attached: Vec<IpNet>,
}

struct TunSide {
    name: String,
    device: Option<Arc<TunDevice>>,
    router: Router,
    firewall: Firewall,
    forwarding: Forwarding,
    forwarded: Vec<SettingChange>,
    applied: Option<(Routing, u16, Vec<IpNet>)>,
    /// Whether the firewall's rules are this node's: without netfilter they may be a proxy's.
    guards: bool,
    dns: Service,
}

/// The machine's interface as a device of the engine.
#[derive(Debug)]
pub(super) struct TunDevice {
    tun: Tun,
    wakes: rustix::fd::OwnedFd,
}

impl MachineNetwork {
    /// Opens the ways to the kernel, and takes away what an earlier process left.
    pub(super) fn new(config: &Config, manages_firewall: bool) -> Result<Self, NodeError> {
        let machine = |error: host::HostError| NodeError::Machine(error.to_string());
        let tun = match &config.device {
            DeviceConfig::UserSpace => None,
            DeviceConfig::Tun { name } => {
                let mut side = TunSide {
                    name: name.clone(),
                    device: None,
                    router: Router::new().map_err(machine)?,
                    firewall: Firewall::new().map_err(machine)?,
                    forwarding: Forwarding::new().map_err(machine)?,
                    forwarded: Vec::new(),
                    applied: None,
                    guards: manages_firewall,
                    dns: Service::new(),
                };
                side.clean();
                Some(side)
            }
        };
        let mark = config.mark_sockets || tun.is_some();
        // The data plane can do without: its paths are then found anew by the probes that fail.
        let monitor = Monitor::new(tun.as_ref().map(|side| side.name.clone()).unwrap_or_default());
        let monitor = monitor.map_err(|error| tracing::warn!(%error, "changes of the network go unnoticed")).ok();
        Ok(Self { tun, mark, monitor, problems: Vec::new() })
    }

    /// What is done to the node's own sockets: a mark that leads them past the node's own routes.
    pub(super) fn socket_setup(&self) -> Option<SocketSetup> {
        if !self.mark {
            return None;
        }
        Some(Arc::new(|socket: &socket2::Socket, _: SocketAddr| {
            host::socket::set_bypass_mark(socket).map_err(|error| io::Error::other(error.to_string()))
        }))
    }

    /// The interface as a device, made when it is not there.
    pub(super) fn device(&mut self) -> Result<Arc<TunDevice>, String> {
        let side = self.tun.as_mut().ok_or("a node in user space has no interface")?;
        if let Some(device) = &side.device {
            return Ok(device.clone());
        }
        let tun = Tun::open(TunConfig::new(&side.name)).map_err(|error| error.to_string())?;
        let wakes = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|error| error.to_string())?;
        let device = Arc::new(TunDevice { tun, wakes });
        side.device = Some(device.clone());
        Ok(device)
    }

    /// Makes routes, firewall and name settings what they should be. What can't be had is a problem to be shown, and
    /// tried again with the next change.
    pub(super) fn apply(
        &mut self,
        routing: &Routing,
        dns: &SystemDns,
        network: &DnsConfig,
        names: Arc<Names>,
        udp_port: u16,
    ) {
        let attached = self.look().attached;
        let Some(side) = &mut self.tun else { return };
        let wanted = (routing.clone(), udp_port, attached);
        if side.applied.as_ref() != Some(&wanted) {
            self.problems = side.apply(&wanted.0, udp_port, &wanted.2);
            for problem in &self.problems {
                tracing::warn!(%problem, "the machine's network is not as it should be");
            }
            side.applied = Some(wanted);
        }
        side.dns.serve(Served { names, system: dns.clone(), fallback: network.fallback_resolvers.clone() });
    }

    /// What could not be had of the machine.
    pub(super) fn problems(&self) -> Vec<String> {
        let names = self.tun.as_ref().and_then(|side| side.dns.problem());
        self.problems.iter().cloned().chain(names).collect()
    }

    /// Leaves the machine as it was before.
    pub(super) fn restore(&mut self) {
        if let Some(side) = &mut self.tun {
            side.dns.stop();
            side.clean();
            side.device = None;
            side.applied = None;
        }
        self.problems.clear();
    }

    /// The machine's addresses as they were last told.
    pub(super) fn look(&self) -> NetworkChange {
        match &self.monitor {
            Some(monitor) => NetworkChange::of(monitor.current()),
            None => NetworkChange { addresses: Vec::new(), attached: Vec::new() },
        }
    }

    /// Waits until the machine has other addresses, or another way out.
    pub(super) async fn changed(&mut self) -> NetworkChange {
        let Some(monitor) = &mut self.monitor else { return std::future::pending().await };
        match monitor.changed().await {
            Ok(state) => return NetworkChange::of(state),
            Err(error) => tracing::warn!(%error, "changes of the network go unnoticed from now on"),
        }
        self.monitor = None;
        std::future::pending().await
    }
}

impl NetworkChange {
    fn of(state: &NetworkState) -> Self {
        let mut addresses = state.local_addresses();
        if addresses.is_empty() {
            // Nodes on a machine without any network still reach each other.
            addresses.push(Ipv4Addr::LOCALHOST.into());
        }
        Self { addresses, attached: state.local_networks() }
    }
}

impl TunSide {
    fn apply(&mut self, routing: &Routing, udp_port: u16, attached: &[IpNet]) -> Vec<String> {
        let mut problems = Vec::new();
        let mut addresses: BTreeSet<IpNet> = routing.addresses.iter().copied().collect();
        // MagicDNS listens there; packets to it never leave the machine.
        addresses.insert(IpNet::from(SERVICE_V4));
        let routes = routing.routes.iter().filter(|route| !addresses.contains(*route)).copied();
        let config = RouterConfig {
            interface: self.name.clone(),
            routes: routes.collect(),
            blackholes: BTreeSet::new(),
            throws: if routing.exit && routing.lan_access {
                attached.iter().copied().collect()
            } else {
                BTreeSet::new()
            },
            addresses,
        };
        match self.router.apply(&config) {
            Ok(applied) => problems.extend(applied.failures.iter().map(ToString::to_string)),
            Err(error) => problems.push(error.to_string()),
        }
        problems.extend(self.guard(routing, udp_port, &config));
        if !routing.offered.is_empty() {
            problems.extend(self.forward(routing));
        }
        if routing.exit && routing.netfilter_mode != 0 {
            problems.extend(self.trust_marks());
        }
        problems
    }

    /// Sets the firewall up.
    fn guard(&mut self, routing: &Routing, udp_port: u16, router: &RouterConfig) -> Option<String> {
        if routing.netfilter_mode == 0 {
            return self.unguard().err().map(|error| error.to_string());
        }
        let config = FirewallConfig {
            addresses: router.addresses.iter().map(IpNet::addr).collect(),
            udp_port: (udp_port != 0).then_some(udp_port),
            drop_spoofed: routing.drop_foreign,
            forward: !routing.offered.is_empty(),
            masquerade: routing.masquerade,
            stateful: routing.stateful,
            clamp_segments: !routing.offered.is_empty(),
            mark_replies: routing.exit,
            ..FirewallConfig::node(&self.name)
        };
        let ruleset = match config.ruleset() {
            Ok(ruleset) => ruleset,
            Err(error) => return Some(error.to_string()),
        };
        self.guards = true;
        self.firewall.install(&ruleset).err().map(|error| error.to_string())
    }

    /// Takes the firewall's rules away, if they are this node's.
    fn unguard(&mut self) -> Result<(), host::HostError> {
        if std::mem::take(&mut self.guards) { self.firewall.cleanup() } else { Ok(()) }
    }

    /// Has the machine forward packets, in the families of the routes that are offered.
    fn forward(&mut self, routing: &Routing) -> Vec<String> {
        let mut problems = Vec::new();
        if routing.offered.iter().any(|route| route.addr().is_ipv4()) {
            match self.forwarding.forward_ipv4() {
                Ok(applied) => {
                    problems.extend(applied.failures.iter().map(ToString::to_string));
                    self.forwarded.extend(applied.changes);
                }
                Err(error) => problems.push(error.to_string()),
            }
        }
        if routing.offered.iter().any(|route| route.addr().is_ipv6()) {
            let applied = self.forwarding.forward_ipv6();
            problems.extend(applied.failures.iter().map(ToString::to_string));
            self.forwarded.extend(applied.changes);
        }
        problems
    }

    /// Has strict reverse path filters accept answers to the node's own packets beside an exit node.
    fn trust_marks(&mut self) -> Vec<String> {
        match self.forwarding.trust_marks() {
            Ok(applied) => {
                self.forwarded.extend(applied.changes);
                applied.failures.iter().map(ToString::to_string).collect()
            }
            Err(error) => vec![error.to_string()],
        }
    }

    /// Takes away everything of ours, this process's and an earlier one's.
    fn clean(&mut self) {
        match self.router.cleanup() {
            Ok(cleaned) => {
                for error in cleaned.failures {
                    tracing::warn!(%error, "a route could not be removed");
                }
            }
            Err(error) => tracing::warn!(%error, "the routes could not be removed"),
        }
        if let Err(error) = self.unguard() {
            tracing::warn!(%error, "the firewall's rules could not be removed");
        }
        for error in self.forwarding.restore(&std::mem::take(&mut self.forwarded)) {
            tracing::warn!(%error, "a setting could not be restored");
        }
    }
}

impl TunDevice {
    fn wait(&self) -> io::Result<()> {
        let mut fds = [PollFd::new(&self.tun, PollFlags::IN), PollFd::new(&self.wakes, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
        if fds[1].revents().contains(PollFlags::IN) {
            let mut count = [0; 8];
            // Emptied so that the next read waits again; that it was full is what matters.
            let _ = rustix::io::read(&self.wakes, &mut count);
            return Err(io::ErrorKind::Interrupted.into());
        }
        Ok(())
    }
}

impl Device for TunDevice {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.wait()?;
            if let Some(length) = self.tun.try_read(buffer)? {
                return Ok(length);
            }
        }
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tun.try_read(buffer)?.ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<()> {
        self.tun.write(slices).map(drop)
    }

    fn wake(&self) {
        // A counter that is full wakes as well as one that was counted up.
        let _ = rustix::io::write(&self.wakes, &1_u64.to_ne_bytes());
    }

    fn takes_tcp(&self) -> bool {
        self.tun.offloads() >= host::Offloads::Tcp
    }

    fn takes_udp(&self) -> bool {
        self.tun.offloads() >= host::Offloads::TcpUdp
    }
}
