use std::io::Write;

use anyhow::Context;
use api::{Client, InTailnet, Json, PolicyAnswer, PolicyExplanation, WhyQuery};
use clap::Args;

use crate::{Failure, Output};

/// How many parties of an answer are named.
const MOST_PARTIES: usize = 12;

#[derive(Debug, Args)]
#[group(skip)]
pub struct Arguments {
    /// Who: a device, an address, a user, a group, a tag or an autogroup
    #[arg(value_name = "SRC")]
    source: String,
    /// Where to, with a port (db:5432, [fd7a::1]:22); without one: whether the two know each other
    #[arg(value_name = "DST[:PORT]")]
    destination: Option<String>,
    /// The protocol, such as udp or icmp; tcp if there is a port
    #[arg(long, value_name = "PROTOCOL", requires = "destination", conflicts_with_all = ["ssh", "app"])]
    proto: Option<String>,
    #[command(flatten)]
    other: Other,
}

/// What is asked other than whether packets pass.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct Other {
    /// Whether SRC may log in to DST as this account
    #[arg(long, value_name = "ACCOUNT", requires = "destination")]
    ssh: Option<String>,
    /// Whether an application on DST gives SRC this capability
    #[arg(long, value_name = "CAPABILITY", requires = "destination")]
    app: Option<String>,
    /// Whether this route of the device SRC is approved at once
    #[arg(long, value_name = "PREFIX", conflicts_with = "destination")]
    route: Option<String>,
    /// Whether the device SRC is approved as an exit node at once
    #[arg(long, conflicts_with = "destination")]
    exit_node: bool,
    /// Whether the device SRC may host this service at once
    #[arg(long, value_name = "svc:NAME", conflicts_with = "destination")]
    service: Option<String>,
    /// Which entry gives the device SRC this node attribute
    #[arg(long, value_name = "NAME", conflicts_with = "destination")]
    attribute: Option<String>,
    /// Whether SRC may give this tag
    #[arg(long, value_name = "TAG", conflicts_with = "destination")]
    tag: Option<String>,
}

impl Arguments {
    fn query(self) -> Result<WhyQuery, Failure> {
        let Other { ssh, app, route, exit_node, service, attribute, tag } = self.other;
        let about_source = exit_node || [&route, &service, &attribute, &tag].iter().any(|option| option.is_some());
        if self.destination.is_none() && !about_source {
            return Err(Failure::usage("name a destination: towline why SRC DST:PORT"));
        }
        let exit = exit_node.then(|| "exit-node".to_owned());
        Ok(WhyQuery {
            source: self.source,
            destination: self.destination.unwrap_or_default(),
            protocol: self.proto.unwrap_or_default(),
            ssh: ssh.unwrap_or_default(),
            capability: app.unwrap_or_default(),
            route: route.or(exit).unwrap_or_default(),
            service: service.unwrap_or_default(),
            attribute: attribute.unwrap_or_default(),
            tag: tag.unwrap_or_default(),
        })
    }
}

pub(super) async fn run<W: Write>(
    arguments: Arguments,
    client: &Client,
    output: &mut Output<W>,
) -> Result<(), Failure> {
    let query = arguments.query()?;
    let Json(explanation) = client.explain_policy(&InTailnet::own(), &query).await?;
    Ok(output.print(&explanation, words).context("printing the answer")?)
}

fn words(explanation: &PolicyExplanation) -> String {
    let several = explanation.answers.len() > 1 || explanation.answers.iter().any(|answer| answer.parties.len() > 1);
    let blocks: Vec<String> = explanation.answers.iter().map(|answer| block(answer, several)).collect();
    blocks.join("\n")
}

/// The answer in a line, then what it rests on.
fn block(answer: &PolicyAnswer, several: bool) -> String {
    let mut lines = vec![answer.summary.clone()];
    if several {
        let parties = answer.parties.iter().take(MOST_PARTIES).map(|party| match party.destination.as_str() {
            "" => format!("  for {}", party.source),
            destination => format!("  for {} -> {destination}", party.source),
        });
        lines.extend(parties);
        if answer.parties.len() > MOST_PARTIES {
            lines.push(format!("  and {} more", answer.parties.len() - MOST_PARTIES));
        }
    }
    for rule in &answer.allowed_by {
        lines.push(format!("  {}", cite(rule.line, &rule.place, &rule.text)));
    }
    if !answer.nearest.is_empty() {
        lines.push("nearest:".to_owned());
    }
    for rule in &answer.nearest {
        lines.push(format!("  {}", cite(rule.line, &rule.place, &rule.text)));
        lines.extend(rule.lacks.iter().map(|lack| format!("    {lack}")));
    }
    lines.extend(answer.notes.iter().map(|note| format!("note: {note}")));
    lines.join("\n")
}

fn cite(line: u32, place: &str, text: &str) -> String {
    match line {
        0 => place.to_owned(),
        _ => format!("line {line}: {place} {text}"),
    }
}

#[cfg(test)]
mod tests {
    use api::{PolicyCitation, PolicyParties};
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn query(line: &str) -> Result<WhyQuery, String> {
        let words = ["why"].into_iter().chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        line.arguments.query().map_err(|failure| failure.to_string())
    }

    #[test]
    fn packets_are_asked_by_default() {
        let asked = query("laptop db:22 --proto udp").unwrap();
        assert_eq!((asked.source.as_str(), asked.destination.as_str()), ("laptop", "db:22"));
        assert_eq!(asked.protocol, "udp");
    }

    #[test]
    fn other_questions_are_asked_one_at_a_time() {
        assert_eq!(query("laptop db --ssh root").unwrap().ssh, "root");
        assert_eq!(query("gateway --exit-node").unwrap().route, "exit-node");
        assert_eq!(query("gateway --route 10.0.0.0/8").unwrap().route, "10.0.0.0/8");
        for wrong in ["laptop", "laptop db --ssh root --app a.b/c", "laptop db --route 10.0.0.0/8", "laptop --ssh root"]
        {
            assert!(query(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_answer_names_the_nearest_rules_and_what_they_lack() {
        let nearest = PolicyCitation {
            line: 3,
            place: "grants[0]".to_owned(),
            text: "{…}".to_owned(),
            lacks: vec!["it is for other ports: tcp:443".to_owned()],
        };
        let answer = PolicyAnswer {
            parties: vec![PolicyParties { source: "laptop".to_owned(), destination: "db".to_owned() }],
            summary: "no".to_owned(),
            nearest: vec![nearest],
            ..PolicyAnswer::default()
        };
        let told = words(&PolicyExplanation { answers: vec![answer] });
        assert_eq!(told, "no\nnearest:\n  line 3: grants[0] {…}\n    it is for other ports: tcp:443");
    }
}
