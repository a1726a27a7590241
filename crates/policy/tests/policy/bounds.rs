//! Policies whose texts are short and whose meaning is large: they are refused, or cost what their text costs.

use std::fmt::Write;
use std::sync::Arc;

use policy::{Compiled, Node, NodeId, Owner, Policy, PolicyError, Question, Subject, Tag, Topology, User, UserId};

fn refusal(text: &str) -> String {
    Policy::parse(text).unwrap_err().to_string()
}

/// A list of texts in quotes.
fn listed(texts: impl Iterator<Item = String>) -> String {
    texts.fold(String::new(), |mut all, text| {
        let separator = if all.is_empty() { "" } else { "," };
        write!(all, "{separator}\"{text}\"").unwrap();
        all
    })
}

fn addresses(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|at| format!("10.{}.{}.{}", at >> 16, at >> 8 & 255, at & 255))
}

#[test]
fn an_acl_of_many_sources_and_destinations_does_not_multiply_them() {
    let (sources, destinations) = (listed(addresses(20_000)), listed(addresses(20_000).map(|to| format!("{to}:22"))));
    let text = format!(
        "{{\"defaultSrcPosture\": [], \"acls\": [{{\"action\": \"accept\", \"src\": [{sources}], \"dst\": [{destinations}]}}]}}"
    );
    let policy = Policy::parse(&text).unwrap();
    assert_eq!(policy.rules().len(), 20_000);
    let shared = policy.rules().windows(2).all(|pair| Arc::ptr_eq(&pair[0].sources, &pair[1].sources));
    assert!(shared, "all destinations have the same list of sources");
    let compiled = Compiled::new(Arc::new(policy), Topology::default());
    assert_eq!(compiled.rules_to_address("10.0.0.7".parse().unwrap(), 22), [7]);
}

#[test]
fn more_rules_than_a_policy_may_have_are_refused_at_the_entry_that_has_them() {
    let destinations = listed((0..100_001).map(|port| format!("*:{}", port % 60_000 + 1)));
    let text = format!(
        "{{\"acls\": [\n{{\"action\": \"accept\", \"src\": [\"*\"], \"dst\": [\"*:1\"]}},\n  \
         {{\"action\": \"accept\", \"src\": [\"*\"], \"dst\": [{destinations}]}}]}}"
    );
    let expected = "line 3, column 3: more than 100000 rules; each destination of an ACL counts as one";
    assert_eq!(refusal(&text).lines().next().unwrap(), expected);
}

#[test]
fn destinations_times_ports_are_bounded_for_a_rule_and_for_all() {
    let ports = |count: usize| listed((1..=count).map(|port| format!("tcp:{}", port * 2)));
    let grant = |to: usize, ports: &str| {
        format!("{{\"src\": [\"*\"], \"dst\": [{}], \"ip\": [{ports}]}}", listed(addresses(to)))
    };
    let text = format!("{{\"grants\": [\n{}]}}", grant(5_000, &ports(1_000)));
    let message = refusal(&text);
    let expected = "line 2, column 1: destinations times ranges of ports are more than 100000, the most of one rule";
    assert!(message.starts_with(expected), "{message}");
    let text = format!("{{\"grants\": [\n{}]}}", vec![grant(100, &ports(999)); 11].join(",\n"));
    let message = refusal(&text);
    let expected = "line 12, column 1: from here on, destinations times ranges of ports are more than 1000000 in all";
    assert_eq!(message, expected);
    assert!(Policy::parse(&format!("{{\"grants\": [{}]}}", vec![grant(100, &ports(999)); 10].join(","))).is_ok());
}

