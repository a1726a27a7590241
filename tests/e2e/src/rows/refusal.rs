//! Bad input: what an operator is asked and may not do.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::operator::NAMESPACE;
use crate::{Checks, PATIENCE, Stage, eventually};

const MANIFEST: &str = r#"
apiVersion: v1
kind: Service
metadata:
  name: pretender
  namespace: home
  annotations: {tailscale.com/expose: "true", tailscale.com/tags: "tag:server"}
spec:
  selector: {app: web}
  ports: [{port: 80}]
"#;

/// Asks for a tag that is not the operator's to give.
pub fn play(stage: &Stage, checks: &mut Checks) {
    checks.check("a Service that asks for a tag of somebody else's gets no device, and its condition says why", || {
        stage.cluster.apply(MANIFEST)?;
        let outcome = refused(stage);
        stage.cluster.kubectl(["--namespace", "home", "delete", "service", "pretender"]).run()?;
        outcome?;
        eventually("no object of it", PATIENCE, || {
            let left = stage.cluster.list(NAMESPACE, "secrets", "tailscale.com/parent-resource=pretender")?;
            ensure!(left.is_empty(), "{} Secrets are left", left.len());
            Ok(())
        })
    });
}

fn refused(stage: &Stage) -> Result<()> {
    stage.cluster.wait("home", "service/pretender", "condition=TailscaleProxyReady=False", PATIENCE)?;
    let service = stage.cluster.get("home", "service/pretender")?;
    let conditions = service["status"]["conditions"].as_array().into_iter().flatten();
    let messages: Vec<&str> = conditions.filter_map(|condition| condition["message"].as_str()).collect();
    ensure!(messages.iter().any(|message| message.contains("tag:server")), "{}", service["status"]);
    let device = stage.installation.device("home-pretender")?;
    ensure!(device.is_none_or(|device| device == Value::Null), "it has a device");
    Ok(())
}
