use serde::{Deserialize, Serialize};

/// An egress whose target its proxy does not find in the tailnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingTarget {
    /// The target as the pod was given it: a name or an address.
    pub target: String,
    /// Why nothing leads there.
    pub problem: TargetProblem,
}

/// Why nothing leads to the target of an egress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetProblem {
    /// The tailnet shows the proxy no device and no service of that name or address.
    Unknown,
    /// It is in a network behind a router, and the proxy takes no routes.
    RoutesNotAccepted,
    /// The proxy has no address of the family that the target has.
    OtherFamily,
}

/// The longest value that is believed, in bytes.
const MAX_VALUE: usize = 1024;

/// The value as it stands in the Secret, of which the pod that wrote it is a part: stock proxies know nothing of it, and
/// leave behind what one of ours wrote.
#[derive(Serialize, Deserialize)]
struct Written<'a> {
    pod: &'a str,
    target: &'a str,
    problem: TargetProblem,
}

impl MissingTarget {
    /// Reads what the pod with this UID wrote; what another one did counts as absent.
    pub(super) fn read(value: &[u8], pod: &str) -> Option<Self> {
        let value = Some(value).filter(|value| value.len() <= MAX_VALUE)?;
        let written: Written<'_> = serde_json::from_slice(value).ok()?;
        (written.pod == pod).then(|| Self { target: written.target.to_owned(), problem: written.problem })
    }

    /// The value that the pod with this UID writes.
    pub fn write(&self, pod: &str) -> Vec<u8> {
        // Two strings and a word always have a JSON form.
        serde_json::to_vec(&Written { pod, target: &self.target, problem: self.problem }).unwrap_or_default()
    }

    /// Whether it is about this target, however its name is spelled.
    pub fn is_about(&self, target: &str) -> bool {
        self.target.trim_end_matches('.').eq_ignore_ascii_case(target.trim_end_matches('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing() -> MissingTarget {
        MissingTarget { target: "100.64.0.9".to_owned(), problem: TargetProblem::RoutesNotAccepted }
    }

    #[test]
    fn what_one_side_writes_the_other_reads() {
        let value = missing().write("p1");
        assert_eq!(
            String::from_utf8(value.clone()).unwrap(),
            r#"{"pod":"p1","target":"100.64.0.9","problem":"routes-not-accepted"}"#
        );
        assert_eq!(MissingTarget::read(&value, "p1"), Some(missing()));
    }

    #[test]
    fn what_another_pod_left_behind_is_not_believed() {
        assert_eq!(MissingTarget::read(&missing().write("p1"), "p2"), None);
    }

    #[test]
    fn a_value_that_is_too_long_or_says_what_nobody_knows_counts_as_absent() {
        let long = MissingTarget { target: "a".repeat(MAX_VALUE), ..missing() };
        assert_eq!(MissingTarget::read(&long.write("p1"), "p1"), None);
        assert_eq!(MissingTarget::read(br#"{"pod":"p1","target":"a","problem":"bored"}"#, "p1"), None);
    }

    #[test]
    fn the_name_of_a_target_may_be_spelled_in_another_way() {
        let named = MissingTarget { target: "Robbinsdale.taila31de.ts.net.".to_owned(), ..missing() };
        assert!(named.is_about("robbinsdale.taila31de.ts.net"));
        assert!(!named.is_about("lansing.taila31de.ts.net"));
    }
}
