use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use bytes::Bytes;
use crypto::control::accept;
use crypto::{MachinePrivate, MachinePublic, NodePublic, SystemEntropy};
use futures_util::StreamExt;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tailcfg::frame::{FrameWriter, Packing};
use tailcfg::{MapRequest, MapResponse, Node, NodeId, RegisterRequest, RegisterResponse, StableNodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};

use crate::channel::Channel;

/// What the server does and has seen.
#[derive(Default)]
pub struct Script {
    /// The registrations that came.
    pub registered: Vec<RegisterRequest>,
    /// The machine keys of the channels that were opened.
    pub machines: Vec<MachinePublic>,
    /// What the next registrations are answered; whoever registers after that is let in.
    pub answers: std::collections::VecDeque<RegisterResponse>,
    /// What was decided about logins, by their URLs: a node that waits for one that is not here is held.
    pub decisions: Option<std::collections::BTreeMap<String, RegisterResponse>>,
    /// The requests for a map that came.
    pub maps: Vec<MapRequest>,
    /// Leads frames to the node that follows its map.
    pub stream: Option<mpsc::UnboundedSender<Vec<u8>>>,
    /// A frame that each map stream begins with, in place of a map.
    pub bomb: Option<Vec<u8>>,
    /// The peers in the first map.
    pub peers: Vec<Node>,
    /// Changes the first map.
    pub tweak: Option<fn(&mut MapResponse)>,
    /// Whatever else was asked: its path and its body.
    pub pongs: Vec<(String, Vec<u8>)>,
    /// The certificate requests that came.
    pub certificates: Vec<tailcfg::request::Certificate>,
    /// How long before now certificates begin, and how long they live; none are signed without.
    pub life: Option<(Duration, Duration)>,
    /// The node's number in the map, less one.
    pub number: u64,
}

/// The server of one node.
pub struct Server {
    /// Where it is.
    pub url: String,
    /// What it does, and what it has seen.
    pub script: Arc<Mutex<Script>>,
    /// Told whenever something arrives.
    pub news: Arc<Notify>,
    accepting: tokio::task::JoinHandle<()>,
    /// Where it listens.
    pub address: SocketAddr,
    key: MachinePrivate,
}

impl Server {
    /// Starts one.
    pub async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), MachinePrivate::generate(&mut SystemEntropy)).await
    }

    /// The same server again, after it was stopped.
    pub async fn restart(&self) -> Self {
        Self::start_at(self.address, self.key.clone()).await
    }

    async fn start_at(address: SocketAddr, key: MachinePrivate) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener: TcpListener = socket.listen(64).unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(Script::default()));
        let news = Arc::new(Notify::new());
        let (shared, told, own) = (script.clone(), news.clone(), key.clone());
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, own.clone(), shared.clone(), told.clone()));
            }
        });
        Self { url: format!("http://{address}"), script, news, accepting, address, key }
    }

    /// Ends, with all that is connected.
    pub fn stop(&self) {
        self.accepting.abort();
    }

    /// Waits until the script says yes.
    pub async fn until<T>(&self, what: &str, check: impl Fn(&Script) -> Option<T>) -> T {
        let wait = async {
            loop {
                let news = self.news.notified();
                if let Some(found) = check(&self.script.lock().unwrap()) {
                    return found;
                }
                news.await;
            }
        };
        let found = tokio::time::timeout(std::time::Duration::from_secs(20), wait).await;
        found.unwrap_or_else(|_| panic!("waited in vain until {what}"))
    }

    /// Shows a URL to whoever registers next, and holds them until [`Self::decide`] says what comes of it.
    pub fn ask_at(&self, url: &str) {
        let mut script = self.script.lock().unwrap();
        script.answers.push_back(RegisterResponse { auth_url: url.to_owned(), ..RegisterResponse::default() });
        script.decisions.get_or_insert_default();
    }

    /// Answers the login of a URL.
    pub fn decide(&self, url: &str, answer: RegisterResponse) {
        self.script.lock().unwrap().decisions.get_or_insert_default().insert(url.to_owned(), answer);
        self.news.notify_waiters();
    }

    /// Sends the node that follows its map some news.
    pub fn send(&self, message: MapResponse) {
        self.send_frame(frame(&message));
    }

    /// Sends the node that follows its map a frame as it stands.
    pub fn send_frame(&self, frame: Vec<u8>) {
        self.script.lock().unwrap().stream.as_ref().unwrap().send(frame).unwrap();
    }
}

