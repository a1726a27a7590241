//! A coordination server on loopback with everything it has in one folder, and what programs ask it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::SecretText;
use bytes::Bytes;
use control::{Config, FirstTailnet, NewServer, Running, ServerUrl, TrustedProxies};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use telemetry::Shutdown;
use tempfile::TempDir;
use tokio::net::TcpStream;

pub(crate) const ADMIN: &str = "admin@example.com";
pub(crate) const PASSWORD: &str = "a long password for a short test";
const URL: &str = "http://control.test";

/// What most tests begin with: tags that are there to be given, and everything open to the administrator.
pub(crate) const POLICY: &str = r#"{
    "groups": {"group:dev": ["admin@example.com"]},
    "tagOwners": {"tag:server": ["autogroup:admin"], "tag:k8s-operator": []},
    "grants": [{"src": ["autogroup:admin", "autogroup:owner"], "dst": ["*"], "ip": ["*"]}],
}"#;

/// A server that runs, and its administrator's token.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    token: String,
    shutdown: Shutdown,
    running: tokio::task::JoinHandle<anyhow::Result<()>>,
    folder: Arc<TempDir>,
}

impl Server {
    /// A new server with the policy of most tests.
    pub(crate) async fn start() -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        set_up(&folder.path().join("data")).await;
        let server = Self::run(folder).await.unwrap();
        let (status, answer) = server.ask(Method::POST, "/tailnet/-/acl", POLICY).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        server
    }

    /// Starts a server that was set up.
    pub(crate) async fn run(folder: Arc<TempDir>) -> anyhow::Result<Self> {
        let config = Config {
            url: url(),
            https: None,
            http: Some("127.0.0.1:0".parse().unwrap()),
            admin: Some("127.0.0.1:0".parse().unwrap()),
            certificate: None,
            proxies: TrustedProxies(Vec::new()),
            relays: control::relay_map(&["relay.test".to_owned()]).unwrap(),
            relay_token: Some(folder.path().join("data/relay.token")),
            data: folder.path().join("data"),
        };
        let shutdown = Shutdown::new(Duration::from_secs(2));
        let running = Running::start(config, shutdown.clone()).await?;
        let (address, admin) = (running.http.unwrap(), running.admin.unwrap());
        let running = tokio::spawn(running.finish());
        let mut server = Self { address, admin, token: String::new(), shutdown, running, folder };
        server.token = server.log_in_as(ADMIN).await;
        Ok(server)
    }

    /// Ends the server and starts it again on what it has written.
    pub(crate) async fn restart(self) -> Self {
        Self::run(self.stop().await).await.unwrap()
    }

    /// Ends the server; answers the folder with what it has written.
    pub(crate) async fn stop(self) -> Arc<TempDir> {
        self.shutdown.request();
        self.running.await.unwrap().unwrap();
        self.folder
    }

    /// The folder that it keeps everything in.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Fetches what anybody may have.
    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.exchange(Request::get(path), "").await
    }

    /// Asks whom to admit, as a relay of ours with some token does.
    pub(crate) async fn ask_whom_to_admit(&self, token: &str, query: &str) -> (StatusCode, Value) {
        let request = Request::get(format!("/relay/admission{query}"));
        self.exchange(request.header(header::AUTHORIZATION, format!("Bearer {token}")), "").await
    }

    /// Asks whether to admit a client, as a stock relay does.
    pub(crate) async fn ask_whether_to_admit(&self, question: String) -> (StatusCode, Value) {
        self.exchange(Request::post("/verify"), question).await
    }

    /// Sends a form.
    pub(crate) async fn form(&self, path: &str, form: String) -> (StatusCode, Value) {
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        self.exchange(request, form).await
    }

    /// The administrator's token.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Calls the API as the administrator; `path` is what follows `/api/v2`.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: impl Into<Bytes>) -> (StatusCode, Value) {
        let request = Request::builder().method(method).uri(format!("/api/v2{path}"));
        self.exchange(request.header(header::AUTHORIZATION, format!("Bearer {}", self.token)), body).await
    }

    /// Asks the listener for health and metrics; answers the text.
    pub(crate) async fn probe(&self, path: &str) -> (StatusCode, String) {
        let (status, text) = exchange(self.admin, Request::get(path), "").await;
        (status, text.as_str().unwrap().to_owned())
    }

    async fn exchange(&self, request: http::request::Builder, body: impl Into<Bytes>) -> (StatusCode, Value) {
        exchange(self.address, request, body).await
    }

    /// Calls the API with a token of somebody's.
    pub(crate) async fn ask_as(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> (StatusCode, Value) {
        let request = Request::builder().method(method).uri(format!("/api/v2{path}"));
        self.exchange(request.header(header::AUTHORIZATION, format!("Bearer {token}")), body).await
    }

    /// Calls the API as the administrator with headers of its own; answers the headers too.
    pub(crate) async fn ask_with(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> (StatusCode, HeaderMap, Value) {
        let request = Request::builder().method(method).uri(format!("/api/v2{path}"));
        let request = request.header(header::AUTHORIZATION, format!("Bearer {}", self.token));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let (head, bytes) = send(self.address, request, body).await;
        (head.status, head.headers, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// Makes an OAuth client; answers its secret.
    pub(crate) async fn make_client(&self, scopes: &[&str]) -> String {
        let wanted = json!({"keyType": "client", "scopes": scopes}).to_string();
        let (status, client) = self.ask(Method::POST, "/tailnet/-/keys", wanted).await;
        assert_eq!(status, StatusCode::OK, "{client}");
        client["key"].as_str().unwrap().to_owned()
    }

    /// What a client is answered that asks for an access token.
    pub(crate) async fn grant(&self, secret: &str) -> (StatusCode, Value) {
        self.form("/api/v2/oauth/token", format!("grant_type=client_credentials&client_secret={secret}")).await
    }

    /// Makes a user with a password; answers their number.
    pub(crate) async fn make_user(&self, login: &str, role: &str) -> String {
        let wanted = json!({"loginName": login, "role": role, "password": PASSWORD}).to_string();
        let (status, user) = self.ask(Method::POST, "/tailnet/-/users", wanted).await;
        assert_eq!(status, StatusCode::OK, "{user}");
        user["id"].as_str().unwrap().to_owned()
    }

    /// Signs a user of that password in; answers the token.
    pub(crate) async fn log_in_as(&self, login: &str) -> String {
        let (status, answer) = self.log_in(login, PASSWORD).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer["access_token"].as_str().unwrap().to_owned()
    }

    /// What is answered to a name and a password of letters and spaces.
    pub(crate) async fn log_in(&self, login: &str, password: &str) -> (StatusCode, Value) {
        let form = format!("grant_type=password&username={login}&password={}", password.replace(' ', "+"));
        self.form("/api/v2/oauth/token", form).await
    }

    /// Opens a page, or sends a form to it, as a browser with this cookie does; answers the cookie that it has then.
    pub(crate) async fn browse(&self, path: &str, cookie: &str, form: Option<String>) -> (StatusCode, String, String) {
        let request = Request::builder().uri(path).header(header::COOKIE, cookie);
        let request = match &form {
            Some(_) => request.method(Method::POST).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded"),
            None => request.method(Method::GET),
        };
        let (head, bytes) = send(self.address, request, form.unwrap_or_default()).await;
        let set = head.headers.get(header::SET_COOKIE).map(|value| value.to_str().unwrap().to_owned());
        let cookie = set.map_or(cookie.to_owned(), |set| set.split(';').next().unwrap().to_owned());
        (head.status, cookie, String::from_utf8(bytes.to_vec()).unwrap())
    }

    /// Makes an auth key; answers its number and its text.
    pub(crate) async fn make_key(&self, create: Value, seconds: Option<u64>) -> (String, String) {
        let wanted = json!({"capabilities": {"devices": {"create": create}}, "expirySeconds": seconds});
        let (status, key) = self.ask(Method::POST, "/tailnet/-/keys", wanted.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{key}");
        (key["id"].as_str().unwrap().to_owned(), key["key"].as_str().unwrap().to_owned())
    }

    /// The names of all keys that there are.
    pub(crate) async fn keys(&self) -> BTreeMap<String, Value> {
        let (status, list) = self.ask(Method::GET, "/tailnet/-/keys?all=true", "").await;
        assert_eq!(status, StatusCode::OK, "{list}");
        let keys = list["keys"].as_array().unwrap();
        keys.iter().map(|key| (key["id"].as_str().unwrap().to_owned(), key.clone())).collect()
    }

    /// The names of all devices.
    pub(crate) async fn devices(&self) -> Vec<String> {
        let (status, list) = self.ask(Method::GET, "/tailnet/-/devices", "").await;
        assert_eq!(status, StatusCode::OK, "{list}");
        list["devices"].as_array().unwrap().iter().map(|device| device["name"].as_str().unwrap().to_owned()).collect()
    }

    /// The text of the policy in force.
    pub(crate) async fn policy(&self) -> String {
        let (status, details) = self.ask(Method::GET, "/tailnet/-/acl?details=1", "").await;
        assert_eq!(status, StatusCode::OK, "{details}");
        details.to_string()
    }
}

async fn exchange(address: SocketAddr, request: http::request::Builder, body: impl Into<Bytes>) -> (StatusCode, Value) {
    let (head, bytes) = send(address, request, body).await;
    let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
    (head.status, serde_json::from_slice(&bytes).unwrap_or_else(|_| text()))
}

async fn send(
    address: SocketAddr,
    request: http::request::Builder,
    body: impl Into<Bytes>,
) -> (http::response::Parts, Bytes) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(connection);
    let request = request.header(header::HOST, "control.test").body(Full::new(body.into())).unwrap();
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    driver.abort();
    (head, bytes)
}

/// What everybody calls the server.
pub(crate) fn url() -> ServerUrl {
    ServerUrl::parse(URL).unwrap()
}

/// Makes a server with one tailnet and its owner.
pub(crate) async fn set_up(data: &Path) {
    control::init(new_server(data)).await.unwrap();
}

/// A server as most tests want it.
pub(crate) fn new_server(data: &Path) -> NewServer {
    NewServer {
        data: data.to_owned(),
        url: url(),
        certificate: None,
        relays: control::relay_map(&["relay.test".to_owned()]).unwrap(),
        tailnet: FirstTailnet {
            domain: "test.ts.net".parse().unwrap(),
            name: None,
            owner: ADMIN.parse().unwrap(),
            password: Some(SecretText::new(PASSWORD.to_owned())),
        },
    }
}
