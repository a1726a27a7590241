//! Recorded answers of the hosted service, replayed: filters rule by rule, refusals with their message, peers, their
//! addresses, SSH rules, attributes and approvals.
//!
//! The recordings are no part of the project: `TOWLINE_CAPTURES` names a file of them (one JSON object a line, plain or
//! compressed with zstd). Without it the test says that it was skipped.

mod answer;
mod capture;
mod exceptions;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use capture::Capture;
use exceptions::{Aspect, EXCEPTIONS};
use policy::{Compiled, NodeId, Policy, PolicyError};

/// What was compared: right and wrong by kind of capture and aspect, and the wrong ones by name.
#[derive(Default)]
struct Score {
    counts: BTreeMap<(String, Aspect), (usize, usize)>,
    wrong: BTreeMap<(String, Aspect), Vec<String>>,
}

impl Score {
    fn note(&mut self, capture: &Capture, aspect: Aspect, error: Option<String>) {
        let (right, wrong) = self.counts.entry((capture.kind.clone(), aspect)).or_default();
        match error {
            None => *right += 1,
            Some(error) => {
                *wrong += 1;
                self.wrong.entry((capture.id.clone(), aspect)).or_default().push(error);
            }
        }
    }

    fn report(&self) -> String {
        let mut lines = vec![format!("{:12} {:12} {:>7} {:>6}", "kind", "aspect", "right", "wrong")];
        for ((kind, aspect), (right, wrong)) in &self.counts {
            lines.push(format!("{kind:12} {:12} {right:>7} {wrong:>6}", format!("{aspect:?}")));
        }
        for ((id, aspect), errors) in &self.wrong {
            let reason = exceptions::reason(id, *aspect).unwrap_or("NOT EXPECTED");
            lines.push(format!("{id}: {aspect:?} ({}): {reason}", errors.len()));
            if reason == "NOT EXPECTED" {
                lines.extend(errors.iter().take(3).map(|error| format!("    {error}")));
            }
        }
        lines.join("\n")
    }
}

#[test]
fn the_hosted_services_answers_are_reproduced() {
    let Some(path) = std::env::var_os("TOWLINE_CAPTURES") else {
        println!("skipped: TOWLINE_CAPTURES names no file of recorded answers");
        return;
    };
    let mut score = Score::default();
    let captures = capture::read(&std::fs::read(path).unwrap());
    for capture in &captures {
        score_capture(capture, &mut score);
    }
    println!("{} captures\n{}", captures.len(), score.report());
    let wrong: BTreeSet<(&str, Aspect)> = score.wrong.keys().map(|(id, aspect)| (id.as_str(), *aspect)).collect();
    let replayed: BTreeSet<&str> = captures.iter().map(|capture| capture.id.as_str()).collect();
    let expected: BTreeSet<(&str, Aspect)> =
        EXCEPTIONS.iter().filter(|(id, ..)| replayed.contains(id)).map(|(id, aspect, _)| (*id, *aspect)).collect();
    let unexpected: Vec<_> = wrong.difference(&expected).collect();
    let outdated: Vec<_> = expected.difference(&wrong).collect();
    assert!(unexpected.is_empty(), "answers differ: {unexpected:?}\n{}", score.report());
    assert!(outdated.is_empty(), "exceptions that are none any more: {outdated:?}");
}

fn score_capture(capture: &Capture, score: &mut Score) {
    let topology = capture.topology();
    let compiled = Policy::parse(&capture.policy_text()).map(|policy| Compiled::new(Arc::new(policy), topology));
    let verified = match &compiled {
        Ok(compiled) => compiled.verify(),
        Err(error) => Err(error.clone()),
    };
    if capture.status != 200 {
        return score.note(capture, Aspect::Refusal, wrong_refusal(capture, verified));
    }
    let compiled = match (compiled, verified) {
        (Ok(compiled), Ok(())) => compiled,
        (_, refused) => return score.note(capture, Aspect::Accept, Some(format!("refused: {refused:?}"))),
    };
    score.note(capture, Aspect::Accept, None);
    for (name, answer) in &capture.nodes {
        let id = capture.node_id(name);
        score.note(capture, Aspect::Filter, answer::wrong_filter(name, answer, &compiled.filter(id)));
        score.note(capture, Aspect::Peers, answer::wrong_peers(name, answer, &names(capture, &compiled.peers(id))));
        score.note(capture, Aspect::Ssh, answer::wrong_ssh(name, answer, &compiled.ssh(id)));
        let (besides, told) = (capture.besides_policy(name), compiled.attributes(id));
        score.note(capture, Aspect::Attributes, answer::wrong_attributes(name, answer, besides, &told));
        for peer in &answer.peers {
            let told = compiled.allowed_ips(id, capture.node_id(&peer.name));
            score.note(capture, Aspect::AllowedIps, answer::wrong_allowed_ips(name, peer, &told));
            let told = compiled.peer_attributes(capture.node_id(&peer.name));
            score.note(capture, Aspect::Attributes, answer::wrong_peer_attributes(name, peer, &told));
        }
        let own = compiled.own_allowed_ips(id);
        score.note(capture, Aspect::AllowedIps, answer::wrong_own_allowed_ips(name, answer, &own));
        score.note(capture, Aspect::Approval, capture.wrong_approval(name, &compiled));
    }
}

fn wrong_refusal(capture: &Capture, verified: Result<(), PolicyError>) -> Option<String> {
    match verified {
        Ok(()) => Some(format!("accepted; should say {:?}", capture.message)),
        Err(error) if error.to_string().contains(&capture.message) => None,
        Err(error) => Some(format!("says {:?}; should say {:?}", error.to_string(), capture.message)),
    }
}

fn names(capture: &Capture, ids: &BTreeSet<NodeId>) -> BTreeSet<String> {
    ids.iter().map(|id| capture.name_of(*id)).collect()
}

#[test]
fn the_answers_that_differ_are_those_that_the_reference_names() {
    let reference = include_str!("../../../../docs/policy.md");
    let table = &reference[reference.find("| answer |").unwrap()..];
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
    };
    let page: BTreeSet<Vec<String>> = rows.map(cells).collect();
    let known = EXCEPTIONS
        .iter()
        .map(|(id, aspect, reason)| vec![(*id).to_owned(), format!("{aspect:?}").to_lowercase(), (*reason).to_owned()]);
    assert_eq!(page, known.collect());
}