fn frame(message: &MapResponse) -> Vec<u8> {
    let json = serde_json::to_vec(message).unwrap();
    FrameWriter::new().unwrap().frame(&json, Packing::Zstd).unwrap()
}

/// A frame of a map stream that inflates to so many MiB of blanks: blocks of zstd that repeat one byte (RFC 8878, 3.1.1).
pub fn bomb(mebibytes: u32) -> Vec<u8> {
    const BLOCK: u32 = 128 << 10;
    const REPEATED: u32 = 1;
    // The magic number, a head without a size, and a window of one block.
    let mut payload = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38];
    let blocks = mebibytes * ((1 << 20) / BLOCK);
    for number in 1..=blocks {
        let head = BLOCK << 3 | REPEATED << 1 | u32::from(number == blocks);
        payload.extend_from_slice(&head.to_le_bytes()[..3]);
        payload.push(b' ');
    }
    [&u32::try_from(payload.len()).unwrap().to_le_bytes()[..], &payload].concat()
}

/// The node that registered, as the map shows it to itself.
pub fn own_node(key: NodePublic, number: u64) -> Node {
    let (id, name) = (number + 1, if number == 0 { "laptop" } else { "other" });
    Node {
        addresses: vec![
            format!("100.64.0.{id}/32").parse().unwrap(),
            format!("fd7a:115c:a1e0::{id}/128").parse().unwrap(),
        ],
        key,
        ..peer(id, name)
    }
}

/// A peer of this number, which is the last part of its address.
pub fn peer(id: u64, name: &str) -> Node {
    Node {
        id: NodeId(id),
        stable_id: StableNodeId(format!("n{id}CNTRL")),
        name: format!("{name}.example.ts.net."),
        user: tailcfg::UserId(7),
        key: NodePublic::from_bytes([id as u8; 32]),
        disco_key: crypto::DiscoPublic::from_bytes([id as u8; 32]),
        addresses: vec![format!("100.64.0.{id}/32").parse().unwrap()],
        hostinfo: Some(tailcfg::Hostinfo { os: "linux".to_owned(), hostname: name.to_owned(), ..Default::default() }),
        machine_authorized: true,
        online: Some(true),
        ..Node::default()
    }
}

async fn serve(mut stream: TcpStream, key: MachinePrivate, script: Arc<Mutex<Script>>, news: Arc<Notify>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    if head.starts_with("GET /key") {
        let body = format!("{{\"legacyPublicKey\":\"\",\"publicKey\":\"{}\"}}", key.public());
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
        let _ = stream.write_all(text.as_bytes()).await;
        return;
    }
    let handshake = head.lines().find_map(|line| line.strip_prefix("X-Tailscale-Handshake: ")).unwrap();
    let initiation = base64::engine::general_purpose::STANDARD.decode(handshake.trim()).unwrap();
    let accepted = accept(&key, &initiation, &mut SystemEntropy).unwrap();
    script.lock().unwrap().machines.push(accepted.client);
    let switching =
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: tailscale-control-protocol\r\nConnection: upgrade\r\n\r\n";
    stream.write_all(&[&switching[..], &accepted.response].concat()).await.unwrap();
    let mut channel = Channel::new(stream, accepted.transport);
    let early = tailcfg::EarlyPayload::default().encode();
    channel.write_all(&early).await.unwrap();
    channel.flush().await.unwrap();
    let service = hyper::service::service_fn(move |request| answer(request, script.clone(), news.clone()));
    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(channel), service)
        .await;
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

