use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context;
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
                let error = format!("{error:#}");
                tracing::warn!(error, fail_open = self.fail_open, "could not ask whether to admit a node");
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
        let response = https::request(&self.dialer, &self.url, request, MOST_ANSWER, ANSWER_TIME).await;
        let response = response.with_context(|| format!("{} gives no answer", self.url))?;
        let status = response.status();
        anyhow::ensure!(status == StatusCode::OK, "{} answers with status {status}", self.url);
        let answer = serde_json::from_slice::<Answer>(response.body());
        Ok(answer.with_context(|| format!("{} answers neither yes nor no", self.url))?.allow)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dial::{Resolve, Roots};
    use futures_util::future::BoxFuture;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[derive(Debug)]
    struct NoNames;

    impl Resolve for NoNames {
        fn resolve<'a>(&'a self, _name: &'a str) -> BoxFuture<'a, std::io::Result<Vec<IpAddr>>> {
            Box::pin(async { Ok(Vec::new()) })
        }
    }

    #[tokio::test]
    async fn whatever_keeps_it_from_an_answer_names_the_url_and_nothing_secret() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = format!("http://{}/verify", listener.local_addr().unwrap());
        let url = ServerUrl::parse(&format!("{place}?token=secret")).unwrap();
        let questioner = Questioner::new(Dialer::new(Arc::new(NoNames), &Roots::none()), url, false);
        let key = NodePublic::from_bytes([1; 32]);
        let ask = || questioner.answer(&key, IpAddr::from([203, 0, 113, 1]));
        for (sent, says) in [
            ("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", " answers with status 500 "),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", " answers neither yes nor no: missing field `Allow`"),
            ("no HTTP at all", " gives no answer: the connection broke: "),
        ] {
            let serve = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut question = Vec::new();
                while !question.ends_with(b"}") {
                    assert!(stream.read_buf(&mut question).await.unwrap() > 0);
                }
                stream.write_all(sent.as_bytes()).await.unwrap();
            };
            let (answer, ()) = tokio::join!(ask(), serve);
            let told = format!("{:#}", answer.unwrap_err());
            assert!(told.starts_with(&format!("{place}{says}")) && !told.contains("secret"), "{told}");
        }
        drop(listener);
        let told = format!("{:#}", ask().await.unwrap_err());
        assert!(told.starts_with(&format!("{place} gives no answer: ")), "{told}");
    }

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
