//! Policies that are refused, with the message that their author reads.

use std::sync::Arc;
use std::time::Duration;

use policy::{Compiled, Policy, PolicyError, SshAction, Test, Topology, User, UserId};

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

/// Holds a policy with a mark to be refused there, for this alone.
fn assert_refused(text: &str, message: &str) {
    let (text, place) = marked(text);
    let topology = Topology { domains: ["example.com".to_owned()].into(), ..Topology::default() };
    let checked = Policy::parse(&text).and_then(|policy| Compiled::new(Arc::new(policy), topology).verify());
    let Err(error) = checked else { panic!("taken: {text}") };
    let told: Vec<String> = match error {
        PolicyError::Invalid(problems) => problems.iter().map(ToString::to_string).collect(),
        PolicyError::Tests(failures) => failures.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(told, [format!("{place}: {message}")], "{text}");
}

#[test]
fn what_the_hosted_service_refuses_is_refused_in_its_words_and_at_its_place() {
    for (text, message) in IN_ITS_WORDS {
        assert_refused(text, message);
    }
}

/// What else is refused, with its place, each with a policy in which `^` stands before what is wrong.
const IN_OUR_WORDS: [(&str, &str); 41] = [
    // Names that mean nothing.
    (
        r#"{"grants": [{"src": [^"server"], "dst": ["*"], "ip": ["*"]}]}"#,
        r#"src="server": invalid address; it is neither an address nor a name in "hosts""#,
    ),
    (
        r#"{"hosts": {"srv": "10.0.0.1"}, "grants": [{"src": ["srv"], "dst": [^"server"], "ip": ["*"]}]}"#,
        r#"dst="server": "server": invalid address; it is neither an address nor a name in "hosts""#,
    ),
    (r#"{"grants": [{"src": [^"ipset:x"], "dst": ["*"], "ip": ["*"]}]}"#, r#"src=ipset not found: "ipset:x""#),
    (
        r#"{"ipsets": {"ipset:y": []}, "grants": [{"src": ["*"], "dst": ["ipset:y", ^"ipset:x"], "ip": ["*"]}]}"#,
        r#"dst="ipset:x": ipset not found: "ipset:x""#,
    ),
    (
        r#"{"nodeAttrs": [{"target": [^"server"], "attr": ["x"]}]}"#,
        r#""server": invalid address; it is neither an address nor a name in "hosts""#,
    ),
    (r#"{"tagOwners": {"tag:a": [^"group:x"]}}"#, r#"tagOwners["tag:a"]: group not found: "group:x""#),
    // Names that can't be given.
    (
        r#"{"tagOwners": {^"tag:a_b": []}}"#,
        r#"tagOwners["tag:a_b"]: tag names can only contain letters, numbers, or dashes"#,
    ),
    (r#"{"tagOwners": {^"web": []}}"#, r#"tagOwners["web"]: tags must start with 'tag:'"#),
    (r#"{"groups": {^"dev": []}}"#, r#"groups["dev"]: group names must start with 'group:'"#),
    (r#"{"groups": {^"group:": []}}"#, r#"groups["group:"]: group names must start with 'group:'"#),
    (r#"{"postures": {^"current": []}}"#, r#"postures["current"]: names of postures must start with 'posture:'"#),
    (r#"{"postures": {^"posture:": []}}"#, r#"postures["posture:"]: names of postures must start with 'posture:'"#),
    (r#"{"ipsets": {^"office": []}}"#, r#"ipsets["office"]: names of IP sets must start with 'ipset:'"#),
    (r#"{"ipsets": {^"ipset:": []}}"#, r#"ipsets["ipset:"]: names of IP sets must start with 'ipset:'"#),
    (
        r#"{"autoApprovers": {"services": {^"shop": []}}}"#,
        r#"autoApprovers.services["shop"]: names must start with 'svc:' or 'tag:'"#,
    ),
    // Names in the wrong place.
    (
        r#"{"grants": [{"src": ["*"], "dst": [^"autogroup:nonroot"], "ip": ["*"]}]}"#,
        r#""autogroup:nonroot" not valid on the dst side of a rule"#,
    ),
    (
        r#"{"grants": [{"src": ["*"], "dst": [^"autogroup:shared"], "ip": ["*"]}]}"#,
        r#""autogroup:shared" not valid on the dst side of a rule"#,
    ),
    (
        r#"{"grants": [{"src": [^"autogroup:nonroot"], "dst": ["*"], "ip": ["*"]}]}"#,
        r#""autogroup:nonroot" not valid on the src side of a rule"#,
    ),
    (
        r#"{"grants": [{"src": [^"svc:shop"], "dst": ["*"], "ip": ["*"]}]}"#,
        r#""svc:shop" not valid on the src side of a rule"#,
    ),
    (
        r#"{"nodeAttrs": [{"target": [^"svc:shop"], "attr": ["x"]}]}"#,
        r#""svc:shop" not valid as a target of nodeAttrs"#,
    ),
    (
        r#"{"sshTests": [{"src": "a@example.com", "dst": [^"10.0.0.0/24"], "deny": ["root"]}]}"#,
        r#"SSH tests dst contains disallowed element "10.0.0.0/24""#,
    ),
    // Logins by SSH.
    (
        r#"{"ssh": [{"action": "accept", "checkPeriod": ^"1h", "src": ["a@example.com"], "dst": ["a@example.com"], "users": ["root"]}]}"#,
        r#"checkPeriod is only for rules with the action "check""#,
    ),
    (
        r#"{"ssh": [{"action": "check", "checkPeriod": ^"1 day", "src": ["a@example.com"], "dst": ["a@example.com"], "users": ["root"]}]}"#,
        r#"checkPeriod: time: invalid duration "1 day""#,
    ),
    (
        r#"{"ssh": [{"action": "check", "checkPeriod": ^"168h1s", "src": ["a@example.com"], "dst": ["a@example.com"], "users": ["root"]}]}"#,
        "checkPeriod 168h0m1s is above the max (168h)",
    ),
    (
        r#"{"ssh": [{"action": "accept", "src": ["a@example.com"], "dst": ["a@example.com"], "users": ["root"], "recorder": [^"a@example.com"]}]}"#,
        r#"recorder "a@example.com": a recorder is named by its tag"#,
    ),
    (
        r#"{"ssh": [{"action": "accept", "src": ["a@example.com"], "dst": ["a@example.com"], "users": ["root"], "recorder": [^"tag:x"]}]}"#,
        r#"recorder=tag not found: "tag:x""#,
    ),
    // Attributes and pools.
    (r#"{"nodeAttrs": [{"target": ["*"], "attr": ["x", ^" "]}]}"#, "an attribute's name cannot be empty"),
    (
        r#"{"nodeAttrs": [{"target": ["*"], "ipPool": ["100.64.0.0/10", ^"100.63.0.0/16"]}]}"#,
        "IPPool(100.63.0.0/16): network must lie within 100.64.0.0/10",
    ),
    (
        r#"{"nodeAttrs": [{"target": ["*"], "ipPool": ["100.127.255.0/24", ^"100.128.0.0/16"]}]}"#,
        "IPPool(100.128.0.0/16): network must lie within 100.64.0.0/10",
    ),
    (
        r#"{"nodeAttrs": [{"target": ["*"], "ipPool": [^"99.64.0.0/16"]}]}"#,
        "IPPool(99.64.0.0/16): network must lie within 100.64.0.0/10",
    ),
    (
        r#"{"nodeAttrs": [{"target": ["*"], "ipPool": [^"100.0.0.0/8"]}]}"#,
        "IPPool(100.0.0.0/8): network must lie within 100.64.0.0/10",
    ),
    (
        r#"{"nodeAttrs": [{"target": ["*"], "ipPool": [^"100.81.0.1/16"]}]}"#,
        "IPPool(100.81.0.1/16): network has host bits set",
    ),
    (
        r#"{"nodeAttrs": [{"target": ["*"], "ipPool": [^"fd7a:115c:a1e0::/64"]}]}"#,
        "IPPool(fd7a:115c:a1e0::/64): an IPv4 network such as 100.81.0.0/16 is needed",
    ),
    (
        r#"{"nodeAttrs": [{"target": ["*"], "ipPool": ["100.115.0.0/16", ^"100.115.93.0/24"]}]}"#,
        "IPPool(100.115.93.0/24): network within reserved range",
    ),
    (
        r#"{"tests": [{"src": "a@example.com", "srcPostureAttrs": {"custom:score": ^1.5}, "deny": ["10.0.0.1:1"]}]}"#,
        "a posture attribute is a string, a whole number or a boolean",
    ),
    // Tests: their faults are told at the beginning of the test.
    (
        r#"{"grants": [], "tests": [^{"src": "10.0.0.0/24", "deny": ["10.0.0.1:1"]}]}"#,
        r#"test of "10.0.0.0/24" failed: src "10.0.0.0/24": "10.0.0.0/24" is not a single address"#,
    ),
    (
        r#"{"hosts": {"lan": "10.0.0.0/24"}, "grants": [], "tests": [^{"src": "lan", "deny": ["10.0.0.1:1"]}]}"#,
        r#"test of "lan" failed: src "lan": "lan" is not a single address"#,
    ),
    (
        r#"{"grants": [], "tests": [^{"src": "server", "deny": ["10.0.0.1:1"]}]}"#,
        r#"test of "server" failed: src "server": host not found: "server""#,
    ),
    (
        r#"{"tagOwners": {"tag:a": []}, "grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}], "tests": [^{"src": "tag:a", "accept": ["autogroup:self:22"]}]}"#,
        r#"test of "tag:a" failed: address "autogroup:self:22": autogroup:self needs a user as src"#,
    ),
    (
        r#"{"grants": [], "tests": [^{"src": "svc:shop", "deny": ["10.0.0.1:1"]}]}"#,
        r#"test of "svc:shop" failed: src "svc:shop": "svc:shop" can't be used in a test"#,
    ),
    (
        r#"{"grants": [], "tests": [^{"src": "a@example.com", "proto": "tpc", "deny": ["10.0.0.1:1"]}]}"#,
        r#"test of "a@example.com" failed: protocol "tpc" is not known; use a name such as tcp, or a number from 1 to 255"#,
    ),
];

#[test]
fn whatever_else_is_refused_is_told_at_its_place() {
    for (text, message) in IN_OUR_WORDS {
        assert_refused(text, message);
    }
}

#[test]
fn what_lies_at_a_bound_is_taken() {
    let longest = r#"{"ssh": [{"action": "check", "checkPeriod": "168h", "src": ["a@example.com"], "dst": ["a@example.com"], "users": ["root"]}]}"#;
    let policy = Policy::parse(longest).unwrap();
    assert_eq!(policy.ssh_rules()[0].action, SshAction::Check(Duration::from_secs(168 * 3600)));
    let pools =
        r#"{"nodeAttrs": [{"target": ["*"], "ipPool": ["100.64.0.0/10", "100.64.0.0/24", "100.127.255.0/24"]}]}"#;
    assert_eq!(Policy::parse(pools).unwrap().node_attributes()[0].pools.len(), 3);
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

#[test]
fn tests_that_are_no_part_of_a_policy_are_read_with_their_places() {
    let text = r#"[
  {"src": "a@example.com", "proto": "tcp", "accept": ["tag:a:22"]},
  {"user": "b@example.com", "deny": ["tag:a:23"], "srcPostureAttrs": {"node:os": "linux"}},
]"#;
    let tests = Test::parse_list(text).unwrap();
    let said = |test: &Test| (test.source.clone(), test.accept.clone(), test.deny.clone(), test.position.unwrap().line);
    let listed = |text: &str| vec![text.to_owned()];
    assert_eq!(said(&tests[0]), ("a@example.com".to_owned(), listed("tag:a:22"), Vec::new(), 2));
    assert_eq!(said(&tests[1]), ("b@example.com".to_owned(), Vec::new(), listed("tag:a:23"), 3));
    assert_eq!((tests.len(), tests[0].protocol.as_deref(), tests[1].attributes.len()), (2, Some("tcp"), 1));
    let refused = Test::parse_list(r#"[{"source": "a@example.com"}]"#).unwrap_err().to_string();
    assert!(refused.starts_with(r#"line 1, column 3: unknown field "source""#), "{refused}");
    assert!(Test::parse_list("{}").is_err());
}
