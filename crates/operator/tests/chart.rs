//! The Helm chart: what it renders, and that its definitions are those of the types.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::{Value, json};

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/chart").canonicalize().unwrap()
}

fn helm(arguments: &[&str]) -> (bool, String) {
    let helm = apiserver::program("bin/helm").unwrap();
    let output = Command::new(helm).args(arguments).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

fn render(sets: &[&str]) -> Result<Vec<Value>, String> {
    render_for("1.34.0", sets)
}

fn render_for(kubernetes: &str, sets: &[&str]) -> Result<Vec<Value>, String> {
    render_in("tailscale", kubernetes, sets)
}

fn render_in(namespace: &str, kubernetes: &str, sets: &[&str]) -> Result<Vec<Value>, String> {
    let chart = chart().display().to_string();
    let mut arguments =
        vec!["template", "tailscale-operator", &chart, "--namespace", namespace, "--kube-version", kubernetes];
    // Given to every release; what a test sets itself comes later and counts.
    arguments.extend(["loginServer=https://control.example.com"].iter().chain(sets).flat_map(|set| ["--set", set]));
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

/// The namespace of the API server's proxy.
const APART: &str = "tailscale-apiserver-proxy";

const ALL: &[&str] = &[
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
        if std::env::var_os("TOWLINE_UPDATE").is_some() {
            fs::write(&path, text).unwrap();
        } else {
            let found = fs::read_to_string(&path).unwrap_or_default();
            assert!(found == text, "{} is old: run this test with TOWLINE_UPDATE=1", path.display());
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
    assert_eq!(subjects.len(), 1, "{subjects:?}");
    assert_eq!((&subjects[0]["name"], &subjects[0]["namespace"]), (&json!("apiserver-proxy"), &json!(APART)));

    let users = |role: &Value| {
        let rules = role["rules"].as_array().unwrap().clone();
        let found: Vec<Value> = rules.into_iter().filter(|rule| rule["resources"] == json!(["users"])).collect();
        assert_eq!(found.len(), 1, "{role}");
        found[0]["resourceNames"].clone()
    };
    assert_eq!(users(role), Value::Null, "anybody, because none is listed");
    let listed = render(&[ALL, &["apiServerProxy.users={a@example.com,b@example.com}"]].concat()).unwrap();
    let role = one(&listed, "ClusterRole", "tailscale-apiserver-proxy");
    assert_eq!(users(role), json!(["a@example.com", "b@example.com"]));
    assert_eq!(role["rules"].as_array().unwrap().len(), 2, "{role}");

    let none = render(&["apiServerProxy.enabled=true"]).unwrap();
    let role = one(&none, "ClusterRole", "tailscale-apiserver-proxy");
    assert!(role["rules"].as_array().unwrap().iter().all(|rule| rule["resources"][0] != "groups"), "{role}");
    assert!(!render(&[]).unwrap().iter().any(|object| object["metadata"]["name"] == "apiserver-proxy"));
}

/// Whatever an object gives, and to whom: bindings with the subjects that they name.
fn bindings(objects: &[Value]) -> Vec<(&Value, &Value)> {
    let bindings =
        objects.iter().filter(|object| object["kind"].as_str().is_some_and(|kind| kind.ends_with("RoleBinding")));
    bindings.flat_map(|binding| binding["subjects"].as_array().unwrap().iter().map(move |one| (binding, one))).collect()
}

fn is_hook(object: &Value) -> bool {
    !object["metadata"]["annotations"]["helm.sh/hook"].is_null()
}

#[test]
fn the_api_servers_proxy_has_a_namespace_of_its_own_where_the_operator_reaches_no_pod_account_or_secret() {
    let objects = render(ALL).unwrap();
    let labels = &one(&objects, "Namespace", APART)["metadata"]["labels"];
    for mode in ["enforce", "audit", "warn"] {
        assert_eq!(labels[format!("pod-security.kubernetes.io/{mode}")], "restricted");
    }
    let there: Vec<(&str, &str)> = objects
        .iter()
        .filter(|object| object["metadata"]["namespace"] == APART && !is_hook(object))
        .map(|object| (object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap()))
        .collect();
    for wanted in [
        ("ServiceAccount", "apiserver-proxy"),
        ("Role", "apiserver-proxy"),
        ("RoleBinding", "apiserver-proxy"),
        ("Deployment", "apiserver-proxy"),
        ("NetworkPolicy", "apiserver-proxy"),
        ("Secret", "apiserver-proxy"),
        ("Secret", "operator-oauth"),
        ("ConfigMap", "apiserver-proxy-config"),
        ("ConfigMap", "operator-ca"),
    ] {
        assert!(there.contains(&wanted), "{wanted:?}: {there:?}");
    }
    assert_eq!(there.len(), 9, "{there:?}");
    let elsewhere = |object: &&Value| object["metadata"]["namespace"] == "tailscale";
    assert!(objects.iter().filter(elsewhere).all(|object| object["metadata"]["name"] != "apiserver-proxy"));

    for (binding, subject) in bindings(&objects).into_iter().filter(|(binding, _)| !is_hook(binding)) {
        let inside = binding["metadata"]["namespace"] == APART;
        assert!(!inside || subject["namespace"] == APART, "{binding}");
    }
    // What the operator may in the whole cluster reaches no pod, account or Secret there.
    let role = one(&objects, "ClusterRole", "tailscale-operator");
    for rule in role["rules"].as_array().unwrap() {
        for resource in rule["resources"].as_array().unwrap() {
            let resource = resource.as_str().unwrap().split('/').next().unwrap();
            assert!(["services", "connectors", "proxyclasses", "events"].contains(&resource), "{rule}");
        }
    }
}

#[test]
fn the_api_servers_proxy_reads_its_configuration_as_the_contract_has_it() {
    let objects = render(ALL).unwrap();
    let data = one(&objects, "ConfigMap", "apiserver-proxy-config")["data"].as_object().unwrap().clone();
    assert_eq!(data.keys().collect::<Vec<_>>(), [&kubeapi::config_file_name()]);
    let config = kubeapi::NodeConfig::read(data[&kubeapi::config_file_name()].as_str().unwrap().as_bytes()).unwrap();
    assert_eq!(config, kubeapi::NodeConfig::of_proxy("https://control.example.com", "tailscale-operator"));
}

#[test]
fn the_namespace_of_the_api_servers_proxy_can_be_chosen_but_not_be_the_operators() {
    let objects = render(&[ALL, &["apiServerProxy.namespace=door", "apiServerProxy.createNamespace=false"]].concat());
    let objects = objects.unwrap();
    assert!(objects.iter().all(|object| object["kind"] != "Namespace"));
    assert_eq!(one(&objects, "Deployment", "apiserver-proxy")["metadata"]["namespace"], "door");
    let said = render(&[ALL, &["apiServerProxy.namespace=tailscale"]].concat()).unwrap_err();
    assert!(said.contains("apiServerProxy.namespace is tailscale, the operator's own"), "{said}");
}

#[test]
fn the_api_servers_proxy_has_an_oauth_client_of_its_own_where_one_is_given() {
    let client = |sets: &[&str]| {
        let objects = render(sets).unwrap();
        let inside = |object: &&Value| object["kind"] == "Secret" && object["metadata"]["namespace"] == APART;
        let found =
            objects.iter().filter(inside).find(|object| object["metadata"]["name"] == "operator-oauth").cloned();
        found.map(|secret| secret["stringData"]["client_id"].clone())
    };
    assert_eq!(client(ALL), Some(json!("a")));
    let own = ["apiServerProxy.oauth.clientId=c", "apiServerProxy.oauth.clientSecret=d"];
    assert_eq!(client(&[ALL, &own].concat()), Some(json!("c")));
    // An existing Secret is used, and its absence is for the pod to say.
    assert_eq!(client(&["apiServerProxy.enabled=true"]), None);
    let objects = render(&["apiServerProxy.enabled=true"]).unwrap();
    let volumes = &one(&objects, "Deployment", "apiserver-proxy")["spec"]["template"]["spec"]["volumes"];
    let oauth = volumes.as_array().unwrap().iter().find(|volume| volume["name"] == "oauth").unwrap();
    assert_eq!(oauth["secret"]["optional"], true, "{oauth}");
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
fn the_drains_account_is_there_before_it_and_gone_after_it_however_it_ends() {
    let objects = render(ALL).unwrap();
    let weight = |object: &Value| {
        let weight = &object["metadata"]["annotations"]["helm.sh/hook-weight"];
        weight.as_str().map_or(0, |weight| weight.parse::<i32>().unwrap())
    };
    let job = one(&objects, "Job", "operator-drain");
    let account = &job["spec"]["template"]["spec"]["serviceAccountName"];
    let own = objects.iter().filter(|object| {
        (object["kind"] == "ServiceAccount" || object["kind"] == "Role") && object["metadata"]["name"] == *account
    });
    let bound = bindings(&objects).into_iter().filter(|(_, subject)| subject["name"] == *account);
    let all: Vec<&Value> = own.chain(bound.map(|(binding, _)| binding)).collect();
    assert_eq!(all.len(), 7, "an account, two roles and four bindings: {all:?}");
    for object in all {
        let notes = &object["metadata"]["annotations"];
        assert_eq!(notes["helm.sh/hook"], "pre-delete", "{object}");
        assert_eq!(notes["helm.sh/hook-delete-policy"], "before-hook-creation,hook-succeeded,hook-failed", "{object}");
        assert!(weight(object) < weight(job), "{object}");
    }
}

#[test]
fn accounts_of_the_namespace_are_held_to_policies_where_the_cluster_knows_them() {
    let of_kind = |objects: &[Value], kind: &str| -> Vec<Value> {
        objects.iter().filter(|object| object["kind"] == kind).cloned().collect()
    };
    let objects = render(&["fullnameOverride=director"]).unwrap();
    let policies = of_kind(&objects, "ValidatingAdmissionPolicy");
    let bindings = of_kind(&objects, "ValidatingAdmissionPolicyBinding");
    for subject in ["pods", "bindings", "secrets", "owners"] {
        let name = format!("tailscale-director-{subject}");
        let policy = one(&policies, "ValidatingAdmissionPolicy", &name);
        let condition = &policy["spec"]["matchConditions"][0]["expression"];
        assert_eq!(*condition, r#"request.userInfo.username.startsWith("system:serviceaccount:tailscale:")"#);
        assert_eq!(policy["spec"]["failurePolicy"], "Fail");
        let place = &policy["spec"]["matchConstraints"]["namespaceSelector"]["matchLabels"];
        // The objects that the operator serves are everywhere.
        let there = if subject == "owners" { Value::Null } else { json!({"kubernetes.io/metadata.name": "tailscale"}) };
        assert_eq!(*place, there);
        let binding = one(&bindings, "ValidatingAdmissionPolicyBinding", &name);
        assert_eq!(binding["spec"], json!({"policyName": name, "validationActions": ["Deny"]}));
    }
    assert_eq!((policies.len(), bindings.len()), (4, 4));
    for without in [render(&["admissionPolicy.enabled=false"]), render_for("1.29.4", &[])] {
        assert!(!without.unwrap().iter().any(|object| object.to_string().contains("admissionregistration")));
    }
}

#[test]
fn the_policies_never_hold_the_clusters_own_controllers() {
    let said = render_in("kube-system", "1.34.0", &[]).unwrap_err();
    assert!(said.contains("the release's namespace is kube-system"), "{said}");
    assert!(render_in("kube-system", "1.34.0", &["admissionPolicy.enabled=false"]).is_ok());
}

#[test]
fn the_operator_only_reads_proxy_classes() {
    let objects = render(&[]).unwrap();
    let rules = one(&objects, "ClusterRole", "tailscale-operator")["rules"].as_array().unwrap().clone();
    let about: Vec<&Value> =
        rules.iter().filter(|rule| rule["resources"].as_array().unwrap().contains(&json!("proxyclasses"))).collect();
    assert_eq!(about.len(), 1, "{about:?}");
    assert_eq!(about[0]["verbs"], json!(["get", "list", "watch"]));
}

#[test]
fn a_release_names_its_coordination_server_itself() {
    for fine in ["https://control.example.com/", "https://controlplane.tailscale.com"] {
        let objects = render(&[&format!("loginServer={fine}")]).unwrap();
        let environment = &one(&objects, "Deployment", "operator")["spec"]["template"]["spec"]["containers"][0]["env"];
        let named = json!({"name": "OPERATOR_LOGIN_SERVER", "value": fine.trim_end_matches('/')});
        assert!(environment.as_array().unwrap().contains(&named), "{environment}");
    }
    let said = render(&["loginServer="]).unwrap_err();
    assert!(said.contains("loginServer names your coordination server, and is empty"), "{said}");
}

#[test]
fn every_value_that_the_schema_knows_stands_in_the_values_with_what_it_is_for() {
    let read = |name: &str| fs::read_to_string(chart().join(name)).unwrap();
    let schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
    let values: Value = serde_yaml_ng::from_str(&read("values.yaml")).unwrap();
    let mut missing = missing_values("", &schema, &schema, &values);
    // Helm's own, for charts within charts.
    missing.retain(|name| name != ".global");
    assert_eq!(missing, [""; 0]);
}

/// The properties of a schema that values lack, with their paths; `root` has the schema's definitions.
fn missing_values(path: &str, root: &Value, schema: &Value, values: &Value) -> Vec<String> {
    let definition = schema["$ref"].as_str().and_then(|reference| root.pointer(reference.strip_prefix('#')?));
    let properties = definition.unwrap_or(schema)["properties"].as_object();
    let within = properties.into_iter().flatten().flat_map(|(name, schema)| {
        let path = format!("{path}.{name}");
        match values.get(name) {
            Some(value) => missing_values(&path, root, schema, value),
            None => vec![path],
        }
    });
    within.collect()
}

#[test]
fn only_the_drain_may_delete_the_operators_lease() {
    let objects = render(ALL).unwrap();
    let may_delete = |object: &&Value| {
        let rules = object["rules"].as_array().cloned().unwrap_or_default();
        rules.iter().any(|rule| {
            rule["resources"].as_array().unwrap().contains(&json!("leases"))
                && rule["verbs"].as_array().unwrap().contains(&json!("delete"))
        })
    };
    let names: Vec<&Value> = objects.iter().filter(may_delete).map(|object| &object["metadata"]["name"]).collect();
    assert_eq!(names, [&json!("operator-drain")]);
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
        ("apiServerProxy.namespace=Not-A-Name", "namespace"),
    ] {
        let said = render(&[set]).unwrap_err();
        assert!(said.contains(named), "{set}: {said}");
    }
    for (id, secret) in [
        ("oauth.clientId=a", "oauth.clientSecret"),
        ("apiServerProxy.oauth.clientId=a", "apiServerProxy.oauth.clientSecret"),
    ] {
        let said = render(&["apiServerProxy.enabled=true", id]).unwrap_err();
        assert!(said.contains(&format!(": {secret} belongs to")), "{said}");
    }
}

/// The arguments that the operator has in its pod: what the chart does not set is as the program has it of itself.
#[derive(clap::Parser)]
struct Program {
    #[command(flatten)]
    operator: operator::Arguments,
}

/// A variable of a pod's only container.
fn variable(pod: &Value, name: &str) -> Option<String> {
    let variables = pod["containers"][0]["env"].as_array().into_iter().flatten();
    let mut found = variables.filter(|variable| variable["name"] == name);
    found.next().map(|variable| variable["value"].as_str().unwrap().to_owned())
}

#[test]
fn probes_and_network_policies_name_the_ports_that_the_programs_listen_on() {
    let objects = render(ALL).unwrap();
    // UDP of a node in user space is at a port that its system chooses.
    let mesh = json!({"port": 1024, "endPort": 65535, "protocol": "UDP"});
    for (name, listen, more) in
        [("operator", "OPERATOR_ADMIN_LISTEN", None), ("apiserver-proxy", "APISERVER_PROXY_ADMIN_LISTEN", Some(&mesh))]
    {
        let template = &one(&objects, "Deployment", name)["spec"]["template"];
        let pod = &template["spec"];
        let arguments = pod["containers"][0]["args"].as_array().unwrap();
        let address: std::net::SocketAddr = match variable(pod, listen) {
            Some(text) => text.parse().unwrap(),
            None => {
                assert_eq!(*arguments, ["operator"], "which has an address of itself");
                <Program as clap::Parser>::parse_from(["operator"]).operator.admin_listen
            }
        };
        assert!(address.ip().is_unspecified(), "{name}: kubelet asks from outside the pod, and finds {address}");
        let ports = &pod["containers"][0]["ports"];
        assert_eq!(*ports, json!([{"name": "admin", "containerPort": address.port(), "protocol": "TCP"}]), "{name}");
        for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
            assert_eq!(pod["containers"][0][probe]["httpGet"], json!({"path": path, "port": "admin"}), "{name}");
        }

        let policy = &one(&objects, "NetworkPolicy", name)["spec"];
        assert!(selects(&policy["podSelector"], &template["metadata"]["labels"]), "{name}: {policy}");
        let admin = json!({"port": address.port(), "protocol": "TCP"});
        let wanted: Vec<Value> =
            [Some(&admin), more].into_iter().flatten().map(|port| json!({"ports": [port]})).collect();
        assert_eq!(policy["ingress"], json!(wanted), "{name}");
    }
}

#[test]
fn the_operator_and_its_drain_are_let_out_to_names_the_api_server_and_the_coordination_server_alone() {
    let tcp = |port: u16| json!({"port": port, "protocol": "TCP"});
    let names = json!({"ports": [{"port": 53, "protocol": "UDP"}, tcp(53)]});
    // A kube-proxy leads connections to the Service's port 443 on to where the API server listens, before the policy looks.
    let servers = [
        ("https://control.example.com", None),
        ("https://control.example.com/", None),
        ("https://control.example.com:443", None),
        ("https://control.example.com:8443", Some(8443)),
        ("https://control.example.com:8443/", Some(8443)),
        ("http://control.example.com", Some(80)),
        ("http://control.example.com:8080", Some(8080)),
        ("https://[fd7a::1]", None),
        ("https://[fd7a::1]:9443", Some(9443)),
    ];
    for (server, more) in servers {
        let login = format!("loginServer={server}");
        let objects = render(&[ALL, &[&login, "networkPolicy.apiServerPorts={16443}"]].concat()).unwrap();
        let operator = &one(&objects, "Deployment", "operator")["spec"]["template"];
        assert_eq!(variable(&operator["spec"], "OPERATOR_LOGIN_SERVER").as_deref(), Some(server.trim_end_matches('/')));
        let drain = &one(&objects, "Job", "operator-drain")["spec"]["template"];
        let policy = &one(&objects, "NetworkPolicy", "operator")["spec"];
        for pod in [operator, drain] {
            assert!(selects(&policy["podSelector"], &pod["metadata"]["labels"]), "{policy}");
        }
        assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
        let ports: Vec<Value> = [443, 6443, 16443].into_iter().chain(more).map(tcp).collect();
        assert_eq!(policy["egress"], json!([names, {"ports": ports}]), "{server}");
    }
}

/// Whether a selector finds what has these labels.
fn selects(selector: &Value, labels: &Value) -> bool {
    let exact = selector["matchLabels"].as_object().into_iter().flatten().all(|(key, value)| labels[key] == *value);
    let among = |one: &Value| {
        assert_eq!(one["operator"], "In", "{selector}");
        one["values"].as_array().unwrap().contains(&labels[one["key"].as_str().unwrap()])
    };
    assert!(selector.as_object().is_some_and(|terms| !terms.is_empty()), "it selects everything");
    exact && selector["matchExpressions"].as_array().into_iter().flatten().all(among)
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
