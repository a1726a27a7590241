//! The policy file in the API's words.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use ::policy::{Compiled, Difference, Effect, Policy, PolicyError, Rule, Test};
use api::{
    ApiError, Finding, HistoryQuery, InTailnet, PolicyBody, PolicyCheck, PolicyDetails, PolicyDifference,
    PolicyDocument, PolicyForm, PolicyHistory, PolicyMatch, PolicyPreview, PolicyQuery, PolicyReach, PolicyUpload,
    PolicyVerdict, PolicyVersion, PreviewQuery, PreviewType,
};
use tailcfg::UserId;
use tailnet::{Command, NewPolicy, PolicyPrecondition, PolicyTrial, Refusal, Tailnet};

use super::{Identity, Rest};
use crate::coordination::{Failure, findings};

/// How often a policy is tried, at most, in a tailnet that becomes quite another one each time.
const MOST_TRIALS: usize = 4;

impl Rest {
    /// Puts a policy in force. Who wants to be warned asks for a validation first; programs that set policies can't be asked
    /// back.
    pub(super) async fn put_policy(
        &self,
        who: &Identity,
        at: &InTailnet,
        upload: PolicyUpload,
    ) -> Result<PolicyDocument, ApiError> {
        let author = self.look_at(who, at, |tailnet| Ok(author(tailnet, who)))?;
        let precondition = upload.precondition.map(|precondition| match precondition {
            api::PolicyPrecondition::Etag(etag) => PolicyPrecondition::Etag(etag),
            api::PolicyPrecondition::NeverSet => PolicyPrecondition::NeverSet,
        });
        let (text, form, why) = (upload.text, upload.form, upload.why);
        // It is tried before its turn comes: whoever else waits for a turn doesn't wait for that.
        let mut tried = self.try_out(who, at, move |trial| done(trial.try_policy(&text, None))).await?;
        let mut trials = 1;
        loop {
            let (policy, etag) = (Arc::clone(tried.policy()), tried.review.etag.clone());
            let new = NewPolicy { tried, precondition: precondition.clone(), who: author.clone(), why: why.clone() };
            let set = Command::SetPolicy(Box::new(new));
            match self.coordination.execute(who.tailnet, set, who.actor.clone()).await {
                // Not what is in force when the answer is written: that may be another's already.
                Ok(_) => return InForce::set(etag, policy).show(PolicyQuery::default(), form),
                Err(Failure::Refused(Refusal::TailnetChanged)) if trials < MOST_TRIALS => {
                    trials += 1;
                    tried = self.try_out(who, at, move |trial| done(trial.try_read(policy, None))).await?;
                }
                Err(failure) => return Err(refused(failure)),
            }
        }
    }
}

fn done<T>(tried: Result<T, Refusal>) -> Result<T, ApiError> {
    tried.map_err(|refusal| Failure::from(refusal).into())
}

fn refused(failure: Failure) -> ApiError {
    match failure {
        Failure::Refused(Refusal::PolicyChanged { .. }) => {
            // The very words that gitops-pusher and the Terraform provider look for.
            let message = "precondition failed, invalid old hash";
            ApiError::new(http::StatusCode::PRECONDITION_FAILED, message)
        }
        failure => failure.into(),
    }
}

impl Rest {
    /// The policies that were in force, the newest first.
    pub(super) async fn history(
        &self,
        who: &Identity,
        at: &InTailnet,
        query: HistoryQuery,
    ) -> Result<PolicyHistory, ApiError> {
        self.look_at(who, at, |_| Ok(()))?;
        let shown = |version, who, why, when, policy| PolicyVersion { version, who, why, when: Some(when), policy };
        let versions = match query.version {
            Some(version) => {
                let found = self.coordination.policy(who.tailnet, version).await?;
                found.into_iter().map(|it| shown(it.version, it.who, it.why, it.when, it.text)).collect()
            }
            None => {
                let all = self.coordination.policies(who.tailnet).await?;
                all.into_iter().map(|it| shown(it.version, it.who, it.why, it.when, String::new())).collect()
            }
        };
        Ok(PolicyHistory { versions })
    }
}

