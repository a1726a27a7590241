//! An exposed Service, from nothing to traffic.

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use kubeapi::name;
use serde_json::json;

use super::{exposed, service};
use crate::stage::{Stage, eventually};

pub(crate) async fn play(stage: &Stage) {
    stage.apply::<Service>(Some("home"), exposed("web")).await;
    let set = stage.set_of("web").await;
    let waiting = stage.service_is("web", "False", "ProxyPending").await;
    assert!(waiting.message.contains("joined") || waiting.message.contains("being made"), "{waiting:?}");
    let finalizers = stage.services().get("web").await.unwrap();
    assert!(finalizers.finalizers().contains(&name::FINALIZER.to_owned()));

    let config = stage.node_config(&set).await;
    assert_eq!(config.hostname.as_deref(), Some("home-web"));
    assert_eq!(config.server_url.as_deref(), Some(stage.control.url.as_str()));
    stage.join(&set, "nWeb").await;
    let ready = stage.service_is("web", "True", "ProxyCreated").await;
    assert!(ready.message.contains("home-web.taila31de.ts.net"), "{ready:?}");
    eventually("the key leaves the configuration", || async {
        let config = stage.node_config(&set).await;
        if config.auth_key.is_none() { Ok(()) } else { Err("it is still there".to_owned()) }
    })
    .await;
    let uid = stage.secrets().get(&name::config_secret(&set)).await.unwrap().uid().unwrap();
    assert_eq!(stage.control.minted_for(&uid), 1);

    stage.pod_is(&set, false).await;
    stage.service_is("web", "False", "ProxyPending").await;
    stage.pod_is(&set, true).await;
    stage.service_is("web", "True", "ProxyCreated").await;

    let balanced = json!({"type": "LoadBalancer", "loadBalancerClass": "tailscale", "ports": [{"port": 80}]});
    stage.apply::<Service>(Some("home"), service("music", json!({"tailscale.com/hostname": "music"}), balanced)).await;
    let set = stage.set_of("music").await;
    stage.join(&set, "nMusic").await;
    stage.service_is("music", "True", "ProxyCreated").await;
    let status = stage.services().get("music").await.unwrap().status.unwrap();
    let ingress = status.load_balancer.unwrap().ingress.unwrap();
    assert_eq!(ingress[0].hostname.as_deref(), Some("music.taila31de.ts.net"));
    assert_eq!(ingress[1].ip.as_deref(), Some("100.64.0.7"));

    // A change by hand is undone.
    let sets = stage.sets();
    let fewer = Patch::Merge(json!({"spec": {"replicas": 0}}));
    sets.patch(&set, &PatchParams::default(), &fewer).await.unwrap();
    eventually("the StatefulSet has its replica back", || async {
        match sets.get(&set).await.unwrap().spec.and_then(|spec| spec.replicas) {
            Some(1) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    stage.pod_is(&set, true).await;
}
