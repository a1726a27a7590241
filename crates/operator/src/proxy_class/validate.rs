use std::collections::BTreeMap;

use kubeapi::condition::event;
use kubeapi::{ContainerOverlay, ProxyClass, environment};

use crate::event::Note;
use crate::proxy::{refused_fields, security_without_effect};

/// What is to be said about a ProxyClass.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// What is wrong, each as a sentence that names it.
    pub problems: Vec<String>,
    /// What works and may surprise.
    pub notes: Vec<Note>,
}

/// Looks at a ProxyClass.
pub fn validate(class: &ProxyClass) -> Verdict {
    let mut verdict = Verdict { problems: refused_fields(&class.spec), notes: Vec::new() };
    let mut without_effect = |field: &str| {
        let message = format!("{field} is taken and has no effect in this version");
        verdict.notes.push(Note::warning(event::NO_EFFECT, &message));
    };
    if class.spec.static_endpoints.is_some() {
        without_effect("spec.staticEndpoints");
    }
    if class.spec.use_lets_encrypt_staging_environment == Some(true) {
        without_effect("spec.useLetsEncryptStagingEnvironment");
    }
    let metrics = class.spec.metrics.as_ref();
    if metrics.and_then(|metrics| metrics.service_monitor.as_ref()).is_some_and(|monitor| monitor.enable) {
        without_effect("spec.metrics.serviceMonitor");
    }
    let Some(set) = &class.spec.stateful_set else { return verdict };
    let pod = set.pod.clone().unwrap_or_default();
    if pod.tailscale_init_container.is_some() {
        without_effect("spec.statefulSet.pod.tailscaleInitContainer");
    }
    let container = pod.tailscale_container.as_ref();
    let securities = (pod.security_context.as_ref(), container.and_then(|one| one.security_context.as_ref()));
    security_without_effect(securities.0, securities.1).into_iter().for_each(&mut without_effect);
    for (path, map) in [("spec.statefulSet.labels", &set.labels), ("spec.statefulSet.pod.labels", &pod.labels)] {
        verdict.problems.extend(keys(path, map.as_ref()));
        let values = map.iter().flatten().filter(|(_, value)| !is_label_value(value));
        verdict.problems.extend(values.map(|(key, value)| format!("{path}: {value:?} of {key} is no label value")));
    }
    for (path, map) in
        [("spec.statefulSet.annotations", &set.annotations), ("spec.statefulSet.pod.annotations", &pod.annotations)]
    {
        verdict.problems.extend(keys(path, map.as_ref()));
    }
    verdict.notes.extend(variables(pod.tailscale_container.as_ref()));
    verdict
}

/// Variables that the operator sets too.
fn variables(container: Option<&ContainerOverlay>) -> Vec<Note> {
    let all = container.and_then(|container| container.env.as_ref()).into_iter().flatten();
    let ours = |name: &str| {
        name.starts_with("TS_") || name.starts_with("TOWLINE_") || name.starts_with("POD_") || name == "PORT"
    };
    let known = |name: &str| name == environment::USERSPACE || environment::is_kept(name);
    all.filter(|variable| ours(&variable.name) && !known(&variable.name))
        .map(|variable| {
            let message = format!(
                "the variable {} may be one that the operator sets itself; the class's value wins",
                variable.name
            );
            Note::warning(event::CUSTOM_VARIABLE, &message)
        })
        .collect()
}

fn keys(path: &str, map: Option<&BTreeMap<String, String>>) -> Vec<String> {
    let wrong = map.into_iter().flatten().filter(|(key, _)| !is_qualified(key));
    wrong.map(|(key, _)| format!("{path}: {key:?} is no key: write up to 63 letters, digits, - _ . with an optional DNS prefix and / before")).collect()
}

/// Kubernetes' rule for keys of labels and annotations.
fn is_qualified(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let prefix_fits = |prefix: &str| {
        let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
        (1..=253).contains(&prefix.len()) && prefix.bytes().all(fine)
    };
    !name.is_empty() && is_label_value(name) && prefix.is_none_or(prefix_fits)
}

/// Kubernetes' rule for values of labels.
fn is_label_value(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let outer = |character: char| character.is_ascii_alphanumeric();
    text.is_empty() || text.len() <= 63 && text.bytes().all(inner) && text.starts_with(outer) && text.ends_with(outer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(spec: &str) -> Verdict {
        validate(&ProxyClass::new("a", serde_yaml_ng::from_str(spec).unwrap()))
    }

    #[test]
    fn the_class_of_a_stock_manifest_is_fine() {
        let spec = "{statefulSet: {labels: {team: a}, pod: {labels: {a.b/c: d}, annotations: {x: 'any thing'}, nodeSelector: {a: b}, \
                    tailscaleContainer: {image: 'tailscale/tailscale:v1.104', resources: {requests: {cpu: 1m}}}}}}";
        assert_eq!(verdict(spec), Verdict::default());
    }

    #[test]
    fn a_bad_key_or_value_is_named() {
        assert!(verdict("{statefulSet: {labels: {'a b': c}}}").problems[0].contains("a b"));
        assert!(verdict("{statefulSet: {pod: {labels: {a: '-'}}}}").problems[0].contains("no label value"));
        assert!(verdict("{statefulSet: {pod: {annotations: {'A.b//c': x}}}}").problems[0].contains("A.b//c"));
    }

    #[test]
    fn rights_beyond_the_pods_own_and_variables_of_the_contract_are_problems() {
        let spec = "{statefulSet: {pod: {securityContext: {sysctls: [{name: kernel.msgmax, value: '1'}]}, \
                    tailscaleContainer: {securityContext: {capabilities: {add: [SYS_ADMIN]}}, env: [{name: TS_AUTHKEY, value: x}]}}}}";
        let verdict = verdict(spec);
        let named = |name: &str| verdict.problems.iter().filter(|problem| problem.contains(name)).count();
        assert_eq!((named("SYS_ADMIN"), named("kernel.msgmax"), named("TS_AUTHKEY")), (1, 1, 1), "{verdict:?}");
        assert_eq!((verdict.problems.len(), verdict.notes.len()), (3, 0), "{verdict:?}");
    }

    #[test]
    fn fields_without_effect_and_variables_of_ours_get_a_word() {
        let spec = "{useLetsEncryptStagingEnvironment: true, statefulSet: {pod: {tailscaleInitContainer: {image: a}, \
                    tailscaleContainer: {env: [{name: TS_X, value: y}, {name: TS_USERSPACE, value: 'true'}]}}}}";
        let verdict = verdict(spec);
        assert!(verdict.problems.is_empty());
        assert_eq!(verdict.notes.len(), 3, "{verdict:?}");
        assert!(
            verdict.notes.iter().any(|note| note.reason == event::CUSTOM_VARIABLE && note.message.contains("TS_X"))
        );
    }
}
