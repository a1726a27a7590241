//! Why something is allowed or not, in the API's words.

use ::policy::{Answer, Citation, Question, Subject, Verdict, parse_protocol};
use api::{ApiError, PolicyAnswer, PolicyCitation, PolicyExplanation, PolicyParties, WhyQuery};
use tailnet::PolicyTrial;

/// What stands for the route of an exit node.
const EXIT_NODE: &str = "exit-node";

/// Answers a question by the policy in force.
pub(super) fn explain(trial: &PolicyTrial, query: &WhyQuery) -> Result<PolicyExplanation, ApiError> {
    let explained = trial.compiled().explain(&question(query)?);
    let explained = explained.map_err(|error| ApiError::bad_request(error.to_string()))?;
    Ok(PolicyExplanation { answers: explained.answers.iter().map(answer).collect() })
}

fn question(query: &WhyQuery) -> Result<Question, ApiError> {
    let bad = |error: &dyn std::fmt::Display| ApiError::bad_request(error.to_string());
    let about = |subject| Question { source: query.source.clone(), subject };
    let destination = || query.destination.clone();
    if !query.route.is_empty() {
        let text = if query.route == EXIT_NODE { "0.0.0.0/0" } else { query.route.as_str() };
        let route: ipnet::IpNet = text.parse().map_err(|_| bad(&format!("{text:?} is no prefix")))?;
        return Ok(about(Subject::Route(route.trunc())));
    }
    if !query.service.is_empty() {
        return Ok(about(Subject::Service(query.service.clone())));
    }
    if !query.attribute.is_empty() {
        return Ok(about(Subject::Attribute(query.attribute.clone())));
    }
    if !query.tag.is_empty() {
        return Ok(about(Subject::Tag(query.tag.clone())));
    }
    if query.destination.is_empty() {
        return Err(bad(&"dst names a destination, such as db:5432"));
    }
    if !query.ssh.is_empty() {
        return Ok(about(Subject::Ssh { destination: destination(), account: query.ssh.clone() }));
    }
    if !query.capability.is_empty() {
        return Ok(about(Subject::Capability { destination: destination(), name: query.capability.clone() }));
    }
    let protocol = Some(query.protocol.as_str()).filter(|text| !text.is_empty());
    let protocol = protocol.map(parse_protocol).transpose().map_err(|error| bad(&error))?;
    Question::new(&query.source, &query.destination, protocol).map_err(|error| bad(&error))
}

fn answer(answer: &Answer) -> PolicyAnswer {
    let parties = answer.parties.iter().map(|(source, destination)| PolicyParties {
        source: source.clone(),
        destination: destination.clone().unwrap_or_default(),
    });
    PolicyAnswer {
        parties: parties.collect(),
        allowed: answer.verdict != Verdict::No,
        check_period: match answer.verdict {
            Verdict::Check(seconds) => Some(seconds),
            Verdict::Yes | Verdict::No => None,
        },
        summary: answer.to_string(),
        allowed_by: answer.allowed_by.iter().map(cite).collect(),
        nearest: answer.nearest.iter().map(cite).collect(),
        notes: answer.notes.clone(),
    }
}

fn cite(citation: &Citation) -> PolicyCitation {
    PolicyCitation {
        line: citation.line,
        place: citation.place.clone(),
        text: citation.text.clone(),
        lacks: citation.lacks.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_becomes_one_question() {
        let query = |query: WhyQuery| question(&WhyQuery { source: "a".to_owned(), ..query });
        let of = |text: &str| text.to_owned();
        let exit = query(WhyQuery { route: of("exit-node"), ..WhyQuery::default() }).unwrap();
        assert_eq!(exit.subject, Subject::Route("0.0.0.0/0".parse().unwrap()));
        let seen = query(WhyQuery { destination: of("b"), ..WhyQuery::default() }).unwrap();
        assert_eq!(seen.subject, Subject::Visibility { destination: of("b") });
        for bad in [
            WhyQuery::default(),
            WhyQuery { route: of("10.0.0.0/99"), ..WhyQuery::default() },
            WhyQuery { destination: of("b:1"), protocol: of("none"), ..WhyQuery::default() },
        ] {
            assert!(query(bad).is_err());
        }
    }
}