/// Who puts a policy in force, for the record.
fn author(tailnet: &Tailnet, who: &Identity) -> String {
    match (who.acting_user().and_then(|id| tailnet.user(id)), who.holder()) {
        (Some(user), _) => user.login.to_string(),
        (None, Some(tailnet::TokenHolder::Client(id))) => format!("OAuth client {id}"),
        (None, _) => String::new(),
    }
}

/// The policy in force, apart from its tailnet.
pub(super) struct InForce {
    etag: String,
    text: String,
    /// None if it is a text that is no policy any more, with why.
    policy: Result<Arc<Policy>, String>,
}

impl InForce {
    pub(super) fn of(tailnet: &Tailnet) -> Result<Self, ApiError> {
        let policy = match tailnet.policy_fault() {
            Some(fault) => Err(fault.to_string()),
            None => Ok(Arc::clone(tailnet.compiled().policy())),
        };
        Ok(Self { etag: tailnet.policy_etag().to_owned(), text: tailnet.policy().text.clone(), policy })
    }

    /// A policy that was just put in force.
    fn set(etag: String, policy: Arc<Policy>) -> Self {
        Self { etag, text: policy.text().to_owned(), policy: Ok(policy) }
    }

    pub(super) fn show(self, query: PolicyQuery, form: PolicyForm) -> Result<PolicyDocument, ApiError> {
        let body = if query.details {
            let warnings = match &self.policy {
                Err(fault) => vec![fault.clone()],
                Ok(policy) => policy.warnings().iter().map(ToString::to_string).collect(),
            };
            PolicyBody::Details(PolicyDetails::new(&self.text, warnings))
        } else {
            match (form, &self.policy) {
                (PolicyForm::Hujson, _) => PolicyBody::Hujson(self.text),
                (PolicyForm::Json, Ok(policy)) => {
                    let document = policy.document();
                    PolicyBody::Json(document.minify(document.root()))
                }
                (PolicyForm::Json, Err(_)) => PolicyBody::Json(plain_json(&self.text)?),
            }
        };
        Ok(PolicyDocument { etag: self.etag, body })
    }
}

/// A policy's text without comments.
fn plain_json(text: &str) -> Result<String, ApiError> {
    let document = ::policy::hujson::Document::parse(text)
        .map_err(|problem| ApiError::internal(format!("the policy in force is no HuJSON: {problem}")))?;
    Ok(document.minify(document.root()))
}

/// Tries a policy, or tests against the policy in force; nothing changes.
pub(super) fn validate(
    trial: &PolicyTrial,
    author: Option<UserId>,
    check: PolicyCheck,
) -> Result<PolicyVerdict, ApiError> {
    let outcome = match check {
        PolicyCheck::Policy(text) => trial.try_policy(&text, author),
        // Its tests of SSH stay: the API has no way to give others.
        PolicyCheck::Tests(text) => match Test::parse_list(&text) {
            Ok(tests) => trial.try_tests(tests),
            Err(error) => return Err(ApiError::bad_request(format!("the tests can't be read: {error}"))),
        },
    };
    let tried = match outcome {
        Ok(tried) => tried,
        Err(refusal) => {
            let data = findings(&refusal);
            return Ok(PolicyVerdict { message: refusal.to_string(), data, difference: None });
        }
    };
    let mut data = Vec::new();
    if !tried.review.warnings.is_empty() {
        data.push(Finding { warnings: tried.review.warnings.clone(), ..Finding::default() });
    }
    let users = &trial.compiled().topology().users;
    let user = author.and_then(|id| users.get(&::policy::UserId(id.0)));
    if let (Some(user), Some(cut_off)) = (user, &tried.review.cuts_author_off) {
        let login = user.login.to_string();
        let warning = cut_off.warning(&login);
        data.push(Finding { user: login, warnings: vec![warning], ..Finding::default() });
    }
    let message = if data.is_empty() { String::new() } else { "warning(s) found".to_owned() };
    Ok(PolicyVerdict { message, data, difference: Some(tell(trial.difference(&tried))) })
}

