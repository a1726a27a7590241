//! The policy file in the API's words.

use std::net::SocketAddr;
use std::sync::Arc;

use ::policy::{Compiled, Difference, Effect, Policy, PolicyError, Ports, Rule};
use api::{
    ApiError, Finding, HistoryQuery, InTailnet, PolicyBody, PolicyCheck, PolicyDetails, PolicyDifference,
    PolicyDocument, PolicyForm, PolicyHistory, PolicyMatch, PolicyPreview, PolicyQuery, PolicyReach, PolicyUpload,
    PolicyVerdict, PolicyVersion, PreviewQuery, PreviewType,
};
use serde_json::Value;
use tailcfg::UserId;
use tailnet::{Command, NewPolicy, PolicyPrecondition, Refusal, Tailnet};

use super::{Identity, Rest};
use crate::coordination::{Failure, findings};

impl Rest {
    /// Puts a policy in force.
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
        let new = NewPolicy {
            text: upload.text,
            precondition,
            // Who wants to be warned asks for a validation first; programs that set policies can't be asked back.
            confirmed: true,
            who: author,
            why: upload.why,
        };
        let set = self.coordination.execute(who.tailnet, Command::SetPolicy(new), who.actor.clone()).await;
        match set {
            Ok(_) => self.look(who, |tailnet| show(tailnet, PolicyQuery::default(), upload.form)),
            Err(Failure::Refused(Refusal::PolicyChanged { .. })) => {
                // The very words that gitops-pusher and the Terraform provider look for.
                let message = "precondition failed, invalid old hash";
                Err(ApiError::new(http::StatusCode::PRECONDITION_FAILED, message))
            }
            Err(failure) => Err(failure.into()),
        }
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

/// The policy in force.
pub(super) fn show(tailnet: &Tailnet, query: PolicyQuery, form: PolicyForm) -> Result<PolicyDocument, ApiError> {
    let text = tailnet.policy().text.clone();
    let body = if query.details {
        let warnings = match tailnet.policy_fault() {
            Some(fault) => vec![fault.to_string()],
            None => tailnet.compiled().policy().warnings().iter().map(ToString::to_string).collect(),
        };
        PolicyBody::Details(PolicyDetails::new(&text, warnings))
    } else {
        match form {
            PolicyForm::Hujson => PolicyBody::Hujson(text),
            PolicyForm::Json => PolicyBody::Json(plain_json(&text)?),
        }
    };
    Ok(PolicyDocument { etag: tailnet.policy_etag().to_owned(), body })
}

/// A policy's text without comments.
fn plain_json(text: &str) -> Result<String, ApiError> {
    let document = ::policy::hujson::Document::parse(text)
        .map_err(|problem| ApiError::internal(format!("the policy in force is no HuJSON: {problem}")))?;
    Ok(document.minify(document.root()))
}

/// Tries a policy, or tests against the policy in force; nothing changes.
pub(super) fn validate(
    tailnet: &Tailnet,
    author: Option<UserId>,
    check: PolicyCheck,
) -> Result<PolicyVerdict, ApiError> {
    let text = match check {
        PolicyCheck::Policy(text) => text,
        PolicyCheck::Tests(tests) => with_tests(&tailnet.policy().text, &tests)?,
    };
    match tailnet.compare_policy(&text, author) {
        Ok((review, difference)) => {
            let mut data = Vec::new();
            if !review.warnings.is_empty() {
                data.push(Finding { warnings: review.warnings, ..Finding::default() });
            }
            if let Some(user) = author.filter(|_| review.cuts_author_off).and_then(|id| tailnet.user(id)) {
                let login = user.login.to_string();
                let warning = Refusal::PolicyCutsAuthorOff { author: login.clone() }.to_string();
                data.push(Finding { user: login, warnings: vec![warning], ..Finding::default() });
            }
            let message = if data.is_empty() { String::new() } else { "warning(s) found".to_owned() };
            Ok(PolicyVerdict { message, data, difference: Some(tell(difference)) })
        }
        Err(refusal) => Ok(PolicyVerdict { message: refusal.to_string(), data: findings(&refusal), difference: None }),
    }
}

fn tell(difference: Difference) -> PolicyDifference {
    let reach =
        |reach: ::policy::Reach| PolicyReach { source: reach.source, destination: reach.destination, what: reach.what };
    PolicyDifference {
        opens: difference.opened.into_iter().map(reach).collect(),
        closes: difference.closed.into_iter().map(reach).collect(),
        cut_short: difference.cut_short,
    }
}

/// The policy in force with other tests of reachability. Its tests of SSH stay: the API has no way to give others.
fn with_tests(text: &str, tests: &str) -> Result<String, ApiError> {
    let unreadable = |error: String| ApiError::bad_request(format!("the tests can't be read: {error}"));
    let document = ::policy::hujson::Document::parse(tests).map_err(|problem| unreadable(problem.to_string()))?;
    let tests: Value =
        serde_json::from_str(&document.minify(document.root())).map_err(|error| unreadable(error.to_string()))?;
    let text = if text.trim().is_empty() { Policy::default_for_new_tailnet() } else { text };
    let mut policy: Value =
        serde_json::from_str(&plain_json(text)?).map_err(|error| ApiError::internal(error.to_string()))?;
    if let Value::Object(fields) = &mut policy {
        // A policy spells its fields in any case.
        fields.retain(|name, _| !name.eq_ignore_ascii_case("tests"));
        fields.insert("tests".to_owned(), tests);
    }
    Ok(policy.to_string())
}

/// The rules of a policy that concern a user or an address.
pub(super) fn preview(tailnet: &Tailnet, query: PreviewQuery, text: &str) -> Result<PolicyPreview, ApiError> {
    let text = if text.trim().is_empty() { &tailnet.policy().text } else { text };
    let policy = Policy::parse(text).map_err(|error: PolicyError| ApiError::bad_request(error.to_string()))?;
    let compiled = Compiled::new(Arc::new(policy), tailnet.compiled().topology().clone());
    let concerned = match query.kind {
        PreviewType::User => compiled.rules_of_user(user_named(tailnet, &query.preview_for)?),
        PreviewType::IpPort => {
            let address: SocketAddr = query.preview_for.parse().map_err(|_| {
                ApiError::bad_request("previewFor must be an address and a port, like \"100.64.0.1:443\"")
            })?;
            compiled.rules_to_address(address.ip(), address.port())
        }
    };
    let rules = compiled.policy().rules();
    let matches = concerned.into_iter().filter_map(|at| rules.get(at)).map(describe).collect();
    Ok(PolicyPreview { matches, kind: query.kind, preview_for: query.preview_for })
}

fn user_named(tailnet: &Tailnet, login: &str) -> Result<::policy::UserId, ApiError> {
    let user = tailnet.users().find(|user| user.login.as_str() == login);
    let user = user.ok_or_else(|| ApiError::not_found("there is no user of this name in this tailnet"))?;
    Ok(::policy::UserId(user.id.0))
}

fn describe(rule: &Rule) -> PolicyMatch {
    let ports = match &rule.effect {
        Effect::Ports(ports) => rule
            .destinations
            .iter()
            .flat_map(|destination| ports.iter().map(move |ports| format!("{destination}:{}", spell(ports))))
            .collect(),
        Effect::Capabilities(_) => rule.destinations.iter().map(ToString::to_string).collect(),
    };
    PolicyMatch {
        users: rule.sources.iter().map(ToString::to_string).collect(),
        ports,
        line_number: usize::try_from(rule.origin.position.line).unwrap_or(0),
    }
}

/// Ports as a policy spells them, `443` or `tcp:80-90`.
fn spell(ports: &Ports) -> String {
    let ranges: Vec<_> = ports.ranges.iter().map(ToString::to_string).collect();
    let protocol = ports.protocol.map(|protocol| format!("{protocol}:")).unwrap_or_default();
    format!("{protocol}{}", ranges.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_take_the_place_of_a_policys_own_however_it_spells_them_and_those_of_ssh_stay() {
        let own = r#"{
            "ACLs": [], // nothing
            "Tests": [{"src": "ann@example.com", "accept": ["10.0.0.1:22"]}],
            "SSHTests": [{"src": "ann@example.com", "dst": ["ann@example.com"], "deny": ["root"]}],
        }"#;
        let text = with_tests(own, r#"[{"src": "ben@example.com", "deny": ["10.0.0.1:22"]}, ]"#).unwrap();
        let policy = Policy::parse(&text).unwrap();
        let sources: Vec<&str> = policy.tests().iter().map(|test| test.source.as_str()).collect();
        assert_eq!((sources, policy.ssh_tests().len()), (vec!["ben@example.com"], 1));
        let of_a_new_tailnet = Policy::parse(&with_tests(" ", "[]").unwrap()).unwrap();
        assert_eq!(of_a_new_tailnet.rules().len(), 1);
    }
}
