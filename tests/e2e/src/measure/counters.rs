use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use super::Ground;

/// What relays ask belongs to the installation and not to the system.
const RELAYS: &str = "/relay/admission";

/// Requests that change nothing, whatever their verb: questions about permissions, tokens and who somebody is.
const QUESTIONS: [&str; 6] = [
    "localsubjectaccessreviews",
    "selfsubjectaccessreviews",
    "selfsubjectreviews",
    "selfsubjectrulesreviews",
    "subjectaccessreviews",
    "tokenreviews",
];

/// What the servers have counted until now.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    /// Requests to the coordination server, by route.
    calls: BTreeMap<String, f64>,
    /// Changes to Kubernetes' objects, by verb and resource.
    writes: BTreeMap<String, f64>,
}

impl Counters {
    pub(super) fn read(ground: &Ground) -> Result<Self> {
        let control = ground.installation.metrics().context("asking the coordination server for its metrics")?;
        let cluster = ground.cluster.kubectl(["get", "--raw", "/metrics"]).run()?.stdout;
        Ok(Self { calls: calls(&control), writes: writes(&cluster) })
    }

    /// What was counted from `before` until this.
    ///
    /// # Errors
    /// When a counter went back: its server was started again meanwhile, and what it had counted is lost.
    pub(super) fn since(&self, before: &Self) -> Result<Self> {
        Ok(Self {
            calls: growth(&self.calls, &before.calls).context("the coordination server")?,
            writes: growth(&self.writes, &before.writes).context("the API server")?,
        })
    }

    pub(super) fn calls(&self) -> f64 {
        total(&self.calls)
    }

    pub(super) fn writes(&self) -> f64 {
        total(&self.writes)
    }
}

impl std::fmt::Display for Counters {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |counts: &BTreeMap<String, f64>| {
            let entries: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
            if entries.is_empty() { "none".to_owned() } else { entries.join(", ") }
        };
        write!(formatter, "calls: {}; writes: {}", list(&self.calls), list(&self.writes))
    }
}

/// By how much each counter has grown; those that have not are left out.
fn growth(now: &BTreeMap<String, f64>, then: &BTreeMap<String, f64>) -> Result<BTreeMap<String, f64>> {
    for (name, before) in then {
        let count = now.get(name).copied().unwrap_or_default();
        ensure!(
            count >= *before,
            "{name} went back from {before} to {count}: it was started again while it was watched"
        );
    }
    let grown = now.iter().map(|(name, count)| (name.clone(), count - then.get(name).copied().unwrap_or_default()));
    Ok(grown.filter(|(_, count)| *count != 0.0).collect())
}

/// The sum of nothing is a negative zero.
fn total(counts: &BTreeMap<String, f64>) -> f64 {
    counts.values().fold(0.0, |sum, count| sum + count)
}

fn calls(metrics: &str) -> BTreeMap<String, f64> {
    let mut calls = BTreeMap::new();
    for (labels, count) in samples(metrics, "towline_control_requests_total") {
        let route = labels.get("route").copied().unwrap_or_default();
        if route != RELAYS {
            *calls.entry(route.to_owned()).or_default() += count;
        }
    }
    calls
}

fn writes(metrics: &str) -> BTreeMap<String, f64> {
    let mut writes = BTreeMap::new();
    for (labels, count) in samples(metrics, "apiserver_request_total") {
        let label = |name: &str| labels.get(name).copied().unwrap_or_default();
        let changes = matches!(label("verb"), "APPLY" | "DELETE" | "DELETECOLLECTION" | "PATCH" | "POST" | "PUT");
        let question = QUESTIONS.contains(&label("resource")) || label("subresource") == "token";
        if changes && !question && label("dry_run").is_empty() && !label("code").starts_with(['4', '5']) {
            let what = match label("subresource") {
                "" => format!("{} {}", label("verb"), label("resource")),
                part => format!("{} {}/{part}", label("verb"), label("resource")),
            };
            *writes.entry(what).or_default() += count;
        }
    }
    writes
}

/// The samples of one metric in Prometheus' text format, with their labels; lines that are not in that format are left out.
fn samples<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = (BTreeMap<&'a str, &'a str>, f64)> + use<'a> {
    text.lines().filter_map(move |line| {
        let (labels, value) = line.strip_prefix(name)?.strip_prefix('{')?.rsplit_once('}')?;
        Some((parse_labels(labels)?, value.split_whitespace().next()?.parse().ok()?))
    })
}

/// Reads `a="b",c="d"`; values with escaped quotes are kept as they are written.
fn parse_labels(mut text: &str) -> Option<BTreeMap<&str, &str>> {
    let mut labels = BTreeMap::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"")?;
        let mut escaped = false;
        let end = rest.bytes().position(|byte| {
            let closes = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            closes
        })?;
        labels.insert(name.trim_start_matches(','), &rest[..end]);
        text = &rest[end + 1..];
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changes_objects_is_a_write() {
        let line = |verb: &str, resource: &str, more: &str, count: u32| {
            format!("apiserver_request_total{{code=\"200\",resource=\"{resource}\",{more}verb=\"{verb}\"}} {count}\n")
        };
        let metrics = line("GET", "pods", "", 5)
            + &line("PUT", "leases", "", 6)
            + &line("PATCH", "pods", "subresource=\"status\",", 2)
            + &line("POST", "subjectaccessreviews", "", 9)
            + &line("POST", "serviceaccounts", "subresource=\"token\",", 9);
        let writes = writes(&metrics);
        assert_eq!(writes, BTreeMap::from([("PUT leases".to_owned(), 6.0), ("PATCH pods/status".to_owned(), 2.0)]));
    }

    #[test]
    fn what_was_counted_is_the_difference() {
        let counted = |map: f64, key: f64| Counters {
            calls: BTreeMap::from([("/machine/map".to_owned(), map), ("/key".to_owned(), key)]),
            writes: BTreeMap::new(),
        };
        assert_eq!(counted(5.0, 2.0).since(&counted(3.0, 2.0)).unwrap().calls(), 2.0);
        assert_eq!(counted(5.0, 2.0).since(&Counters::default()).unwrap().calls(), 7.0);
    }

    #[test]
    fn a_counter_that_went_back_is_a_failure_and_no_zero() {
        let counted = |count: f64| Counters {
            calls: BTreeMap::from([("/machine/map".to_owned(), count)]),
            writes: BTreeMap::new(),
        };
        let error = format!("{:#}", counted(1.0).since(&counted(3.0)).unwrap_err());
        assert!(error.contains("/machine/map went back from 3 to 1"), "{error}");
        assert!(Counters::default().since(&counted(3.0)).is_err());
    }

    #[test]
    fn calls_of_relays_are_left_out() {
        let metrics = "towline_control_requests_total{route=\"/relay/admission\"} 7\n\
                       towline_control_requests_total{route=\"/machine/map\"} 3\n";
        assert_eq!(calls(metrics), BTreeMap::from([("/machine/map".to_owned(), 3.0)]));
    }

    #[test]
    fn labels_may_hold_commas_braces_and_quotes() {
        let found = parse_labels(r#"a="x,y",route="/device/{id}",c="say \"no\"""#).unwrap();
        assert_eq!(found["a"], "x,y");
        assert_eq!(found["route"], "/device/{id}");
        assert_eq!(found["c"], r#"say \"no\""#);
        assert!(parse_labels("nonsense").is_none());
    }
}