#[test]
fn destinations_times_ports_that_are_as_many_as_may_be_are_taken() {
    let ports = |count: usize| {
        let each = |protocol: &'static str| (1..=32_000).map(move |port| format!("{protocol}:{}", port * 2));
        listed(["tcp", "udp", "sctp", "132"].into_iter().flat_map(each).take(count))
    };
    let grant = |to: &str, ports: &str| format!("{{\"src\": [\"*\"], \"dst\": [{to}], \"ip\": [{ports}]}}");
    let one_rule = |to: &str, count: usize| {
        let read =
            Policy::parse(&format!("{{\"tagOwners\": {{\"tag:a\": []}}, \"grants\": [{}]}}", grant(to, &ports(count))));
        read.map(drop).map_err(|error| error.to_string().contains("the most of one rule"))
    };
    // A network is one destination, and so is everything; a device has an address of either family, the Internet has
    // seven ranges.
    for (to, of_each) in [("\"10.0.0.0/8\"", 1), ("\"*\"", 1), ("\"tag:a\"", 2), ("\"autogroup:internet\"", 7)] {
        let most = 100_000 / of_each;
        assert_eq!(one_rule(to, most), Ok(()), "{to}");
        assert_eq!(one_rule(to, most + 1), Err(true), "{to}");
    }
    let largest = grant(&listed(addresses(100)), &ports(1_000));
    let of = |rules: &[String]| Policy::parse(&format!("{{\"grants\": [{}]}}", rules.join(",")));
    let ten = vec![largest; 10];
    assert!(of(&ten).is_ok());
    let more = [&ten[..], &[grant("\"10.0.0.1\"", "\"22\"")]].concat();
    assert!(of(&more).unwrap_err().to_string().ends_with("more than 1000000 in all"));
}

#[test]
fn sources_are_bounded_where_every_rule_has_others() {
    // Two apart, so that they don't become one range.
    let set = listed((0..20_000).map(|at| format!("10.{}.{}.{}", at >> 15, at >> 7 & 255, at << 1 & 255)));
    let grants: Vec<String> = (0..60)
        .map(|at| format!("{{\"src\": [\"ipset:a\", \"10.1.1.{at}\"], \"dst\": [\"*\"], \"ip\": [\"*\"]}}"))
        .collect();
    let text = format!("{{\"ipsets\": {{\"ipset:a\": [{set}]}}, \"grants\": [\n{}]}}", grants.join(",\n"));
    let expected = "line 51, column 1: from here on, sources have more than 1000000 addresses and networks in all";
    assert_eq!(refusal(&text), expected);
    let same = vec![grants[0].clone(); 60].join(",");
    assert!(Policy::parse(&format!("{{\"ipsets\": {{\"ipset:a\": [{set}]}}, \"grants\": [{same}]}}")).is_ok());
}

#[test]
fn postures_are_bounded() {
    let conditions = listed((0..1001).map(|at| format!("node:os != 'os-{at}'")));
    let message = refusal(&format!("{{\"postures\": {{\"posture:a\": [{conditions}]}}, \"grants\": []}}"));
    assert_eq!(message, "line 1, column 15: postures: more than 1000 conditions in all");
    let names = |count: usize| listed((0..count).map(|at| format!("posture:p{at}")));
    let defined =
        (0..60).map(|at| format!("\"posture:p{at}\": [\"node:os == 'linux'\"]")).collect::<Vec<_>>().join(",");
    let with = |grants: &str| format!("{{\"postures\": {{{defined}}}, \"grants\": [{grants}]}}");
    let grant = |postures: String| {
        format!("{{\"src\": [\"*\"], \"dst\": [\"*\"], \"ip\": [\"*\"], \"srcPosture\": [{postures}]}}")
    };
    assert!(refusal(&with(&grant(names(51)))).ends_with("more than 50 postures in one list"));
    let lists: Vec<String> =
        (0..101).map(|at| grant(format!("\"posture:p{}\", \"posture:p{}\"", at % 50, at / 50 + 50))).collect();
    assert!(refusal(&with(&lists.join(","))).ends_with("more than 100 different lists of postures"));
    assert!(Policy::parse(&with(&lists[..100].join(","))).is_ok());
}

