//! The Helm chart: what it renders, and that its definitions are those of the types.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/chart").canonicalize().unwrap()
}

fn helm(arguments: &[&str]) -> (bool, String) {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = variable("TOWLINE_CACHE")
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("towline")))
        .or_else(|| Some(variable("HOME")?.join(".cache/towline")))
        .expect("HOME is set");
    let helm = cache.join("bin/helm");
    assert!(helm.is_file(), "{} is not there: run `cargo xtask fetch`", helm.display());
    let output = Command::new(helm).args(arguments).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

fn render(sets: &[&str]) -> Result<Vec<Value>, String> {
    let chart = chart().display().to_string();
    let mut arguments =
        vec!["template", "tailscale-operator", &chart, "--namespace", "tailscale", "--kube-version", "1.34.0"];
    arguments.extend(sets.iter().flat_map(|set| ["--set", set]));
    let (rendered, text) = helm(&arguments);
    if !rendered {
        return Err(text);
    }
    let documents = serde_yaml_ng::Deserializer::from_str(&text).map(|document| Value::deserialize(document).unwrap());
    Ok(documents.filter(|document| !document.is_null()).collect())
}

fn one<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found: Vec<&Value> =
        objects.iter().filter(|one| one["kind"] == kind && one["metadata"]["name"] == name).collect();
    assert_eq!(found.len(), 1, "{kind} {name}: {found:?}");
    found[0]
}

const ALL: &[&str] = &[
    "loginServer=https://control.example.com",
    "oauth.clientId=a",
    "oauth.clientSecret=b",
    "apiServerProxy.enabled=true",
    "apiServerProxy.groups={system:masters,tailnet-readers}",
    "caBundle=-----BEGIN CERTIFICATE-----",
];

#[test]
fn the_definitions_are_those_of_the_types() {
    for mut definition in kubeapi::custom_resource_definitions() {
        definition["metadata"]["annotations"] = serde_json::json!({"helm.sh/resource-policy": "keep"});
        let path = chart().join("templates/crds").join(kubeapi::definition_file_name(&definition));
        let text =
            format!("{{{{- if .Values.installCRDs }}}}\n{}{{{{- end }}}}\n", kubeapi::definition_yaml(&definition));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, text).unwrap();
        } else {
            let found = fs::read_to_string(&path).unwrap_or_default();
            assert!(found == text, "{} is old: run this test with UPDATE=1", path.display());
        }
    }
}

#[test]
fn helm_finds_nothing_wrong_with_the_chart() {
    let (fine, text) = helm(&["lint", "--strict", &chart().display().to_string()]);
    assert!(fine, "{text}");
}

