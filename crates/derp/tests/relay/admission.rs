//! Who is let in: by the set that the coordination server tells, by a URL that is asked, and nobody by accident.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use crypto::{NodePrivate, NodePublic};
use derp::client::ConnectError;
use derp::server::{AdmissionConfig, ServerUrl};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::support::*;

/// A coordination server: answers requests from a script, and holds each back until there is an answer.
#[derive(Debug, Clone, Default)]
struct FakeControl {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    answers: VecDeque<(u16, String)>,
    /// Path and query, authorization, and body of each request.
    requests: Vec<(String, String, String)>,
}

impl FakeControl {
    async fn start() -> (Self, SocketAddr) {
        let control = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = control.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let control = serving.clone();
                let service = service_fn(move |request| {
                    let control = control.clone();
                    async move { Ok::<_, Infallible>(control.answer(request).await) }
                });
                tokio::spawn(async move {
                    let _ended =
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tcp), service).await;
                });
            }
        });
        (control, address)
    }

    fn will_answer(&self, status: u16, body: impl Into<String>) {
        self.state.lock().unwrap().answers.push_back((status, body.into()));
        self.changed.notify_waiters();
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().to_string();
        let authorization = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        self.state.lock().unwrap().requests.push((path, authorization.unwrap_or_default(), body));
        loop {
            let changed = self.changed.notified();
            if let Some((status, body)) = self.state.lock().unwrap().answers.pop_front() {
                return Response::builder().status(status).body(Full::from(body)).unwrap();
            }
            changed.await;
        }
    }

    fn requests(&self) -> Vec<(String, String, String)> {
        self.state.lock().unwrap().requests.clone()
    }

    async fn await_requests(&self, count: usize) -> Vec<(String, String, String)> {
        let waiting = async {
            while self.requests().len() < count {
                // tidy: sleep, the record of requests is looked at until the deadline around this loop
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("the relay asks");
        self.requests()
    }
}

fn followed(control: SocketAddr, directory: &std::path::Path) -> AdmissionConfig {
    let token_file = directory.join("token");
    std::fs::write(&token_file, "secret\n").unwrap();
    AdmissionConfig::Follow {
        url: ServerUrl::parse_for_secret(&format!("http://{control}/admission")).unwrap(),
        token_file,
        state_file: directory.join("admission.json"),
    }
}

fn whole(version: u64, keys: &[&NodePrivate]) -> String {
    let nodes: Vec<NodePublic> = keys.iter().map(|key| key.public()).collect();
    serde_json::json!({ "version": version, "nodes": nodes }).to_string()
}

fn assert_refused(result: Result<derp::client::Connection, ConnectError>) {
    match result {
        Err(ConnectError::Ended(_)) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn drp_01_nobody_is_let_in_before_the_coordination_server_has_spoken() {
    let directory = tempfile::tempdir().unwrap();
    let (control, address) = FakeControl::start().await;
    let relay = TestRelay::start_with(|config| config.admission = followed(address, directory.path()));
    let key = new_key();
    assert_refused(relay.try_connect(&key).await);
    let unready = http_get(relay.admin, "/readyz").await;
    assert!(unready.starts_with("HTTP/1.1 503") && unready.contains("admission"), "{unready}");

    control.will_answer(200, whole(1, &[&key]));
    relay.await_metric("towline_relay_admitted_keys", |keys| keys == 1.0).await;
    assert!(relay.try_connect(&key).await.is_ok());
    assert_refused(relay.try_connect(&new_key()).await);
    assert!(http_get(relay.admin, "/readyz").await.starts_with("HTTP/1.1 200"));
    let requests = control.await_requests(2).await;
    assert_eq!(requests[0].0, "/admission?wait=50");
    assert_eq!(requests[1].0, "/admission?since=1&wait=50");
    assert_eq!(requests[0].1, "Bearer secret");
}

#[tokio::test]
async fn a_revoked_key_is_cut_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let (control, address) = FakeControl::start().await;
    let relay = TestRelay::start_with(|config| config.admission = followed(address, directory.path()));
    let (kept, revoked) = (new_key(), new_key());
    control.will_answer(200, whole(1, &[&kept, &revoked]));
    relay.await_metric("towline_relay_admitted_keys", |keys| keys == 2.0).await;
    let mut kept_client = relay.connect(&kept).await;
    let mut revoked_client = relay.connect(&revoked).await;

    let change = serde_json::json!({ "version": 2, "since": 1, "remove": [revoked.public()] });
    control.will_answer(200, change.to_string());
    await_end(&mut revoked_client).await;
    assert_refused(relay.try_connect(&revoked).await);
    kept_client.ping([1; 8]).unwrap();
    await_event(&mut kept_client, |event| (event == derp::client::Event::Pong([1; 8])).then_some(())).await;
}

#[tokio::test]
async fn a_change_that_does_not_fit_has_the_whole_set_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let (control, address) = FakeControl::start().await;
    let relay = TestRelay::start_with(|config| config.admission = followed(address, directory.path()));
    let (a, b) = (new_key(), new_key());
    control.will_answer(200, whole(5, &[&a]));
    control.will_answer(200, serde_json::json!({ "version": 9, "since": 8, "add": [b.public()] }).to_string());
    let requests = control.await_requests(3).await;
    assert_eq!(requests[1].0, "/admission?since=5&wait=50");
    assert_eq!(requests[2].0, "/admission?wait=50");
    assert!(relay.try_connect(&a).await.is_ok());
    control.will_answer(200, whole(9, &[&b]));
    relay.await_metric("towline_relay_admission_failures_total", |count| count == 1.0).await;
    let waiting = async { while relay.try_connect(&b).await.is_err() {} };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    assert_refused(relay.try_connect(&a).await);
}

#[tokio::test]
async fn drp_01_after_a_restart_the_kept_set_counts_while_the_coordination_server_is_away() {
    let directory = tempfile::tempdir().unwrap();
    let key = new_key();
    {
        let (control, address) = FakeControl::start().await;
        let relay = TestRelay::start_with(|config| config.admission = followed(address, directory.path()));
        control.will_answer(200, whole(3, &[&key]));
        control.await_requests(2).await;
        relay.shutdown.request();
        relay.running.await.unwrap().unwrap();
    }
    let nobody: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let relay = TestRelay::start_with(|config| config.admission = followed(nobody, directory.path()));
    assert!(relay.try_connect(&key).await.is_ok());
    assert_refused(relay.try_connect(&new_key()).await);
}

#[tokio::test]
async fn a_coordination_server_that_errs_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (control, address) = FakeControl::start().await;
    let relay = TestRelay::start_with(|config| config.admission = followed(address, directory.path()));
    let key = new_key();
    control.will_answer(200, whole(1, &[&key]));
    for (status, body) in [(500, ""), (401, ""), (200, "{}"), (200, "not json")] {
        control.will_answer(status, body);
    }
    relay.await_metric("towline_relay_admission_failures_total", |count| count == 4.0).await;
    assert!(relay.try_connect(&key).await.is_ok());
}

