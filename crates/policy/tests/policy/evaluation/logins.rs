//! Logins by SSH: who is told of which, and how they are decided.

use super::*;

#[test]
fn logins_are_told_to_the_devices_they_lead_to_those_with_a_check_first() {
    let compiled = compile(SSH);
    let told = |node| -> Vec<String> {
        let grants = compiled.ssh(node).into_iter();
        grants
            .map(|grant| {
                let from: Vec<String> = grant.principals.iter().map(ToString::to_string).collect();
                let users: Vec<String> =
                    grant.users.iter().map(|(name, account)| format!("{name}={account}")).collect();
                let recorders: Vec<String> = grant.recorders.iter().map(ToString::to_string).collect();
                let action = if grant.action == SshAction::Accept { "accept" } else { "check" };
                let enforced = if grant.enforce_recorder { "!" } else { "" };
                format!("{action} {} as {} {}{enforced}", from.join(" "), users.join(" "), recorders.join(" "))
            })
            .collect()
    };
    let ann = "100.64.0.1 100.64.0.2 fd7a:115c:a1e0::1 fd7a:115c:a1e0::2";
    let ben = "100.64.0.3 fd7a:115c:a1e0::3";
    let by_ann = format!("accept {ann} as *== root=root 100.64.0.6 fd7a:115c:a1e0::6!");
    assert_eq!(told(WEB), std::slice::from_ref(&by_ann));
    assert_eq!(told(DB), [format!("check {ben} as postgres=postgres root= "), by_ann]);
    assert_eq!(told(PHONE), [format!("accept {ann} as *== root= ")]);
    let by_local_part = [format!("accept {ben} as root= "), format!("accept {ben} as ben=ben ")];
    assert_eq!(told(EXIT), by_local_part);
    assert_eq!(told(BEN), [[format!("accept {ben} as *== root= ")].as_slice(), &by_local_part].concat());
    assert_eq!(told(GUEST), Vec::<String>::new());
    assert_eq!(told(NodeId(99)), Vec::<String>::new());
    assert_eq!(compiled.ssh(WEB)[0].accept_env, ["GIT_*"]);
}

#[test]
fn logins_are_decided_by_the_same_rules() {
    let compiled = compile(SSH);
    let asked = |from, to, account: &str| compiled.decide_ssh(&Party::Node(from), &Party::Node(to), account);
    let refused = |decision: SshDecision| match decision {
        SshDecision::Refuse { near_misses } => (near_misses[0].rule, near_misses[0].lacks.clone()),
        allowed => panic!("{allowed:?}"),
    };
    assert_eq!(asked(LAPTOP, WEB, "root"), SshDecision::Accept { rule: 0 });
    assert_eq!(asked(BEN, DB, "postgres"), SshDecision::Check { rule: 1, period: Duration::from_secs(20 * 3600) });
    assert_eq!(asked(LAPTOP, PHONE, "ann"), SshDecision::Accept { rule: 2 });
    assert_eq!(asked(BEN, EXIT, "ben"), SshDecision::Accept { rule: 3 });
    assert_eq!(refused(asked(BEN, EXIT, "ann")), (3, vec![Lack::Account]));
    assert_eq!(refused(asked(LAPTOP, PHONE, "root")), (2, vec![Lack::Account]));
    assert_eq!(refused(asked(LAPTOP, BEN, "ann")), (0, vec![Lack::Destination]));
    assert_eq!(refused(asked(WEB, WEB, "root")), (0, vec![Lack::Source]));
    let nobody = compiled.decide_ssh(&Party::Address("1.1.1.1".parse().unwrap()), &Party::Node(WEB), "root");
    // Rules with a check are looked at first.
    assert_eq!(refused(nobody), (1, vec![Lack::Destination, Lack::Source]));
}

/// What becomes of a login, with the rule's number or what the nearest lacks.
fn login(compiled: &Compiled, from: NodeId, to: NodeId, account: &str) -> String {
    match compiled.decide_ssh(&Party::Node(from), &Party::Node(to), account) {
        SshDecision::Accept { rule } => format!("accept {rule}"),
        SshDecision::Check { rule, .. } => format!("check {rule}"),
        SshDecision::Refuse { near_misses } => format!("refuse {:?}", near_misses[0].lacks),
    }
}

