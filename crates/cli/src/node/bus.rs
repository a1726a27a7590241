use std::collections::VecDeque;

use bytes::Buf;
use http::Response;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;

use super::LocalApiError;

/// What one line may hold; a line of a netmap, which older daemons send unasked, is as long as a status.
const LINE_LIMIT: usize = 64 << 20;

/// What the daemon tells of itself while a command waits.
#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Notify {
    /// What went wrong.
    pub(super) err_message: Option<String>,
    /// The state by its number; see [`State`](super::State).
    pub(super) state: Option<i64>,
    /// Where the user is to log in.
    #[serde(rename = "BrowseToURL")]
    pub(super) browse_to_url: Option<String>,
}

/// The daemon's stream of [`Notify`], a line each.
pub(super) struct Bus {
    body: Incoming,
    buffer: Vec<u8>,
    /// How much of the buffer was searched for the end of a line.
    searched: usize,
    ready: VecDeque<Notify>,
}

impl Bus {
    pub(super) fn new(response: Response<Incoming>) -> Self {
        Self { body: response.into_body(), buffer: Vec::new(), searched: 0, ready: VecDeque::new() }
    }

    /// The next thing that happens. Dropping the wait loses nothing.
    pub(super) async fn next(&mut self) -> Result<Notify, LocalApiError> {
        loop {
            if let Some(notify) = self.ready.pop_front() {
                return Ok(notify);
            }
            let frame = match self.body.frame().await {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Err(broken(error.to_string())),
                None => return Err(broken("it ended the stream".to_owned())),
            };
            if let Ok(mut data) = frame.into_data() {
                while data.has_remaining() {
                    let length = data.chunk().len();
                    self.buffer.extend_from_slice(data.chunk());
                    data.advance(length);
                }
                self.take_lines()?;
            }
        }
    }

    fn take_lines(&mut self) -> Result<(), LocalApiError> {
        while let Some(end) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
            let rest = self.buffer.split_off(self.searched + end + 1);
            let line = std::mem::replace(&mut self.buffer, rest);
            self.searched = 0;
            if !line.trim_ascii().is_empty() {
                self.ready.push_back(serde_json::from_slice(&line).map_err(|error| answer(error.to_string()))?);
            }
        }
        self.searched = self.buffer.len();
        if self.searched > LINE_LIMIT {
            return Err(answer(format!("a line is longer than {} MiB", LINE_LIMIT >> 20)));
        }
        Ok(())
    }
}

fn broken(reason: String) -> LocalApiError {
    LocalApiError::Broken { what: "GET watch-ipn-bus".to_owned(), reason }
}

fn answer(reason: String) -> LocalApiError {
    LocalApiError::Answer { what: "GET watch-ipn-bus".to_owned(), reason }
}
