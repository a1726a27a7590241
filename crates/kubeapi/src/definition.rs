use kube::CustomResourceExt;
use serde_json::{Map, Value};

use crate::{Connector, ProxyClass};

/// The custom resources, each as its CustomResourceDefinition in JSON, in the order of their names.
///
/// # Panics
///
/// Never: a definition made from a type always has a JSON form.
pub fn custom_resource_definitions() -> Vec<Value> {
    [Connector::crd(), ProxyClass::crd()]
        .iter()
        .map(|crd| tidied(serde_json::to_value(crd).unwrap_or_default()))
        .collect()
}

/// The file name of a definition in the chart, as the stock operator names its own.
pub fn definition_file_name(definition: &Value) -> String {
    let plural = definition["spec"]["names"]["plural"].as_str().unwrap_or_default();
    format!("{}_{plural}.yaml", crate::GROUP)
}

/// A definition as YAML.
pub fn definition_yaml(definition: &Value) -> String {
    serde_yaml_ng::to_string(definition).unwrap_or_default()
}

fn tidied(mut definition: Value) -> Value {
    // Argo CD takes an empty list for drift.
    if let Some(names) = definition.pointer_mut("/spec/names").and_then(Value::as_object_mut) {
        names.retain(|_, value| !value.as_array().is_some_and(Vec::is_empty));
    }
    for version in definition.pointer_mut("/spec/versions").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(schema) = version.pointer_mut("/schema/openAPIV3Schema") {
            let ours = ["apiVersion", "kind", "metadata", "spec", "status"];
            debug_assert!(
                schema["properties"].as_object().is_none_or(|all| all.keys().all(|key| ours.contains(&key.as_str())))
            );
            tidy_schema(schema, false);
        }
    }
    definition
}

/// Fields whose types are Kubernetes' own: their descriptions would be most of the document, and `kubectl explain pod` has
/// them.
const FOREIGN: &[&str] = &[
    "affinity",
    "conditions",
    "dnsConfig",
    "imagePullSecrets",
    "resources",
    "securityContext",
    "tolerations",
    "topologySpreadConstraints",
];

/// Takes out what the generator adds and users would stumble over: a field that is absent and one that is null are the
/// same for CEL only when null is not allowed.
fn tidy_schema(schema: &mut Value, foreign: bool) {
    let Some(schema) = schema.as_object_mut() else { return };
    schema.remove("nullable");
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(key) {
            remove_description(inner, foreign);
            tidy_schema(inner, foreign);
        }
    }
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        tidy_properties(properties, foreign);
    }
}

fn tidy_properties(properties: &mut Map<String, Value>, foreign: bool) {
    for (name, inner) in properties.iter_mut() {
        remove_description(inner, foreign);
        tidy_schema(inner, foreign || FOREIGN.contains(&name.as_str()));
    }
}

fn remove_description(schema: &mut Value, foreign: bool) {
    if foreign && let Some(schema) = schema.as_object_mut() {
        schema.remove("description");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(name: &str) -> Value {
        let all = custom_resource_definitions();
        let found = all.into_iter().find(|crd| crd["spec"]["names"]["plural"] == name).unwrap();
        found["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
    }

    #[test]
    fn no_field_may_be_null_and_no_list_of_names_is_empty() {
        for definition in custom_resource_definitions() {
            let text = definition_yaml(&definition);
            assert!(!text.contains("nullable"), "{text}");
            assert!(definition["spec"]["names"]["categories"].is_null());
        }
        assert_eq!(schema("connectors")["properties"]["spec"]["type"], "object");
    }

    #[test]
    fn a_connector_has_the_patterns_and_rules_of_the_stock_one() {
        let spec = schema("connectors")["properties"]["spec"].clone();
        assert_eq!(spec["properties"]["tags"]["items"]["pattern"], "^tag:[a-zA-Z][a-zA-Z0-9-]*$");
        assert_eq!(spec["properties"]["hostname"]["pattern"], "^[a-z0-9][a-z0-9-]{0,61}[a-z0-9]$");
        assert_eq!(spec["properties"]["hostnamePrefix"]["pattern"], "^[a-z0-9][a-z0-9-]{0,61}$");
        assert_eq!(spec["properties"]["replicas"]["minimum"].as_f64(), Some(0.0));
        let routes = &spec["properties"]["subnetRouter"]["properties"]["advertiseRoutes"];
        assert_eq!((routes["minItems"].as_u64(), routes["items"]["format"].as_str()), (Some(1), Some("cidr")));
        assert_eq!(spec["x-kubernetes-validations"].as_array().unwrap().len(), 4);
        assert_eq!(spec["properties"]["tailnet"]["x-kubernetes-validations"][0]["rule"], "self == oldSelf");
    }

    #[test]
    fn conditions_are_a_map_by_type() {
        for name in ["connectors", "proxyclasses"] {
            let conditions = schema(name)["properties"]["status"]["properties"]["conditions"].clone();
            assert_eq!(conditions["x-kubernetes-list-type"], "map", "{conditions}");
            assert_eq!(conditions["x-kubernetes-list-map-keys"][0], "type");
        }
    }

    #[test]
    fn file_names_are_those_of_the_stock_chart() {
        let names: Vec<_> = custom_resource_definitions().iter().map(definition_file_name).collect();
        assert_eq!(names, ["tailscale.com_connectors.yaml", "tailscale.com_proxyclasses.yaml"]);
    }

    #[test]
    fn a_definition_is_small_enough_for_a_helm_release() {
        for definition in custom_resource_definitions() {
            assert!(definition_yaml(&definition).len() < 100_000);
        }
    }
}
