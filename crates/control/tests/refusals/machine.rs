//! A device's side of ts2021, written from the protocol: it can say what no client of ours would.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use control::NoiseStream;
use crypto::control::{ClientHandshake, RESPONSE_SIZE, Transport};
use crypto::{MachinePrivate, MachinePublic, NodePrivate, SystemEntropy};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tailcfg::{
    CapabilityVersion, EarlyPayload, Hostinfo, MapRequest, RegisterAuth, RegisterRequest, RegisterResponse, ServerKeys,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const VERSION: CapabilityVersion = CapabilityVersion(130);

/// A machine with its key, and a node key that it may use.
pub(crate) struct Machine {
    pub(crate) key: MachinePrivate,
    pub(crate) node: NodePrivate,
}

/// A machine's connection to the server, with HTTP/2 in it.
pub(crate) struct Line {
    sender: SendRequest<Full<Bytes>>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self { key: MachinePrivate::generate(&mut SystemEntropy), node: NodePrivate::generate(&mut SystemEntropy) }
    }

    /// What it asks to be let in with.
    pub(crate) fn registration(&self, name: &str, auth_key: &str) -> RegisterRequest {
        RegisterRequest {
            version: VERSION,
            node_key: self.node.public(),
            auth: Some(RegisterAuth { auth_key: auth_key.to_owned() }),
            hostinfo: Some(Hostinfo { hostname: name.to_owned(), os: "linux".to_owned(), ..Hostinfo::default() }),
            ..RegisterRequest::default()
        }
    }

    /// Asks to be let in over a connection of its own.
    pub(crate) async fn register(&self, server: SocketAddr, name: &str, auth_key: &str) -> RegisterResponse {
        self.ask_in(server, self.registration(name, auth_key)).await
    }

    /// Asks to be let in as a router that offers routes.
    pub(crate) async fn register_router(
        &self,
        server: SocketAddr,
        name: &str,
        auth_key: &str,
        routes: &[&str],
    ) -> RegisterResponse {
        let routable_ips = routes.iter().map(|route| route.parse().unwrap()).collect();
        let asked = self.registration(name, auth_key);
        let hostinfo = asked.hostinfo.clone().map(|said| Hostinfo { routable_ips, ..said });
        self.ask_in(server, RegisterRequest { hostinfo, ..asked }).await
    }

    async fn ask_in(&self, server: SocketAddr, request: RegisterRequest) -> RegisterResponse {
        let request = serde_json::to_vec(&request).unwrap();
        let (status, answer) = self.call(server).await.ask("/machine/register", request).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        serde_json::from_value(answer).unwrap()
    }

    /// The request for the map of a node, which may be another's.
    pub(crate) fn map_request(&self, node: &NodePrivate) -> Vec<u8> {
        let request = MapRequest { version: VERSION, node_key: node.public(), ..MapRequest::default() };
        serde_json::to_vec(&request).unwrap()
    }

    /// Opens the channel and speaks HTTP/2 in it.
    pub(crate) async fn call(&self, server: SocketAddr) -> Line {
        let (stream, transport) = self.shake_hands(server).await;
        let mut channel = NoiseStream::new(stream, transport);
        let mut head = [0; EarlyPayload::HEAD];
        channel.read_exact(&mut head).await.unwrap();
        let length = EarlyPayload::length(&head).unwrap().unwrap();
        channel.read_exact(&mut vec![0; length]).await.unwrap();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(channel)).await.unwrap();
        tokio::spawn(connection);
        Line { sender }
    }

    /// Opens the channel, and leaves to the caller what goes through it.
    pub(crate) async fn shake_hands(&self, server: SocketAddr) -> (TcpStream, Transport) {
        let key = server_key(server).await;
        let (handshake, initiation) =
            ClientHandshake::start(&self.key, &key, VERSION.0 as u16, &mut SystemEntropy).unwrap();
        let mut stream = TcpStream::connect(server).await.unwrap();
        let head = format!(
            "POST /ts2021 HTTP/1.1\r\nHost: control.test\r\nUpgrade: tailscale-control-protocol\r\nConnection: upgrade\r\n\
             X-Tailscale-Handshake: {}\r\nContent-Length: 0\r\n\r\n",
            STANDARD.encode(initiation)
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = read_head(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        let mut response = [0; RESPONSE_SIZE];
        stream.read_exact(&mut response).await.unwrap();
        (stream, handshake.finish(&response).unwrap())
    }
}

impl Line {
    /// Sends a request; what is no JSON comes back as text.
    pub(crate) async fn ask(&mut self, path: &str, body: impl Into<Bytes>) -> (StatusCode, Value) {
        self.send(Method::POST, path, body).await.unwrap()
    }

    /// Opens a node's map stream.
    pub(crate) async fn stream(mut self, machine: &Machine) -> Messages {
        let request = MapRequest {
            version: VERSION,
            node_key: machine.node.public(),
            stream: true,
            keep_alive: true,
            ..MapRequest::default()
        };
        let body = Full::new(Bytes::from(serde_json::to_vec(&request).unwrap()));
        let request = Request::post("http://control.test/machine/map").body(body).unwrap();
        let answer = self.sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        Messages { _line: self, body: answer.into_body(), rest: Vec::new() }
    }

    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> hyper::Result<(StatusCode, Value)> {
        let uri = format!("http://control.test{path}");
        let request = Request::builder().method(method).uri(uri).body(Full::new(body.into())).unwrap();
        let answer = self.sender.send_request(request).await?;
        let status = answer.status();
        let bytes = answer.into_body().collect().await?.to_bytes();
        let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
        Ok((status, serde_json::from_slice(&bytes).unwrap_or_else(|_| text())))
    }
}

/// The messages of a map stream.
pub(crate) struct Messages {
    _line: Line,
    body: hyper::body::Incoming,
    rest: Vec<u8>,
}

impl Messages {
    /// Waits for the next message that says something.
    pub(crate) async fn next(&mut self) -> Value {
        loop {
            if let Some((head, rest)) = self.rest.split_first_chunk::<4>() {
                let length = u32::from_le_bytes(*head) as usize;
                if rest.len() >= length {
                    let message: Value = serde_json::from_slice(&rest[..length]).unwrap();
                    self.rest.drain(..4 + length);
                    // A ping comes with what keeps the stream alive.
                    if message["KeepAlive"] != true || !message["PingRequest"].is_null() {
                        return message;
                    }
                    continue;
                }
            }
            let frame = self.body.frame().await.expect("the stream goes on").unwrap();
            self.rest.extend_from_slice(&frame.into_data().unwrap());
        }
    }
}

async fn server_key(server: SocketAddr) -> MachinePublic {
    let stream = TcpStream::connect(server).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(connection);
    let request = Request::get(format!("/key?v={}", VERSION.0)).header(header::HOST, "control.test");
    let answer = sender.send_request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
    let keys: ServerKeys = serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap();
    driver.abort();
    keys.public_key
}

/// Reads the head of an answer, and not one byte more.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}
