use std::collections::BTreeMap;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use clap::Args;
use clap::builder::PossibleValue;
use crypto::SystemEntropy;
use jiff::Timestamp;
use path::netcheck::Event;
use path::{Families, NatKind, Netcheck, Region, RegionId, RelayMap, RelayNode, Report};
use serde::Serialize;
use tailcfg::{DerpAddress, DerpMap};
use tokio::net::UdpSocket;

use super::{Session, duration};
use crate::web::{self, Trust};
use crate::{Failure, Output};

/// How long a measurement may take; it ends by itself before that.
const PATIENCE: Duration = Duration::from_secs(12);

/// Measures the network around this machine.
///
/// The daemon only tells which relays there are; the measurement is this command's own, from a socket of its own.
#[derive(Debug, Args)]
pub struct Arguments {
    /// json for an indented report, json-line for one line; text for people when not given
    #[arg(long, value_name = "FORMAT", default_value = "", hide_default_value = true, value_parser = [PossibleValue::new("").hide(true), "json".into(), "json-line".into()])]
    format: String,
    /// Accepted and without effect: scripts of the stock command give it
    #[arg(long, hide = true)]
    verbose: bool,
}

/// The report as the stock command's JSON has it, and the kind of NAT.
#[derive(Debug, Serialize)]
struct Answer {
    #[serde(rename = "Now")]
    now: Timestamp,
    #[serde(rename = "UDP")]
    udp: bool,
    #[serde(rename = "IPv6")]
    ipv6: bool,
    #[serde(rename = "IPv4")]
    ipv4: bool,
    #[serde(rename = "IPv6CanSend")]
    ipv6_can_send: bool,
    #[serde(rename = "IPv4CanSend")]
    ipv4_can_send: bool,
    #[serde(rename = "OSHasIPv6")]
    os_has_ipv6: bool,
    #[serde(rename = "ICMPv4")]
    icmp_v4: bool,
    #[serde(rename = "MappingVariesByDestIP")]
    mapping_varies: Option<bool>,
    #[serde(rename = "UPnP")]
    upnp: Option<bool>,
    #[serde(rename = "PMP")]
    pmp: Option<bool>,
    #[serde(rename = "PCP")]
    pcp: Option<bool>,
    #[serde(rename = "PreferredDERP")]
    preferred_derp: u16,
    #[serde(rename = "RegionLatency")]
    latency: BTreeMap<u16, u64>,
    #[serde(rename = "RegionV4Latency")]
    latency_v4: BTreeMap<u16, u64>,
    #[serde(rename = "RegionV6Latency")]
    latency_v6: BTreeMap<u16, u64>,
    #[serde(rename = "GlobalV4")]
    global_v4: String,
    #[serde(rename = "GlobalV6")]
    global_v6: String,
    #[serde(rename = "CaptivePortal")]
    captive_portal: Option<bool>,
    #[serde(rename = "NAT")]
    nat: &'static str,
}

/// What was found, beside the report itself.
struct Found {
    report: Report,
    nat: NatKind,
    has_v6: bool,
}

pub(super) async fn run<W: Write>(
    arguments: Arguments,
    session: &Session,
    output: &mut Output<W>,
) -> Result<(), Failure> {
    output.prefer_json(!arguments.format.is_empty());
    let derp: Option<DerpMap> = session.api().await?.get("derpmap").await?;
    let regions = derp.as_ref().and_then(|map| map.regions.as_ref()).filter(|regions| !regions.is_empty());
    let Some(derp) = derp.as_ref().filter(|_| regions.is_some()) else {
        return Err(Failure::failed(format!(
            "the daemon knows no relays yet: it learns them from its server, `{} up` connects to it",
            session.program()
        )));
    };
    let found = measure(derp, session).await?;
    let answer = Answer::of(&found, Timestamp::now());
    if arguments.format == "json-line" {
        output.line(&answer, |_| String::new())?;
    } else {
        output.print(&answer, |answer| text(answer, &found, derp))?;
    }
    Ok(())
}

