use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use crypto::NodePublic;
use http::{Method, Request, StatusCode, header};
use http_body_util::Full;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::Refusal;
use crate::client::Dialer;
use crate::https::{self, ServerUrl};

/// How long an answer may take and be, and how many questions are open at once.
const ANSWER_TIME: Duration = Duration::from_secs(5);
const MOST_ANSWER: usize = 4 << 10;
const MOST_QUESTIONS: usize = 64;

/// Asks a URL about each client.
#[derive(Debug)]
pub(crate) struct Questioner {
    dialer: Dialer,
    url: ServerUrl,
    fail_open: bool,
    open: Semaphore,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Question<'a> {
    node_public: &'a NodePublic,
    source: IpAddr,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    allow: bool,
}

impl Questioner {
    pub(crate) fn new(dialer: Dialer, url: ServerUrl, fail_open: bool) -> Self {
        Self { dialer, url, fail_open, open: Semaphore::new(MOST_QUESTIONS) }
    }

    pub(crate) async fn ask(&self, key: &NodePublic, source: IpAddr) -> Result<(), Refusal> {
        match self.answer(key, source).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refusal::NotAdmitted),
            Err(error) => {
                tracing::warn!(%error, fail_open = self.fail_open, "the admission server gave no answer");
                if self.fail_open { Ok(()) } else { Err(Refusal::NoAnswer) }
            }
        }
    }

    async fn answer(&self, key: &NodePublic, source: IpAddr) -> anyhow::Result<bool> {
        let _slot = self.open.acquire().await?;
        let body = serde_json::to_vec(&Question { node_public: key, source: source.to_canonical() })?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.url.path())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))?;
        let response = https::request(&self.dialer, &self.url, request, MOST_ANSWER, ANSWER_TIME).await?;
        anyhow::ensure!(response.status() == StatusCode::OK, "it answers with status {}", response.status());
        Ok(serde_json::from_slice::<Answer>(response.body())?.allow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_is_the_one_that_stock_relays_ask() {
        let key = NodePublic::from_bytes([0xab; 32]);
        let question = Question { node_public: &key, source: "203.0.113.1".parse().unwrap() };
        let expected = format!(r#"{{"NodePublic":"nodekey:{}","Source":"203.0.113.1"}}"#, "ab".repeat(32));
        assert_eq!(serde_json::to_string(&question).unwrap(), expected);
    }

    #[test]
    fn an_answer_that_says_nothing_allows_nothing() {
        assert!(serde_json::from_str::<Answer>("{}").is_err());
        assert!(serde_json::from_str::<Answer>(r#"{"Allow":true}"#).unwrap().allow);
    }
}
