//! Trying a policy without holding up the tailnet that it is for.

use std::sync::Arc;

use policy::{Compiled, Difference, Policy, PolicyError};
use tailcfg::{DerpMap, UserId};

use crate::refusal::Refusal;
use crate::tailnet::{PolicyReview, Tailnet};

/// What a policy is tried on: the policy in force and the tailnet as they were at one moment.
///
/// Reading a policy and comparing it takes up to seconds, which nobody else should wait for; this can be taken away from the
/// tailnet, to where it may take its time.
#[derive(Debug, Clone)]
pub struct PolicyTrial {
    compiled: Arc<Compiled>,
    text: String,
    relays: Arc<DerpMap>,
    revision: u64,
}

/// A policy that was read and has passed its own tests.
#[derive(Debug, Clone)]
pub struct TriedPolicy {
    /// What it would do.
    pub review: PolicyReview,
    compiled: Arc<Compiled>,
    /// The revision of the tailnet that it was tried on.
    revision: u64,
}

/// Policies are equal if their texts are.
impl PartialEq for TriedPolicy {
    fn eq(&self, other: &Self) -> bool {
        self.review == other.review && self.revision == other.revision && self.text() == other.text()
    }
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
        let compiled = Compiled::new(Arc::new(Policy::parse(text)?), self.compiled.topology().clone());
        compiled.verify()?;
        crate::relays::told(&self.relays, compiled.policy()).map_err(PolicyError::from)?;
        let policy = compiled.policy();
        let review = PolicyReview {
            etag: crate::rules::etag(policy),
            warnings: policy.warnings().iter().map(ToString::to_string).collect(),
            cuts_author_off: author.is_some_and(|author| crate::rules::cuts_off(&self.compiled, &compiled, author)),
        };
        Ok(TriedPolicy { review, compiled: Arc::new(compiled), revision: self.revision })
    }

    /// What a policy that was tried opens and closes.
    pub fn difference(&self, tried: &TriedPolicy) -> Difference {
        Difference::between(&self.compiled, &tried.compiled)
    }
}

impl TriedPolicy {
    /// The policy's text.
    pub fn text(&self) -> &str {
        self.compiled.policy().text()
    }

    /// The policy compiled against the tailnet as it is now. What was tried stays tried: whether the tests of a policy still
    /// hold after a device came or went is not asked of the one in force either.
    pub(crate) fn compiled_for(&self, tailnet: &Tailnet) -> Arc<Compiled> {
        if self.revision == tailnet.revision() {
            return Arc::clone(&self.compiled);
        }
        Arc::new(Compiled::new(Arc::clone(self.compiled.policy()), tailnet.compiled().topology().clone()))
    }
}

impl Tailnet {
    /// What a policy can be tried on, apart from the tailnet.
    pub fn policy_trial(&self) -> PolicyTrial {
        PolicyTrial {
            compiled: self.rules.shared(),
            text: self.policy().text.clone(),
            relays: self.server_relays(),
            revision: self.revision(),
        }
    }
}
