//! Trying a policy without holding up the tailnet that it is for.

use std::sync::Arc;

use policy::{Compiled, CutOff, Difference, Policy, PolicyError, Test};
use tailcfg::{DerpMap, UserId};

use crate::refusal::Refusal;
use crate::rules::Rules;
use crate::tailnet::Tailnet;

/// What a policy is tried on: the policy in force and the tailnet as they were at one moment.
///
/// Reading a policy and comparing it takes up to seconds, which nobody else should wait for; this can be taken away from the
/// tailnet, to where it may take its time.
#[derive(Debug, Clone)]
pub struct PolicyTrial {
    compiled: Arc<Compiled>,
    text: String,
    relays: Arc<DerpMap>,
}

/// A policy that was read, is compiled and has passed its own tests: what is left is to put it in force.
#[derive(Debug, Clone, PartialEq)]
pub struct TriedPolicy {
    /// What it would do.
    pub review: PolicyReview,
    rules: Rules,
}

/// What a policy would do if it were put in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyReview {
    /// Its mark.
    pub etag: String,
    /// What is odd about it.
    pub warnings: Vec<String>,
    /// What it takes away from its author, if that is their own devices or everything.
    pub cuts_author_off: Option<CutOff>,
}

impl PolicyTrial {
    /// The policy in force, compiled against the tailnet.
    pub fn compiled(&self) -> &Arc<Compiled> {
        &self.compiled
    }

    /// The text of the policy in force.
    pub fn in_force(&self) -> &str {
        &self.text
    }

    /// Reads a policy and tries it, with the tests that it contains; nothing changes. An empty text is the policy that a new
    /// tailnet has. Without an author nobody can be cut off.
    ///
    /// # Errors
    /// It does not parse, names unknown things, or fails a test of its own.
    pub fn try_policy(&self, text: &str, author: Option<UserId>) -> Result<TriedPolicy, Refusal> {
        let text = if text.trim().is_empty() { Policy::default_for_new_tailnet() } else { text };
        self.try_read(Arc::new(Policy::parse(text)?), author)
    }

    /// Tries a policy that was read before; see [`PolicyTrial::try_policy`].
    ///
    /// # Errors
    /// It names unknown things, or fails a test of its own.
    pub fn try_read(&self, policy: Arc<Policy>, author: Option<UserId>) -> Result<TriedPolicy, Refusal> {
        let compiled = Compiled::new(policy, self.compiled.topology().clone());
        compiled.verify()?;
        crate::relays::told(&self.relays, compiled.policy()).map_err(PolicyError::from)?;
        let cuts_author_off =
            author.and_then(|author| self.compiled.would_cut_off(&compiled, policy::UserId(author.0)));
        let rules = Rules::of(compiled);
        let warnings = rules.policy().warnings().iter().map(ToString::to_string).collect();
        Ok(TriedPolicy { review: PolicyReview { etag: rules.etag().to_owned(), warnings, cuts_author_off }, rules })
    }

    /// Runs tests of reachability against the policy in force, in place of its own. It can't cut anybody off from itself.
    ///
    /// # Errors
    /// One fails, or the policy in force is none any more.
    pub fn try_tests(&self, tests: Vec<Test>) -> Result<TriedPolicy, Refusal> {
        let policy = self.compiled.policy();
        if policy.text() == self.text {
            self.try_read(Arc::new(policy.with_tests(tests)), None)
        } else {
            self.try_policy(&self.text, None)
        }
    }

    /// What a policy that was tried opens and closes.
    pub fn difference(&self, tried: &TriedPolicy) -> Difference {
        Difference::between(&self.compiled, tried.rules.compiled())
    }
}

impl TriedPolicy {
    /// The policy as it was read.
    pub fn policy(&self) -> &Arc<Policy> {
        self.rules.policy()
    }

    /// The policy compiled against the tailnet as it is now. What was tried stays tried: whether the tests of a policy still
    /// hold after a device came or went is not asked of the one in force either.
    ///
    /// # Errors
    /// Too much has changed since for that to be done while everybody waits.
    pub(crate) fn rules_for(mut self, tailnet: &Tailnet) -> Result<Rules, Refusal> {
        let follows = self.rules.follow(tailnet.compiled().topology());
        if follows { Ok(self.rules) } else { Err(Refusal::TailnetChanged) }
    }
}

impl Tailnet {
    /// What a policy can be tried on, apart from the tailnet.
    pub fn policy_trial(&self) -> PolicyTrial {
        PolicyTrial { compiled: self.rules.shared(), text: self.policy().text.clone(), relays: self.server_relays() }
    }
}
