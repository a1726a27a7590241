//! Any bytes as packets that arrive at a node, under any rules: they are judged as the rules read word by word say.
#![no_main]

// What the data plane reads of a packet.
#[path = "../../crates/engine/src/pipeline/summary.rs"]
mod summary;

use std::collections::BTreeSet;
use std::net::IpAddr;

use filter::{
    AddressRange, CapGrant, DstPort, Filter, Flow, FlowTable, Local, Pass, Payload, PortRange, Protocol, Refusal, Rule,
    Source, Standing, Verdict,
};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;

const ADDRESSES: [&str; 12] = [
    "100.64.0.1",
    "100.64.0.2",
    "10.1.2.3",
    "255.255.255.255",
    "224.0.0.1",
    "169.254.1.1",
    "169.254.169.254",
    "fd7a:115c:a1e0::1",
    "fd7a:115c:a1e0::2",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "fe80::1",
    "ff02::1",
];
const RANGES: [&str; 16] = [
    "*",
    "100.64.0.1",
    "100.64.0.2",
    "100.64.0.0/10",
    "100.64.0.1-100.64.0.2",
    "10.0.0.0/8",
    "0.0.0.0/0",
    "255.255.255.255",
    "128.0.0.0/1",
    "::/0",
    "fd7a:115c:a1e0::/48",
    "fd7a:115c:a1e0::2",
    "169.254.0.0/16",
    "224.0.0.0/4",
    "8000::/1",
    "fe80::/10",
];
const CAPABILITIES: [&str; 3] = ["cap:relay", "cap:drive", "cap:none"];
const PROTOCOLS: [i64; 9] = [0, 1, 6, 17, 47, 58, 99, 132, 255];
const MOST_PACKETS: usize = 24;

/// A node that packets arrive at.
struct Case {
    rules: Vec<Rule>,
    local: Vec<AddressRange>,
    /// What the node itself sent.
    sent: Vec<Flow>,
    shields_up: bool,
    jailed: bool,
}

fuzz_target!(|data: &[u8]| {
    let mut input = Unstructured::new(data);
    let Ok(case) = case(&mut input) else { return };
    let compiled = Filter::compile(&case.rules, Local::new(case.local.iter().copied()));
    assert_eq!(compiled.is_ok(), case.rules.iter().all(is_whole), "one bad rule voids the filter, and only that does");
    let filter = compiled.unwrap_or_else(|_| Filter::blocking(Local::new(case.local.iter().copied())));
    let has_capability = |name: &str| matches!(name, "relay" | "drive");
    let standing = Standing { shields_up: case.shields_up, jailed: case.jailed, has_capability: &has_capability };
    for _ in 0..MOST_PACKETS {
        let Ok(bytes) = packet(&mut input) else { return };
        let Some(flow) = summary::summarize(&bytes) else { continue };
        let mut answers = FlowTable::new(8, 11);
        case.sent.iter().for_each(|flow| answers.record(flow));
        let rules = if filter.is_empty() { &[][..] } else { &case.rules };
        let verdict = filter.judge(&flow, &mut answers, &standing);
        let expected = judge(&case, rules, &flow, &has_capability);
        match (verdict, expected) {
            // Any rule that allows it may be named.
            (Verdict::Accept(Pass::Rule(named)), Verdict::Accept(Pass::Rule(_))) => {
                assert!(allows(&rules[named], &flow, &has_capability), "rule {named} doesn't allow {flow}");
            }
            _ => assert_eq!(verdict, expected, "{flow} under {rules:#?}"),
        }
        let explained = filter.explain(&flow, &standing);
        assert_eq!(explained.verdict, filter.judge(&flow, &mut FlowTable::new(1, 0), &standing));
        assert!(explained.near_misses.iter().all(|miss| !miss.lacks.is_empty()), "a near miss lacks something");
        check_capabilities(&filter, rules, flow.source.ip(), flow.destination.ip(), &has_capability);
    }
});

fn case(input: &mut Unstructured<'_>) -> Result<Case> {
    let mut rules = Vec::new();
    for _ in 0..input.int_in_range(0..=10)? {
        rules.push(rule(input)?);
    }
    let mut local = Vec::new();
    for _ in 0..input.int_in_range(0..=5)? {
        local.extend(input.choose(&RANGES)?.parse::<AddressRange>());
    }
    let mut sent = Vec::new();
    for _ in 0..input.int_in_range(0..=4)? {
        sent.extend(summary::summarize(&packet(input)?));
    }
    Ok(Case { rules, local, sent, shields_up: input.ratio(1, 8)?, jailed: input.ratio(1, 8)? })
}

