//! The policy file in the API's words.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ::policy::{Alias, Autogroup, Compiled, Difference, Effect, Party, Policy, PolicyError, Ports, Rule};
use api::{
    ApiError, Finding, InTailnet, PolicyBody, PolicyCheck, PolicyDetails, PolicyDifference, PolicyDocument, PolicyForm,
    PolicyMatch, PolicyPreview, PolicyQuery, PolicyReach, PolicyUpload, PolicyVerdict, PreviewQuery, PreviewType,
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
            why: String::new(),
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

/// The policy in force with other tests.
fn with_tests(text: &str, tests: &str) -> Result<String, ApiError> {
    let unreadable = |error: String| ApiError::bad_request(format!("the tests can't be read: {error}"));
    let document = ::policy::hujson::Document::parse(tests).map_err(|problem| unreadable(problem.to_string()))?;
    let tests: Value =
        serde_json::from_str(&document.minify(document.root())).map_err(|error| unreadable(error.to_string()))?;
    let mut policy: Value =
        serde_json::from_str(&plain_json(text)?).map_err(|error| ApiError::internal(error.to_string()))?;
    if let Value::Object(fields) = &mut policy {
        fields.insert("tests".to_owned(), tests);
        fields.shift_remove("sshTests");
    }
    Ok(policy.to_string())
}

/// The rules of a policy that concern a user or an address.
pub(super) fn preview(tailnet: &Tailnet, query: PreviewQuery, text: &str) -> Result<PolicyPreview, ApiError> {
    let text = if text.trim().is_empty() { &tailnet.policy().text } else { text };
    let policy = Policy::parse(text).map_err(|error: PolicyError| ApiError::bad_request(error.to_string()))?;
    let policy = Arc::new(policy);
    let concerned: Vec<usize> = match query.kind {
        PreviewType::User => of_user(tailnet, &policy, &query.preview_for)?,
        PreviewType::IpPort => to_address(tailnet, &policy, &query.preview_for)?,
    };
    let matches = concerned.into_iter().filter_map(|at| policy.rules().get(at)).map(describe).collect();
    Ok(PolicyPreview { matches, kind: query.kind, preview_for: query.preview_for })
}

/// The rules whose sources a user's devices are among.
fn of_user(tailnet: &Tailnet, policy: &Policy, login: &str) -> Result<Vec<usize>, ApiError> {
    let user = tailnet.users().find(|user| user.login.as_str() == login);
    let user = user.ok_or_else(|| ApiError::not_found("there is no user of this name in this tailnet"))?;
    let role = user.role;
    let named = |alias: &Alias| match alias {
        Alias::Anyone => true,
        Alias::User(name) => **name == *login,
        Alias::UsersOf(domain) => login.split_once('@').is_some_and(|(_, own)| *own == **domain),
        Alias::Group(name) => {
            policy.group(name).is_some_and(|members| members.iter().any(|member| member.matches(login)))
        }
        Alias::Auto(Autogroup::Member | Autogroup::DangerAll) => true,
        Alias::Auto(Autogroup::Role(wanted)) => {
            wanted.name() == role.name() || (*wanted == ::policy::Role::Admin && role == tailnet::Role::Owner)
        }
        _ => false,
    };
    let rules = policy.rules().iter().enumerate();
    Ok(rules.filter(|(_, rule)| rule.sources.iter().any(named)).map(|(at, _)| at).collect())
}

/// The rules by which some device reaches an address and port.
fn to_address(tailnet: &Tailnet, policy: &Arc<Policy>, address: &str) -> Result<Vec<usize>, ApiError> {
    let unreadable = || ApiError::bad_request("previewFor must be an address and a port, like \"100.64.0.1:443\"");
    let (ip, port): (IpAddr, u16) =
        address.parse().map(|address: SocketAddr| (address.ip(), address.port())).map_err(|_| unreadable())?;
    let topology = tailnet.compiled().topology().clone();
    let sources: Vec<_> = topology.nodes.keys().copied().collect();
    let compiled = Compiled::new(Arc::clone(policy), topology);
    let mut rules = std::collections::BTreeSet::new();
    for source in sources {
        for protocol in [filter::Protocol::TCP, filter::Protocol::UDP] {
            let query =
                ::policy::Query { source: Party::Node(source), destination: Party::Address(ip), protocol, port };
            rules.extend(compiled.decide(&query).allowed_by);
        }
    }
    Ok(rules.into_iter().collect())
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
