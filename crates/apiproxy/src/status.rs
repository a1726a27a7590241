use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::json;

use crate::Refusal;

/// The answer to a request that is not sent on, as the API server words its own errors: kubectl prints the message.
pub(crate) fn answer(refusal: &Refusal, close: bool) -> Response<Full<Bytes>> {
    let status = refusal.status();
    let body = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": format!("towline: {refusal}"),
        "reason": reason(status),
        "code": status.as_u16(),
    });
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    // What the client may have sent behind such a request is not looked at.
    if close {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Kubernetes' word for a status (`metav1.StatusReason`).
fn reason(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST => "BadRequest",
        StatusCode::FORBIDDEN => "Forbidden",
        StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
        _ => "InternalError",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    #[tokio::test]
    async fn a_refusal_reads_as_a_kubernetes_status() {
        let response = answer(&Refusal::ImpersonatesItself("impersonate-user".into()), true);
        assert_eq!(
            (response.status(), response.headers()["connection"].as_bytes()),
            (StatusCode::FORBIDDEN, &b"close"[..])
        );
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let status: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (&status["kind"], &status["code"], &status["reason"]),
            (&json!("Status"), &json!(403), &json!("Forbidden"))
        );
        assert!(status["message"].as_str().unwrap().contains("--as"));
    }
}
