//! What passes through the data threads takes no memory of its own.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crypto::{NodePrivate, SystemEntropy};
use dial::{Resolve, Roots};
use engine::{Config, Device, Engine, VNET_HEADER};
use filter::{AddressRange, Filter, Local, Rule};
use futures_util::future::BoxFuture;
use mesh::{PeerView, Routes, View};
use packet::udp::UdpRepr;
use tailcfg::{DerpMap, NodeId};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, which counts for each thread.
struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting touches a plain cell of the thread's own, which
// needs no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A device that gives one packet again and again while it is open, and forgets what it is given. It counts what the
/// threads that use it allocate in between.
#[derive(Default)]
struct Pump {
    packet: Vec<u8>,
    open: AtomicBool,
    woken: Mutex<bool>,
    wake: Condvar,
    reads: AtomicU64,
    writes: AtomicU64,
    allocated_reading: AtomicU64,
    allocated_writing: AtomicU64,
}

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

impl Device for Pump {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut woken = self.woken.lock().unwrap();
        loop {
            if std::mem::take(&mut *woken) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            if let Ok(length) = self.try_read(buffer) {
                return Ok(length);
            }
            woken = self.wake.wait_timeout(woken, Duration::from_millis(1)).unwrap().0;
        }
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.open.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.allocated_reading.store(allocations(), Ordering::Relaxed);
        buffer[..VNET_HEADER].fill(0);
        buffer[VNET_HEADER..VNET_HEADER + self.packet.len()].copy_from_slice(&self.packet);
        Ok(VNET_HEADER + self.packet.len())
    }

    fn write(&self, _slices: &[IoSlice<'_>]) -> io::Result<()> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.allocated_writing.store(allocations(), Ordering::Relaxed);
        Ok(())
    }

    fn wake(&self) {
        *self.woken.lock().unwrap() = true;
        self.wake.notify_all();
    }

    fn takes_tcp(&self) -> bool {
        true
    }

    fn takes_udp(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Nobody;

impl Resolve for Nobody {
    fn resolve<'a>(&'a self, _host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async { Err(io::ErrorKind::NotFound.into()) })
    }
}

const ONE: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 2);

async fn start(device: Arc<Pump>) -> (Engine, SocketAddr) {
    let key = NodePrivate::generate(&mut SystemEntropy);
    let (engine, _events) = Engine::start(Config::new(key, Roots::none(), Arc::new(Nobody)), device).unwrap();
    engine.set_interfaces(vec![Ipv4Addr::LOCALHOST.into()]);
    let port = engine.status().await.unwrap().v4_port.unwrap();
    (engine, (Ipv4Addr::LOCALHOST, port).into())
}

fn show(engine: &Engine, own: Ipv4Addr, peer: &Engine, address: Ipv4Addr, endpoint: SocketAddr) {
    let rules: Vec<Rule> = serde_json::from_value(serde_json::json!([
        {"SrcIPs": ["*"], "DstPorts": [{"IP": "*", "Ports": {"First": 0, "Last": 65535}}]}
    ]))
    .unwrap();
    let prefix = ipnet::IpNet::from(IpAddr::from(address));
    let view = PeerView {
        id: NodeId(1),
        name: "peer".to_owned(),
        disco: peer.disco_key(),
        home: None,
        endpoints: vec![endpoint],
        addresses: vec![address.into()],
        allowed: vec![prefix],
        capabilities: Arc::new(BTreeSet::new()),
        jailed: false,
        wireguard_only: false,
        masquerade_v4: None,
        masquerade_v6: None,
    };
    let local = Local::new([AddressRange::from(IpAddr::from(own))]);
    engine.set_view(View {
        addresses: vec![own.into()],
        peers: BTreeMap::from([(peer.node_key(), view)]),
        routes: Routes::new([(prefix, peer.node_key())]),
        filter: Arc::new(Filter::compile(&rules, local).unwrap()),
        shields_up: false,
        relays: Arc::new(DerpMap::default()),
        mtu: 1280,
    });
}

async fn until(what: &str, reached: impl Fn() -> bool) {
    let waiting = async {
        while !reached() {
            // tidy: sleep, a device in memory tells nobody what it counts
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(30), waiting).await.is_err() {
        panic!("{what} never comes");
    }
}

#[tokio::test]
async fn data_threads_allocate_nothing_for_a_packet() {
    let packet = UdpRepr { source_port: 1, destination_port: 2 }.packet(ONE.into(), OTHER.into(), &[7; 1000]);
    let source = Arc::new(Pump { packet, ..Pump::default() });
    let sink = Arc::new(Pump::default());
    let ((one, one_at), (other, other_at)) = tokio::join!(start(source.clone()), start(sink.clone()));
    show(&one, ONE, &other, OTHER, other_at);
    show(&other, OTHER, &one, ONE, one_at);
    // What was shown before is in force once this is answered: a handshake from a stranger would be dropped.
    other.status().await.unwrap();
    one.ping(other.node_key(), engine::PingKind::Tsmp).await.unwrap();
    source.open.store(true, Ordering::Relaxed);
    until("the first packets", || sink.writes.load(Ordering::Relaxed) > 1000).await;

    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (reads, writes) = (count(&source.reads), count(&sink.writes));
    let (reading, writing) = (count(&source.allocated_reading), count(&sink.allocated_writing));
    until("the rest", || count(&sink.writes) > writes + 50_000).await;
    source.open.store(false, Ordering::Relaxed);
    let (reads, writes) = (count(&source.reads) - reads, count(&sink.writes) - writes);
    let (reading, writing) = (count(&source.allocated_reading) - reading, count(&sink.allocated_writing) - writing);
    // Words to the control thread, twice a second, come in blocks, and flow records begin anew every five seconds.
    assert!(reading < 50, "{reading} allocations for {reads} packets sent");
    assert!(writing < 50, "{writing} allocations for {writes} packets received");
}
