//! Bodies of requests, bounded in size and time.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt;

use crate::{ApiError, BODY_LIMIT};

/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(30);

/// Reads a body of so many bytes at most. `admit` is asked for a place as soon as it is known to be larger than
/// [`BODY_LIMIT`]: by the length that it tells, or by what has come where it tells none.
pub(crate) async fn receive<P>(
    body: Body,
    most: usize,
    admit: impl FnOnce() -> Result<P, ApiError>,
) -> Result<(Bytes, Option<P>), ApiError> {
    let late = || ApiError::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time");
    tokio::time::timeout(BODY_TIME, collect(body, most, admit)).await.map_err(|_| late())?
}

async fn collect<P>(
    mut body: Body,
    most: usize,
    admit: impl FnOnce() -> Result<P, ApiError>,
) -> Result<(Bytes, Option<P>), ApiError> {
    let told = usize::try_from(hyper::body::Body::size_hint(&body).lower()).unwrap_or(usize::MAX);
    let (mut read, mut admit, mut place) = (BytesMut::new(), Some(admit), None);
    let mut expect = |length: usize| {
        if length > most {
            let message = format!("the body is larger than {most} bytes");
            return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message));
        }
        if length > BODY_LIMIT
            && let Some(admit) = admit.take()
        {
            place = Some(admit()?);
        }
        Ok(())
    };
    expect(told)?;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| ApiError::bad_request("the body broke off"))?;
        let Ok(data) = frame.into_data() else { continue };
        expect(read.len().saturating_add(data.len()))?;
        read.extend_from_slice(&data);
    }
    Ok((read.freeze(), place))
}
