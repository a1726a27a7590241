use super::listed;
use crate::{Compiled, NodeId, SshRule};

impl Compiled {
    /// What else a rule of SSH says of those that it lets in.
    pub(super) fn login_notes(&self, rule: &SshRule) -> Vec<String> {
        let mut notes = Vec::new();
        if !rule.accept_env.is_empty() {
            let patterns = listed(rule.accept_env.iter().cloned());
            notes.push(format!("it may set these environment variables: {patterns}"));
        }
        if !rule.recorders.is_empty() {
            let nodes = self.topology().nodes.iter();
            let recorders = nodes.filter(|(_, node)| node.tags().any(|tag| rule.recorders.contains(tag)));
            let recorders: Vec<NodeId> = recorders.map(|(id, _)| *id).collect();
            let who = match recorders.is_empty() {
                true => {
                    format!("nobody yet, as no device has {}", listed(rule.recorders.iter().map(ToString::to_string)))
                }
                false => self.names_of(&recorders),
            };
            let else_what = if rule.enforce_recorder { "refused" } else { "let through" };
            notes.push(format!("the session is recorded by {who}; one that isn't recorded is {else_what}"));
        }
        notes
    }
}
