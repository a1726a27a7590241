//! The operator against a real API server with its real admission and RBAC, and a coordination server that only writes
//! down what it is asked. No kubelet and no controller runs: the tests play them.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

mod chart;
mod control;
mod scenarios;
mod stage;

use stage::Stage;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_operator_on_a_real_api_server() {
    if let Ok(log) = std::env::var("TOWLINE_LOG") {
        telemetry::LogArguments { log, log_format: telemetry::LogFormat::Text }.install().unwrap();
    }
    let stage = Stage::set().await;
    scenarios::schema::play(&stage).await;
    let operator = stage.operator("first");
    scenarios::ingress::play(&stage).await;
    scenarios::refusals::play(&stage).await;
    scenarios::egress::play(&stage).await;
    scenarios::connector::play(&stage).await;
    scenarios::rights::play(&stage).await;
    scenarios::takeover::play(&stage).await;
    scenarios::sidecar::play(&stage).await;
    scenarios::impostor::play(&stage).await;
    scenarios::keys::play(&stage).await;
    scenarios::succession::play(&stage, operator).await;
    scenarios::removal::play(&stage).await;
}
