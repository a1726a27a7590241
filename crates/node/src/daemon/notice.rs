use serde_json::{Value, json};

use crate::VERSION;
use crate::snapshot::Snapshot;

/// A notification (`ipn.Notify`) with these fields.
pub(crate) fn notice_of(fields: Value) -> Value {
    let mut notice = json!({"Version": VERSION});
    if let (Value::Object(notice), Value::Object(fields)) = (&mut notice, fields) {
        notice.extend(fields);
    }
    notice
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
