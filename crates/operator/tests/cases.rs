//! The pure steps of the controllers, by folders of YAML: `cases/<controller>/<name>/in.yaml` is what is observed,
//! `out.yaml` what is decided. `TOWLINE_UPDATE=1` writes the outcomes anew; the review reads the difference.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Secret, Service};
use kubeapi::{Connector, NodeConfig, ProxyClass};
use operator::service::Trouble;
use operator::{ObservedProxy, Proxy, Settings, connector, proxy_class, service};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Input {
    service: Option<Service>,
    connector: Option<Connector>,
    class: Option<ProxyClass>,
    missing_class: Option<String>,
    taken_by: Option<String>,
    /// Other Services; each with the host name that its device was given.
    others: Vec<Other>,
    proxies: Vec<Observed>,
    trouble: Option<SaidTrouble>,
    settings: Changes,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Changes {
    default_load_balancer: bool,
    certificates: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Other {
    service: Service,
    given: Option<String>,
}

#[derive(Deserialize, Clone)]
struct SaidTrouble {
    message: String,
    passing: bool,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Observed {
    state: Option<BTreeMap<String, String>>,
    config: bool,
    /// The host name in its configuration.
    given: Option<String>,
    /// The status of its StatefulSet; its annotation is made to match what would be applied unless `stale`.
    stateful_set: Option<StatefulSet>,
    stale: bool,
}

fn settings(changes: &Changes) -> Settings {
    Settings {
        namespace: "tailscale".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        login_server: "https://control.example.com".to_owned(),
        image: "registry.example.com/towline:0.1.0".to_owned(),
        image_pull_policy: None,
        image_pull_secrets: Vec::new(),
        tags: vec!["tag:k8s".parse().unwrap()],
        proxy_class: None,
        priority_class: None,
        certificates: changes.certificates.clone(),
        default_load_balancer: changes.default_load_balancer,
    }
}

fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().unwrap()
}

fn observed_proxy(given: &Observed) -> ObservedProxy {
    let state = given.state.as_ref().map(|state| {
        let data = state.iter().map(|(key, value)| (key.clone(), ByteString(value.clone().into_bytes()))).collect();
        Arc::new(Secret { data: Some(data), ..Secret::default() })
    });
    let config = given.config.then(|| Arc::new(config_secret(given.given.as_deref())));
    ObservedProxy { config, state, stateful_set: given.stateful_set.clone().map(Arc::new) }
}

fn config_secret(hostname: Option<&str>) -> Secret {
    let config = hostname.map(|hostname| NodeConfig::of_proxy("https://control.example.com", hostname));
    let data = config.map(|config| [(kubeapi::config_file_name(), ByteString(config.write()))].into());
    Secret { data, ..Secret::default() }
}

/// Who has the better claim to the host name.
fn taken_by(input: &Input, service: &Arc<Service>, proxy: &ObservedProxy, settings: &Settings) -> Option<String> {
    let others = input.others.iter().map(|other| {
        let config = Some(Arc::new(config_secret(other.given.as_deref())));
        let proxy = ObservedProxy { config, ..ObservedProxy::default() };
        service::Claim { service: Arc::new(other.service.clone()), proxy }
    });
    let own = service::Claim { service: service.clone(), proxy: proxy.clone() };
    input.taken_by.clone().or_else(|| own.taken_by(others, settings))
}

/// Gives the StatefulSets the annotations that applying the proxies as they are now would give them.
fn freshen(observed: &mut [ObservedProxy], given: &[Observed], proxies: &[Proxy], settings: &Settings) {
    for (proxy, (there, given)) in proxies.iter().zip(observed.iter_mut().zip(given)) {
        let Some(set) = &there.stateful_set else { continue };
        if given.stale {
            continue;
        }
        let objects = proxy.objects(settings);
        let annotations = objects.last().unwrap().body["metadata"]["annotations"].clone();
        let mut set = set.as_ref().clone();
        set.metadata.annotations = Some(serde_json::from_value(annotations).unwrap());
        there.stateful_set = Some(Arc::new(set));
    }
}

fn class_of(input: &Input) -> Option<Result<Arc<ProxyClass>, String>> {
    match (&input.class, &input.missing_class) {
        (Some(class), _) => Some(Ok(Arc::new(class.clone()))),
        (None, Some(name)) => Some(Err(name.clone())),
        (None, None) => None,
    }
}

fn shown(proxy: &Proxy, settings: &Settings) -> Value {
    let objects: Vec<Value> = proxy.objects(settings).into_iter().map(|object| object.body).collect();
    let tags: Vec<&str> = proxy.tags.iter().map(kubeapi::Tag::as_str).collect();
    json!({"hostname": proxy.hostname.as_str(), "tags": tags, "routes": proxy.routes(), "objects": objects})
}

fn decide(input: &Input) -> Value {
    let settings = settings(&input.settings);
    let trouble = input.trouble.clone().map(|trouble| Trouble { message: trouble.message, passing: trouble.passing });
    let mut proxies: Vec<ObservedProxy> = input.proxies.iter().map(observed_proxy).collect();
    if let Some(given) = &input.service {
        let (service, proxy) = (Arc::new(given.clone()), proxies.pop().unwrap_or_default());
        let hostname_taken_by = taken_by(input, &service, &proxy, &settings);
        let observed = service::Observed { service, class: class_of(input), proxy, hostname_taken_by };
        let (plan, status) = service::decide(&observed, trouble.as_ref(), &settings, now());
        let objects: Vec<Value> = plan.objects.into_iter().map(|object| object.body).collect();
        return json!({
            "plan": {"tearDown": plan.tear_down, "patch": plan.patch, "objects": objects, "proxy": plan.proxy.map(|proxy| shown(&proxy, &settings))},
            "status": {"outcome": format!("{:?}", status.outcome), "apply": status.apply, "events": status.events},
        });
    }
    let Some(given) = input.connector.clone() else {
        let class = input.class.as_ref().expect("a case has a Service, a Connector or a ProxyClass");
        let status = proxy_class::status(class, proxy_class::validate(class), now());
        return json!({"status": {"apply": status.apply, "events": status.events}});
    };
    proxies.resize_with(proxies.len().max(given.spec.replicas.unwrap_or(1) as usize), ObservedProxy::default);
    let mut observed = connector::Observed { connector: Arc::new(given), class: class_of(input), proxies };
    if let connector::Wanted::Proxies(wanted) = connector::validate(&observed, &settings) {
        freshen(&mut observed.proxies, &input.proxies, &wanted, &settings);
    }
    let (plan, status) = connector::decide(&observed, trouble.as_ref(), &settings, now());
    let proxies: Vec<Value> = plan.proxies.iter().map(|proxy| shown(proxy, &settings)).collect();
    json!({
        "plan": {"tearDown": plan.tear_down, "patch": plan.patch, "proxies": proxies, "held": plan.held, "removed": plan.removed},
        "status": {"outcome": format!("{:?}", status.outcome), "apply": status.apply, "events": status.events},
    })
}

fn cases(controller: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases").join(controller);
    let mut cases: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 8, "{} holds too few cases", folder.display());
    cases
}

fn play(controller: &str) {
    let mut wrong = Vec::new();
    for case in cases(controller) {
        let text = fs::read_to_string(case.join("in.yaml")).unwrap();
        let input: Input = serde_yaml_ng::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", case.display()));
        let outcome = serde_yaml_ng::to_string(&decide(&input)).unwrap();
        let expected = case.join("out.yaml");
        if std::env::var_os("TOWLINE_UPDATE").is_some() {
            fs::write(&expected, &outcome).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != outcome {
            wrong.push(format!("{}:\n{outcome}", expected.display()));
        }
    }
    assert!(wrong.is_empty(), "decided otherwise (TOWLINE_UPDATE=1 writes it down):\n{}", wrong.join("\n"));
}

#[test]
fn what_is_decided_about_services() {
    play("service");
}

#[test]
fn what_is_decided_about_connectors() {
    play("connector");
}

#[test]
fn what_is_decided_about_proxy_classes() {
    play("proxy_class");
}

/// Every pod of every case, with the words of Kubernetes' own levels.
#[test]
fn no_pod_asks_for_more_than_its_kind_may() {
    let mut seen = 0;
    for case in cases("service").into_iter().chain(cases("connector")) {
        let input: Input = serde_yaml_ng::from_str(&fs::read_to_string(case.join("in.yaml")).unwrap()).unwrap();
        let outcome = decide(&input);
        let plan = &outcome["plan"];
        let proxies = plan["proxies"].as_array().cloned().unwrap_or_else(|| vec![plan["proxy"].clone()]);
        for object in proxies.iter().flat_map(|proxy| proxy["objects"].as_array().cloned().unwrap_or_default()) {
            if object["kind"] == "Role" {
                let rules = object["rules"].as_array().unwrap();
                assert_eq!(rules.len(), 1, "{object}");
                assert_eq!(rules[0]["verbs"], json!(["get", "update", "patch"]), "{object}");
                assert_eq!(rules[0]["resourceNames"].as_array().unwrap().len(), 1, "{object}");
            }
            if object["kind"] == "StatefulSet" {
                seen += 1;
                pod_is_modest(&object["spec"]["template"]["spec"]);
            }
        }
    }
    assert!(seen > 5, "{seen} pods were looked at");
}

fn pod_is_modest(spec: &Value) {
    assert!(spec["initContainers"].is_null() && spec["hostNetwork"].is_null() && spec["hostPID"].is_null(), "{spec}");
    assert_eq!(spec["automountServiceAccountToken"], false);
    let volumes = spec["volumes"].as_array().unwrap();
    assert!(volumes.iter().all(|volume| volume["hostPath"].is_null()), "{spec}");
    let container = &spec["containers"][0];
    let security = &container["securityContext"];
    assert_ne!(security["privileged"], true);
    let variables = container["env"].as_array().unwrap();
    let user_space = variables.iter().any(|variable| variable["name"] == "TS_USERSPACE" && variable["value"] == "true");
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
    assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert!(security["procMount"].is_null(), "{spec}");
    match user_space {
        true => {
            assert!(security["capabilities"]["add"].is_null(), "{spec}");
            assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
        }
        false => {
            assert_eq!(security["capabilities"]["add"], json!(["NET_ADMIN", "MKNOD"]));
            // To another user than root they would be lost.
            assert_eq!((&spec["securityContext"]["runAsUser"], &security["runAsUser"]), (&json!(0), &Value::Null));
        }
    }
}