#[test]
fn conditions_of_postures_are_bounded_in_bytes_each_and_in_all() {
    let with = |conditions: &str| format!("{{\"postures\": {{\"posture:a\": [\n{conditions}]}}, \"grants\": []}}");
    let condition = |bytes: usize| format!("\"node:os == '{}'\"", "x".repeat(bytes - "node:os == ''".len()));
    assert!(Policy::parse(&with(&condition(4_096))).is_ok());
    let expected = "line 2, column 1: postures[\"posture:a\"]: a condition of more than 4096 bytes";
    assert_eq!(refusal(&with(&condition(4_097))), expected);
    assert!(Policy::parse(&with(&vec![condition(4_096); 32].join(",\n"))).is_ok());
    let expected =
        "line 34, column 1: postures[\"posture:a\"]: from here on, conditions of more than 131072 bytes in all";
    assert_eq!(refusal(&with(&vec![condition(4_096); 33].join(",\n"))), expected);
}

#[test]
fn node_attributes_are_bounded() {
    let with = |entries: &[String]| format!("{{\"grants\": [], \"nodeAttrs\": [\n{}]}}", entries.join(",\n"));
    let entry = |targets: usize, attributes: usize| {
        let attributes = listed((0..attributes).map(|at| format!("a{at}")));
        format!("{{\"target\": [{}], \"attr\": [{attributes}]}}", listed(addresses(targets)))
    };
    assert!(Policy::parse(&with(&vec![entry(1, 1); 10_000])).is_ok());
    let expected = "line 10002, column 1: more than 10000 entries of nodeAttrs";
    assert_eq!(refusal(&with(&vec![entry(1, 1); 10_001])), expected);
    let expected = "line 4, column 1: from here on, more than 100000 targets in all entries of nodeAttrs";
    assert_eq!(refusal(&with(&[entry(50_000, 1), entry(50_000, 1), entry(1, 1)])), expected);
    let expected =
        "line 3, column 1: from here on, more than 20000 attributes, values and pools in all entries of nodeAttrs";
    assert_eq!(refusal(&with(&[entry(1, 20_000), entry(1, 1)])), expected);
    let values = (0..20_000).map(|at| at.to_string()).collect::<Vec<_>>().join(",");
    let refused = refusal(&with(&[format!("{{\"target\": [\"*\"], \"app\": {{\"a.example/b\": [{values}]}}}}")]));
    assert!(refused.contains("attributes, values and pools"), "{refused}");
}

#[test]
fn approvers_are_bounded() {
    let with = |rest: &str| format!("{{\"grants\": [], \"autoApprovers\": {{{rest}}}}}");
    let approvers = |count: usize| listed((0..count).map(|at| format!("u{at}@example.com")));
    let routes = |count: usize, approvers: &str| {
        let routes: Vec<String> = addresses(count).map(|route| format!("\n\"{route}/32\": [{approvers}]")).collect();
        with(&format!("\"exitNode\": [], \"routes\": {{{}}}", routes.join(",")))
    };
    assert!(Policy::parse(&routes(10_000, "")).is_ok());
    let expected = "line 10002, column 1: autoApprovers: more than 10000 networks, services and connectors";
    assert_eq!(refusal(&routes(10_001, "")), expected);
    let expected = "line 2, column 1: autoApprovers: more than 1000 approvers in one list; name a group";
    assert_eq!(refusal(&routes(1, &approvers(1_001))), expected);
    let expected = "line 102, column 1: autoApprovers: from here on, more than 100000 approvers in all";
    assert_eq!(refusal(&routes(101, &approvers(1_000))), expected);
    let exit = with(&format!("\"exitNode\": [{}]", approvers(1_001)));
    assert!(refusal(&exit).ends_with("more than 1000 approvers in one list; name a group"));
}

