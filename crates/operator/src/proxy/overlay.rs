use serde_json::{Value, json};

use kubeapi::{ContainerOverlay, PodOverlay, ProxyClassSpec, contract, environment as env};

use super::{Proxy, Traffic, security};

/// What a ProxyClass asks for that no pod gets, each as a sentence.
pub(crate) fn refused_fields(class: &ProxyClassSpec) -> Vec<String> {
    let Some(pod) = class.stateful_set.as_ref().and_then(|set| set.pod.as_ref()) else { return Vec::new() };
    let mut refused = Vec::new();
    if let Some(asked) = &pod.security_context {
        refused.extend(security::refused_of_pod("spec.statefulSet.pod.securityContext", asked));
    }
    let profiles = pod.annotations.iter().flatten().filter(|(key, _)| security::is_profile(key));
    refused.extend(profiles.map(|(key, _)| {
        format!(
            "spec.statefulSet.pod.annotations sets {key}, which stands for a profile of the container: remove it, \
             securityContext names profiles"
        )
    }));
    let path = "spec.statefulSet.pod.tailscaleContainer";
    let Some(container) = &pod.tailscale_container else { return refused };
    if let Some(asked) = &container.security_context {
        refused.extend(security::refused_of_container(&format!("{path}.securityContext"), asked));
    }
    if let Some(image) = container.image.as_ref().filter(|image| !is_image(image)) {
        refused.push(format!(
            "{path}.image {image:?} is not an image reference: write it as in registry.example.com/towline:1.0"
        ));
    }
    let kept = container.env.iter().flatten().filter(|variable| env::is_kept(&variable.name));
    refused.extend(kept.map(|variable| {
        format!(
            "{path}.env sets {}, which belongs to the operator and its proxies alone: remove it{}",
            variable.name,
            instead_of(&variable.name)
        )
    }));
    refused
}

/// What somebody who sets one of the operator's own variables may be looking for.
fn instead_of(variable: &str) -> &'static str {
    match variable {
        env::METRICS | env::LOCAL_ADDRESS => ", spec.metrics.enable serves metrics",
        env::CERTIFICATE_FILE | env::CERTIFICATE_FILE_STOCK => ", the chart's caBundle says what proxies trust",
        env::TARGET_IP | env::TARGET_NAME => ", a Service of its own leads to each device",
        env::DESTINATION_IP | env::DESTINATION_IPS | env::DESTINATION_NAME => ", a Service says where traffic goes",
        _ => "",
    }
}

/// Whether the text can name an image: what registries take, without their finer rules.
fn is_image(text: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/:@".contains(&byte);
    !text.is_empty()
        && text.len() <= 512
        && text.bytes().all(fine)
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.ends_with(|last: char| last.is_ascii_alphanumeric())
        && !text.contains("//")
}

/// Puts what the class says over a StatefulSet's labels, annotations and pod. What makes the operator find its own
/// objects again can't be overwritten.
pub(super) fn apply(
    class: &ProxyClassSpec,
    proxy: &Proxy,
    labels: &mut Value,
    annotations: &mut Value,
    template: &mut Value,
) {
    if class.metrics.as_ref().is_some_and(|metrics| metrics.enable) && !matches!(proxy.traffic, Traffic::Egress { .. })
    {
        metrics(template);
    }
    let Some(set) = &class.stateful_set else { return };
    add(labels, set.labels.iter().flatten());
    add(annotations, set.annotations.iter().flatten());
    let Some(pod) = &set.pod else { return };
    add(&mut template["metadata"]["labels"], pod.labels.iter().flatten());
    let annotations = pod.annotations.iter().flatten().filter(|(key, _)| !security::is_profile(key));
    add(&mut template["metadata"]["annotations"], annotations);
    let spec = &mut template["spec"];
    pod_fields(pod, spec);
    if let Some(asked) = &pod.security_context {
        security::merge_pod(asked, proxy.in_user_space(), &mut spec["securityContext"]);
    }
    if let Some(container) = &pod.tailscale_container {
        container_fields(container, proxy, &mut spec["containers"][0]);
    }
}

fn add<'a>(target: &mut Value, more: impl Iterator<Item = (&'a String, &'a String)>) {
    for (key, value) in more {
        if target[key].is_null() {
            target[key] = json!(value);
        }
    }
}

fn pod_fields(pod: &PodOverlay, spec: &mut Value) {
    let mut set = |field: &str, value: Option<Value>| {
        if let Some(value) = value {
            spec[field] = value;
        }
    };
    set("affinity", pod.affinity.as_ref().map(|value| json!(value)));
    set("imagePullSecrets", pod.image_pull_secrets.as_ref().map(|value| json!(value)));
    set("nodeName", pod.node_name.as_ref().map(|value| json!(value)));
    set("nodeSelector", pod.node_selector.as_ref().map(|value| json!(value)));
    set("tolerations", pod.tolerations.as_ref().map(|value| json!(value)));
    set("topologySpreadConstraints", pod.topology_spread_constraints.as_ref().map(|value| json!(value)));
    set("priorityClassName", pod.priority_class_name.as_ref().map(|value| json!(value)));
    set("dnsPolicy", pod.dns_policy.as_ref().map(|value| json!(value)));
    set("dnsConfig", pod.dns_config.as_ref().map(|value| json!(value)));
}

