//! Why something is refused, and what else is said of it.

use super::*;

fn ask(compiled: &Compiled, source: &str, subject: Subject) -> policy::Answer {
    compiled.explain(&Question { source: source.to_owned(), subject }).unwrap().answers.remove(0)
}

/// The entries that come nearest, with what each lacks.
fn nearest(answer: policy::Answer) -> Vec<(String, Vec<String>)> {
    answer.nearest.into_iter().map(|citation| (citation.place, citation.lacks)).collect()
}

#[test]
fn of_devices_that_do_not_know_each_other_the_nearest_rules_are_told() {
    let compiled = grants(
        r#"{"src": ["ann@example.com"], "dst": ["tag:db"], "ip": ["22"]},
           {"src": ["*"], "dst": ["tag:exit"], "ip": ["22"], "srcPosture": ["posture:linux"]}"#,
    );
    let refused = |source: &str, destination: &str| {
        let answer = ask(&compiled, source, Subject::Visibility { destination: destination.to_owned() });
        assert_eq!(answer.to_string(), "no", "{source} {destination}");
        nearest(answer)
    };
    let told = |place: &str, lacks: &[&str]| (place.to_owned(), lacks.iter().map(ToString::to_string).collect());
    let from_ben = told("grants[0]", &["ben is not among its sources: ann@example.com"]);
    assert_eq!(refused("ben", "db"), [told("grants[1]", &["db is not among its destinations: tag:exit"]), from_ben]);
    // A rule that leads the other way counts too, and what it lacks is said of who would come by it.
    assert_eq!(refused("db", "ben"), refused("ben", "db"));
    let to_web = told("grants[0]", &["web is not among its destinations: tag:db"]);
    assert_eq!(refused("laptop", "web")[0], to_web);
    assert_eq!(refused("web", "laptop")[0], to_web);
    let posture = "laptop has none of its postures: posture:linux wants node:os == 'linux', which is 'macos'";
    assert_eq!(
        refused("laptop", "exit"),
        [told("grants[1]", &[posture]), told("grants[0]", &["exit is not among its destinations: tag:db"]),]
    );
    assert_eq!(refused("exit", "laptop"), refused("laptop", "exit"));
}

#[test]
fn devices_of_one_user_know_each_other_by_a_rule_that_lets_in_only_one_of_them() {
    let mut compiled = grants(
        r#"{"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["22"], "srcPosture": ["posture:linux"]}"#,
    );
    let visible = |compiled: &Compiled, source: &str, destination: &str| {
        ask(compiled, source, Subject::Visibility { destination: destination.to_owned() }).to_string()
    };
    assert_eq!(visible(&compiled, "laptop", "phone"), "no", "neither runs Linux");
    let posture = [("node:os".to_owned(), PostureValue::Text("linux".to_owned()))].into();
    compiled.apply(Change::Node(LAPTOP, Box::new(Node { posture, ..nodes()[0].1.clone() })));
    for (source, destination) in [("laptop", "phone"), ("phone", "laptop")] {
        assert_eq!(visible(&compiled, source, destination), "yes, by line 2", "{source} {destination}");
    }
    assert_eq!(visible(&compiled, "ben", "phone"), "no", "they are of two users");
}