#[test]
fn errors_of_tests_are_told_up_to_a_bound_with_how_many_more_there_are() {
    let deny = |count: usize| listed((0..count).map(|at| format!("u0@example.com:{}", at + 1)));
    let failures = |tests: Vec<String>| {
        let text = format!(
            "{{\"grants\": [{{\"src\": [\"*\"], \"dst\": [\"*\"], \"ip\": [\"*\"]}}], \"tests\": [{}]}}",
            tests.join(",")
        );
        let compiled = Compiled::new(Arc::new(Policy::parse(&text).unwrap()), tailnet(1, &[]));
        let Err(PolicyError::Tests(failures)) = compiled.verify() else { panic!("tests that fail") };
        failures
    };
    let test = |count: usize| format!("{{\"src\": \"u0@example.com\", \"deny\": [{}]}}", deny(count));
    let failed = failures(vec![test(100)]).remove(0).errors;
    assert_eq!((failed.len(), failed[99].contains("want: Drop")), (100, true));
    let failed = failures(vec![test(345)]).remove(0).errors;
    assert_eq!((failed.len(), &*failed[100]), (101, "and 245 more"));
    let failed = failures(vec![test(50); 30]);
    assert_eq!(failed.len(), 20);
    assert_eq!(failed[19].errors[50], "and 10 more tests, which were not tried");
    let long = format!("{{\"src\": \"u0@example.com\", \"accept\": [\"{}:1\"]}}", "ä".repeat(5_000));
    let error = failures(vec![long]).remove(0).errors.remove(0);
    assert!(error.len() < 1_010 && error.ends_with('…'), "{error}");
}

#[test]
fn logins_that_are_tried_and_fail_are_told_up_to_a_bound() {
    let accounts = listed((0..300).map(|at| format!("account{at}")));
    let test =
        format!(", \"sshTests\": [{{\"src\": \"u0@example.com\", \"dst\": [\"tag:a\"], \"accept\": [{accounts}]}}]");
    let text = ssh_policy(&[ssh_rule("\"autogroup:member\"", "\"root\"")], &test);
    let compiled = Compiled::new(Arc::new(Policy::parse(&text).unwrap()), tailnet(1, &["tag:a"]));
    let Err(PolicyError::Tests(failures)) = compiled.verify() else { panic!("a test that fails") };
    assert_eq!((failures[0].errors.len(), &*failures[0].errors[100]), (101, "and 200 more"));
}

#[test]
fn a_login_domain_is_noted_once_however_many_there_are() {
    let domains = |count: usize| (0..count).map(|at| format!("user:*@d{}.example", at / 2));
    let text = format!("{{\"groups\": {{\"group:a\": [{}]}}, \"grants\": []}}", listed(domains(60_000)));
    assert_eq!(Policy::parse(&text).unwrap().domains().len(), 30_000);
}

/// Users with a device each, and a tagged device for every tag.
fn tailnet(users: u64, tags: &[&str]) -> Topology {
    let mut topology = Topology { domains: ["example.com".to_owned()].into(), ..Topology::default() };
    let node = |at: u64, owner| Node {
        name: format!("node-{at}").into(),
        addresses: vec![[100, 64 + (at >> 16) as u8, (at >> 8) as u8, at as u8].into()],
        owner,
        advertised: Default::default(),
        approved: Default::default(),
        revoked: Default::default(),
        posture: Default::default(),
    };
    for id in 0..users {
        topology.users.insert(UserId(id), User { login: format!("u{id}@example.com").into(), ..User::default() });
        topology.nodes.insert(NodeId(id), node(id, Owner::User(UserId(id))));
    }
    for (tag, id) in tags.iter().zip(users..) {
        topology.nodes.insert(NodeId(id), node(id, Owner::Tags([Tag::parse(tag).unwrap()].into())));
    }
    topology
}

fn verified(text: &str, topology: Topology) -> Result<(), String> {
    let compiled = Compiled::new(Arc::new(Policy::parse(text).unwrap()), topology);
    compiled.verify().map_err(|error| match error {
        PolicyError::Tests(failures) => failures[0].to_string(),
        other => other.to_string(),
    })
}

fn ssh_rule(sources: &str, users: &str) -> String {
    format!("{{\"action\": \"accept\", \"src\": [{sources}], \"dst\": [\"tag:a\"], \"users\": [{users}]}}")
}

fn ssh_policy(rules: &[String], rest: &str) -> String {
    format!("{{\"tagOwners\": {{\"tag:a\": []}}, \"ssh\": [\n{}]{rest}}}", rules.join(",\n"))
}