async fn measure(derp: &DerpMap, session: &Session) -> Result<Found, Failure> {
    let v4 = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await.ok();
    let v6 = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).await.ok();
    let map = relay_map(derp, session).await;
    let reachable = |address: IpAddr| local_address(address).is_some();
    let addresses = || map.regions.values().flat_map(|region| &region.nodes);
    let families = Families {
        v4: v4.is_some() && addresses().filter_map(|node| node.ipv4).any(|ip| reachable(ip.into())),
        v6: v6.is_some() && addresses().filter_map(|node| node.ipv6).any(|ip| reachable(ip.into())),
    };
    let local: Vec<IpAddr> =
        addresses().filter_map(|node| node.ipv4).filter_map(|ip| local_address(ip.into())).collect();
    let mut netcheck = Netcheck::new();
    let mut entropy = SystemEntropy;
    netcheck.handle_families(families, Instant::now(), &mut entropy);
    netcheck.handle_relay_map(map, Instant::now(), &mut entropy);
    let driven = tokio::time::timeout(PATIENCE, drive(&mut netcheck, v4.as_ref(), v6.as_ref(), derp, session));
    let report =
        driven.await.map_err(|_| Failure::unreachable("the measurement did not end: is the network up?"))??;
    let nat = report.nat(&local);
    Ok(Found { report, nat, has_v6: v6.is_some() })
}

/// Drives the measurement to its report.
async fn drive(
    netcheck: &mut Netcheck,
    v4: Option<&UdpSocket>,
    v6: Option<&UdpSocket>,
    derp: &DerpMap,
    session: &Session,
) -> Result<Report, Failure> {
    let mut entropy = SystemEntropy;
    let (mut buffer4, mut buffer6) = ([0; 1500], [0; 1500]);
    loop {
        while let Some(probe) = netcheck.poll_transmit() {
            let socket = if probe.to.is_ipv4() { v4 } else { v6 };
            if let Some(socket) = socket {
                // A probe that can't be sent is one that is not answered.
                let _ = socket.send_to(&probe.payload, probe.to).await;
            }
        }
        while let Some(event) = netcheck.poll_event() {
            match event {
                Event::Report(report) => return Ok(report),
                Event::HomeChanged(_) => {}
                Event::HttpsWanted(regions) => {
                    for region in regions {
                        let latency = by_https(region, derp, session).await;
                        netcheck.handle_https(region, latency, Instant::now(), &mut entropy);
                    }
                }
            }
        }
        let due = netcheck.poll_timeout();
        if due.is_none() {
            return Err(Failure::failed("no relay can be measured from here: the map has none with an address"));
        }
        let heard = tokio::select! {
            received = receive(v4, &mut buffer4) => &buffer4[..received],
            received = receive(v6, &mut buffer6) => &buffer6[..received],
            () = sleep_until(due) => &[],
        };
        let now = Instant::now();
        if !heard.is_empty() {
            // Whatever else arrives at the port is nobody's answer.
            let _ = netcheck.handle_stun(heard, now, &mut entropy);
        }
        netcheck.handle_timeout(now, &mut entropy);
    }
}

