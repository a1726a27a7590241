use std::collections::BTreeMap;

use path::{RegionId, Report};

use crate::Problem;

/// What does not work, by code.
#[derive(Debug, Default)]
pub(super) struct Health {
    problems: BTreeMap<String, String>,
    told: Vec<Problem>,
}

impl Health {
    /// Sets or clears a problem.
    pub(super) fn set(&mut self, code: &str, problem: Option<String>) {
        match problem {
            Some(text) => self.problems.insert(code.to_owned(), text),
            None => self.problems.remove(code),
        };
    }

    pub(super) fn region(&mut self, region: RegionId, what: &str, problem: Option<String>) {
        self.set(&format!("relay-{what}-{region}"), problem);
    }

    /// Forgets a region that is gone.
    pub(super) fn forget(&mut self, region: RegionId) {
        self.region(region, "region", None);
        self.region(region, "says", None);
    }

    /// Takes a measurement.
    pub(super) fn measured(&mut self, report: &Report) {
        let blocked = "UDP does not get out of this network: no STUN server answers. Everything goes by relay, which is \
                       slower. Allow outgoing UDP, at least to port 3478 and to high ports";
        self.set("no-udp", (!report.udp).then(|| blocked.to_owned()));
        let nowhere = "no relay can be reached, neither by UDP nor by HTTPS; peers behind NATs can't find this node. \
                       Check this machine's network, DNS, and the relays' addresses";
        self.set("no-relay-home", (report.home.is_none() || report.latency.is_empty()).then(|| nowhere.to_owned()));
    }

    pub(super) fn problems(&self) -> Vec<Problem> {
        let problem = |(code, text): (&String, &String)| Problem { code: code.clone(), text: text.clone() };
        self.problems.iter().map(problem).collect()
    }

    /// All problems, if they are others than those told last.
    pub(super) fn poll(&mut self) -> Option<Vec<Problem>> {
        let problems = self.problems();
        if problems == self.told {
            return None;
        }
        self.told.clone_from(&problems);
        Some(problems)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_once() {
        let mut health = Health::default();
        assert_eq!(health.poll(), None);
        health.set("no-udp", Some("it is blocked".to_owned()));
        assert_eq!(health.poll().map(|problems| problems.len()), Some(1));
        assert_eq!(health.poll(), None);
        health.set("no-udp", None);
        assert_eq!(health.poll(), Some(Vec::new()));
    }
}