#[test]
fn a_rule_by_local_part_also_holds_among_the_own_devices_of_its_sources() {
    let compiled = compile(
        r#""grants": [], "ssh": [{"action": "accept", "src": ["autogroup:member"], "dst": ["tag:web"],
            "users": ["localpart:*@example.com", "root"], "srcPosture": ["posture:linux"]}]"#,
    );
    let compiled = |owner: u64| {
        let mut compiled = compiled.clone();
        let moved =
            Node { owner: Owner::User(UserId(owner)), posture: nodes()[2].1.posture.clone(), ..nodes()[1].1.clone() };
        compiled.apply(Change::Node(PHONE, Box::new(moved)));
        compiled
    };
    let bens = compiled(2);
    assert_eq!(login(&bens, BEN, PHONE, "root"), "accept 0", "as the phone itself is told: {:?}", bens.ssh(PHONE));
    assert_eq!(login(&bens, BEN, PHONE, "ben"), "accept 0");
    assert_eq!(login(&bens, BEN, PHONE, "ann"), "refuse [Account]");
    assert_eq!(login(&bens, BEN, WEB, "root"), "accept 0");
    assert_eq!(login(&bens, LAPTOP, PHONE, "root"), "refuse [Posture, Destination]");
    // Neither a device of somebody else nor one that isn't a source itself takes part.
    let anns = compiled(1);
    assert_eq!(login(&anns, PHONE, LAPTOP, "root"), "refuse [Destination]");
    assert_eq!(login(&anns, PHONE, BEN, "root"), "refuse [Destination]");
}

#[test]
fn a_check_needs_a_user_and_comes_before_what_needs_none() {
    let compiled = compile(
        r#""grants": [], "ssh": [
            {"action": "accept", "src": ["autogroup:tagged"], "dst": ["tag:db"], "users": ["root", "backup"]},
            {"action": "check", "src": ["tag:exit", "ben@example.com"], "dst": ["tag:db"], "users": ["root"]}],
           "sshTests": [{"src": "tag:exit", "dst": ["tag:db"], "accept": ["backup"], "deny": ["root"]},
                        {"src": "ben@example.com", "dst": ["tag:db"], "check": ["root"]}]"#,
    );
    assert_eq!(login(&compiled, EXIT, DB, "root"), "refuse [User]");
    assert_eq!(login(&compiled, EXIT, DB, "backup"), "accept 0");
    assert_eq!(login(&compiled, WEB, DB, "root"), "accept 0");
    assert_eq!(login(&compiled, BEN, DB, "root"), "check 1");
    compiled.verify().unwrap();
    let subject = Subject::Ssh { destination: "db".to_owned(), account: "root".to_owned() };
    let answer = compiled.explain(&Question { source: "exit".to_owned(), subject }).unwrap().answers.remove(0);
    let words = "it asks for a check, and exit has no user who could confirm it";
    assert_eq!((answer.to_string(), &answer.nearest[0].lacks), ("no".to_owned(), &vec![words.to_owned()]));
}

