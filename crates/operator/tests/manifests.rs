//! The manifests of the coordination server and the relay, as a real API server with its admission takes them.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use apiserver::{ADMINISTRATOR, ApiServer};
use serde::Deserialize;
use serde_json::{Value, json};

fn manifest(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/manifests").join(name)
}

/// Has an API server take an object; what it said against it otherwise.
fn take(server: &ApiServer, object: &Value) -> Result<(), String> {
    let mut command = server.kubectl(&ADMINISTRATOR).unwrap();
    command.args(["create", "--filename", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut kubectl = command.spawn().unwrap();
    kubectl.stdin.take().unwrap().write_all(object.to_string().as_bytes()).unwrap();
    let output = kubectl.wait_with_output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// The first pod of the set that a manifest has, as its controller makes it.
fn pod(manifest: &str) -> Value {
    let text = fs::read_to_string(manifest).unwrap();
    let mut documents = serde_yaml_ng::Deserializer::from_str(&text).map(|one| Value::deserialize(one).unwrap());
    let set = documents.find(|object| object["spec"]["template"].is_object()).unwrap();
    let mut spec = set["spec"]["template"]["spec"].clone();
    for claim in set["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten() {
        let name = &claim["metadata"]["name"];
        let volume = json!({"name": name, "persistentVolumeClaim": {"claimName": name}});
        spec["volumes"].as_array_mut().unwrap().push(volume);
    }
    let metadata = json!({
        "name": format!("{}-0", set["metadata"]["name"].as_str().unwrap()),
        "namespace": set["metadata"]["namespace"],
        "labels": set["spec"]["template"]["metadata"]["labels"],
    });
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

#[test]
fn the_api_server_takes_the_manifests_and_the_pods_that_come_of_them() {
    let server = ApiServer::start(&[], &[]).unwrap();
    for name in ["control.yaml", "relay.yaml"] {
        let path = manifest(name).display().to_string();
        let mut apply = server.kubectl(&ADMINISTRATOR).unwrap();
        let output = apply.args(["apply", "--server-side", "--validate=strict", "--filename", &path]).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        take(&server, &pod(&path)).unwrap_or_else(|said| panic!("{name}: {said}"));
    }
    // The server's namespace lets no other pod in.
    let mut other = pod(&manifest("control.yaml").display().to_string());
    other["metadata"]["name"] = json!("other");
    other["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = json!(true);
    let said = take(&server, &other).unwrap_err();
    assert!(said.contains("violates PodSecurity \"restricted:latest\""), "{said}");
}