#[test]
fn a_rule_to_a_service_is_near_to_who_asks_for_its_address() {
    let compiled = grants(r#"{"src": ["ann@example.com"], "dst": ["svc:shop"], "ip": ["443"]}"#);
    let misses = |to: &str, port: u16| tcp(&compiled, Party::Node(BEN), to, port).near_misses;
    assert_eq!(misses("100.64.1.1", 443), [NearMiss { rule: 0, lacks: vec![Lack::Source] }]);
    assert_eq!(misses("100.64.1.2", 443), [NearMiss { rule: 0, lacks: vec![Lack::Destination, Lack::Source] }]);
    let ann = tcp(&compiled, Party::Node(LAPTOP), "100.64.1.1", 80).near_misses;
    assert_eq!(ann, [NearMiss { rule: 0, lacks: vec![Lack::Port] }]);
}

#[test]
fn a_login_that_lacks_its_port_is_noted_and_one_that_is_refused_anyway_is_not() {
    let rule = r#"{"action": "accept", "src": ["ann@example.com"], "dst": ["tag:web"], "users": ["root"]}"#;
    let notes = |grant: &str, source: &str| {
        let compiled = compile(&format!(r#""grants": [{grant}], "ssh": [{rule}]"#));
        let subject = Subject::Ssh { destination: "web".to_owned(), account: "root".to_owned() };
        let answer = ask(&compiled, source, subject);
        (answer.to_string().starts_with("yes"), answer.notes)
    };
    let shut = "but tcp:22 is not let through, which a login needs as well".to_owned();
    let other_port = r#"{"src": ["*"], "dst": ["*"], "ip": ["tcp:23"]}"#;
    assert_eq!(notes(other_port, "laptop"), (true, vec![shut]));
    assert_eq!(notes(other_port, "ben"), (false, Vec::new()));
    assert_eq!(notes(r#"{"src": ["*"], "dst": ["*"], "ip": ["tcp:22"]}"#, "laptop"), (true, Vec::new()));
}

#[test]
fn of_a_route_is_said_whether_it_is_offered_and_approved() {
    let approvers = r#""grants": [], "autoApprovers": {"routes": {"10.0.0.0/8": ["tag:web"]}}"#;
    let mut compiled = compile(approvers);
    let known = nodes()[3].1.clone();
    let routes = |texts: &[&str]| prefixes(texts).into_iter().collect::<BTreeSet<_>>();
    let (advertised, approved) = (routes(&["10.20.0.0/16", "10.30.0.0/16"]), routes(&["10.20.0.0/16", "10.40.0.0/16"]));
    compiled.apply(Change::Node(WEB, Box::new(Node { advertised, approved, ..known })));
    for (route, note) in [
        ("10.20.0.0/16", "web serves it now"),
        ("10.30.0.0/16", "web offers it, and it waits for approval"),
        ("10.40.0.0/16", "web may serve it, and does not offer it"),
        ("10.50.0.0/16", "web does not offer it"),
    ] {
        let answer = ask(&compiled, "web", Subject::Route(route.parse().unwrap()));
        assert_eq!((answer.to_string(), answer.notes), ("yes, by line 2".to_owned(), vec![note.to_owned()]), "{route}");
    }
    let answer = ask(&compiled, "db", Subject::Route("192.168.0.0/24".parse().unwrap()));
    assert_eq!(
        nearest(answer),
        [(
            "autoApprovers.routes[\"10.0.0.0/8\"]".to_owned(),
            vec!["192.168.0.0/24 does not lie in 10.0.0.0/8".to_owned()],
        )]
    );
}

#[test]
fn a_route_that_was_taken_back_by_hand_waits_whatever_line_would_approve_it() {
    let approvers =
        r#""grants": [], "autoApprovers": {"routes": {"10.20.0.0/16": ["tag:web"], "10.0.0.0/8": ["tag:web"]}}"#;
    let route = |text: &str| text.parse::<IpNet>().unwrap();
    let taken_back = |advertised: &[&str], revoked: &[&str]| {
        let mut compiled = compile(approvers);
        let known = nodes()[3].1.clone();
        let [advertised, revoked] = [advertised, revoked].map(|texts| prefixes(texts).into_iter().collect());
        let web = Node { advertised, approved: BTreeSet::new(), revoked, ..known };
        compiled.apply(Change::Node(WEB, Box::new(web)));
        compiled
    };
    let offered = ["10.20.0.0/16", "10.30.0.0/16"];
    let compiled = taken_back(&offered, &["10.20.0.0/16"]);
    let answer = ask(&compiled, "web", Subject::Route(route("10.20.0.0/16")));
    assert_eq!((answer.to_string().as_str(), &answer.allowed_by[..]), ("no", &[][..]));
    assert_eq!(answer.notes, ["web offers it, and it waits for approval by hand"]);
    let lack = "10.20.0.0/16 was taken back by hand, which holds until web has withdrawn it".to_owned();
    let places =
        ["10.0.0.0/8", "10.20.0.0/16"].map(|key| (format!("autoApprovers.routes[{key:?}]"), vec![lack.clone()]));
    assert_eq!(nearest(answer), places);
    let other = ask(&compiled, "web", Subject::Route(route("10.30.0.0/16")));
    assert_eq!(other.to_string(), "yes, by line 2");
    let approves = |compiled: &Compiled| offered.map(|text| compiled.approves_route(WEB, &route(text)));
    assert_eq!(approves(&compiled), [false, true]);
    assert_eq!(approves(&taken_back(&offered, &[])), [true, true]);
}

#[test]
fn names_that_stand_for_the_same_devices_are_asked_about_each_other() {
    let compiled = grants(r#"{"src": ["*"], "dst": ["*"], "ip": ["22"]}"#);
    let pairs = |source: &str, destination: &str| {
        let question = Question::new(source, destination, None).unwrap();
        let answers = compiled.explain(&question).unwrap().answers;
        let parties = answers.into_iter().flat_map(|answer| answer.parties);
        parties.map(|(from, to)| format!("{from} {}", to.unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(pairs("ann@example.com", "ann@example.com:22"), ["laptop phone", "phone laptop"]);
    // Who asks about one device alone means that one.
    assert_eq!(pairs("ben@example.com", "ben:22"), ["ben ben"]);
}
