//! Row 13: Services that the tailnet reaches by name.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::conversation::call;
use crate::{Checks, Conversation, PATIENCE, Stage, TAILNET_DOMAIN, WEB_PAGE};

const MANIFEST: &str = include_str!("../../manifests/exposed.yaml");
/// The exposed Services with their devices.
pub(super) const EXPOSED: [(&str, &str); 2] = [("service/notes", "home-notes"), ("service/music", "music")];

/// Exposes the web server twice, by annotation and by load balancer class, and uses both from the laptop.
pub(super) fn play(stage: &Stage, checks: &mut Checks) {
    let names = ["by the annotation", "as a load balancer"];
    checks.check("row 13: two Services ask to be exposed", || stage.cluster.apply(MANIFEST).map(drop));
    for (how, (service, device)) in names.into_iter().zip(EXPOSED) {
        checks.timed(&format!("row 13: a Service exposed {how} answers the laptop by name, TCP and UDP"), |marks| {
            stage.cluster.wait("home", service, "condition=TailscaleProxyReady", 4 * PATIENCE)?;
            marks.reached("condition after");
            answers_as_promised(stage, device)?;
            marks.reached("first byte after");
            let peer = stage.tailnet.laptop.sees(device, PATIENCE)?;
            ensure!(peer["Tags"] == serde_json::json!(["tag:k8s"]), "{peer}");
            stage.tailnet.laptop.gets(&format!("http://{device}.{TAILNET_DOMAIN}/"), WEB_PAGE, PATIENCE)?;
            stage.tailnet.laptop.echoes(device, 7, PATIENCE)
        });
    }
    checks.check("row 13: the load balancer's status has name and address of its device", || {
        let (service, device) = EXPOSED[1];
        status(stage, service, device)
    });
}

/// The web server answers the laptop right after a condition has said so: at the first try, where conditions mean what they say.
fn answers_as_promised(stage: &Stage, device: &str) -> Result<()> {
    match stage.operator.habits.ready_is_ready {
        true => {
            let answered = stage.tailnet.laptop.gets_at_once(&format!("http://{device}/"), WEB_PAGE);
            answered.context("the condition says that traffic flows")
        }
        false => answers(stage, device, stage.grace()),
    }
}

/// The web server answers the laptop under the device's name.
pub(super) fn answers(stage: &Stage, device: &str, limit: Duration) -> Result<()> {
    stage.tailnet.laptop.gets(&format!("http://{device}/"), WEB_PAGE, limit)
}

/// A connection from the laptop to the pod behind a device that stays open.
pub(super) fn conversation(stage: &Stage, device: &str) -> Result<Conversation> {
    let caller = stage.tailnet.laptop.lab_box().command(call(device));
    Conversation::by(caller).with_context(|| format!("from the laptop to {device}"))
}

fn status(stage: &Stage, service: &str, device: &str) -> Result<()> {
    let peer = stage.tailnet.laptop.peer(device)?.context("just seen")?;
    let address = peer["TailscaleIPs"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let address = address.into_iter().find(|address| address.contains('.')).context("it has no IPv4 address")?;
    let path = "jsonpath={.status.loadBalancer.ingress[0].hostname}";
    stage.cluster.wait("home", service, path, PATIENCE)?;
    let ingress = &stage.cluster.get("home", service)?["status"]["loadBalancer"]["ingress"];
    let has = |field: &str, value: &str| ingress.as_array().into_iter().flatten().any(|entry| entry[field] == value);
    ensure!(has("hostname", &format!("{device}.{TAILNET_DOMAIN}")) && has("ip", address), "{ingress}");
    Ok(())
}