fn tell(difference: Difference) -> PolicyDifference {
    let reach =
        |reach: ::policy::Reach| PolicyReach { source: reach.source, destination: reach.destination, what: reach.what };
    PolicyDifference {
        opens: difference.opened.into_iter().map(reach).collect(),
        closes: difference.closed.into_iter().map(reach).collect(),
        changes: difference.changed,
        cut_short: difference.cut_short,
    }
}

/// The most names and ports that a preview tells: rules share their lists, and an answer can't.
const MOST_TOLD: usize = 200_000;

/// The rules of a policy that concern a user or an address.
pub(super) fn preview(trial: &PolicyTrial, query: PreviewQuery, text: &str) -> Result<PolicyPreview, ApiError> {
    let text = if text.trim().is_empty() { trial.in_force() } else { text };
    let policy = Policy::parse(text).map_err(|error: PolicyError| ApiError::bad_request(error.to_string()))?;
    let compiled = Compiled::new(Arc::new(policy), trial.compiled().topology().clone());
    let concerned = match query.kind {
        PreviewType::User => {
            let user = compiled.topology().user_by_login(&query.preview_for);
            let user = user.ok_or_else(|| ApiError::not_found("there is no user of this name in this tailnet"))?;
            compiled.rules_of_user(user.0)
        }
        PreviewType::IpPort => {
            let address: SocketAddr = query.preview_for.parse().map_err(|_| {
                ApiError::bad_request("previewFor must be an address and a port, like \"100.64.0.1:443\"")
            })?;
            compiled.rules_to_address(address.ip(), address.port())
        }
    };
    let rules: Vec<&Rule> = concerned.into_iter().filter_map(|at| compiled.policy().rules().get(at)).collect();
    let told = rules.iter().map(|rule| names(rule)).sum::<usize>();
    if told > MOST_TOLD {
        let message = format!(
            "{} rules concern {}, with {told} names and ports: more than the {MOST_TOLD} that are listed",
            rules.len(),
            query.preview_for
        );
        return Err(ApiError::bad_request(message));
    }
    let postures = postures(compiled.policy(), &rules);
    let matches = rules.into_iter().map(describe).collect();
    Ok(PolicyPreview { matches, kind: query.kind, preview_for: query.preview_for, postures })
}

/// How many names and ports a rule is told by.
fn names(rule: &Rule) -> usize {
    rule.sources.len() + rule.destinations.len() * ranges(rule) + rule.via.len() + rule.postures.len()
}

/// What the postures ask for that rules name.
fn postures(policy: &Policy, rules: &[&Rule]) -> BTreeMap<String, Vec<String>> {
    // Each once: thousands of rules may name the same.
    let named: BTreeSet<&Arc<str>> = rules.iter().flat_map(|rule| rule.postures.iter()).collect();
    let conditions = |name| policy.posture(name).unwrap_or_default().iter().map(ToString::to_string).collect();
    named.into_iter().map(|name| (name.to_string(), conditions(name))).collect()
}

fn ranges(rule: &Rule) -> usize {
    match &rule.effect {
        Effect::Ports(all) => all.iter().map(|ports| ports.ranges.len()).sum(),
        Effect::Capabilities(_) => 1,
    }
}

fn describe(rule: &Rule) -> PolicyMatch {
    let ports = match &rule.effect {
        Effect::Ports(ports) => rule
            .destinations
            .iter()
            .flat_map(|destination| ports.iter().map(move |ports| format!("{destination}:{ports}")))
            .collect(),
        Effect::Capabilities(_) => rule.destinations.iter().map(ToString::to_string).collect(),
    };
    PolicyMatch {
        users: rule.sources.iter().map(ToString::to_string).collect(),
        ports,
        line_number: usize::try_from(rule.origin.position.line).unwrap_or(0),
        via: rule.via.iter().map(ToString::to_string).collect(),
        postures: rule.postures.iter().map(ToString::to_string).collect(),
    }
}
