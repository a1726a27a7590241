use std::fmt::Debug;

use kube::api::{Api, ObjectMeta, Patch, PatchParams};
use kube::{Error, Resource, ResourceExt};
use kubeapi::name::FINALIZER;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{WriteError, Writer};

/// How often a list of finalizers may change under our hands.
const TRIES: u32 = 5;

impl Writer {
    /// Takes our finalizer off an object, and leaves those of others as they are, whoever adds or removes some meanwhile.
    ///
    /// The list is read anew, because what a watch has seen may be old, and only the one element is taken out of it, on the
    /// condition that it is ours. An object that is gone, or is another one by now, needs nothing.
    pub(crate) async fn drop_finalizer<K>(
        &self,
        api: &Api<K>,
        object: &ObjectMeta,
        manager: &str,
    ) -> Result<(), WriteError>
    where
        K: Resource + Clone + DeserializeOwned + Debug,
    {
        let name = object.name.clone().unwrap_or_default();
        let mut refused: Option<(Vec<String>, WriteError)> = None;
        for _ in 0..TRIES {
            let found = match self.fenced(&name, api.get(&name)).await {
                Ok(found) => found,
                Err(WriteError::Missing { .. }) => return Ok(()),
                Err(error) => return Err(error),
            };
            let finalizers = found.finalizers();
            let at = finalizers.iter().position(|finalizer| finalizer == FINALIZER);
            let (Some(at), true) = (at, found.meta().uid == object.uid) else { return Ok(()) };
            match refused.take() {
                // It is as it was: that was no race with somebody else.
                Some((before, error)) if before == finalizers => return Err(error),
                _ => {}
            }
            match self.take_out(api, &found, at, manager).await {
                Ok(()) | Err(WriteError::Missing { .. }) => return Ok(()),
                Err(error @ WriteError::Refused { .. }) => refused = Some((finalizers.to_vec(), error)),
                Err(WriteError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(WriteError::Conflict { what: name })
    }

    /// Removes the finalizer at this place, if it is ours.
    async fn take_out<K>(&self, api: &Api<K>, found: &K, at: usize, manager: &str) -> Result<(), WriteError>
    where
        K: Resource + Clone + DeserializeOwned + Debug,
    {
        let name = found.name_any();
        let place = format!("/metadata/finalizers/{at}");
        let steps = json!([
            {"op": "test", "path": "/metadata/uid", "value": found.meta().uid},
            {"op": "test", "path": place, "value": FINALIZER},
            {"op": "remove", "path": place},
        ]);
        let parameters = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
        let patched = async {
            let patch: Patch<()> = Patch::Json(serde_json::from_value(steps).map_err(Error::SerdeError)?);
            api.patch(&name, &parameters, &patch).await
        };
        self.fenced(&name, patched).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use axum::extract::State;
    use axum::http::{HeaderMap, StatusCode};
    use axum::response::{IntoResponse, Response};
    use axum::routing::get;
    use axum::{Json, Router};
    use k8s_openapi::api::core::v1::Service;
    use serde_json::Value;

    use super::*;
    use crate::leader::Leadership;

    /// An API server with one Service, whose list of finalizers others change between what we read and what we write.
    #[derive(Default)]
    struct Memory {
        finalizers: Vec<String>,
        /// What the list becomes after each reading, the next one last.
        races: Vec<Vec<String>>,
        /// It takes no change at all.
        frozen: bool,
        patches: usize,
    }

    type Shared = State<Arc<Mutex<Memory>>>;

    fn service(memory: &Memory) -> Value {
        let metadata = json!({"name": "web", "namespace": "home", "uid": "1", "finalizers": memory.finalizers});
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata})
    }

    async fn read(State(state): Shared) -> Json<Value> {
        let mut memory = state.lock().unwrap();
        let answer = service(&memory);
        if let Some(next) = memory.races.pop() {
            memory.finalizers = next;
        }
        Json(answer)
    }

    /// Does what the API server does with the three steps of a patch.
    async fn change(State(state): Shared, headers: HeaderMap, Json(steps): Json<Value>) -> Response {
        assert_eq!(headers["content-type"], "application/json-patch+json");
        let mut memory = state.lock().unwrap();
        memory.patches += 1;
        let before = service(&memory);
        let holds = |step: &Value| before.pointer(step["path"].as_str().unwrap()) == Some(&step["value"]);
        if memory.frozen || !(holds(&steps[0]) && holds(&steps[1])) {
            let reason = if memory.frozen { "it is frozen" } else { "testing a value failed" };
            let status =
                json!({"kind": "Status", "status": "Failure", "code": 422, "reason": "Invalid", "message": reason});
            return (StatusCode::UNPROCESSABLE_ENTITY, Json(status)).into_response();
        }
        assert_eq!(steps[2]["op"], "remove");
        let at = steps[2]["path"].as_str().unwrap().rsplit('/').next().unwrap().parse::<usize>().unwrap();
        memory.finalizers.remove(at);
        Json(service(&memory)).into_response()
    }

    fn names(all: &[&str]) -> Vec<String> {
        all.iter().map(|name| (*name).to_owned()).collect()
    }

    /// Drops the finalizer of a Service with this UID; returns what came of it, what is left, and how often it was tried.
    async fn dropped(memory: Memory, uid: &str) -> (Result<(), WriteError>, Vec<String>, usize) {
        let state = Arc::new(Mutex::new(memory));
        let router = Router::new()
            .route("/api/v1/namespaces/home/services/web", get(read).patch(change))
            .with_state(state.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let mut config = kube::Config::new(url.parse().unwrap());
        config.default_retry = false;
        let client = kube::Client::try_from(config).unwrap();
        let leadership = Leadership::for_a_while(Duration::from_secs(60));
        let writer = Writer::new(client.clone(), "tailscale", "test", leadership);
        let services: Api<Service> = Api::namespaced(client, "home");
        let object = ObjectMeta { name: Some("web".to_owned()), uid: Some(uid.to_owned()), ..ObjectMeta::default() };
        let outcome = writer.drop_finalizer(&services, &object, "test").await;
        let memory = state.lock().unwrap();
        (outcome, memory.finalizers.clone(), memory.patches)
    }

    #[tokio::test]
    async fn others_finalizers_stay_whatever_they_add_and_remove_meanwhile() {
        let races = vec![names(&["c", "d", FINALIZER]), names(&["b", "a", FINALIZER])];
        let memory = Memory { finalizers: names(&["a", FINALIZER, "b"]), races, ..Memory::default() };
        let (outcome, left, patches) = dropped(memory, "1").await;
        assert!(outcome.is_ok(), "{outcome:?}");
        assert_eq!((left, patches), (names(&["c", "d"]), 2));
    }

    #[tokio::test]
    async fn one_that_is_gone_meanwhile_needs_nothing() {
        let memory = Memory { finalizers: names(&["a", FINALIZER]), races: vec![names(&["a"])], ..Memory::default() };
        let (outcome, left, _) = dropped(memory, "1").await;
        assert!(outcome.is_ok(), "{outcome:?}");
        assert_eq!(left, names(&["a"]));
    }

    #[tokio::test]
    async fn an_object_made_anew_under_the_name_keeps_its_own() {
        let memory = Memory { finalizers: names(&[FINALIZER]), ..Memory::default() };
        let (outcome, left, patches) = dropped(memory, "2").await;
        assert!(outcome.is_ok(), "{outcome:?}");
        assert_eq!((left, patches), (names(&[FINALIZER]), 0));
    }

    #[tokio::test]
    async fn a_refusal_is_told_at_once() {
        let memory = Memory { finalizers: names(&["a", FINALIZER]), frozen: true, ..Memory::default() };
        let (outcome, _, patches) = dropped(memory, "1").await;
        assert!(outcome.unwrap_err().to_string().contains("it is frozen"));
        assert_eq!(patches, 1);
    }

    #[tokio::test]
    async fn a_list_that_never_rests_is_given_up_for_now() {
        let turns = [names(&["a", FINALIZER]), names(&[FINALIZER, "a"])];
        let races: Vec<_> = turns.iter().cycle().take(40).cloned().collect();
        let memory = Memory { finalizers: turns[0].clone(), races, ..Memory::default() };
        let (outcome, _, patches) = dropped(memory, "1").await;
        assert!(matches!(outcome, Err(WriteError::Conflict { .. })), "{outcome:?}");
        assert_eq!(patches, 5);
    }
}