#[test]
fn the_devices_of_users_are_logged_in_to_by_the_same_user_only_however_they_are_named() {
    for destination in ["autogroup:self", "autogroup:member", "autogroup:admin"] {
        let rule = format!(
            r#"{{"action": "accept", "src": ["autogroup:member"], "dst": ["{destination}"], "users": ["root"]}}"#
        );
        let compiled = compile(&format!(r#""grants": [], "ssh": [{rule}]"#));
        assert_eq!(login(&compiled, LAPTOP, PHONE, "root"), "accept 0", "{destination}");
        assert_eq!(login(&compiled, LAPTOP, BEN, "root"), "refuse [Destination]", "{destination}");
        assert_eq!(login(&compiled, BEN, LAPTOP, "root"), "refuse [Destination]", "{destination}");
        let told: Vec<String> = compiled.ssh(PHONE)[0].principals.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["100.64.0.1", "100.64.0.2", "fd7a:115c:a1e0::1", "fd7a:115c:a1e0::2"], "{destination}");
        let bens = compiled.ssh(BEN).iter().map(|grant| grant.principals.len()).sum::<usize>();
        assert_eq!(bens, if destination == "autogroup:admin" { 0 } else { 2 }, "{destination}");
    }
}

#[test]
fn a_test_of_logins_tries_the_name_of_each_user_that_rules_treat_alike() {
    let verified = |wanted: &str, account: &str| {
        let text = format!(
            r#"{{"tagOwners": {{"tag:exit": []}}, "grants": [],
                "ssh": [{{"action": "accept", "src": ["autogroup:member"], "dst": ["tag:exit"], "users": ["localpart:*@example.com"]}}],
                "sshTests": [{{"src": "autogroup:member", "dst": ["tag:exit"], "{wanted}": ["{account}"]}}]}}"#
        );
        Compiled::new(Arc::new(Policy::parse(&text).unwrap()), topology()).verify().is_ok()
    };
    for account in ["ann", "ben"] {
        assert!(!verified("deny", account), "{account} may");
        assert!(!verified("accept", account), "the others may not");
    }
    assert!(verified("deny", "eve"), "she is a guest");
}

#[test]
fn a_posture_is_asked_of_those_who_log_in() {
    let rule = r#"{"action": "accept", "src": ["autogroup:member"], "dst": ["tag:web"], "users": ["root"], "srcPosture": ["posture:linux"]}"#;
    let compiled = compile(&format!(r#""grants": [], "ssh": [{rule}]"#));
    let told: Vec<String> = compiled.ssh(WEB)[0].principals.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["100.64.0.3", "fd7a:115c:a1e0::3"]);
}

#[test]
fn what_else_a_rule_says_of_a_login_is_noted() {
    let open = r#""grants": [{"src": ["*"], "dst": ["*"], "ip": ["22"]}]"#;
    let compiled = compile(&SSH.replace(r#""grants": []"#, open));
    let notes = |compiled: &Compiled, source: &str, destination: &str, account: &str| {
        let subject = Subject::Ssh { destination: destination.to_owned(), account: account.to_owned() };
        compiled.explain(&Question { source: source.to_owned(), subject }).unwrap().answers.remove(0).notes
    };
    let recorded = "the session is recorded by exit; one that isn't recorded is refused";
    assert_eq!(notes(&compiled, "laptop", "web", "root"), ["it may set these environment variables: GIT_*", recorded]);
    assert_eq!(notes(&compiled, "laptop", "phone", "ann"), Vec::<String>::new());
    let mut alone = compiled.clone();
    alone.apply(Change::NodeGone(EXIT));
    let nobody = "the session is recorded by nobody yet, as no device has tag:exit; one that isn't recorded is refused";
    assert_eq!(notes(&alone, "laptop", "web", "root")[1], nobody);
}

#[test]
fn a_test_of_logins_may_name_a_device_by_its_address() {
    let verified = |test: &str| {
        let rule = r#"{"action": "accept", "src": ["ann@example.com"], "dst": ["tag:web"], "users": ["root"]}"#;
        compile(&format!(r#""grants": [], "ssh": [{rule}], "sshTests": [{test}]"#)).verify().map_err(
            |error| match error {
                policy::PolicyError::Tests(failures) => failures[0].errors[0].clone(),
                other => other.to_string(),
            },
        )
    };
    let at = |address: &str, wanted: &str| {
        verified(&format!(r#"{{"src": "ann@example.com", "dst": ["{address}"], "{wanted}": ["root"]}}"#))
    };
    for web in ["100.64.0.4", "fd7a:115c:a1e0::4"] {
        assert_eq!(at(web, "accept"), Ok(()));
        let refused = format!("user \"root\" on {web:?}: want: Drop, got: Accept");
        assert_eq!(at(web, "deny"), Err(refused));
    }
    assert_eq!(at("100.64.0.6", "deny"), Ok(()), "the exit node has none of the tags");
}
