//! An API server with one Secret, for tests.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use k8s_openapi::ByteString;
use serde_json::{Value, json};

/// An API server that has at most one Secret, and does as it is told.
#[derive(Default)]
pub(crate) struct Server {
    pub(crate) uid: Option<&'static str>,
    pub(crate) data: BTreeMap<String, String>,
    /// Answers that the next requests get in place of what they ask for.
    pub(crate) failures: VecDeque<u16>,
    pub(crate) patches: Vec<Value>,
}

pub(crate) type Handle = Arc<Mutex<Server>>;

fn status(code: u16, message: &str) -> (StatusCode, Json<Value>) {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code});
    (StatusCode::from_u16(code).unwrap(), Json(body))
}

fn secret(server: &Server) -> (StatusCode, Json<Value>) {
    let Some(uid) = server.uid else { return status(404, "secrets \"p-0\" not found") };
    let metadata = json!({"name": "p-0", "namespace": "tailscale", "uid": uid});
    (StatusCode::OK, Json(json!({"kind": "Secret", "apiVersion": "v1", "metadata": metadata, "data": server.data})))
}

async fn read(Shared(server): Shared<Handle>, Path(_): Path<String>) -> (StatusCode, Json<Value>) {
    let mut server = server.lock().unwrap();
    match server.failures.pop_front() {
        Some(code) => status(code, "as told"),
        None => secret(&server),
    }
}

async fn patch(Shared(server): Shared<Handle>, Path(_): Path<String>, body: String) -> (StatusCode, Json<Value>) {
    let mut server = server.lock().unwrap();
    if let Some(code) = server.failures.pop_front() {
        return status(code, "as told");
    }
    let patch: Value = serde_json::from_str(&body).unwrap();
    if server.uid.is_some() && patch["metadata"]["uid"].as_str().is_some_and(|uid| Some(uid) != server.uid) {
        return status(409, "Precondition failed: UID in precondition");
    }
    if server.uid.is_some() {
        for (name, value) in patch["data"].as_object().unwrap() {
            match value.as_str() {
                Some(text) => server.data.insert(name.clone(), text.to_owned()),
                None => server.data.remove(name),
            };
        }
        server.patches.push(patch);
    }
    secret(&server)
}

pub(crate) async fn serve(server: Server) -> (Handle, kube::Client) {
    let handle = Arc::new(Mutex::new(server));
    let router = Router::new()
        .route("/api/v1/namespaces/tailscale/secrets/{name}", get(read).patch(patch))
        .with_state(handle.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut config = kube::Config::new(url.parse().unwrap());
    config.default_retry = false;
    (handle, kube::Client::try_from(config).unwrap())
}

pub(crate) fn present() -> Server {
    Server { uid: Some("1"), ..Server::default() }
}

/// What a key of the Secret holds.
pub(crate) fn kept(handle: &Handle, name: &str) -> Option<String> {
    let text = handle.lock().unwrap().data.get(name).cloned()?;
    let ByteString(bytes) = serde_json::from_value(Value::String(text)).unwrap();
    Some(String::from_utf8(bytes).unwrap())
}
