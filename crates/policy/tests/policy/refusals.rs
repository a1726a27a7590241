//! Policies that are refused, with the message that their author reads.

use std::sync::Arc;

use policy::{Compiled, Policy, PolicyError, Topology, User, UserId};

/// The hosted service's refusals in its words, each with a policy in which `^` stands before what is wrong.
const IN_ITS_WORDS: [(&str, &str); 31] = [
    (
        r#"{"grants": [{"src": [^"*"], "dst": ["autogroup:self"], "ip": ["*"]}]}"#,
        "autogroup:self can only be used with users, groups, or supported autogroups",
    ),
    (r#"{"acls": [{"action": "accept", "src": ["*", ^"tag:x"], "dst": ["*:*"]}]}"#, r#"src=tag not found: "tag:x""#),
    (
        r#"{"acls": [{"action": "accept", "src": ["*"], "dst": [^"tag:x:22"]}]}"#,
        r#"dst="tag:x": tag not found: "tag:x""#,
    ),
    (
        r#"{"grants": [{"src": [^"autogroup:self"], "dst": ["*"], "ip": ["*"]}]}"#,
        r#""autogroup:self" not valid on the src side of a rule"#,
    ),
    (
        "{\"hosts\": {\"h\": \"10.0.0.1\"},\n \"acls\": [{\"action\": \"accept\", \"src\": [\"*\"], \"dst\": [^\"h:ssh\"]}]}",
        r#"dst="h:ssh": port range "ssh": invalid first integer"#,
    ),
    (
        r#"{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["22", ^"0"]}]}"#,
        r#"ip="0": port range "0": first port must be >0, or use '*' for wildcard"#,
    ),
    (r#"{"acls": [{"action": ^"deny", "src": ["*"], "dst": ["*:*"]}]}"#, r#"action="deny" is not supported"#),
    (
        r#"{"grants": [{"src": ["*"], "dst": [^"0.0.0.0/0"], "ip": ["*"]}]}"#,
        r#"dst "0.0.0.0/0": to allow all IP addresses, use "*" or "autogroup:internet""#,
    ),
    (
        r#"{"grants": [{"src": ["*"], "dst": ["*"], "app": {^"tailscale.com/cap/x": []}}]}"#,
        r#"app="tailscale.com/cap/x": capability name must not be in the tailscale.com domain"#,
    ),
    (
        r#"{"grants": [{"src": ["*"], "dst": ["*"], "app": {^"admin": []}}]}"#,
        r#"app="admin": capability name must have the form {domain}/{path}"#,
    ),
    ("{\"grants\": [\n  ^{\"src\": [\"*\"], \"dst\": [\"*\"]}]}", "ip and app can not both be empty"),
    (
        r#"{"grants": [{"src": ["*"], "dst": [^"autogroup:danger-all"], "ip": ["*"]}]}"#,
        "cannot use autogroup:danger-all as a dst",
    ),
    (
        r#"{"grants": [{"src": ["*"], "dst": [^"autogroup:internet"], "app": {"a.b/c": []}}]}"#,
        "cannot use app grants with autogroup:internet",
    ),
    (
        r#"{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"], "via": [^"a@example.com"]}]}"#,
        r#"via="a@example.com": via can only be a tag"#,
    ),
    (r#"{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"], "via": [^"tag:x"]}]}"#, r#"via: tag "tag:x" not found"#),
    (
        r#"{"ssh": [{"action": "accept", "src": ["a@example.com"], "dst": ["a@example.com"], "users": ^[]}]}"#,
        "users must be specified",
    ),
    (
        r#"{"ssh": [^{"src": ["a@example.com"], "dst": ["a@example.com"], "users": ["root"]}]}"#,
        "action must be specified",
    ),
    (
        r#"{"ssh": [{"action": "accept", "src": ["a@example.com"], "dst": ["a@example.com"], "users": ["é", ^"*"]}]}"#,
        r#"user "*" is not valid"#,
    ),
    (
        r#"{"ssh": [{"action": ^"deny", "src": ["a@example.com"], "dst": ["a@example.com"], "users": ["root"]}]}"#,
        r#""deny" is not a valid action; use "accept" or "check""#,
    ),
    (
        r#"{"ssh": [{"action": "accept", "src": ["a@example.com"], "dst": ["a@example.com"], "users": ["root"], "acceptEnv": [^""]}]}"#,
        "acceptEnv values cannot be empty",
    ),
    (
        r#"{"ssh": [{"action": "check", "checkPeriod": ^"169h", "src": ["a@example.com"], "dst": ["a@example.com"], "users": ["root"]}]}"#,
        "checkPeriod 169h0m0s is above the max (168h)",
    ),
    (
        r#"{"ssh": [{"action": "check", "checkPeriod": ^"-1h", "src": ["a@example.com"], "dst": ["a@example.com"], "users": ["root"]}]}"#,
        "checkPeriod -1h0m0s must be a positive duration",
    ),
    (
        "{\"hosts\": {\"srv\": \"10.0.0.1\"},\n\t\"ssh\": [{\"action\": \"accept\", \"src\": [\"a@example.com\"], \"dst\": [^\"srv\"], \"users\": [\"root\"]}]}",
        r#"invalid dst "srv"; name tags, autogroup:self or the same user as in src"#,
    ),
    (
        "{\"groups\": {\n\t\"group:a\": [],\n\t\"group:b\": [^\"group:a\"]}}",
        r#"groups["group:b"]: "group:a": group members cannot be recursive"#,
    ),
    (r#"{"tagOwners": {^"tag:9x": []}}"#, r#"tagOwners["tag:9x"]: tag names must start with a letter, after 'tag:'"#),
    (
        r#"{"grants": [{"src": [^"user:*@other.org"], "dst": ["*"], "ip": ["*"]}]}"#,
        "other.org is not associated with this Tailnet and cannot be used in user:*@<domain> expressions",
    ),
    (
        r#"{"sshTests": [{"src": "a@example.com", "dst": [^"*"], "deny": ["root"]}]}"#,
        r#"SSH tests dst contains disallowed element "*""#,
    ),
    (
        r#"{"sshTests": [{"src": "a@example.com", "dst": [^"tag:x"], "deny": ["root"]}]}"#,
        r#"SSH tests dst contains unknown tag "tag:x""#,
    ),
    (
        "{\"grants\": [],\n\"tests\": [\n  ^{\"src\": \"a@example.com\", \"accept\": [\"10.0.0.1:400\"]}]}",
        r#"test of "a@example.com" failed: address "10.0.0.1:400": want: Accept, got: Drop"#,
    ),
    (
        r#"{"nodeAttrs": [{"target": ["*"], "ipPool": [^"100.100.100.0/24"]}]}"#,
        "IPPool(100.100.100.0/24): network within reserved range",
    ),
    (r#"{"derpMap": ^[]}"#, "derpMap must be an object, not a list"),
];

/// A policy and the place, as it is told, of the `^` that was in it.
fn marked(text: &str) -> (String, String) {
    let before = &text[..text.find('^').unwrap()];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap().chars().count() + 1;
    (text.replacen('^', "", 1), format!("line {line}, column {column}"))
}

#[test]
fn what_the_hosted_service_refuses_is_refused_in_its_words_and_at_its_place() {
    for (text, message) in IN_ITS_WORDS {
        let (text, place) = marked(text);
        let topology = Topology { domains: ["example.com".to_owned()].into(), ..Topology::default() };
        let checked = Policy::parse(&text).and_then(|policy| Compiled::new(Arc::new(policy), topology).verify());
        let told: Vec<String> = match checked.unwrap_err() {
            PolicyError::Invalid(problems) => problems.iter().map(ToString::to_string).collect(),
            PolicyError::Tests(failures) => failures.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(told, [format!("{place}: {message}")], "{text}");
    }
}

fn refusal(text: &str) -> String {
    Policy::parse(text).unwrap_err().to_string()
}

/// The message of a policy with one grant or ACL in which something is wrong.
fn refused(section: &str, entry: &str) -> String {
    let text = format!(
        "{{\"tagOwners\": {{\"tag:a\": []}}, \"groups\": {{\"group:a\": [\"u@example.com\"]}}, \"hosts\": {{\"all\": \"0.0.0.0/0\"}},\n\
         \"{section}\": [\n{entry}\n]}}"
    );
    refusal(&text)
}

#[test]
fn a_name_that_is_not_defined_is_told_with_its_place() {
    for (section, entry, message) in [
        (
            "acls",
            r#"{"action":"accept","src":["tag:x"],"dst":["*:*"]}"#,
            r#"line 3, column 27: src=tag not found: "tag:x""#,
        ),
        (
            "acls",
            r#"{"action":"accept","src":["*"],"dst":["tag:x:22"]}"#,
            r#"line 3, column 39: dst="tag:x": tag not found: "tag:x""#,
        ),
        (
            "grants",
            r#"{"src":["group:x"],"dst":["*"],"ip":["*"]}"#,
            r#"line 3, column 9: src=group not found: "group:x""#,
        ),
        (
            "grants",
            r#"{"src":["*"],"dst":["*"],"ip":["*"],"via":["tag:x"]}"#,
            r#"line 3, column 44: via: tag "tag:x" not found"#,
        ),
        (
            "grants",
            r#"{"src":["*"],"dst":["*"],"ip":["*"],"srcPosture":["posture:x"]}"#,
            r#"line 3, column 51: posture not found: "posture:x""#,
        ),
        (
            "grants",
            r#"{"src":["autogroup:x"],"dst":["*"],"ip":["*"]}"#,
            r#"line 3, column 9: src="autogroup:x": invalid autogroup"#,
        ),
    ] {
        assert_eq!(refused(section, entry), message);
    }
}

#[test]
fn an_alias_where_it_may_not_stand_is_refused() {
    for (section, entry, message) in [
        (
            "acls",
            r#"{"action":"accept","src":["autogroup:self"],"dst":["*:*"]}"#,
            r#""autogroup:self" not valid on the src side of a rule"#,
        ),
        (
            "grants",
            r#"{"src":["autogroup:internet"],"dst":["*"],"ip":["*"]}"#,
            r#""autogroup:internet" not valid on the src side of a rule"#,
        ),
        (
            "grants",
            r#"{"src":["*"],"dst":["autogroup:danger-all"],"ip":["*"]}"#,
            "cannot use autogroup:danger-all as a dst",
        ),
        (
            "grants",
            r#"{"src":["tag:a"],"dst":["autogroup:self"],"ip":["*"]}"#,
            "autogroup:self can only be used with users, groups, or supported autogroups",
        ),
        (
            "grants",
            r#"{"src":["*"],"dst":["autogroup:self"],"ip":["*"]}"#,
            "autogroup:self can only be used with users, groups, or supported autogroups",
        ),
        (
            "grants",
            r#"{"src":["*"],"dst":["autogroup:internet"],"app":{"a.b/c":[]}}"#,
            "cannot use app grants with autogroup:internet",
        ),
        (
            "grants",
            r#"{"src":["*"],"dst":["all"],"ip":["*"]}"#,
            r#"dst "all": to allow all IP addresses, use "*" or "autogroup:internet""#,
        ),
        ("grants", r#"{"src":["*"],"dst":["*"],"ip":["*"],"via":["group:a"]}"#, "via can only be a tag"),
    ] {
        assert!(refused(section, entry).contains(message), "{}", refused(section, entry));
    }
}

#[test]
fn ports_protocols_and_capabilities_are_checked() {
    for (section, entry, message) in [
        ("acls", r#"{"action":"deny","src":["*"],"dst":["*:*"]}"#, r#"action="deny" is not supported"#),
        (
            "acls",
            r#"{"action":"accept","src":["*"],"dst":["*:0"]}"#,
            r#"dst="*:0": port range "0": first port must be >0, or use '*' for wildcard"#,
        ),
        (
            "acls",
            r#"{"action":"accept","src":["*"],"dst":["*"]}"#,
            r#"dst="*": ports are missing; write "*:*" for all of them"#,
        ),
        (
            "acls",
            r#"{"action":"accept","proto":"icmp","src":["*"],"dst":["*:80"]}"#,
            r#"protocol "icmp" has no ports; use '*'"#,
        ),
        ("grants", r#"{"src":["*"],"dst":["*"]}"#, "ip and app can not both be empty"),
        ("grants", r#"{"src":["*"],"dst":["*"],"ip":[]}"#, "ip and app can not both be empty"),
        ("grants", r#"{"src":["*"],"dst":["*"],"app":{}}"#, "ip and app can not both be empty"),
        ("grants", r#"{"src":["*"],"dst":["*"],"ip":null,"app":{}}"#, "ip and app can not both be empty"),
        ("grants", r#"{"src":["*"],"dst":["*"],"ip":["tcp"]}"#, r#"ip="tcp": port range "tcp": invalid first integer"#),
        (
            "grants",
            r#"{"src":["*"],"dst":["*"],"app":{"admin":[]}}"#,
            "capability name must have the form {domain}/{path}",
        ),
        (
            "grants",
            r#"{"src":["*"],"dst":["*"],"app":{"tailscale.com/cap/x":[]}}"#,
            "capability name must not be in the tailscale.com domain",
        ),
        (
            "grants",
            r#"{"src":["*"],"dst":["10.0.0.1/8"],"ip":["*"]}"#,
            "prefix 10.0.0.1/8 has host bits set; did you mean 10.0.0.0/8?",
        ),
    ] {
        assert!(refused(section, entry).contains(message), "{}", refused(section, entry));
    }
}

#[test]
fn fields_are_known_by_name_in_any_case_and_once() {
    assert_eq!(refusal("{\n \"acl\": []}"), "line 2, column 2: unknown field \"acl\"; did you mean \"acls\"?");
    assert_eq!(refusal("{\"frobnicate\": 1}"), "line 1, column 2: unknown field \"frobnicate\"");
    assert!(Policy::parse("{\"ACLs\": []}").is_ok());
    assert_eq!(refusal("{\"acls\": [], \"ACLs\": []}"), "line 1, column 14: duplicate name \"ACLs\"");
    assert_eq!(refusal("{\"acls\": {}}"), "line 1, column 10: expected a list, found an object");
    assert_eq!(refusal("[]"), "line 1, column 1: expected an object, found a list");
}

#[test]
fn every_problem_is_told_at_once_in_the_order_of_the_text() {
    let text =
        "{\"grants\": [{\"src\": [\"tag:x\"], \"dst\": [\"tag:y\"], \"ip\": [\"0\"]}],\n\"groups\": {\"g\": []}}";
    let error = Policy::parse(text).unwrap_err();
    assert_eq!(error.problems().len(), 4);
    let lines: Vec<u32> = error.problems().iter().map(|problem| problem.position.unwrap().line).collect();
    assert_eq!(lines, [1, 1, 1, 2]);
}

#[test]
fn names_of_groups_hosts_tags_and_postures_are_checked() {
    for (text, message) in [
        (
            r#"{"groups": {"group:b": ["group:a"]}}"#,
            r#"groups["group:b"]: "group:a": group members cannot be recursive"#,
        ),
        (
            r#"{"groups": {"group:b": ["bob"]}}"#,
            r#"groups["group:b"]: "bob": group members must be users (name@domain)"#,
        ),
        (
            r#"{"tagOwners": {"tag:9x": []}}"#,
            r#"tagOwners["tag:9x"]: tag names must start with a letter, after 'tag:'"#,
        ),
        (r#"{"tagOwners": {"tag:a": ["*"]}}"#, r#"tagOwners["tag:a"]: "*" can't own anything"#),
        (r#"{"hosts": {"tag:x": "1.1.1.1"}}"#, "a host's name has letters, digits"),
        (r#"{"hosts": {"x": "1.1.1.300"}}"#, r#"hosts["x"]: "1.1.1.300": invalid address"#),
        (r#"{"postures": {"posture:x": ["os"]}}"#, r#"postures["posture:x"]: "os" is no condition"#),
        (
            r#"{"autoApprovers": {"routes": {"10.0.0.1/8": []}}}"#,
            r#"autoApprovers.routes["10.0.0.1/8"]: invalid prefix"#,
        ),
        (r#"{"autoApprovers": {"exitNode": ["tag:x"]}}"#, r#"autoApprovers.exitNode: tag not found: "tag:x""#),
        (
            r#"{"nodeAttrs": [{"target": ["autogroup:self"], "attr": ["x"]}]}"#,
            r#""autogroup:self" not valid as a target of nodeAttrs"#,
        ),
        (
            r#"{"nodeAttrs": [{"target": ["*"], "ipPool": ["100.100.100.0/24"]}]}"#,
            "IPPool(100.100.100.0/24): network within reserved range",
        ),
        (r#"{"OneCGNATRoute": "maybe"}"#, r#"OneCGNATRoute "maybe" is not known"#),
    ] {
        assert!(refusal(text).contains(message), "{}", refusal(text));
    }
    assert!(Policy::parse(r#"{"OneCGNATRoute": ""}"#).is_ok(), "an empty text is as if it weren't there");
}

#[test]
fn ssh_rules_are_checked() {
    let refused = |rule: &str| refusal(&format!("{{\"tagOwners\": {{\"tag:a\": []}}, \"ssh\": [{rule}]}}"));
    for (rule, message) in [
        (r#"{"action":"accept","src":["u@x.y"],"dst":["tag:a"],"users":[]}"#, "users must be specified"),
        (r#"{"src":["u@x.y"],"dst":["tag:a"],"users":["root"]}"#, "action must be specified"),
        (r#"{"action":"deny","src":["u@x.y"],"dst":["tag:a"],"users":["root"]}"#, r#""deny" is not a valid action"#),
        (r#"{"action":"accept","src":["u@x.y"],"dst":["tag:a"],"users":["*"]}"#, r#"user "*" is not valid"#),
        (r#"{"action":"accept","src":["*"],"dst":["tag:a"],"users":["root"]}"#, r#"invalid src "*""#),
        (
            r#"{"action":"accept","src":["u@x.y"],"dst":["v@x.y"],"users":["root"]}"#,
            "can only be reached by that same user",
        ),
        (
            r#"{"action":"accept","src":["tag:a"],"dst":["autogroup:member"],"users":["root"]}"#,
            "tags can't log in to the devices of users",
        ),
        (
            r#"{"action":"check","checkPeriod":"169h","src":["u@x.y"],"dst":["tag:a"],"users":["root"]}"#,
            "checkPeriod 169h0m0s is above the max (168h)",
        ),
    ] {
        assert!(refused(rule).contains(message), "{}", refused(rule));
    }
}

#[test]
fn a_domain_of_somebody_else_is_refused_for_the_tailnet() {
    let text = r#"{"groups": {"group:all": ["user:*@other.org"]}}"#;
    let topology = Topology { domains: ["example.com".to_owned()].into(), ..Topology::default() };
    let compiled = Compiled::new(Arc::new(Policy::parse(text).unwrap()), topology);
    let message = "line 1, column 27: other.org is not associated with this Tailnet and cannot be used in user:*@<domain> expressions";
    assert_eq!(compiled.verify().unwrap_err().to_string(), message);
}

fn failures(tests: &str) -> Vec<String> {
    let text = format!(
        "{{\"tagOwners\": {{\"tag:a\": []}}, \"groups\": {{\"group:a\": [\"u@example.com\"]}},\n\
         \"grants\": [{{\"src\": [\"group:a\"], \"dst\": [\"tag:a\"], \"ip\": [\"tcp:22\", \"udp:53\"]}}],\n\"tests\": [{tests}]}}"
    );
    let mut topology = Topology::default();
    topology.users.insert(UserId(1), User { login: "u@example.com".into(), ..User::default() });
    match Compiled::new(Arc::new(Policy::parse(&text).unwrap()), topology).verify() {
        Ok(()) => Vec::new(),
        Err(PolicyError::Tests(failures)) => failures.into_iter().flat_map(|failure| failure.errors).collect(),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn tests_hold_for_users_and_tags_that_have_no_device_yet() {
    assert!(
        failures(r#"{"src": "u@example.com", "accept": ["tag:a:22", "tag:a:53"], "deny": ["tag:a:80"]}"#).is_empty()
    );
    assert!(failures(r#"{"src": "group:a", "proto": "udp", "accept": ["tag:a:53"], "deny": ["tag:a:22"]}"#).is_empty());
    assert!(failures(r#"{"src": "stranger@example.com", "deny": ["tag:a:22"]}"#).is_empty());
}

#[test]
fn a_test_that_fails_says_what_it_wanted_and_got() {
    for (test, message) in [
        (r#"{"src": "u@example.com", "accept": ["tag:a:400"]}"#, r#"address "tag:a:400": want: Accept, got: Drop"#),
        (r#"{"src": "u@example.com", "deny": ["tag:a:22"]}"#, r#"address "tag:a:22": want: Drop, got: Accept"#),
        (r#"{"src": "u@example.com", "accept": ["tag:a:*"]}"#, r#"address "tag:a:*": a test names exactly one port"#),
        (r#"{"src": "tag:none", "accept": ["tag:a:22"]}"#, r#"src "tag:none": tag not found: "tag:none""#),
        (r#"{"src": "group:none", "accept": ["tag:a:22"]}"#, r#"src "group:none": group not found: "group:none""#),
        (r#"{"src": "", "accept": ["tag:a:22"]}"#, r#"src "": "": invalid address"#),
    ] {
        assert_eq!(failures(test), [message]);
    }
}