fn asked(control: SocketAddr, fail_open: bool) -> AdmissionConfig {
    AdmissionConfig::Ask { url: ServerUrl::parse(&format!("http://{control}/verify")).unwrap(), fail_open }
}

#[tokio::test]
async fn a_url_is_asked_about_each_client() {
    let (control, address) = FakeControl::start().await;
    let relay = TestRelay::start_with(|config| config.admission = asked(address, false));
    let key = new_key();
    control.will_answer(200, r#"{"Allow":true}"#);
    assert!(relay.try_connect(&key).await.is_ok());
    control.will_answer(200, r#"{"Allow":false}"#);
    assert_refused(relay.try_connect(&key).await);
    let (path, _, body) = control.requests().remove(0);
    assert_eq!(path, "/verify");
    assert_eq!(body, format!(r#"{{"NodePublic":"{}","Source":"127.0.0.1"}}"#, key.public()));
}

#[tokio::test]
async fn drp_01_a_url_that_gives_no_answer_lets_nobody_in_unless_it_is_told_to() {
    let (control, address) = FakeControl::start().await;
    let relay = TestRelay::start_with(|config| config.admission = asked(address, false));
    for (status, body) in [(500, r#"{"Allow":true}"#), (200, "{}"), (200, "yes"), (302, "")] {
        control.will_answer(status, body);
        assert_refused(relay.try_connect(&new_key()).await);
    }
    let nobody: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let closed = TestRelay::start_with(|config| config.admission = asked(nobody, false));
    assert_refused(closed.try_connect(&new_key()).await);
    let open = TestRelay::start_with(|config| config.admission = asked(nobody, true));
    assert!(open.try_connect(&new_key()).await.is_ok());
}
