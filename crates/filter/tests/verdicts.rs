//! A node's verdicts, asked as the data plane asks them: through compiled filters made from the protocol's JSON.
#![expect(clippy::unwrap_used, reason = "a scenario test")]

use std::net::{IpAddr, SocketAddr};

use filter::{
    Filter, FilterError, Flow, FlowTable, Lack, Local, Pass, Payload, PortRange, Protocol, Refusal, Rule, Standing,
    Verdict,
};
use proptest::prelude::*;

const ME: &str = "100.64.0.1";
const PEER: &str = "100.64.0.2";
const ME6: &str = "fd7a:115c:a1e0::1";
const PEER6: &str = "fd7a:115c:a1e0::2";

fn local() -> Local {
    let own = [ME, ME6, "10.33.0.0/16", "169.254.0.0/16", "fe80::/10", "224.0.0.0/4"];
    Local::new(own.map(|text| text.parse().unwrap()))
}

fn compile(json: &str) -> Result<Filter, FilterError> {
    let rules: Vec<Rule> = serde_json::from_str(json).unwrap();
    Filter::compile(&rules, local())
}

fn filter(json: &str) -> Filter {
    compile(json).unwrap()
}

fn web_from_peer() -> Filter {
    filter(
        r#"[{"SrcIPs":["100.64.0.2","fd7a:115c:a1e0::2"],"IPProto":[6],
            "DstPorts":[{"IP":"100.64.0.1","Ports":{"First":80,"Last":81}}]}]"#,
    )
}