#[test]
fn rules_of_ssh_are_bounded() {
    let rule = ssh_rule("\"autogroup:member\"", "\"root\"");
    assert_eq!(
        refusal(&ssh_policy(&vec![rule.clone(); 1_001], "")),
        "line 1002, column 1: more than 1000 rules of ssh"
    );
    assert!(Policy::parse(&ssh_policy(&vec![rule.clone(); 1_000], "")).is_ok());
    let large = ssh_rule("\"autogroup:member\"", &listed((0..60_000).map(|at| format!("account{at}"))));
    let expected = "line 4, column 1: from here on, more than 100000 sources, destinations, accounts, variables and \
                    recorders in all rules of ssh";
    assert_eq!(refusal(&ssh_policy(&[rule, large.clone(), large], "")), expected);
}

#[test]
fn logins_that_a_device_would_be_told_too_much_of_are_refused_where_the_tailnet_is_known() {
    let rule = ssh_rule("\"autogroup:member\"", "\"root\"");
    let text = ssh_policy(&vec![rule; 101], "");
    let refused = verified(&text, tailnet(5_000, &["tag:a"])).unwrap_err();
    let expected = "line 101, column 1: from here on, rules of ssh tell a device more than 500000 addresses of sources";
    assert!(refused.starts_with(expected), "{refused}");
    assert_eq!(verified(&text, tailnet(4_900, &["tag:a"])), Ok(()));
    let accounts = listed((0..200).map(|at| format!("account{at}")).chain(["localpart:*@example.com".to_owned()]));
    let text = ssh_policy(&[ssh_rule("\"autogroup:member\"", &accounts)], "");
    assert!(verified(&text, tailnet(2_000, &["tag:a"])).is_err(), "each user is told of with all accounts");
    assert_eq!(verified(&text, tailnet(1_000, &["tag:a"])), Ok(()));
}

#[test]
fn what_each_user_is_told_of_a_login_counts_its_variables_and_recorders_too() {
    let variables = listed((0..200).map(|at| format!("VARIABLE{at}")));
    let tags = [&["tag:a"][..], &["tag:b"; 200]].concat();
    for rest in [format!("\"acceptEnv\": [{variables}]"), "\"recorder\": [\"tag:b\"]".to_owned()] {
        let rule = format!(
            "{{\"action\": \"accept\", \"src\": [\"autogroup:member\"], \"dst\": [\"tag:a\"],
               \"users\": [\"localpart:*@example.com\"], {rest}}}"
        );
        let text = format!("{{\"tagOwners\": {{\"tag:a\": [], \"tag:b\": []}}, \"ssh\": [{rule}]}}");
        let refused = verified(&text, tailnet(2_000, &tags)).unwrap_err();
        assert!(refused.contains("rules of ssh tell a device more than 500000"), "{refused}");
        assert_eq!(verified(&text, tailnet(1_000, &tags)), Ok(()), "{rest}");
    }
}

#[test]
fn devices_that_are_told_the_same_sources_of_logins_share_them() {
    let rule = ssh_rule("\"autogroup:member\"", "\"root\"");
    let text = ssh_policy(&vec![rule; 2], "");
    let mut compiled = Compiled::new(Arc::new(Policy::parse(&text).unwrap()), tailnet(10, &["tag:a", "tag:a"]));
    let told = |compiled: &Compiled| [compiled.ssh(NodeId(10)), compiled.ssh(NodeId(11))].concat();
    let before = told(&compiled);
    assert_eq!((before.len(), before[0].principals.len()), (4, 10));
    assert!(before.iter().all(|grant| Arc::ptr_eq(&grant.principals, &before[0].principals)));
    compiled.apply(policy::Change::NodeGone(NodeId(3)));
    assert!(told(&compiled).iter().all(|grant| grant.principals.len() == 9), "who went is not let in");
}

