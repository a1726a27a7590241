//! Conditions and their reasons, as the stock operator writes them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Of a Service: whether its proxy carries traffic.
pub const PROXY_READY: &str = "TailscaleProxyReady";

/// Of a Connector: whether its devices carry traffic.
pub const CONNECTOR_READY: &str = "ConnectorReady";

/// Of a ProxyClass: whether it can be used.
pub const PROXY_CLASS_READY: &str = "ProxyClassReady";

/// The longest message of a condition that the API server takes.
pub const MAX_MESSAGE: usize = 32768;

/// Reasons of [`PROXY_READY`].
pub mod proxy {
    /// Traffic can flow.
    pub const CREATED: &str = "ProxyCreated";
    /// It is being made, or something that it needs is not there yet.
    pub const PENDING: &str = "ProxyPending";
    /// It could not be made.
    pub const FAILED: &str = "ProxyFailed";
    /// The Service asks for what can't be.
    pub const INVALID: &str = "ProxyInvalid";
    /// Ours: the proxy is in the tailnet, and nothing there leads to its target.
    pub const TARGET_MISSING: &str = "TargetMissing";
}

/// Reasons of [`CONNECTOR_READY`].
pub mod connector {
    /// Traffic can flow.
    pub const CREATED: &str = "ConnectorCreated";
    /// It is being made, or something that it needs is not there yet.
    pub const CREATING: &str = "ConnectorCreating";
    /// It could not be made.
    pub const CREATION_FAILED: &str = "ConnectorCreationFailed";
    /// The Connector asks for what can't be.
    pub const INVALID: &str = "ConnectorInvalid";
    /// Ours: its devices are in the tailnet, and routes of them are not approved or not forwarded.
    pub const ROUTES_NOT_SERVED: &str = "RoutesNotServed";
}

/// Reasons of [`PROXY_CLASS_READY`].
pub mod proxy_class {
    /// It can be used.
    pub const VALID: &str = "ProxyClassValid";
    /// It can't.
    pub const INVALID: &str = "ProxyClassInvalid";
}

/// Reasons of events that no condition tells.
pub mod event {
    /// A Service asks for what can't be.
    pub const INVALID_SERVICE: &str = "INVALIDSERVICE";
    /// A removal waits for something.
    pub const WAITING: &str = "WaitingForRemoval";
    /// A removal went on without what it waited for.
    pub const LEFT_BEHIND: &str = "RemovalContinuesLater";
    /// A proxy serves, and a change of it was refused.
    pub const NOT_IN_FORCE: &str = "ChangeNotInForce";
    /// A proxy says that it is a device which is another proxy's.
    pub const FOREIGN_DEVICE: &str = "DeviceOfAnother";
    /// What is still to be removed from the tailnet can't be read.
    pub const BROKEN_TOMBSTONE: &str = "TombstoneUnreadable";
    /// A new auth key replaces one that does not work.
    pub const KEY_REPLACED: &str = "AuthKeyReplaced";
    /// A ProxyClass sets a variable that the operator sets too.
    pub const CUSTOM_VARIABLE: &str = "CustomTSEnvVar";
    /// A ProxyClass sets something that has no effect here.
    pub const NO_EFFECT: &str = "FieldWithoutEffect";
}

/// A condition as it should be: what was observed keeps its time unless the status differs.
pub fn next(
    observed: &[Condition],
    kind: &str,
    status: bool,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: &Time,
) -> Condition {
    let status = if status { "True" } else { "False" };
    let since = find(observed, kind).filter(|before| before.status == status);
    let mut message = message.to_owned();
    if message.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
        message.truncate(end);
    }
    Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: generation,
        last_transition_time: since.map_or_else(|| now.clone(), |before| before.last_transition_time.clone()),
    }
}

/// The condition of this kind, if there is one.
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Time {
        serde_json::from_value(serde_json::json!(text)).unwrap()
    }

    #[test]
    fn the_time_of_a_condition_moves_only_with_its_status() {
        let (early, late) = (time("2026-01-01T00:00:00Z"), time("2026-01-01T00:01:00Z"));
        let first = next(&[], PROXY_READY, false, proxy::PENDING, "a", Some(1), &early);
        let same = next(std::slice::from_ref(&first), PROXY_READY, false, proxy::FAILED, "b", Some(2), &late);
        assert_eq!(same.last_transition_time, early);
        assert_eq!((same.reason.as_str(), same.message.as_str()), (proxy::FAILED, "b"));
        let other = next(&[first], PROXY_READY, true, proxy::CREATED, "", Some(2), &late);
        assert_eq!(other.last_transition_time, late);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let condition =
            next(&[], PROXY_READY, false, "a", &"ä".repeat(MAX_MESSAGE), None, &time("2026-01-01T00:00:00Z"));
        assert!(condition.message.len() <= MAX_MESSAGE && condition.message.ends_with('ä'));
    }
}
