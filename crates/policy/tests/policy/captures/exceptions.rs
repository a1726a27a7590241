//! The recordings that we answer otherwise, and why.

/// What of an answer is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Aspect {
    Accept,
    Refusal,
    Filter,
    Peers,
    AllowedIps,
    Ssh,
    Attributes,
    Approval,
}

/// A literal of the recording was replaced after the answer was given, so that it now names another thing.
const ALTERED: &str = "the recording's literal was altered after the answer";

/// Capture, aspect, reason.
pub(crate) const EXCEPTIONS: [(&str, Aspect, &str); 5] = [
    ("nodeattrs-error-e3-autogroup-self", Aspect::Refusal, "the service fails with status 500; we say what is wrong"),
    ("policytest-allpass-grants-only-tag-src-ipv6-literal-dst", Aspect::Filter, ALTERED),
    ("policytest-allpass-grants-only-tag-src-ipv6-literal-dst", Aspect::Peers, ALTERED),
    ("ssh-e1", Aspect::Refusal, ALTERED),
    ("sshtest-malformed-dst-bare-ipv6", Aspect::Refusal, ALTERED),
];

pub(crate) fn reason(id: &str, aspect: Aspect) -> Option<&'static str> {
    EXCEPTIONS.iter().find(|(known, of, _)| *known == id && *of == aspect).map(|(.., reason)| *reason)
}
