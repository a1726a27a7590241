use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, Limited};
use hyper::body::Body;
use tailcfg::json::{self, Limits};

use super::Refusal;

/// How long a request may take to arrive.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// Reads a request's body within the limits of a machine's request, and the JSON in it.
pub(super) async fn read<T, B>(body: B) -> Result<T, Refusal>
where
    T: serde::de::DeserializeOwned,
    B: Body<Data = Bytes>,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let limits = Limits::REQUEST;
    let collected = tokio::time::timeout(PATIENCE, Limited::new(body, limits.bytes).collect());
    let Ok(collected) = collected.await else {
        return Err(Refusal::new(http::StatusCode::REQUEST_TIMEOUT, "the request did not arrive in time"));
    };
    let mut bytes = match collected {
        Ok(collected) => collected.aggregate(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            return Err(Refusal::new(
                http::StatusCode::PAYLOAD_TOO_LARGE,
                format!("the request is longer than the {} bytes that are read", limits.bytes),
            ));
        }
        Err(error) => return Err(Refusal::malformed(format!("the request was cut off: {error}"))),
    };
    let bytes = bytes.copy_to_bytes(bytes.remaining());
    json::read(&bytes, limits).map_err(|error| Refusal::malformed(error.to_string()))
}
