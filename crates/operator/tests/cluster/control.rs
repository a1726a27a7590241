//! A coordination server that lets everybody in, and writes down what it was asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

#[derive(Clone)]
pub(crate) struct Control {
    pub(crate) url: String,
    state: Arc<Mutex<Memory>>,
}

#[derive(Default)]
pub(crate) struct Memory {
    /// Keys that live, by id.
    pub(crate) keys: BTreeMap<String, Value>,
    /// Devices with their tags.
    pub(crate) devices: BTreeMap<String, Vec<String>>,
    /// Every key that was ever made: its description.
    pub(crate) minted: Vec<String>,
    pub(crate) removed: Vec<String>,
    pub(crate) revoked: Vec<String>,
    /// A tag that it gives to nobody.
    pub(crate) refused_tag: Option<String>,
    /// It answers every call with 503.
    pub(crate) away: bool,
}

impl Control {
    pub(crate) async fn start() -> Self {
        let state = Arc::new(Mutex::new(Memory::default()));
        let router = Router::new()
            .route("/api/v2/oauth/token", post(token))
            .route("/api/v2/tailnet/-/keys", post(create_key).get(list_keys))
            .route("/api/v2/tailnet/-/keys/{id}", get(key).delete(key))
            .route("/api/v2/device/{id}", get(device).delete(device))
            .with_state(state.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, state }
    }

    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.state.lock().unwrap()
    }

    /// How many keys were made for Secrets with this UID.
    pub(crate) fn minted_for(&self, uid: &str) -> usize {
        self.memory().minted.iter().filter(|description| description.contains(uid)).count()
    }
}

type Shared = State<Arc<Mutex<Memory>>>;

fn refusal(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({"message": message, "status": status.as_u16()}))).into_response()
}

fn away(memory: &Memory) -> Option<Response> {
    memory.away.then(|| refusal(StatusCode::SERVICE_UNAVAILABLE, "closed for the test"))
}

async fn token() -> Json<Value> {
    Json(json!({"access_token": "t", "token_type": "Bearer", "expires_in": 3600, "scope": "all"}))
}

async fn create_key(State(state): Shared, Json(request): Json<Value>) -> Response {
    let mut memory = state.lock().unwrap();
    if let Some(away) = away(&memory) {
        return away;
    }
    let create = &request["capabilities"]["devices"]["create"];
    let tags: Vec<&str> = create["tags"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    if let Some(tag) = memory.refused_tag.clone().filter(|tag| tags.contains(&tag.as_str())) {
        return refusal(StatusCode::FORBIDDEN, &format!("{tag} is not yours to give"));
    }
    assert!(create["reusable"] == false && create["preauthorized"] == true, "{request}");
    let description = request["description"].as_str().unwrap().to_owned();
    assert!(description.len() <= 50, "{description}");
    memory.minted.push(description.clone());
    let id = format!("k{}", memory.minted.len());
    let key = json!({"id": id, "keyType": "auth", "key": format!("tskey-auth-{id}"), "description": description,
        "expires": "2099-01-01T00:00:00Z", "capabilities": request["capabilities"]});
    let mut kept = key.clone();
    kept.as_object_mut().unwrap().remove("key");
    memory.keys.insert(id, kept);
    Json(key).into_response()
}

async fn list_keys(State(state): Shared) -> Response {
    let memory = state.lock().unwrap();
    away(&memory).unwrap_or_else(|| Json(json!({"keys": memory.keys.values().collect::<Vec<_>>()})).into_response())
}

async fn key(method: Method, State(state): Shared, Path(id): Path<String>) -> Response {
    let mut memory = state.lock().unwrap();
    if let Some(away) = away(&memory) {
        return away;
    }
    let Some(found) = memory.keys.get(&id).cloned() else { return refusal(StatusCode::NOT_FOUND, "no such key") };
    if method == Method::DELETE {
        memory.keys.remove(&id);
        memory.revoked.push(id);
    }
    Json(found).into_response()
}

async fn device(method: Method, State(state): Shared, Path(id): Path<String>) -> Response {
    let mut memory = state.lock().unwrap();
    if let Some(away) = away(&memory) {
        return away;
    }
    let Some(tags) = memory.devices.get(&id).cloned() else { return refusal(StatusCode::NOT_FOUND, "no such device") };
    if method == Method::DELETE {
        memory.devices.remove(&id);
        memory.removed.push(id.clone());
    }
    Json(json!({"nodeId": id, "id": "1", "tags": tags})).into_response()
}
