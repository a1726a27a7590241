use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Instant;

use smoltcp::iface::{Config as InterfaceConfig, Interface, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken};
use smoltcp::wire::{HardwareAddress, IpEndpoint};

use crate::Config;
use crate::outbox::Outbox;
use crate::transmit::Transmit;

/// What smoltcp sees of the world: an interface that takes every address, and a clock that starts with the stack.
pub(super) struct Link {
    interface: Interface,
    capabilities: DeviceCapabilities,
    started: Instant,
}

impl Link {
    pub(super) fn new(config: &Config, now: Instant) -> Self {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = usize::from(config.mtu);
        capabilities.checksum.ipv4 = Checksum::Tx;
        // Checked before a segment gets here, and written after it left.
        capabilities.checksum.tcp = Checksum::None;
        if config.offload {
            capabilities.segmentation.tcpv4 = NonZeroUsize::new(usize::from(u16::MAX));
        }
        let mut nothing = Outbox::default();
        let mut device = Port { incoming: None, outbox: &mut nothing, capabilities: &capabilities };
        let mut settings = InterfaceConfig::new(HardwareAddress::Ip);
        settings.random_seed = config.seed;
        let mut interface = Interface::new(settings, &mut device, smoltcp::time::Instant::ZERO);
        interface.set_any_ip(true);
        Self { interface, capabilities, started: now }
    }

    /// Hands a packet to the sockets, which answer some at once.
    pub(super) fn receive(&mut self, sockets: &mut SocketSet<'_>, packet: &[u8], now: Instant) -> Option<Transmit> {
        let now = self.clock(now);
        let mut outbox = Outbox::default();
        let mut port = Port { incoming: Some(packet), outbox: &mut outbox, capabilities: &self.capabilities };
        self.interface.poll_ingress_single(now, &mut port, sockets);
        outbox.pop()
    }

    /// Lets the sockets send: one of them sends at most one packet.
    pub(super) fn send(&mut self, sockets: &mut SocketSet<'_>, now: Instant) -> Option<Transmit> {
        let now = self.clock(now);
        let mut outbox = Outbox::default();
        let mut port = Port { incoming: None, outbox: &mut outbox, capabilities: &self.capabilities };
        self.interface.poll_egress(now, &mut port, sockets);
        outbox.pop()
    }

    pub(super) fn next_deadline(&mut self, sockets: &SocketSet<'_>, now: Instant) -> Option<Instant> {
        let at = self.interface.poll_at(self.clock(now), sockets)?;
        Some(self.started + std::time::Duration::from_micros(u64::try_from(at.total_micros()).unwrap_or(0)))
    }

    pub(super) fn context(&mut self) -> &mut smoltcp::iface::Context {
        self.interface.context()
    }

    fn clock(&self, now: Instant) -> smoltcp::time::Instant {
        let micros = now.saturating_duration_since(self.started).as_micros();
        smoltcp::time::Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }
}

pub(super) fn endpoint(address: SocketAddr) -> IpEndpoint {
    IpEndpoint::new(address.ip().into(), address.port())
}

/// A device that holds at most one packet, borrowed for one step.
struct Port<'a> {
    incoming: Option<&'a [u8]>,
    outbox: &'a mut Outbox,
    capabilities: &'a DeviceCapabilities,
}

impl Device for Port<'_> {
    type RxToken<'t>
        = Incoming<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Outgoing<'t>
    where
        Self: 't;

    fn receive(&mut self, _now: smoltcp::time::Instant) -> Option<(Incoming<'_>, Outgoing<'_>)> {
        let packet = self.incoming.take()?;
        Some((Incoming(packet), Outgoing { outbox: self.outbox, segment: None }))
    }

    fn transmit(&mut self, _now: smoltcp::time::Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing { outbox: self.outbox, segment: None })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.capabilities.clone()
    }
}

struct Incoming<'a>(&'a [u8]);

impl RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}

struct Outgoing<'a> {
    outbox: &'a mut Outbox,
    segment: Option<u16>,
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut packet = vec![0; length];
        let result = write(&mut packet);
        self.outbox.push(Transmit::tcp(packet, self.segment));
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.segment = meta.segmentation_offload_size.map(std::num::NonZeroU16::get);
    }
}