fn rule(input: &mut Unstructured<'_>) -> Result<Rule> {
    let mut rule = Rule::default();
    let mut sources = Vec::new();
    for _ in 0..input.int_in_range(0..=3)? {
        let named = if input.ratio(1, 6)? { input.choose(&CAPABILITIES)? } else { input.choose(&RANGES)? };
        // Now and then a text that may not be a range.
        sources.push(if input.ratio(1, 40)? { input.arbitrary()? } else { (*named).to_owned() });
    }
    rule.sources = sources.into();
    for _ in 0..input.int_in_range(0..=2)? {
        let chosen = *input.choose(&PROTOCOLS)?;
        rule.protocols.push(if input.ratio(1, 40)? { input.arbitrary()? } else { chosen });
    }
    for _ in 0..input.int_in_range(0..=3)? {
        let [first, last] = [port(input)?, port(input)?];
        let in_order = PortRange { first: first.min(last), last: first.max(last) };
        let ports = if input.ratio(1, 4)? { PortRange::ALL } else { in_order };
        let ports = if input.ratio(1, 60)? { PortRange { first, last } } else { ports };
        let ip = if input.ratio(1, 60)? { input.arbitrary()? } else { (*input.choose(&RANGES)?).to_owned() };
        let bits = if input.ratio(1, 60)? { Some(input.arbitrary()?) } else { None };
        rule.destinations.push(DstPort { ip, bits, ports });
    }
    if rule.destinations.is_empty() && input.arbitrary()? {
        let mut grant = CapGrant::default();
        for _ in 0..input.int_in_range(0..=3)? {
            grant.destinations.extend(input.choose(&RANGES)?.parse::<ipnet::IpNet>());
        }
        grant.names.push((*input.choose(&CAPABILITIES)?).to_owned());
        grant.capabilities.grant("always");
        rule.grants.push(grant);
    }
    if input.ratio(1, 80)? {
        rule.source_bits.push(1);
    }
    Ok(rule)
}

fn port(input: &mut Unstructured<'_>) -> Result<u16> {
    if input.ratio(3, 4)? { Ok(*input.choose(&[0, 1, 22, 80, 81, 65534, 65535])?) } else { input.arbitrary() }
}

/// The bytes of a packet: any at all, or headers that can be read, with any payload.
fn packet(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    if input.is_empty() {
        return Err(libfuzzer_sys::arbitrary::Error::NotEnoughData);
    }
    if input.ratio(1, 4)? {
        let length = input.int_in_range(0..=90)?;
        return Ok(input.bytes(length.min(input.len()))?.to_vec());
    }
    let [from, to]: [IpAddr; 2] =
        [input.choose(&ADDRESSES)?, input.choose(&ADDRESSES)?].map(|text| text.parse().expect("an address"));
    let number = if input.ratio(7, 8)? { *input.choose(&PROTOCOLS)? as u8 } else { input.arbitrary()? };
    let mut payload = Vec::new();
    for _ in 0..2 {
        payload.extend(port(input)?.to_be_bytes());
    }
    let more = input.int_in_range(0..=24)?;
    payload.extend(input.bytes(more.min(input.len()))?);
    let mut bytes = Vec::new();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let fragment: u16 = if input.ratio(1, 8)? { input.arbitrary()? } else { 0 };
            bytes.extend([0x45, 0]);
            bytes.extend((20 + payload.len() as u16).to_be_bytes());
            bytes.extend([0, 7]);
            bytes.extend(fragment.to_be_bytes());
            bytes.extend([64, number, 0, 0]);
            bytes.extend(from.octets());
            bytes.extend(to.octets());
        }
        (from, to) => {
            let octets = |address: IpAddr| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                IpAddr::V6(address) => address.octets(),
            };
            bytes.extend([0x60, 0, 0, 0]);
            bytes.extend((payload.len() as u16).to_be_bytes());
            bytes.extend([number, 64]);
            bytes.extend(octets(from));
            bytes.extend(octets(to));
        }
    }
    bytes.extend(payload);
    Ok(bytes)
}

