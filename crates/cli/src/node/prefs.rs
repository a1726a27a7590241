use http::Method;
use serde_json::{Map, Value};

use super::{LocalApi, LocalApiError};

/// The daemon's settings, by the names that the LocalAPI gives them; those that this command does not know stay as they
/// are.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub(super) struct Prefs(Map<String, Value>);

/// New values of some settings.
pub(super) type Changes = Map<String, Value>;

impl Prefs {
    /// The settings in force.
    pub(super) async fn load(api: &LocalApi) -> Result<Self, LocalApiError> {
        api.get("prefs").await
    }

    /// Asks whether the daemon could live with these settings.
    pub(super) async fn check(&self, api: &LocalApi) -> Result<(), LocalApiError> {
        let body = Value::Object(self.0.clone());
        let answer: Value = api.post("check-prefs", Some(&body), std::time::Duration::from_secs(30)).await?;
        match answer.get("Error").and_then(Value::as_str).filter(|error| !error.is_empty()) {
            Some(error) => {
                Err(LocalApiError::Refused { status: http::StatusCode::BAD_REQUEST, text: error.to_owned() })
            }
            None => Ok(()),
        }
    }

    /// Puts changes in force and leaves everything else.
    pub(super) async fn change(api: &LocalApi, changes: &Changes) -> Result<Self, LocalApiError> {
        api.patch("prefs", &Value::Object(masked(changes))).await
    }

    /// Starts the daemon's work with these settings, and a key to join by.
    pub(super) async fn start(&self, api: &LocalApi, key: Option<&str>) -> Result<(), LocalApiError> {
        let mut options = Map::new();
        options.insert("UpdatePrefs".to_owned(), Value::Object(self.0.clone()));
        if let Some(key) = key {
            options.insert("AuthKey".to_owned(), key.into());
        }
        api.command(Method::POST, "start", Some(&Value::Object(options))).await
    }

    /// These settings with changes.
    pub(super) fn with(&self, changes: &Changes) -> Self {
        let mut prefs = self.clone();
        for (name, value) in changes {
            // What is set within an object leaves its other fields.
            match (prefs.0.get_mut(name), value) {
                (Some(Value::Object(old)), Value::Object(new)) => old.extend(new.clone()),
                _ => drop(prefs.0.insert(name.clone(), value.clone())),
            }
        }
        prefs
    }

    pub(super) fn value(&self, name: &str) -> &Value {
        self.0.get(name).unwrap_or(&Value::Null)
    }

    pub(super) fn text(&self, name: &str) -> &str {
        self.value(name).as_str().unwrap_or_default()
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.value(name).as_bool().unwrap_or_default()
    }

    pub(super) fn list(&self, name: &str) -> Vec<String> {
        let values = self.value(name).as_array().map(Vec::as_slice).unwrap_or_default();
        values.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
    }
}

/// Changes as the LocalAPI takes them: `XSet: true` beside each `X`. Within an object each field has its own mark.
fn masked(changes: &Changes) -> Map<String, Value> {
    let mut body = Map::new();
    for (name, value) in changes {
        body.insert(name.clone(), value.clone());
        let mark = match value {
            Value::Object(fields) if name == "AutoUpdate" => {
                Value::Object(fields.keys().map(|field| (format!("{field}Set"), true.into())).collect())
            }
            _ => true.into(),
        };
        body.insert(format!("{name}Set"), mark);
    }
    body
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn changes(value: Value) -> Changes {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn each_change_is_marked_as_set() {
        let body = masked(&changes(json!({"RouteAll": true, "AutoUpdate": {"Check": false}})));
        let wanted = json!({
            "RouteAll": true, "RouteAllSet": true,
            "AutoUpdate": {"Check": false}, "AutoUpdateSet": {"CheckSet": true},
        });
        assert_eq!(Value::Object(body), wanted);
    }

    #[test]
    fn what_is_not_known_stays() {
        let prefs = Prefs(changes(json!({"Future": [1], "AutoUpdate": {"Check": true, "Apply": null}})));
        let prefs = prefs.with(&changes(json!({"Hostname": "x", "AutoUpdate": {"Apply": true}})));
        assert_eq!(
            serde_json::to_value(prefs).unwrap(),
            json!({"Future": [1], "AutoUpdate": {"Check": true, "Apply": true}, "Hostname": "x"})
        );
    }
}
