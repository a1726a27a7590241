//! docs/policy.md: every example in it is read, and what it says of it must be so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use policy::{
    Compiled, CutOff, Difference, Finding, Node, NodeId, Owner, Policy, PolicyError, PostureValue, Question, Report,
    Role, Service, Subject, Tag, TestFailure, Topology, User, UserId, parse_protocol,
};

const REFERENCE: &str = include_str!("../../../../docs/policy.md");

/// A policy of the page with the commands under it and what they answer.
struct Example {
    line: usize,
    policy: String,
    commands: Vec<(String, Vec<String>)>,
}

fn cells(line: &str) -> Vec<&str> {
    line.trim().trim_matches('|').split('|').map(str::trim).collect()
}

/// The rows of the table whose header begins with a word.
fn table(first: &str) -> Vec<Vec<&'static str>> {
    let rest = &REFERENCE[REFERENCE.find(&format!("| {first} |")).unwrap()..];
    rest.lines().skip(2).take_while(|line| line.starts_with('|')).map(cells).collect()
}

fn role(name: &str) -> Role {
    match name {
        "owner" => Role::Owner,
        "admin" => Role::Admin,
        _ => Role::Member,
    }
}

fn prefixes(text: &str) -> BTreeSet<IpNet> {
    text.split_whitespace().map(|prefix| prefix.parse().unwrap()).collect()
}

fn facts(text: &str) -> BTreeMap<String, PostureValue> {
    let facts = text.split_whitespace().map(|fact| fact.split_once('=').unwrap());
    facts.map(|(key, value)| (key.to_owned(), PostureValue::Text(value.trim_matches('\'').to_owned()))).collect()
}

/// The tailnet that the page describes.
fn tailnet() -> Topology {
    let mut topology = Topology { domains: ["example.com".to_owned()].into(), https: true, ..Topology::default() };
    for (row, id) in table("user").iter().zip(1..) {
        topology.users.insert(UserId(id), User { login: row[0].into(), role: role(row[1]), shared: false });
    }
    for (row, id) in table("device").iter().zip(1..) {
        let owner = match row[2].starts_with("tag:") {
            true => Owner::Tags([Tag::parse(row[2]).unwrap()].into()),
            false => Owner::User(topology.user_by_login(row[2]).unwrap().0),
        };
        let node = Node {
            name: row[0].into(),
            addresses: vec![row[1].parse().unwrap(), format!("fd7a:115c:a1e0::{id}").parse().unwrap()],
            owner,
            advertised: prefixes(row[3]),
            approved: prefixes(row[4]),
            revoked: BTreeSet::new(),
            posture: facts(row[5]),
        };
        for route in node.subnets() {
            topology.routers.entry(route).or_default().push(NodeId(id));
        }
        topology.nodes.insert(NodeId(id), node);
    }
    let tags = [Tag::parse("tag:shop").unwrap()].into();
    let shop = Service { addresses: vec!["100.64.1.1".parse().unwrap()], tags, ..Service::default() };
    topology.services.insert("svc:shop".into(), shop);
    topology
}

fn examples() -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut lines = REFERENCE.lines().zip(1..);
    while let Some((line, at)) = lines.next() {
        let block = |lines: &mut dyn Iterator<Item = (&str, usize)>| -> Vec<String> {
            lines.map(|(line, _)| line.to_owned()).take_while(|line| line != "```").collect()
        };
        match line {
            "```hujson" => {
                let policy = block(&mut lines).join("\n");
                examples.push(Example { line: at, policy, commands: Vec::new() });
            }
            "```console" => {
                let commands = &mut examples.last_mut().unwrap().commands;
                for line in block(&mut lines) {
                    match line.strip_prefix("$ ") {
                        Some(command) => commands.push((command.to_owned(), Vec::new())),
                        None => commands.last_mut().unwrap().1.push(line),
                    }
                }
            }
            _ => assert!(!line.starts_with("```"), "line {at}: a block of another kind"),
        }
    }
    examples
}

/// `towline why` with its arguments.
fn question(arguments: &str) -> Question {
    let words: Vec<&str> = arguments.split_whitespace().collect();
    let option = |name: &str| words.iter().position(|word| *word == name).map(|at| words.get(at + 1).copied());
    let value = |name: &str| option(name).flatten().map(str::to_owned);
    let source = words[0].to_owned();
    let destination = words.get(1).filter(|word| !word.starts_with("--")).map(|word| (*word).to_owned());
    let subject = |subject| Question { source: source.clone(), subject };
    let Some(destination) = destination else {
        return subject(match (value("--route"), value("--service"), value("--attribute"), value("--tag")) {
            (Some(route), ..) => Subject::Route(route.parse().unwrap()),
            (_, Some(service), ..) => Subject::Service(service),
            (.., Some(name), _) => Subject::Attribute(name),
            (.., Some(tag)) => Subject::Tag(tag),
            _ => {
                assert_eq!(words[1], "--exit-node");
                Subject::Route("0.0.0.0/0".parse().unwrap())
            }
        });
    };
    if let Some(account) = value("--ssh") {
        return subject(Subject::Ssh { destination, account });
    }
    if let Some(name) = value("--app") {
        return subject(Subject::Capability { destination, name });
    }
    Question::new(&source, &destination, value("--proto").map(|name| parse_protocol(&name).unwrap())).unwrap()
}