/// Whether a rule can be understood.
fn is_whole(rule: &Rule) -> bool {
    let ranges = |text: &str| text == "*" || text.parse::<AddressRange>().is_ok();
    rule.source_bits.is_empty()
        && (rule.destinations.is_empty() || rule.grants.is_empty())
        && rule.sources.iter().all(|text| text.parse::<Source>().is_ok())
        && rule.protocols.iter().all(|number| (0..=255).contains(number))
        && rule.destinations.iter().all(|destination| {
            ranges(&destination.ip) && destination.bits.is_none() && destination.ports.first <= destination.ports.last
        })
}

/// The verdict, by the order in which the protocol's documents tell it.
fn judge(case: &Case, rules: &[Rule], flow: &Flow, has_capability: &dyn Fn(&str) -> bool) -> Verdict {
    let to = flow.destination.ip();
    let link_local = match to {
        IpAddr::V4(address) => address.is_link_local() && address.octets() != [169, 254, 169, 254],
        IpAddr::V6(address) => address.segments()[0] & 0xffc0 == 0xfe80,
    };
    let icmp = matches!(flow.protocol, Protocol::ICMPV4 | Protocol::ICMPV6);
    let answers = |sent: &Flow| {
        matches!(sent.protocol, Protocol::UDP | Protocol::SCTP)
            && (sent.protocol, sent.source, sent.destination) == (flow.protocol, flow.destination, flow.source)
    };
    match flow.payload {
        Payload::Unreadable => Verdict::Drop(Refusal::Unreadable),
        _ if to.is_multicast() => Verdict::Drop(Refusal::Multicast),
        _ if link_local => Verdict::Drop(Refusal::LinkLocal),
        Payload::LaterFragment => Verdict::Accept(Pass::LaterFragment),
        _ if !case.local.iter().any(|range| range.contains(to)) => Verdict::Drop(Refusal::NotLocal),
        Payload::EchoReply | Payload::IcmpError if icmp => Verdict::Accept(Pass::IcmpAnswer),
        Payload::TcpLater => Verdict::Accept(Pass::TcpLater),
        _ if flow.protocol == Protocol::TSMP => Verdict::Accept(Pass::NodeMessage),
        _ if case.sent.iter().any(answers) => Verdict::Accept(Pass::Answer),
        _ if case.shields_up => Verdict::Drop(Refusal::ShieldsUp),
        _ if case.jailed => Verdict::Drop(Refusal::Jailed),
        _ => match rules.iter().position(|rule| allows(rule, flow, has_capability)) {
            Some(rule) => Verdict::Accept(Pass::Rule(rule)),
            None => Verdict::Drop(Refusal::NoRule),
        },
    }
}

fn holds(text: &str, address: IpAddr) -> bool {
    text == "*" || text.parse::<AddressRange>().is_ok_and(|range| range.contains(address))
}

fn is_source(rule: &Rule, address: IpAddr, has_capability: &dyn Fn(&str) -> bool) -> bool {
    rule.sources.iter().any(|text| match text.strip_prefix("cap:") {
        Some(name) => has_capability(name),
        None => holds(text, address),
    })
}

fn allows(rule: &Rule, flow: &Flow, has_capability: &dyn Fn(&str) -> bool) -> bool {
    let listed = rule.protocols.contains(&i64::from(flow.protocol.0))
        || (rule.protocols.is_empty() && Protocol::DEFAULT.contains(&flow.protocol));
    let ping = flow.protocol == if flow.destination.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
    let opens = |destination: &DstPort| {
        let ports = match flow.protocol {
            Protocol::TCP | Protocol::UDP | Protocol::SCTP => destination.ports.contains(flow.destination.port()),
            _ => destination.ports == PortRange { first: 0, last: 65535 },
        };
        holds(&destination.ip, flow.destination.ip()) && (ping || (listed && ports))
    };
    is_source(rule, flow.source.ip(), has_capability) && rule.destinations.iter().any(opens)
}

fn check_capabilities(filter: &Filter, rules: &[Rule], from: IpAddr, to: IpAddr, has: &dyn Fn(&str) -> bool) {
    let given = rules.iter().filter(|rule| is_source(rule, from, has)).flat_map(|rule| &rule.grants);
    let given = given.filter(|grant| grant.destinations.iter().any(|prefix| prefix.contains(&to)));
    let expected: BTreeSet<&str> =
        given.flat_map(|grant| grant.names.iter().map(String::as_str).chain(["always"])).collect();
    let found = filter.capabilities(from, to, has);
    assert_eq!(found.0.keys().map(String::as_str).collect::<BTreeSet<_>>(), expected);
}
