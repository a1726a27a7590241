use serde_json::{Value, json};

use crate::VERSION;
use crate::snapshot::Snapshot;

/// A notification of the LocalAPI's bus (`ipn.Notify`), as each who listens may see it.
///
/// Who opens the page of a login may make the machine theirs, so that nobody gets to see one who may not change the node
/// anyway. Preferences and the network's map are shown to the same, as the bus has it that they are asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Notice {
    /// For those who may change the node.
    full: Value,
    /// For everybody else on the machine; nothing when it is none of their business.
    open: Option<Value>,
}

impl Notice {
    /// One that says the same to everybody.
    pub(crate) fn open(fields: Value) -> Self {
        let full = notice_of(fields);
        Self { open: Some(full.clone()), full }
    }

    /// One for those who may change the node.
    pub(crate) fn closed(fields: Value) -> Self {
        Self { full: notice_of(fields), open: None }
    }

    /// What the user should know; for those who may change the node with the page of a login that waits.
    pub(super) fn of_health(snapshot: &Snapshot) -> Self {
        let of = |health| notice_of(json!({"Health": warnings(health)}));
        Self { full: of(&snapshot.health), open: Some(of(&snapshot.open_health)) }
    }

    /// What a listener sees of it.
    pub(crate) fn shown_to(&self, may_write: bool) -> Option<&Value> {
        if may_write { Some(&self.full) } else { self.open.as_ref() }
    }

    /// Whether it carries the network's map.
    pub(crate) fn has_map(&self) -> bool {
        self.full.get("NetMap").is_some()
    }
}

/// A notification with these fields.
pub(crate) fn notice_of(fields: Value) -> Value {
    let mut notice = json!({"Version": VERSION});
    if let (Value::Object(notice), Value::Object(fields)) = (&mut notice, fields) {
        notice.extend(fields);
    }
    notice
}

/// Warnings in the shape of notifications (`health.State`).
fn warnings(health: &[String]) -> Value {
    let warnings = health.iter().enumerate().map(|(number, text)| {
        let code = format!("towline-{number}");
        let warning = json!({"WarnableCode": code, "Severity": "medium", "Title": "", "Text": text,
            "ImpactsConnectivity": false});
        (code, warning)
    });
    json!({"Warnings": Value::Object(warnings.collect())})
}

/// What is known of the network in the shape of notifications (`netmap.NetworkMap`).
pub(crate) fn network_map(snapshot: &Snapshot) -> Option<Value> {
    let netmap = snapshot.mesh.netmap()?;
    Some(json!({
        "Cached": false,
        "SelfNode": netmap.node().as_ref(),
        "AllCaps": netmap.node().cap_map.0.keys().collect::<Vec<_>>(),
        "NodeKey": netmap.node().key,
        "MachineKey": netmap.node().machine,
        "Peers": netmap.peers().values().map(AsRef::as_ref).collect::<Vec<_>>(),
        "DNS": netmap.dns().as_ref(),
        "Domain": netmap.domain(),
        "DomainAuditLogID": "",
        "CollectServices": false,
        "DERPMap": netmap.relays().as_ref(),
        "UserProfiles": netmap.users(),
        "TKAEnabled": false,
        "TKAHead": "",
        "MaxKeyDuration": 0,
    }))
}