/// Who asks.
const AUTHOR: &str = "ann@example.com";

/// What `towline policy check` prints of a policy where that of a new tailnet is in force.
fn checked(text: &str) -> String {
    let in_force = Policy::parse(Policy::default_for_new_tailnet()).unwrap();
    let in_force = Compiled::new(Arc::new(in_force), tailnet());
    let compiled = Policy::parse(text).map(|policy| Compiled::new(Arc::new(policy), tailnet()));
    let report = match compiled.and_then(|compiled| compiled.verify().map(|()| compiled)) {
        Ok(compiled) => {
            let warnings: Vec<String> = compiled.policy().warnings().iter().map(ToString::to_string).collect();
            let message = if warnings.is_empty() { String::new() } else { "warning(s) found".to_owned() };
            let author = in_force.topology().user_by_login(AUTHOR).unwrap().0;
            let cut_off = in_force.would_cut_off(&compiled, author);
            let user = if cut_off.is_some() { AUTHOR.to_owned() } else { String::new() };
            let message = if cut_off.is_some() { "warning(s) found".to_owned() } else { message };
            let cut_off = cut_off.iter().map(|cut_off: &CutOff| cut_off.warning(AUTHOR)).collect();
            let of_policy = Finding { warnings, ..Finding::default() };
            let findings = vec![of_policy, Finding { user, warnings: cut_off, ..Finding::default() }];
            Report { message, findings, difference: Some(Difference::between(&in_force, &compiled)) }
        }
        Err(error) => {
            let finding =
                |failure: TestFailure| Finding { user: failure.user, errors: failure.errors, ..Finding::default() };
            let message = error.to_string();
            let findings = match error {
                PolicyError::Tests(failures) => failures.into_iter().map(finding).collect(),
                PolicyError::Invalid(_) => Vec::new(),
            };
            Report { message, findings, difference: None }
        }
    };
    report.of_file("policy.hujson")
}

#[test]
fn what_the_reference_says_of_its_examples_is_so() {
    let mut asked = 0;
    for example in examples() {
        for (command, answer) in &example.commands {
            asked += 1;
            let place = format!("docs/policy.md, the example at line {}: {command}", example.line);
            if command == "towline policy check policy.hujson" {
                assert_eq!(checked(&example.policy).lines().collect::<Vec<_>>(), *answer, "{place}");
                continue;
            }
            let policy = Policy::parse(&example.policy).unwrap_or_else(|error| panic!("{place}: {error}"));
            let compiled = Compiled::new(Arc::new(policy), tailnet());
            compiled.verify().unwrap_or_else(|error| panic!("{place}: {error}"));
            let explained = compiled.explain(&question(command.strip_prefix("towline why ").unwrap()));
            let explained = explained.unwrap_or_else(|error| panic!("{place}: {error}"));
            let got: Vec<String> = explained.answers.iter().map(ToString::to_string).collect();
            let (notes, answer): (Vec<&String>, Vec<&String>) =
                answer.iter().partition(|line| line.starts_with("note: "));
            assert_eq!(got.iter().collect::<Vec<_>>(), answer, "{place}\n{explained:#?}");
            let told: Vec<String> =
                explained.answers.iter().flat_map(|answer| &answer.notes).map(|note| format!("note: {note}")).collect();
            assert!(notes.into_iter().all(|note| told.contains(note)), "{place}\n{told:#?}");
            for answer in &explained.answers {
                let refused = answer.to_string() == "no";
                assert_eq!(refused, answer.allowed_by.is_empty() && !answer.to_string().starts_with("yes"), "{place}");
            }
        }
    }
    assert!(asked > 100, "only {asked} questions were found on the page");
}

#[test]
fn every_example_has_an_outcome() {
    let idle: Vec<usize> =
        examples().iter().filter(|example| example.commands.is_empty()).map(|example| example.line).collect();
    assert_eq!(idle, Vec::<usize>::new(), "lines of examples of which nothing is said");
}

#[test]
fn every_field_of_the_language_has_an_example() {
    let all: String = examples().into_iter().map(|example| example.policy).collect();
    let fields = "groups hosts tagOwners acls grants nodeAttrs autoApprovers ssh tests sshTests randomizeClientPort \
        postures defaultSrcPosture ipsets disableIPv4 OneCGNATRoute src dst ip app via srcPosture action proto users \
        ports target attr ipPool routes exitNode services checkPeriod acceptEnv accept check deny srcPostureAttrs \
        derpMap recorder enforceRecorder appConnectors user allow";
    let missing: Vec<&str> = fields
        .split_whitespace()
        .filter(|field| !all.to_lowercase().contains(&format!("\"{}\":", field.to_lowercase())))
        .collect();
    assert_eq!(missing, Vec::<&str>::new());
    assert!(all.contains("\"checkPeriod\": \"always\""));
    for autogroup in [
        "member",
        "tagged",
        "admin",
        "owner",
        "it-admin",
        "network-admin",
        "billing-admin",
        "auditor",
        "shared",
        "self",
        "internet",
        "danger-all",
        "nonroot",
    ] {
        assert!(all.contains(&format!("\"autogroup:{autogroup}\"")), "autogroup:{autogroup}");
    }
}