fn end(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

fn syn(to: &str, port: u16) -> Flow {
    Flow::tcp(end(PEER, 40000), end(to, port))
}

fn verdict(filter: &Filter, flow: Flow) -> Verdict {
    filter.judge(&flow, &mut FlowTable::new(8, 1), &Standing::default())
}

#[test]
fn a_rule_opens_its_ports_to_its_sources_and_nothing_else() {
    let filter = web_from_peer();
    assert_eq!(verdict(&filter, syn(ME, 80)), Verdict::Accept(Pass::Rule(0)));
    assert_eq!(verdict(&filter, syn(ME, 81)), Verdict::Accept(Pass::Rule(0)));
    assert_eq!(verdict(&filter, syn(ME, 82)), Verdict::Drop(Refusal::NoRule));
    assert_eq!(verdict(&filter, Flow::tcp(end("100.64.0.3", 1), end(ME, 80))), Verdict::Drop(Refusal::NoRule));
    assert_eq!(verdict(&filter, Flow::udp(end(PEER, 1), end(ME, 80))), Verdict::Drop(Refusal::NoRule));
}

#[test]
fn whoever_reaches_a_port_may_ping() {
    let filter = web_from_peer();
    assert_eq!(verdict(&filter, Flow::ping(end(PEER, 0), end(ME, 0))), Verdict::Accept(Pass::Rule(0)));
    assert_eq!(verdict(&filter, Flow::ping(end("100.64.0.3", 0), end(ME, 0))), Verdict::Drop(Refusal::NoRule));
}

#[test]
fn icmp_of_the_other_family_is_a_protocol_like_any() {
    let ping6_over_v4 = Flow { protocol: Protocol::ICMPV6, ..Flow::ping(end(PEER, 0), end(ME, 0)) };
    assert_eq!(verdict(&web_from_peer(), ping6_over_v4), Verdict::Drop(Refusal::NoRule));
}

#[test]
fn icmp_answers_and_later_segments_need_no_rule() {
    let blocking = Filter::blocking(local());
    let ping = Flow::ping(end(PEER, 0), end(ME, 0));
    for payload in [Payload::EchoReply, Payload::IcmpError] {
        assert_eq!(verdict(&blocking, Flow { payload, ..ping }), Verdict::Accept(Pass::IcmpAnswer));
        let ping6 = Flow { payload, ..Flow::ping(end(PEER6, 0), end(ME6, 0)) };
        assert_eq!(ping6.protocol, Protocol::ICMPV6);
        assert_eq!(verdict(&blocking, ping6), Verdict::Accept(Pass::IcmpAnswer));
    }
    let later = Flow { payload: Payload::TcpLater, ..syn(ME, 80) };
    assert_eq!(verdict(&blocking, later), Verdict::Accept(Pass::TcpLater));
    let message = Flow { protocol: Protocol::TSMP, payload: Payload::Plain, ..ping };
    assert_eq!(verdict(&blocking, message), Verdict::Accept(Pass::NodeMessage));
}

#[test]
fn fragments_after_the_first_pass_even_to_what_is_not_local() {
    let fragment = Flow { payload: Payload::LaterFragment, ..syn("8.8.8.8", 0) };
    assert_eq!(verdict(&Filter::blocking(local()), fragment), Verdict::Accept(Pass::LaterFragment));
    let group = Flow { payload: Payload::LaterFragment, ..syn("224.0.0.1", 0) };
    assert_eq!(verdict(&Filter::blocking(local()), group), Verdict::Drop(Refusal::Multicast));
}

#[test]
fn destinations_that_no_rule_can_open() {
    let open = filter(r#"[{"SrcIPs":["*"],"DstPorts":[{"IP":"*","Ports":{"First":0,"Last":65535}}]}]"#);
    assert_eq!(verdict(&open, syn("224.0.0.1", 80)), Verdict::Drop(Refusal::Multicast));
    assert_eq!(verdict(&open, syn("169.254.1.1", 80)), Verdict::Drop(Refusal::LinkLocal));
    assert_eq!(verdict(&open, syn("169.254.169.254", 80)), Verdict::Accept(Pass::Rule(0)));
    let link_local6 = Flow::tcp(end(PEER6, 1), end("fe80::1", 80));
    assert_eq!(verdict(&open, link_local6), Verdict::Drop(Refusal::LinkLocal));
    assert_eq!(verdict(&open, syn("8.8.8.8", 80)), Verdict::Drop(Refusal::NotLocal));
    assert_eq!(verdict(&open, syn("10.33.1.1", 80)), Verdict::Accept(Pass::Rule(0)));
    let unreadable = Flow { payload: Payload::Unreadable, ..syn(ME, 80) };
    assert_eq!(verdict(&open, unreadable), Verdict::Drop(Refusal::Unreadable));
    let mixed = Flow::tcp(end("::1", 1), end(ME, 80));
    assert_eq!(verdict(&open, mixed), Verdict::Drop(Refusal::MixedFamilies));
}

#[test]
fn other_protocols_need_a_rule_that_names_them_for_all_ports() {
    let gre = Flow { protocol: Protocol(47), payload: Payload::Plain, ..syn(ME, 0) };
    let rule = |ports: &str, protocols: &str| {
        filter(&format!(r#"[{{"SrcIPs":["*"],"DstPorts":[{{"IP":"*","Ports":{ports}}}],"IPProto":{protocols}}}]"#))
    };
    let all = r#"{"First":0,"Last":65535}"#;
    assert_eq!(verdict(&rule(all, "[47]"), gre), Verdict::Accept(Pass::Rule(0)));
    assert_eq!(verdict(&rule(all, "[]"), gre), Verdict::Drop(Refusal::NoRule));
    assert_eq!(verdict(&rule(r#"{"First":0,"Last":80}"#, "[47]"), gre), Verdict::Drop(Refusal::NoRule));
}

#[test]
fn answers_in_udp_pass_with_shields_up_and_from_the_jailed() {
    let open = filter(r#"[{"SrcIPs":["*"],"DstPorts":[{"IP":"*","Ports":{"First":0,"Last":65535}}]}]"#);
    let mut flows = FlowTable::new(512, 3);
    flows.record(&Flow::udp(end(ME, 5000), end(PEER, 53)));
    let answer = Flow::udp(end(PEER, 53), end(ME, 5000));
    let other = Flow::udp(end(PEER, 54), end(ME, 5000));
    let shields_up = Standing { shields_up: true, ..Standing::default() };
    let jailed = Standing { jailed: true, ..Standing::default() };
    assert_eq!(open.judge(&answer, &mut flows, &shields_up), Verdict::Accept(Pass::Answer));
    assert_eq!(open.judge(&other, &mut flows, &shields_up), Verdict::Drop(Refusal::ShieldsUp));
    assert_eq!(open.judge(&answer, &mut flows, &jailed), Verdict::Accept(Pass::Answer));
    assert_eq!(open.judge(&other, &mut flows, &jailed), Verdict::Drop(Refusal::Jailed));
    assert_eq!(open.judge(&other, &mut flows, &Standing::default()), Verdict::Accept(Pass::Rule(0)));
}

#[test]
fn an_answer_in_sctp_comes_in_as_one_in_udp_does() {
    let blocking = Filter::blocking(local());
    let sctp = |from, to| Flow { protocol: Protocol::SCTP, ..Flow::udp(from, to) };
    let mut flows = FlowTable::new(512, 3);
    flows.record(&sctp(end(ME, 5000), end(PEER, 2905)));
    let mut judge = |flow: Flow| blocking.judge(&flow, &mut flows, &Standing::default());
    assert_eq!(judge(sctp(end(PEER, 2905), end(ME, 5000))), Verdict::Accept(Pass::Answer));
    assert_eq!(judge(sctp(end(PEER, 2906), end(ME, 5000))), Verdict::Drop(Refusal::NoRule));
    assert_eq!(judge(Flow::udp(end(PEER, 2905), end(ME, 5000))), Verdict::Drop(Refusal::NoRule));
}

#[test]
fn a_source_may_be_a_capability() {
    let filter = filter(r#"[{"SrcIPs":["cap:relay"],"DstPorts":[{"IP":"100.64.0.1","Ports":{"First":1,"Last":9}}]}]"#);
    assert_eq!(verdict(&filter, syn(ME, 5)), Verdict::Drop(Refusal::NoRule));
    let standing = Standing { has_capability: &|name| name == "relay", ..Standing::default() };
    let mut flows = FlowTable::new(8, 1);
    assert_eq!(filter.judge(&syn(ME, 5), &mut flows, &standing), Verdict::Accept(Pass::Rule(0)));
    assert_eq!(filter.judge(&syn(ME, 10), &mut flows, &standing), Verdict::Drop(Refusal::NoRule));
}

#[test]
fn capabilities_for_those_who_have_a_node_capability_are_for_nobody_else() {
    let filter = filter(
        r#"[{"SrcIPs":["cap:relay"],"CapGrant":[{"Dsts":["100.64.0.1/32"],"CapMap":{"example.com/a":null}}]},
            {"SrcIPs":["cap:relay"],"DstPorts":[{"IP":"100.64.0.1","Ports":{"First":80,"Last":80}}]}]"#,
    );
    let given = |held: &str| {
        let has_capability = |name: &str| name == held;
        filter.capabilities(PEER.parse().unwrap(), ME.parse().unwrap(), &has_capability).has("example.com/a")
    };
    assert!(given("relay"));
    assert!(!given("drive"));
    // So too where it is said what a rule lacks.
    let lacks = |held: &str, port: u16| {
        let has_capability = |name: &str| name == held;
        let standing = Standing { has_capability: &has_capability, ..Standing::default() };
        let near_misses = filter.explain(&syn(ME, port), &standing).near_misses;
        near_misses.into_iter().map(|miss| (miss.rule, miss.lacks)).collect::<Vec<_>>()
    };
    assert_eq!(lacks("relay", 22), [(1, vec![Lack::Port])]);
    assert_eq!(lacks("drive", 80), [(1, vec![Lack::Source])]);
}

#[test]
fn one_bad_rule_voids_the_filter() {
    let good = r#"{"SrcIPs":["*"],"DstPorts":[{"IP":"*","Ports":{"First":0,"Last":65535}}]}"#;
    for (bad, message) in [
        (
            r#"{"SrcIPs":["10.0.0.1/8"]}"#,
            "rule 1 of the packet filter: prefix 10.0.0.1/8 has host bits set; did you mean 10.0.0.0/8?",
        ),
        (
            r#"{"SrcIPs":["nobody"]}"#,
            r#"rule 1 of the packet filter: "nobody" is not an IP address, a prefix or a range of addresses"#,
        ),
        (r#"{"SrcIPs":["*"],"SrcBits":[32]}"#, "rule 1 of the packet filter: SrcBits is not supported"),
        (
            r#"{"SrcIPs":["*"],"DstPorts":[{"IP":"1.1.1.1","Bits":8,"Ports":{"First":0,"Last":1}}]}"#,
            "rule 1 of the packet filter: DstPorts.Bits is not supported",
        ),
        (
            r#"{"SrcIPs":["*"],"DstPorts":[{"IP":"1.1.1.1","Ports":{"First":2,"Last":1}}]}"#,
            "rule 1 of the packet filter: the first port of a range is greater than the last",
        ),
        (r#"{"SrcIPs":["*"],"IPProto":[256]}"#, "rule 1 of the packet filter: IPProto is not between 0 and 255"),
        (
            r#"{"SrcIPs":["*"],"CapGrant":[{"Dsts":["10.0.0.1/8"]}]}"#,
            "rule 1 of the packet filter: prefix 10.0.0.1/8 has host bits set; did you mean 10.0.0.0/8?",
        ),
        (
            r#"{"SrcIPs":["*"],"DstPorts":[{"IP":"*","Ports":{"First":0,"Last":1}}],"CapGrant":[{"Dsts":[]}]}"#,
            "rule 1 of the packet filter: DstPorts and CapGrant exclude each other",
        ),
    ] {
        assert_eq!(compile(&format!("[{good},{bad}]")).unwrap_err().to_string(), message);
    }
}

#[test]
fn capabilities_of_all_matching_rules_are_merged() {
    let filter = filter(
        r#"[{"SrcIPs":["100.64.0.2"],"CapGrant":[{"Dsts":["100.64.0.1/32"],"CapMap":{"example.com/a":[1],"example.com/b":null}}]},
            {"SrcIPs":["*"],"CapGrant":[{"Dsts":["100.64.0.1/32"],"Caps":["old"],"CapMap":{"example.com/a":[2]}}]},
            {"SrcIPs":["*"],"CapGrant":[{"Dsts":["10.33.0.0/16"],"CapMap":{"example.com/route":null}}]}]"#,
    );
    let of = |source: &str, destination: &str| {
        let map = filter.capabilities(source.parse().unwrap(), destination.parse().unwrap(), &|_| false);
        serde_json::to_string(&map).unwrap()
    };
    assert_eq!(of(PEER, ME), r#"{"example.com/a":[1,2],"example.com/b":null,"old":null}"#);
    assert_eq!(of("100.64.0.9", ME), r#"{"example.com/a":[2],"old":null}"#);
    assert_eq!(of("100.64.0.9", "10.33.0.1"), r#"{"example.com/route":null}"#);
}

#[test]
fn an_explanation_names_the_nearest_rules_and_what_they_lack() {
    let filter = filter(
        r#"[{"SrcIPs":["100.64.0.9"],"DstPorts":[{"IP":"100.64.0.1","Ports":{"First":22,"Last":22}}]},
            {"SrcIPs":["100.64.0.2"],"DstPorts":[{"IP":"10.33.0.0/16","Ports":{"First":22,"Last":22}},
                                                 {"IP":"100.64.0.1","Ports":{"First":80,"Last":80}}]}]"#,
    );
    let explanation = filter.explain(&syn(ME, 22), &Standing::default());
    assert_eq!(explanation.verdict, Verdict::Drop(Refusal::NoRule));
    let misses: Vec<(usize, &[Lack])> =
        explanation.near_misses.iter().map(|miss| (miss.rule, &miss.lacks[..])).collect();
    assert_eq!(misses, [(1, &[Lack::Port][..]), (0, &[Lack::Source][..])]);
    assert!(filter.explain(&syn(ME, 80), &Standing::default()).near_misses.is_empty());
}

#[test]
fn an_explanation_takes_the_destination_of_a_rule_that_comes_nearest() {
    let filter = filter(
        r#"[{"SrcIPs":["100.64.0.2"],"IPProto":[6],"DstPorts":[{"IP":"100.64.0.1","Ports":{"First":80,"Last":80}},
                                                 {"IP":"10.33.0.0/16","Ports":{"First":80,"Last":80}}]},
            {"SrcIPs":["100.64.0.9"],"DstPorts":[{"IP":"100.64.0.1","Ports":{"First":80,"Last":80}},
                                                 {"IP":"10.33.0.0/16","Ports":{"First":22,"Last":22}}]},
            {"SrcIPs":["*"],"DstPorts":[{"IP":"10.33.0.0/16","Ports":{"First":22,"Last":22}}]}]"#,
    );
    let lacks = |flow: Flow| -> Vec<(usize, Vec<Lack>)> {
        let explained = filter.explain(&flow, &Standing::default());
        explained.near_misses.into_iter().map(|miss| (miss.rule, miss.lacks)).collect()
    };
    // Of equally near ones, the first.
    let ssh = [(0, vec![Lack::Port]), (2, vec![Lack::Destination]), (1, vec![Lack::Port, Lack::Source])];
    assert_eq!(lacks(syn(ME, 22)), ssh);
    let gre = Flow { protocol: Protocol(47), payload: Payload::Plain, ..syn(ME, 0) };
    let of_gre = [
        (0, vec![Lack::Port, Lack::Protocol]),
        (1, vec![Lack::Port, Lack::Protocol, Lack::Source]),
        (2, vec![Lack::Port, Lack::Protocol, Lack::Destination]),
    ];
    assert_eq!(lacks(gre), [of_gre[0].clone(), of_gre[2].clone(), of_gre[1].clone()]);
    let of_ping = [(2, vec![Lack::Destination]), (0, vec![Lack::Source]), (1, vec![Lack::Source])];
    assert_eq!(lacks(Flow::ping(end("100.64.0.3", 0), end(ME, 0))), of_ping);
    let said = [Lack::Port, Lack::Protocol, Lack::Destination, Lack::Source].map(|lack| lack.to_string());
    assert_eq!(said, ["port", "protocol", "destination", "source"]);
}

#[test]
fn a_filter_knows_how_many_rules_it_has() {
    assert!(Filter::blocking(local()).is_empty());
    assert_eq!(Filter::blocking(local()).len(), 0);
    let two = filter(r#"[{"SrcIPs":["*"]},{"SrcIPs":["*"]}]"#);
    assert!(!two.is_empty());
    assert_eq!(two.len(), 2);
}

/// Whether a rule allows a flow, word by word and with no index.
fn allows(rule: &Rule, flow: &Flow) -> bool {
    let within =
        |text: &str, address: IpAddr| text == "*" || text.parse::<filter::AddressRange>().unwrap().contains(address);
    let listed = rule.protocols.iter().any(|number| *number == i64::from(flow.protocol.0))
        || (rule.protocols.is_empty() && Protocol::DEFAULT.contains(&flow.protocol));
    let ping = flow.protocol == if flow.destination.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
    let from = |source: &String| match source.strip_prefix("cap:") {
        Some(name) => HELD.contains(&name),
        None => within(source, flow.source.ip()),
    };
    rule.sources.iter().any(from)
        && rule.destinations.iter().any(|destination| {
            let ports = match flow.protocol {
                Protocol::TCP | Protocol::UDP | Protocol::SCTP => destination.ports.contains(flow.destination.port()),
                _ => destination.ports == PortRange::ALL,
            };
            within(&destination.ip, flow.destination.ip()) && (ping || (listed && ports))
        })
}

/// The capabilities that senders have, where rules ask for some.
const HELD: [&str; 2] = ["relay", "drive"];

fn address() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("*".to_owned()),
        (0_u8..8).prop_map(|last| format!("100.64.0.{last}")),
        (0_u8..8).prop_map(|last| format!("fd7a:115c:a1e0::{last}")),
        (28_u8..=32).prop_map(|bits| format!("100.64.0.0/{bits}")),
        (0_u8..6, 0_u8..6).prop_map(|(a, b)| format!("100.64.0.{}-100.64.0.{}", a.min(b), a.max(b))),
    ]
}

fn ports() -> impl Strategy<Value = PortRange> {
    prop_oneof![
        Just(PortRange::ALL),
        (0_u16..6, 0_u16..6).prop_map(|(a, b)| PortRange { first: a.min(b), last: a.max(b) })
    ]
}

/// Now and then a capability as the source, and many destinations.
fn rule_by_capability() -> impl Strategy<Value = Rule> {
    let named = prop_oneof![Just("cap:relay"), Just("cap:drive"), Just("cap:other")].prop_map(str::to_owned);
    let source = prop_oneof![2 => named, 1 => address()];
    let destination = (address(), ports()).prop_map(|(ip, ports)| filter::DstPort { ip, bits: None, ports });
    (proptest::collection::vec(source, 0..3), proptest::collection::vec(destination, 0..12))
        .prop_map(|(sources, destinations)| Rule { sources: sources.into(), destinations, ..Rule::default() })
}

/// A packet between nodes.
fn packet((from, to, port, v6, kind): (u8, u8, u16, bool, usize)) -> Flow {
    let at = |last: u8| if v6 { format!("fd7a:115c:a1e0::{last}") } else { format!("100.64.0.{last}") };
    let (protocol, payload) = [
        (Protocol::TCP, Payload::TcpSyn),
        (Protocol::UDP, Payload::Plain),
        (Protocol::SCTP, Payload::Plain),
        (Protocol::ICMPV4, Payload::IcmpOther),
        (Protocol::ICMPV6, Payload::IcmpOther),
        (Protocol(47), Payload::Plain),
    ][kind];
    let port = if protocol.has_ports() { port } else { 0 };
    Flow { protocol, payload, source: end(&at(from), 9), destination: end(&at(to), port) }
}

fn rule() -> impl Strategy<Value = Rule> {
    let destination = (address(), ports()).prop_map(|(ip, ports)| filter::DstPort { ip, bits: None, ports });
    let protocol = prop_oneof![Just(6_i64), Just(17), Just(1), Just(58), Just(132), Just(47)];
    (
        proptest::collection::vec(address(), 0..4),
        proptest::collection::vec(destination, 0..5),
        proptest::collection::vec(protocol, 0..3),
    )
        .prop_map(|(sources, destinations, protocols)| Rule {
            sources: sources.into(),
            destinations,
            protocols,
            ..Rule::default()
        })
}

proptest! {
    #[test]
    fn a_compiled_filter_agrees_with_the_rules_read_word_by_word(
        rules in proptest::collection::vec(rule(), 0..12),
        packets in proptest::collection::vec((0_u8..8, 0_u8..8, 0_u16..7, any::<bool>(), 0_usize..6), 40),
    ) {
        let local = Local::new(["100.64.0.0/24", "fd7a:115c:a1e0::/64"].map(|text| text.parse().unwrap()));
        let filter = Filter::compile(&rules, local).unwrap();
        for flow in packets.into_iter().map(packet) {
            let expected = match rules.iter().position(|rule| allows(rule, &flow)) {
                Some(rule) => Verdict::Accept(Pass::Rule(rule)),
                None => Verdict::Drop(Refusal::NoRule),
            };
            prop_assert_eq!(verdict(&filter, flow), expected, "{}", flow);
        }
    }

    #[test]
    fn rules_by_capability_agree_with_the_rules_read_word_by_word(
        rules in proptest::collection::vec(rule_by_capability(), 0..24),
        packets in proptest::collection::vec((0_u8..8, 0_u8..8, 0_u16..7, any::<bool>(), 0_usize..6), 40),
    ) {
        let local = Local::new(["100.64.0.0/24", "fd7a:115c:a1e0::/64"].map(|text| text.parse().unwrap()));
        let filter = Filter::compile(&rules, local).unwrap();
        let standing = Standing { has_capability: &|name| HELD.contains(&name), ..Standing::default() };
        for flow in packets.into_iter().map(packet) {
            match filter.judge(&flow, &mut FlowTable::new(8, 1), &standing) {
                Verdict::Accept(Pass::Rule(rule)) => prop_assert!(allows(&rules[rule], &flow), "{} by {}", flow, rule),
                refused => {
                    prop_assert_eq!(refused, Verdict::Drop(Refusal::NoRule));
                    prop_assert!(!rules.iter().any(|rule| allows(rule, &flow)), "{}", flow);
                }
            }
        }
    }
}