fn container_fields(overlay: &ContainerOverlay, proxy: &Proxy, container: &mut Value) {
    if let Some(image) = &overlay.image {
        container["image"] = json!(image);
    }
    if let Some(policy) = &overlay.image_pull_policy {
        container["imagePullPolicy"] = json!(policy);
    }
    if let Some(resources) = &overlay.resources {
        container["resources"] = json!(resources);
    }
    if let Some(asked) = &overlay.security_context {
        security::merge_container(asked, proxy.in_user_space(), &mut container["securityContext"]);
    }
    for variable in overlay.env.iter().flatten().filter(|variable| !env::is_kept(&variable.name)) {
        // Where this is decided otherwise, a word of the class would only make pods that don't start.
        let decided = variable.name == env::USERSPACE && !matches!(proxy.traffic, Traffic::Connector { .. });
        if let Some(variables) = container["env"].as_array_mut().filter(|_| !decided) {
            variables.retain(|earlier| earlier["name"] != variable.name.as_str());
            variables.push(json!({"name": variable.name, "value": variable.value.clone().unwrap_or_default()}));
        }
    }
}

fn metrics(template: &mut Value) {
    let container = &mut template["spec"]["containers"][0];
    if let Some(variables) = container["env"].as_array_mut() {
        variables.push(json!({"name": env::METRICS, "value": "true"}));
        variables.push(json!({"name": env::LOCAL_ADDRESS, "value": format!("$(POD_IP):{}", contract::METRICS_PORT)}));
    }
    container["ports"] = json!([{"name": "metrics", "containerPort": contract::METRICS_PORT, "protocol": "TCP"}]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(yaml: &str) -> ProxyClassSpec {
        serde_yaml_ng::from_str(yaml).unwrap()
    }

    #[test]
    fn a_privileged_container_is_refused_by_name() {
        let class = class("statefulSet: {pod: {tailscaleContainer: {securityContext: {privileged: true}}}}");
        let refused = refused_fields(&class);
        assert!(refused[0].contains("tailscaleContainer.securityContext.privileged"), "{refused:?}");
    }

    #[test]
    fn a_variable_of_the_contract_is_refused_by_name_and_others_are_not() {
        for name in ["TS_AUTHKEY", "TS_KUBE_SECRET", "TS_TAILNET_TARGET_IP", "POD_UID", "KUBERNETES_SERVICE_HOST"] {
            let yaml = format!("statefulSet: {{pod: {{tailscaleContainer: {{env: [{{name: {name}, value: x}}]}}}}}}");
            let refused = refused_fields(&class(&yaml));
            assert_eq!(refused.len(), 1, "{name}: {refused:?}");
            assert!(refused[0].contains(&format!("env sets {name},")), "{refused:?}");
        }
        let fine = "statefulSet: {pod: {tailscaleContainer: {env: [{name: TS_USERSPACE, value: 'true'}, \
                    {name: TOWLINE_LOG, value: debug}, {name: TS_DEBUG_MTU, value: '1280'}]}}}";
        assert_eq!(refused_fields(&class(fine)), Vec::<String>::new());
    }

    #[test]
    fn an_annotation_that_stands_for_a_profile_is_refused_by_name() {
        for key in [
            "container.apparmor.security.beta.kubernetes.io/tailscale",
            "container.seccomp.security.alpha.kubernetes.io/tailscale",
            "seccomp.security.alpha.kubernetes.io/pod",
        ] {
            let refused =
                refused_fields(&class(&format!("statefulSet: {{pod: {{annotations: {{{key}: unconfined}}}}}}")));
            assert_eq!(refused.len(), 1, "{key}: {refused:?}");
            assert!(refused[0].starts_with(&format!("spec.statefulSet.pod.annotations sets {key},")), "{refused:?}");
        }
        let fine = class("statefulSet: {annotations: {team: a}, pod: {annotations: {kubernetes.io/a: b}}}");
        assert_eq!(refused_fields(&fine), Vec::<String>::new());
    }

    #[test]
    fn what_is_no_image_is_refused_by_name() {
        for image in ["not an image", "", "a//b", "-a", "a:"] {
            let yaml = format!("statefulSet: {{pod: {{tailscaleContainer: {{image: {image:?}}}}}}}");
            assert!(refused_fields(&class(&yaml))[0].contains("is not an image reference"), "{image}");
        }
        let fine = "statefulSet: {pod: {tailscaleContainer: {image: 'a.b:5000/c/d:1@sha256:00'}}}";
        assert!(refused_fields(&class(fine)).is_empty());
    }
}