#[test]
fn rules_of_ssh_of_two_policies_are_compared_once_for_all_devices_that_have_them() {
    let policy = |account: &str| {
        let accounts = format!("\"{account}\", \"localpart:*@example.com\"");
        Arc::new(Policy::parse(&ssh_policy(&[ssh_rule("\"autogroup:member\"", &accounts)], "")).unwrap())
    };
    let mut compiled = Compiled::new(policy("deploy"), tailnet(2_000, &["tag:a"; 500]));
    assert!(compiled.replace_policy(policy("deploy")).ssh.is_empty());
    let changed = compiled.replace_policy(policy("backup")).ssh;
    assert_eq!(changed.len(), 2_500, "a rule by local part is about the own devices of its sources too");
    assert_eq!((compiled.ssh(NodeId(2_000)).len(), compiled.ssh(NodeId(7)).len()), (4_000, 2));
}

#[test]
fn who_is_in_a_group_is_found_at_once_however_large_it_is() {
    let members = listed((0..100_000).map(|at| format!("member{at}@example.com")));
    let accounts = listed((0..500).map(|at| format!("account{at}")));
    let rest = format!(
        ", \"groups\": {{\"group:g\": [{members}]}},
        \"sshTests\": [{{\"src\": \"autogroup:member\", \"dst\": [\"tag:a\"], \"deny\": [{accounts}]}}]"
    );
    let text = ssh_policy(&[ssh_rule("\"group:g\"", "\"root\"")], &rest);
    assert_eq!(verified(&text, tailnet(40, &["tag:a"])), Ok(()));
}

#[test]
fn a_login_that_is_tried_counts_as_much_as_the_rules_have_to_be_read() {
    let sources = listed((0..60_000).map(|at| format!("somebody{at}@example.com")));
    let accounts = listed((0..2_000).map(|at| format!("account{at}")));
    let test =
        format!(", \"sshTests\": [{{\"src\": \"u1@example.com\", \"dst\": [\"tag:a\"], \"deny\": [{accounts}]}}]");
    let message = verified(&ssh_policy(&[ssh_rule(&sources, "\"root\"")], &test), tailnet(2, &["tag:a"])).unwrap_err();
    assert!(message.contains("not tried"), "{message}");
    let few = ssh_rule(&listed((0..60).map(|at| format!("somebody{at}@example.com"))), "\"root\"");
    assert_eq!(verified(&ssh_policy(&[few], &test), tailnet(2, &["tag:a"])), Ok(()));
}

#[test]
fn tests_look_at_each_kind_of_device_once() {
    let tests = r#"{"src": "autogroup:member", "accept": ["autogroup:member:22"], "deny": ["tag:a:23", "autogroup:member:23"]}"#;
    let text = format!(
        r#"{{"tagOwners": {{"tag:a": []}}, "grants": [{{"src": ["*"], "dst": ["*"], "ip": ["22"]}}], "tests": [{}]}}"#,
        vec![tests; 2_000].join(",")
    );
    assert_eq!(verified(&text, tailnet(5_000, &["tag:a"])), Ok(()));
    let own = r#"{"src": "autogroup:member", "accept": ["autogroup:member:23"]}"#;
    let text = format!(
        r#"{{"grants": [{{"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"]}}], "tests": [{own}]}}"#
    );
    let failed = "line 1, column 95: test of \"autogroup:member\" failed: address \"autogroup:member:23\": want: Accept, got: Drop";
    assert_eq!(verified(&text, tailnet(5_000, &[])).unwrap_err(), failed);
    assert_eq!(verified(&text, tailnet(1, &[])), Ok(()), "the one user reaches all that there is");
    let denied = text.replace("accept", "deny");
    assert!(verified(&denied, tailnet(5_000, &[])).unwrap_err().ends_with("want: Drop, got: Accept"));
}

