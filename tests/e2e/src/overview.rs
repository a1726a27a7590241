//! What runs where in a world, people's devices and the cluster's pods included.

use std::fmt;

use anyhow::{Context, Result, ensure};
use lab::{Status, World};
use serde::Serialize;
use serde_json::Value;

use crate::table::Table;
use crate::{Installation, Login};

/// What runs where in a world; shown as tables.
#[derive(Clone, Debug, Serialize)]
pub struct Overview {
    /// The boxes and their daemons.
    #[serde(flatten)]
    pub boxes: Status,
    /// Devices of the tailnet, as the coordination server lists them; none where there is no server.
    pub devices: Vec<Device>,
    /// The clients that the walkthrough lets in, as they say themselves; none where there are none.
    pub logins: Vec<Login>,
    /// Pods of the cluster; none where there is no cluster.
    pub pods: Vec<Pod>,
    /// Who did not answer, and what was said in place of an answer.
    pub silent: Vec<String>,
}

/// A device of the tailnet.
#[derive(Clone, Debug, Serialize)]
pub struct Device {
    /// Its short name.
    pub name: String,
    /// Its addresses, the one of version 4 first.
    pub addresses: Vec<String>,
    /// Its tags, or else its user.
    pub owner: String,
    /// Its client's version.
    pub version: String,
    /// Whether it is connected to the server.
    pub online: bool,
}

/// A pod of the cluster.
#[derive(Clone, Debug, Serialize)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The node that it runs on.
    pub node: String,
    /// Its address.
    pub address: String,
    /// `Ready`, or the phase that it is in.
    pub state: String,
}

impl Overview {
    /// Looks at a world. Who does not answer is no error, but told.
    ///
    /// # Errors
    /// When a record of the world cannot be read.
    pub fn of(world: &World) -> Result<Self> {
        let mut silent = Vec::new();
        let devices = heard(devices(world), "the coordination server", &mut silent);
        let logins = heard(Login::all(world), "the clients", &mut silent);
        let pods = heard(pods(world), "the cluster", &mut silent);
        Ok(Self {
            boxes: world.status()?,
            devices: devices.iter().map(Device::read).collect(),
            logins,
            pods: pods.iter().map(Pod::read).collect(),
            silent,
        })
    }

    /// How far the client of a box is; none where there is no client.
    pub fn login(&self, place: &str) -> Option<&Login> {
        self.logins.iter().find(|login| login.place == place)
    }

    /// Whether every box, daemon and pod is as it should be; devices come and go.
    pub fn is_well(&self) -> bool {
        self.boxes.is_well() && self.silent.is_empty() && self.pods.iter().all(Pod::is_well)
    }
}

/// What was answered; nothing where nobody did, which is noted.
fn heard<T>(asked: Result<Vec<T>>, whom: &str, silent: &mut Vec<String>) -> Vec<T> {
    asked.unwrap_or_else(|error| {
        silent.push(format!("{whom}: {error:#}"));
        Vec::new()
    })
}

fn devices(world: &World) -> Result<Vec<Value>> {
    let Ok(installation) = Installation::of(world) else { return Ok(Vec::new()) };
    let Some(server) = installation.server()? else { return Ok(Vec::new()) };
    ensure!(
        server.is_running(),
        "it has ended, so that nobody lists the devices; its log is {}",
        server.log_path().display()
    );
    server.check().context("it is not ready")?;
    let devices = installation.ask(["devices", "list"])?;
    devices.as_array().cloned().with_context(|| format!("no list of devices: {devices}"))
}

fn pods(world: &World) -> Result<Vec<Value>> {
    let Ok(cluster) = world.cluster() else { return Ok(Vec::new()) };
    let output = cluster.kubectl(["get", "pods", "--all-namespaces", "--output=json"]).run()?.stdout;
    let pods: Value = serde_json::from_str(&output).context("reading the list of pods")?;
    pods["items"].as_array().cloned().context("the cluster answers with no list of pods")
}

impl Device {
    fn read(device: &Value) -> Self {
        let texts = |field: &str| -> Vec<String> {
            device[field].as_array().into_iter().flatten().map(text).filter(|text| !text.is_empty()).collect()
        };
        let tags = texts("tags").join(" ");
        Self {
            name: text(&device["name"]).split('.').next().unwrap_or_default().to_owned(),
            addresses: texts("addresses"),
            owner: if tags.is_empty() { text(&device["user"]) } else { tags },
            version: text(&device["clientVersion"]).split('-').next().unwrap_or_default().to_owned(),
            online: device["connectedToControl"] == true,
        }
    }

    fn row(&self) -> [String; 5] {
        let address = self.addresses.first().map_or("-", String::as_str);
        let state = if self.online { "online" } else { "away" };
        [&self.name, address, &self.owner, &self.version, state].map(str::to_owned)
    }
}

impl Pod {
    fn read(pod: &Value) -> Self {
        let (about, status) = (&pod["metadata"], &pod["status"]);
        let conditions = status["conditions"].as_array().into_iter().flatten();
        let ready = conditions.into_iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
        Self {
            namespace: text(&about["namespace"]),
            name: text(&about["name"]),
            node: text(&pod["spec"]["nodeName"]),
            address: text(&status["podIP"]),
            state: if ready { "Ready".to_owned() } else { text(&status["phase"]) },
        }
    }

    fn row(&self) -> [String; 5] {
        [&self.namespace, &self.name, &self.address, &self.node, &self.state].map(Clone::clone)
    }

    fn is_well(&self) -> bool {
        self.state == "Ready" || self.state == "Succeeded"
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl fmt::Display for Overview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.boxes)?;
        if !self.devices.is_empty() {
            let head = ["DEVICE", "ADDRESS", "OWNER", "CLIENT", "STATE"];
            write!(f, "\n{}", Table::new(head, self.devices.iter().map(Device::row)))?;
        }
        if !self.pods.is_empty() {
            let head = ["NAMESPACE", "POD", "ADDRESS", "NODE", "STATE"];
            write!(f, "\n{}", Table::new(head, self.pods.iter().map(Pod::row)))?;
        }
        for words in &self.silent {
            writeln!(f, "\nno answer from {words}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_tagged_device_belongs_to_its_tags_and_another_to_its_user() {
        let tagged = json!({"name": "a.taila31de.ts.net", "user": "admin@example.com", "tags": ["tag:k8s", "tag:x"]});
        assert_eq!(Device::read(&tagged).owner, "tag:k8s tag:x");
        let own = json!({"name": "laptop.taila31de.ts.net", "user": "admin@example.com", "connectedToControl": true});
        let own = Device::read(&own);
        assert_eq!((own.name.as_str(), own.owner.as_str(), own.online), ("laptop", "admin@example.com", true));
    }

    #[test]
    fn a_pod_that_runs_and_is_not_ready_is_not_well() {
        let pod = |ready: &str, phase: &str| {
            let conditions = json!([{"type": "Ready", "status": ready}]);
            Pod::read(&json!({"status": {"phase": phase, "conditions": conditions}}))
        };
        assert!(pod("True", "Running").is_well() && pod("False", "Succeeded").is_well());
        assert!(!pod("False", "Running").is_well() && !pod("False", "Pending").is_well());
    }
}
