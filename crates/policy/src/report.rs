//! The words of `towline policy check`: what is said of a policy that was checked.

use std::fmt;

use crate::Difference;

/// What checking a policy found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong, a line each; or that there are warnings.
    pub message: String,
    /// What is wrong, or probably not meant, in detail.
    pub findings: Vec<Finding>,
    /// What the policy opens and closes; none where that isn't known.
    pub difference: Option<Difference>,
}

/// What was found for somebody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    /// Whom it is about; empty for the policy as a whole.
    pub user: String,
    /// What fails.
    pub errors: Vec<String>,
    /// What works and is probably not meant.
    pub warnings: Vec<String>,
}

impl Report {
    /// Whether the policy would be refused: not where the message only announces warnings.
    pub fn is_wrong(&self) -> bool {
        let has_errors = self.findings.iter().any(|finding| !finding.errors.is_empty());
        has_errors || (!self.message.is_empty() && self.findings.iter().all(|finding| finding.warnings.is_empty()))
    }

    /// The findings, a line each; nothing where all is well.
    pub fn verdict(&self) -> String {
        let mut text = String::new();
        if !self.message.is_empty() {
            text.push_str(&self.message);
            text.push('\n');
        }
        for Finding { user, errors, warnings } in &self.findings {
            let of = if user.is_empty() { String::new() } else { format!("{user}: ") };
            errors.iter().for_each(|error| text.push_str(&format!("  {of}{error}\n")));
            warnings.iter().for_each(|warning| text.push_str(&format!("  warning: {of}{warning}\n")));
        }
        text
    }

    /// What the policy opens and closes, a line each; nothing where that isn't known.
    pub fn effects(&self) -> String {
        self.difference.as_ref().map(Difference::to_string).unwrap_or_default()
    }

    /// All that is said of the policy in a file.
    pub fn of_file(&self, file: impl fmt::Display) -> String {
        match self.verdict() {
            text if text.is_empty() => format!("{file} is fine.\n{}", self.effects()),
            text => format!("{text}{}", self.effects()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_alone_refuse_nothing() {
        let finding = |errors: &[&str], warnings: &[&str]| Finding {
            user: "ann@example.com".to_owned(),
            errors: errors.iter().map(|text| (*text).to_owned()).collect(),
            warnings: warnings.iter().map(|text| (*text).to_owned()).collect(),
        };
        let report = |message: &str, findings: Vec<Finding>| Report {
            message: message.to_owned(),
            findings,
            difference: Some(Difference { cut_short: true, ..Difference::default() }),
        };
        let warned = report("warning(s) found", vec![finding(&[], &["odd"])]);
        let says = "warning(s) found\n  warning: ann@example.com: odd\nNot everything was compared one by one: a rule about too \
                    many is told as it stands.\n";
        assert_eq!((warned.is_wrong(), warned.of_file("x").as_str()), (false, says));
        assert!(report("test(s) failed", vec![finding(&["no"], &["odd"])]).is_wrong());
        assert!(report("line 1, column 1: no", Vec::new()).is_wrong());
        assert!(!report("", Vec::new()).is_wrong());
    }
}