#[test]
fn tests_that_ask_about_too_many_are_refused() {
    // Nobody is told apart from nobody: two thousand kinds of sources, two thousand kinds of destinations, none together.
    let grants = (0..2_000).map(|at| {
        let (user, ports) = (format!("u{at}@example.com"), "\"ip\": [\"22\"]");
        format!(
            "{{\"src\": [\"{user}\"], \"dst\": [\"10.0.0.1\"], {ports}}}, {{\"src\": [\"10.0.0.2\"], \"dst\": [\"{user}\"], {ports}}}"
        )
    });
    let grants = grants.collect::<Vec<_>>().join(",");
    let tests = [r#"{"src": "autogroup:member", "deny": ["autogroup:member:22"]}"#; 3].join(",");
    let text = format!("{{\"grants\": [{grants}], \"tests\": [{tests}]}}");
    let message = verified(&text, tailnet(2_000, &[])).unwrap_err();
    assert!(message.contains("not tried: the tests of this policy ask about more devices than are tried"), "{message}");
    let logins: Vec<String> = (0..3_000).map(|at| format!("\"account{at}\"")).collect();
    let text = format!(
        r#"{{"tagOwners": {{"tag:a": []}}, "ssh": [{{"action": "accept", "src": ["autogroup:member"], "dst": ["tag:a"], "users": ["root"]}}],
            "sshTests": [{{"src": "autogroup:member", "dst": ["tag:a"], "deny": [{}]}}]}}"#,
        logins.join(",")
    );
    let message = verified(&text, tailnet(2_000, &["tag:a"])).unwrap_err();
    assert!(message.contains("not tried"), "{message}");
    assert_eq!(verified(&text, tailnet(20, &["tag:a"])), Ok(()));
}

/// A policy of two thousand users, each with a rule of their own, in which one test is tried so often.
fn tried(test: &str, times: usize) -> Result<(), String> {
    let grants = (0..2_000).map(|at| {
        let (user, ports) = (format!("u{at}@example.com"), "\"ip\": [\"22\"]");
        format!(
            "{{\"src\": [\"{user}\"], \"dst\": [\"10.0.0.1\"], {ports}}}, {{\"src\": [\"10.0.0.2\"], \"dst\": [\"{user}\"], {ports}}}"
        )
    });
    let own = r#"{"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["24"]}"#.to_owned();
    let grants = grants.chain([own]).collect::<Vec<_>>().join(",");
    let text = format!("{{\"grants\": [{grants}], \"tests\": [{}]}}", vec![test; times].join(","));
    verified(&text, tailnet(2_000, &[]))
}

#[test]
fn sources_that_lead_nowhere_by_a_port_count_with_each_destination_that_is_asked() {
    let test = r#"{"src": "autogroup:member", "deny": ["10.0.0.9:23"]}"#;
    assert_eq!(tried(test, 2_000), Ok(()));
    let refused = tried(test, 2_600).unwrap_err();
    assert!(refused.contains("not tried"), "{refused}");
}

#[test]
fn devices_of_others_count_where_it_is_asked_for_own_ones() {
    let test = r#"{"src": "autogroup:member", "accept": ["autogroup:self:24"]}"#;
    assert_eq!(tried(test, 1), Ok(()));
    let refused = tried(test, 2).unwrap_err();
    assert!(refused.contains("not tried"), "{refused}");
}

#[test]
fn a_question_about_many_pairs_looks_for_near_rules_in_some_of_them() {
    let grants: Vec<String> = (1..=20_000)
        .map(|port| format!("{{\"src\": [\"tag:a\"], \"dst\": [\"tag:a\"], \"ip\": [\"{port}\"]}}"))
        .collect();
    let text = format!("{{\"tagOwners\": {{\"tag:a\": []}}, \"grants\": [{}]}}", grants.join(","));
    let compiled = Compiled::new(Arc::new(Policy::parse(&text).unwrap()), tailnet(40, &["tag:a"]));
    let ask = |source: &str, destination: &str| {
        let question = Question::new(source, destination, None).unwrap();
        compiled.explain(&question).unwrap().answers
    };
    let answers = ask("autogroup:member", "autogroup:member:80");
    let near =
        answers.iter().filter(|answer| !answer.nearest.is_empty()).map(|answer| answer.parties.len()).sum::<usize>();
    assert!((1..=1_000).contains(&near), "{near}");
    assert!(answers.last().unwrap().notes[0].contains("not looked for in so many"));
    let answer = ask("tag:a", "tag:a").remove(0);
    assert_eq!((answer.verdict, answer.allowed_by.len()), (policy::Verdict::Yes, 50));
    assert_eq!(answer.notes, ["19950 more rules allow it"]);
    let question =
        Question { source: "tag:a".to_owned(), subject: Subject::Visibility { destination: "node-1".to_owned() } };
    assert_eq!(compiled.explain(&question).unwrap().answers[0].verdict, policy::Verdict::No);
}