#[test]
fn the_definitions_stay_when_the_chart_goes() {
    let objects = render(&[]).unwrap();
    for name in ["connectors.tailscale.com", "proxyclasses.tailscale.com"] {
        let definition = one(&objects, "CustomResourceDefinition", name);
        assert_eq!(definition["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
    }
    let without = render(&["installCRDs=false"]).unwrap();
    assert!(without.iter().all(|object| object["kind"] != "CustomResourceDefinition"));
}

#[test]
fn every_pod_of_the_chart_is_restricted() {
    let objects = render(ALL).unwrap();
    let pods: Vec<&Value> =
        objects.iter().map(|object| &object["spec"]["template"]["spec"]).filter(|pod| !pod.is_null()).collect();
    assert_eq!(pods.len(), 3);
    for pod in pods {
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{pod}");
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{pod}");
        let security = &pod["containers"][0]["securityContext"];
        assert_eq!(security["allowPrivilegeEscalation"], false, "{pod}");
        assert_eq!(security["readOnlyRootFilesystem"], true, "{pod}");
        assert_eq!(security["capabilities"], serde_json::json!({"drop": ["ALL"]}), "{pod}");
    }
}

#[test]
fn the_operator_may_impersonate_nobody_and_its_proxy_only_whom_the_values_list() {
    let objects = render(ALL).unwrap();
    let impersonating: Vec<&Value> = objects
        .iter()
        .filter(|object| {
            object["rules"]
                .as_array()
                .is_some_and(|rules| rules.iter().any(|rule| rule["verbs"].to_string().contains("impersonate")))
        })
        .collect();
    assert_eq!(impersonating.len(), 1);
    let role = impersonating[0];
    assert_eq!(role["metadata"]["name"], "tailscale-apiserver-proxy");
    let rules = role["rules"].as_array().unwrap();
    assert!(rules.iter().all(|rule| rule["verbs"] == serde_json::json!(["impersonate"])), "{role}");
    let groups = rules.iter().find(|rule| rule["resources"][0] == "groups").unwrap();
    assert_eq!(groups["resourceNames"], serde_json::json!(["system:masters", "tailnet-readers"]));
    let bindings = objects.iter().filter(|object| object["roleRef"]["name"] == "tailscale-apiserver-proxy");
    let subjects: Vec<&Value> = bindings.flat_map(|binding| binding["subjects"].as_array().unwrap()).collect();
    assert!(subjects.iter().all(|subject| subject["name"] == "apiserver-proxy"), "{subjects:?}");

    let none = render(&["apiServerProxy.enabled=true"]).unwrap();
    let role = one(&none, "ClusterRole", "tailscale-apiserver-proxy");
    assert!(role["rules"].as_array().unwrap().iter().all(|rule| rule["resources"][0] != "groups"), "{role}");
    assert!(!render(&[]).unwrap().iter().any(|object| object["metadata"]["name"] == "apiserver-proxy"));
}

#[test]
fn no_role_has_a_wildcard_and_secrets_stay_in_the_namespace() {
    for object in render(ALL).unwrap() {
        let rules = object["rules"].as_array().cloned().unwrap_or_default();
        for rule in &rules {
            assert!(!rule.to_string().contains("\"*\""), "{object}");
            let secrets = rule["resources"].to_string().contains("secrets");
            assert!(!(secrets && object["kind"] == "ClusterRole"), "{object}");
        }
    }
}

#[test]
fn two_replicas_keep_one_alive() {
    let objects = render(&[]).unwrap();
    assert_eq!(one(&objects, "Deployment", "operator")["spec"]["replicas"], 2);
    assert_eq!(one(&objects, "PodDisruptionBudget", "operator")["spec"]["minAvailable"], 1);
    let single = render(&["operatorConfig.replicas=1"]).unwrap();
    assert!(single.iter().all(|object| object["kind"] != "PodDisruptionBudget"));
}

#[test]
fn the_drain_runs_before_anything_is_deleted() {
    let objects = render(ALL).unwrap();
    let job = one(&objects, "Job", "operator-drain");
    assert_eq!(job["metadata"]["annotations"]["helm.sh/hook"], "pre-delete");
    assert_eq!(job["spec"]["template"]["spec"]["containers"][0]["args"], serde_json::json!(["operator", "drain"]));
}

#[test]
fn values_out_of_range_are_refused_by_name() {
    for (set, named) in [
        ("operatorConfig.replicas=0", "replicas"),
        ("loginServer=control.example.com", "loginServer"),
        ("proxyConfig.defaultTags=k8s", "defaultTags"),
        ("operatorConfig.hostname=Not-A-Name", "hostname"),
        ("caBundle=nonsense", "caBundle"),
        ("apiserverproxy.enabled=true", "apiserverproxy"),
    ] {
        let said = render(&[set]).unwrap_err();
        assert!(said.contains(named), "{set}: {said}");
    }
    assert!(render(&["oauth.clientId=a"]).unwrap_err().contains("set both"));
}

/// Objects of one kind may come in any order: Helm says nothing about it.
#[test]
fn nothing_in_the_chart_changes_from_one_rendering_to_the_next() {
    let sorted = || {
        let mut texts: Vec<String> = render(ALL).unwrap().iter().map(Value::to_string).collect();
        texts.sort();
        texts
    };
    assert!(sorted() == sorted());
}