async fn receive(socket: Option<&UdpSocket>, buffer: &mut [u8]) -> usize {
    let Some(socket) = socket else { return std::future::pending().await };
    loop {
        // An error is a refusal of an earlier probe: the others go on.
        if let Ok((length, _)) = socket.recv_from(buffer).await {
            return length;
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// The address that this machine would send from.
fn local_address(to: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = std::net::UdpSocket::bind((any, 0)).ok()?;
    // Connecting a UDP socket sends nothing; it fails where there is no route.
    socket.connect((to, 9)).ok()?;
    socket.local_addr().ok().map(|address: SocketAddr| address.ip())
}

/// Times the first relay of a region by HTTPS.
async fn by_https(region: RegionId, derp: &DerpMap, session: &Session) -> Option<Duration> {
    let node = derp.region(tailcfg::RegionId(region.get()))?.nodes.iter().find(|node| !node.stun_only)?;
    let trust = Trust::new(&session.connection().roots().ok()?);
    let url = format!("https://{}:{}/derp/latency-check", node.host_name, node.relay_port());
    let started = Instant::now();
    let fetched = tokio::time::timeout(Duration::from_secs(2), web::get(&url, session.connection().resolver(), &trust));
    fetched.await.ok()?.ok()?;
    Some(started.elapsed())
}

async fn relay_map(derp: &DerpMap, session: &Session) -> RelayMap {
    let mut regions = BTreeMap::new();
    let scores = derp.home_params.as_ref().map(|home| &home.region_score);
    for (id, region) in derp.regions.iter().flatten() {
        let Some(number) = RegionId::new(id.0) else { continue };
        let mut nodes = Vec::new();
        for node in &region.nodes {
            nodes.push(relay_node(node, session).await);
        }
        let score = scores.and_then(|scores| scores.get(id)).copied().unwrap_or(1.0);
        let (avoid, no_measure_no_home) = (region.avoid, region.no_measure_no_home);
        regions.insert(number, Region { score, avoid, no_measure_no_home, nodes });
    }
    RelayMap { regions }
}

async fn relay_node(node: &tailcfg::DerpNode, session: &Session) -> RelayNode {
    let (v4, v6) = (node.ipv4_address(), node.ipv6_address());
    let mut found = Vec::new();
    if v4 == DerpAddress::Lookup || v6 == DerpAddress::Lookup {
        found = match node.host_name.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => session.connection().resolver().resolve(&node.host_name).await.unwrap_or_default(),
        };
    }
    let first4 = found.iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    });
    let first6 = found.iter().find_map(|address| match address {
        IpAddr::V6(address) => Some(*address),
        IpAddr::V4(_) => None,
    });
    RelayNode { ipv4: chosen(v4, first4), ipv6: chosen(v6, first6), stun_port: node.stun(), stun_only: node.stun_only }
}

fn chosen<A>(given: DerpAddress<A>, looked_up: Option<A>) -> Option<A> {
    match given {
        DerpAddress::At(address) => Some(address),
        DerpAddress::Lookup => looked_up,
        DerpAddress::Unused => None,
    }
}

impl Answer {
    fn of(found: &Found, now: Timestamp) -> Self {
        let report = &found.report;
        let nanos = |latency: &BTreeMap<RegionId, Duration>| {
            let nanos = |span: &Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
            latency.iter().map(|(region, span)| (region.get(), nanos(span))).collect()
        };
        Self {
            now,
            udp: report.udp,
            ipv6: report.global_v6.is_some(),
            ipv4: report.global_v4.is_some(),
            ipv6_can_send: report.global_v6.is_some(),
            ipv4_can_send: report.global_v4.is_some(),
            os_has_ipv6: found.has_v6,
            icmp_v4: false,
            mapping_varies: report.mapping_varies,
            upnp: None,
            pmp: None,
            pcp: None,
            preferred_derp: report.home.map_or(0, RegionId::get),
            latency: nanos(&report.latency),
            latency_v4: nanos(&report.latency_v4),
            latency_v6: nanos(&report.latency_v6),
            global_v4: report.global_v4.map(|address| address.to_string()).unwrap_or_default(),
            global_v6: report.global_v6.map(|address| address.to_string()).unwrap_or_default(),
            captive_portal: None,
            nat: match found.nat {
                NatKind::None => "none",
                NatKind::Easy => "easy",
                NatKind::Hard => "hard",
                NatKind::Unknown => "unknown",
            },
        }
    }
}