#[test]
fn a_question_that_many_entries_answer_is_for_few_devices_at_once() {
    let routes: Vec<String> = addresses(10_000).map(|route| format!("\"{route}/32\": [\"tag:a\"]")).collect();
    let text = format!(
        "{{\"tagOwners\": {{\"tag:a\": []}}, \"grants\": [], \"autoApprovers\": {{\"routes\": {{{}}}}}}}",
        routes.join(",")
    );
    let compiled = Compiled::new(Arc::new(Policy::parse(&text).unwrap()), tailnet(200, &["tag:a"]));
    let ask = |source: &str| {
        let subject = Subject::Route("10.0.0.7/32".parse().unwrap());
        compiled.explain(&Question { source: source.to_owned(), subject })
    };
    let refused = ask("autogroup:member").unwrap_err().to_string();
    assert_eq!(
        refused,
        "200 devices or pairs of them are meant, more than the 100 that are looked at; name one device"
    );
    let answers = ask("tag:a").unwrap().answers;
    assert_eq!((answers[0].verdict, answers[0].allowed_by.len()), (policy::Verdict::Yes, 1));
    assert_eq!(ask("node-1").unwrap().answers[0].nearest.len(), 5);
}

#[test]
fn entries_that_name_nobody_are_looked_at_too() {
    let many = |name: &dyn Fn(usize) -> String| -> String {
        let entries: Vec<String> = (0..10_000).map(|at| format!("\"{}\": []", name(at))).collect();
        entries.join(",")
    };
    let asked = |rest: &str, users: u64, subject: Subject| {
        let text = format!("{{\"grants\": [], {rest}}}");
        let compiled = Compiled::new(Arc::new(Policy::parse(&text).unwrap()), tailnet(users, &[]));
        let answered = compiled.explain(&Question { source: "autogroup:member".to_owned(), subject });
        answered.map(drop).map_err(|error| error.to_string())
    };
    let entries = vec![r#"{"target": [], "attr": ["x"]}"#; 10_000].join(",");
    let routes = many(&|at| format!("10.{}.{}.0/24", at >> 8, at & 255));
    for (rest, subject) in [
        (
            format!("\"autoApprovers\": {{\"services\": {{{}}}}}", many(&|at| format!("svc:s{at}"))),
            Subject::Service("svc:s0".to_owned()),
        ),
        (format!("\"autoApprovers\": {{\"routes\": {{{routes}}}}}"), Subject::Route("10.0.0.0/24".parse().unwrap())),
        (format!("\"nodeAttrs\": [{entries}]"), Subject::Attribute("x".to_owned())),
        (format!("\"tagOwners\": {{{}}}", many(&|at| format!("tag:t{at}"))), Subject::Tag("tag:t0".to_owned())),
    ] {
        assert_eq!(asked(&rest, 200, subject.clone()), Ok(()), "{subject:?}");
        let refused = asked(&rest, 201, subject.clone()).unwrap_err();
        assert!(refused.starts_with("201 devices") && refused.contains("more than the 200"), "{subject:?}: {refused}");
    }
}

#[test]
fn a_citation_of_a_large_rule_is_cut_without_its_whole_text() {
    let sources = listed(addresses(50_000));
    let text = format!("{{\"grants\": [{{\"src\": [{sources}], \"dst\": [\"*\"], \"ip\": [\"22\"]}}]}}");
    let compiled = Compiled::new(Arc::new(Policy::parse(&text).unwrap()), tailnet(20, &[]));
    let question = Question::new("autogroup:member", "autogroup:member:22", None).unwrap();
    let answers = compiled.explain(&question).unwrap().answers;
    let text = &answers[0].nearest[0].text;
    assert!(text.starts_with("{\"src\":[\"10.0.0.0\",\"10.0.0.1\"") && text.ends_with('…'), "{text}");
    assert_eq!(text.chars().count(), 241);
}
