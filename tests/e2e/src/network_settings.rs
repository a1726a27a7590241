use anyhow::{Result, ensure};
use lab::LabBox;

/// What is asked of a computer to learn where it sends what, what it lets through, and whom it asks for names.
const QUESTIONS: [&str; 6] = [
    "ip -4 rule",
    "ip -6 rule",
    "ip -4 route show table all",
    "ip -6 route show table all",
    "nft --stateless list ruleset",
    "cat /etc/resolv.conf",
];

/// Where a computer sends what, what it lets through, and whom it asks for names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkSettings([String; QUESTIONS.len()]);

impl NetworkSettings {
    /// Those of a computer as they are now.
    pub fn of(lab_box: &LabBox) -> Result<Self> {
        let mut answers = [const { String::new() }; QUESTIONS.len()];
        for (answer, question) in answers.iter_mut().zip(QUESTIONS) {
            *answer = lab_box.shell(question)?.stdout;
        }
        Ok(Self(answers))
    }

    /// Whether any answer has a line with these words.
    pub fn tell(&self, words: &str) -> bool {
        self.0.iter().any(|answer| answer.contains(words))
    }

    /// Checks that nothing is other than `before`.
    pub fn ensure_same(&self, before: &Self) -> Result<()> {
        ensure!(self == before, "{}", self.difference(before));
        Ok(())
    }

    /// Checks that rules, routes, firewall and names are all other than `before`; IPv6 need not be.
    pub fn ensure_changed(&self, before: &Self) -> Result<()> {
        let same = QUESTIONS.iter().zip(self.0.iter().zip(&before.0)).filter(|(_, (now, before))| now == before);
        let same: Vec<&str> = same.map(|(question, _)| *question).filter(|question| !question.contains("-6")).collect();
        ensure!(same.is_empty(), "the same as before: {}", same.join(", "));
        Ok(())
    }

    /// The lines that only one of the two has.
    fn difference(&self, before: &Self) -> String {
        let mut told = String::new();
        for (question, (now, before)) in QUESTIONS.iter().zip(self.0.iter().zip(&before.0)) {
            if now != before {
                let lines = only(before, now, '-') + &only(now, before, '+');
                let lines = if lines.is_empty() { format!("the same lines in another order:\n{now}") } else { lines };
                told += &format!("# {question}\n{lines}");
            }
        }
        told
    }
}

/// The lines of one text that the other does not have, with a sign before each.
fn only(one: &str, other: &str, sign: char) -> String {
    let missing = one.lines().filter(|line| !other.lines().any(|known| known == *line));
    missing.map(|line| format!("{sign} {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(routes: &str, firewall: &str, names: &str) -> NetworkSettings {
        NetworkSettings([routes, "", routes, "", firewall, names].map(str::to_owned))
    }

    #[test]
    fn what_is_left_behind_is_told_by_question_and_line() {
        let before = settings("default via 10.0.0.1\n", "", "nameserver 10.0.0.1\n");
        let left = settings("default via 10.0.0.1\n", "table inet towline\n", "nameserver 100.100.100.100\n");
        before.ensure_same(&before).unwrap();
        let told = left.ensure_same(&before).unwrap_err().to_string();
        assert_eq!(
            told,
            "# nft --stateless list ruleset\n+ table inet towline\n\
             # cat /etc/resolv.conf\n- nameserver 10.0.0.1\n+ nameserver 100.100.100.100\n"
        );
    }

    #[test]
    fn what_has_not_changed_is_named() {
        let before = settings("a\n", "", "c\n");
        settings("x\n", "y\n", "z\n").ensure_changed(&before).unwrap();
        let told = settings("x\n", "y\n", "c\n").ensure_changed(&before).unwrap_err().to_string();
        assert_eq!(told, "the same as before: cat /etc/resolv.conf");
    }
}