fn text(answer: &Answer, found: &Found, derp: &DerpMap) -> String {
    let region = |id: RegionId| derp.region(tailcfg::RegionId(id.get()));
    let name = |id: RegionId| region(id).map_or_else(|| id.get().to_string(), |region| region.region_name.clone());
    let yes = |address: &str, other: &str| match address {
        "" => other.to_owned(),
        address => format!("yes, {address}"),
    };
    let no_v6 = if answer.os_has_ipv6 { "no, but OS has support" } else { "no, unavailable in OS" };
    let varies = answer.mapping_varies.map(|varies| varies.to_string()).unwrap_or_default();
    let nat = match found.nat {
        NatKind::None => "none: this machine has a public address",
        NatKind::Easy => "easy: one public endpoint for all peers, which reach it directly",
        NatKind::Hard => {
            "hard: another public endpoint for each peer; peers behind such a one too are reached by relay"
        }
        NatKind::Unknown => "unknown: fewer than two STUN servers answered",
    };
    let mut text = format!(
        "\nReport:\n\t* Time: {}\n\t* UDP: {}\n\t* IPv4: {}\n\t* IPv6: {}\n\t* MappingVariesByDestIP: {varies}\n\t* NAT: {nat}\n\t* PortMapping: \n",
        answer.now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        answer.udp,
        yes(&answer.global_v4, "(no addr found)"),
        yes(&answer.global_v6, no_v6),
    );
    let report = &found.report;
    if report.latency.is_empty() {
        text.push_str("\t* Nearest DERP: unknown (no response to latency probes)\n");
        return text;
    }
    text.push_str(&format!("\t* Nearest DERP: {}\n\t* DERP latency:\n", report.home.map(name).unwrap_or_default()));
    let mut latency: Vec<(&RegionId, &Duration)> = report.latency.iter().collect();
    latency.sort_by_key(|(_, span)| **span);
    for (id, span) in latency {
        let code = region(*id).map(|region| region.region_code.clone()).unwrap_or_default();
        text.push_str(&format!("\t\t- {code:>3}: {:<7} ({})\n", duration::tenths(*span), name(*id)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(latency: &[(u16, u64)]) -> Found {
        let latency = latency.iter();
        let latency: BTreeMap<RegionId, Duration> =
            latency.map(|(id, micros)| (RegionId::new(*id).unwrap(), Duration::from_micros(*micros))).collect();
        let report = Report {
            at: Instant::now(),
            full: true,
            udp: true,
            global_v4: Some("203.0.113.20:1000".parse().unwrap()),
            global_v6: None,
            seen_v4: BTreeMap::new(),
            mapping_varies: Some(false),
            home: latency.keys().next().copied(),
            latency_v4: latency.clone(),
            latency_v6: BTreeMap::new(),
            latency,
        };
        Found { report, nat: NatKind::Easy, has_v6: true }
    }

    #[test]
    fn the_report_reads_like_the_stock_one_and_names_the_nat() {
        let derp: DerpMap = serde_json::from_str(
            r#"{"Regions":{"900":{"RegionID":900,"RegionCode":"near","RegionName":"Near by"},
                "901":{"RegionID":901,"RegionCode":"far","RegionName":"Far"}}}"#,
        )
        .unwrap();
        let found = found(&[(900, 12_340), (901, 340)]);
        let text = text(&Answer::of(&found, "2026-01-01T00:00:00.123456789Z".parse().unwrap()), &found, &derp);
        let wanted = "\nReport:\n\t* Time: 2026-01-01T00:00:00Z\n\t* UDP: true\n\t* IPv4: yes, 203.0.113.20:1000\n\t* IPv6: no, but OS has support\n\t* MappingVariesByDestIP: false\n\t* NAT: easy: one public endpoint for all peers, which reach it directly\n\t* PortMapping: \n\t* Nearest DERP: Near by\n\t* DERP latency:\n\t\t- far: 300\u{b5}s   (Far)\n\t\t- near: 12.3ms  (Near by)\n";
        assert_eq!(text, wanted);
    }
}