async fn answer(
    request: Request<Incoming>,
    script: Arc<Mutex<Script>>,
    news: Arc<Notify>,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let full = |text: String| Response::new(Full::new(Bytes::from(text)).boxed_unsync());
    let reply = match path.as_str() {
        "/machine/register" => {
            let asked: RegisterRequest = serde_json::from_slice(&body).unwrap();
            let followup = asked.followup.clone();
            script.lock().unwrap().registered.push(asked);
            news.notify_waiters();
            let answer = match decision(&followup, &script, &news).await {
                Some(answer) => Some(answer),
                None => script.lock().unwrap().answers.pop_front(),
            };
            full(serde_json::to_string(&answer.unwrap_or_else(let_in)).unwrap())
        }
        "/machine/map" => {
            let asked: MapRequest = serde_json::from_slice(&body).unwrap();
            let mut script = script.lock().unwrap();
            script.maps.push(asked.clone());
            if !asked.stream {
                full(String::new())
            } else {
                let (sender, receiver) = mpsc::unbounded_channel();
                let mut first = MapResponse {
                    node: Some(own_node(asked.node_key, script.number)),
                    peers: script.peers.clone(),
                    domain: "example.com".to_owned(),
                    dns_config: Some(tailcfg::DnsConfig { proxied: true, ..Default::default() }),
                    derp_map: Some(tailcfg::DerpMap::default()),
                    user_profiles: vec![tailcfg::UserProfile {
                        id: tailcfg::UserId(7),
                        login_name: "a@example.com".to_owned(),
                        ..Default::default()
                    }],
                    ..MapResponse::default()
                };
                if let Some(tweak) = script.tweak {
                    tweak(&mut first);
                }
                sender.send(script.bomb.clone().unwrap_or_else(|| frame(&first))).unwrap();
                script.stream = Some(sender);
                let frames = futures_util::stream::unfold(receiver, |mut receiver| async move {
                    let frame: Vec<u8> = receiver.recv().await?;
                    Some((frame, receiver))
                });
                let frames = frames.map(|frame| Ok::<_, Infallible>(Frame::data(Bytes::from(frame))));
                Response::new(StreamBody::new(frames).boxed_unsync())
            }
        }
        tailcfg::request::CERTIFICATE_PATH => {
            let mut script = script.lock().unwrap();
            script.certificates.push(serde_json::from_slice(&body).unwrap());
            match script.life {
                Some(life) => full(serde_json::to_string(&sign(&script.certificates, life)).unwrap()),
                None => Response::builder().status(403).body(Full::from("not today").boxed_unsync()).unwrap(),
            }
        }
        other => {
            script.lock().unwrap().pongs.push((other.to_owned(), body.to_vec()));
            full(String::new())
        }
    };
    news.notify_waiters();
    Ok(reply)
}

/// What comes of a login that a node waits for, once it is decided; nothing where nobody decides.
async fn decision(followup: &str, script: &Mutex<Script>, news: &Notify) -> Option<RegisterResponse> {
    if followup.is_empty() {
        return None;
    }
    loop {
        let told = news.notified();
        if let Some(answer) = script.lock().unwrap().decisions.as_mut()?.remove(followup) {
            return Some(answer);
        }
        told.await;
    }
}

/// The answer to a node that is let in.
pub fn let_in() -> RegisterResponse {
    RegisterResponse {
        machine_authorized: true,
        login: tailcfg::Login { login_name: "a@example.com".to_owned(), ..Default::default() },
        ..RegisterResponse::default()
    }
}

/// Signs the last request for the laptop's name.
fn sign(
    requests: &[tailcfg::request::Certificate],
    (age, life): (Duration, Duration),
) -> tailcfg::request::CertificateAnswer {
    use rcgen::{CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair};
    let key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = authority.self_signed(&key).unwrap().pem();
    let csr = &requests.last().unwrap().csr;
    let mut request = CertificateSigningRequestParams::from_der(&csr.as_slice().into()).unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    request.params.not_before = rcgen::date_time_ymd(1970, 1, 1) + (now - age);
    request.params.not_after = request.params.not_before + life;
    let chain = request.signed_by(&Issuer::new(authority, key)).unwrap().pem();
    tailcfg::request::CertificateAnswer { chain, root }
}
