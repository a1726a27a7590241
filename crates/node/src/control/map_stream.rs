use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use tailcfg::MapResponse;
use tailcfg::frame::{self, FrameReader};
use tailcfg::json::{self, Limits};

use super::client::ClientError;

/// How long the server may be silent: it sends something every minute.
const SILENCE: Duration = Duration::from_secs(120);

/// The messages of a map stream.
pub(crate) struct MapStream {
    body: Incoming,
    reader: FrameReader,
}

impl MapStream {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, reader: FrameReader::default() }
    }

    /// The next message. Never cancelled half way by the caller: what was read stays in the reader.
    ///
    /// # Errors
    /// The end of the stream, silence for two minutes, or a message that breaks a limit.
    pub(crate) async fn next(&mut self) -> Result<MapResponse, ClientError> {
        match tokio::time::timeout(SILENCE, self.read()).await {
            Ok(message) => message,
            Err(_) => Err(ClientError::TimedOut(SILENCE)),
        }
    }

    async fn read(&mut self) -> Result<MapResponse, ClientError> {
        let wrong = |error: &dyn std::fmt::Display| ClientError::Answer(error.to_string());
        loop {
            if let Some(payload) = self.reader.next_payload().map_err(|error| wrong(&error))? {
                let message = frame::inflate(payload).map_err(|error| wrong(&error))?;
                return json::read(&message, Limits::MAP).map_err(|error| wrong(&error));
            }
            match self.body.frame().await {
                Some(Ok(piece)) => {
                    if let Some(bytes) = piece.data_ref() {
                        self.reader.push(bytes);
                    }
                }
                Some(Err(error)) => return Err(error.into()),
                None => return Err(ClientError::Answer("it ended the map stream".to_owned())),
            }
        }
    }
}
