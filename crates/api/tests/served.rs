//! The routes and the client against each other, over real sockets, with a small server behind them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::*;
use axum::Extension;
use dial::Resolve;
use futures_util::future::BoxFuture;
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Knows two devices, one token, one OAuth client whose tokens die after one call, and no policy but what was set.
#[derive(Default)]
struct Small {
    tokens: AtomicUsize,
    /// How many large bodies have come.
    large: AtomicUsize,
}

impl Small {
    fn none<T>() -> Result<T, ApiError> {
        Err(ApiError::internal("not in this test"))
    }
}

type By<P> = Authorized<P, String>;

macro_rules! unused {
    ($($name:ident($permission:ty, $at:ident $(, $argument:ty)*) -> $reply:ty;)*) => {
        $(async fn $name(&self, _: By<$permission>, _: $at $(, _: $argument)*) -> Result<$reply, ApiError> {
            Self::none()
        })*
    };
}

impl Api for Small {
    type Identity = String;
    type LargeBody = ();

    fn admit_large(&self, _: &String) -> Result<(), ApiError> {
        match self.large.fetch_add(1, Ordering::SeqCst) {
            0 => Ok(()),
            _ => Err(ApiError::too_many("there is no place for another", 5)),
        }
    }

    async fn authenticate(&self, credential: Credential, peer: Peer) -> Result<Caller<String>, ApiError> {
        assert!(peer.source.is_loopback());
        let Credential::Token(token) = credential;
        let names: &[&str] = match token.expose() {
            "all" => &["all"],
            "look" => &["all:read"],
            text if text == format!("oauth-{}", self.tokens.load(Ordering::SeqCst)) => &["devices:core"],
            _ => return Err(ApiError::unauthorized("this token is not known")),
        };
        Ok(Caller { identity: token.expose().to_owned(), scopes: Scopes::parse(names).unwrap() })
    }

    async fn issue_token(&self, request: TokenRequest, _: Peer) -> Result<AccessToken, ApiError> {
        match request.grant {
            TokenGrant::Client { secret, .. } if secret.expose() == "secret" => {
                let number = self.tokens.fetch_add(1, Ordering::SeqCst) + 1;
                let access_token = format!("oauth-{number}");
                Ok(AccessToken { access_token, token_type: "Bearer".into(), expires_in: 3600, scope: String::new() })
            }
            _ => Err(ApiError::unauthorized("this client is not known")),
        }
    }

    async fn list_devices(
        &self,
        _: By<ReadDevices>,
        _: InTailnet,
        query: DeviceQuery,
    ) -> Result<Json<DeviceList>, ApiError> {
        let device = |id: &str, ephemeral| Device { node_id: id.into(), is_ephemeral: ephemeral, ..Device::default() };
        let mut devices = vec![device("a", false), device("b", true)];
        devices.retain(|device| query.admits(device).unwrap());
        Ok(Json(DeviceList { devices }))
    }

    async fn get_device(&self, _: By<ReadDevices>, at: OfDevice, _: DeviceFields) -> Result<Json<Device>, ApiError> {
        match at.device.as_str() {
            "a/b c" => Ok(Json(Device { node_id: at.device, ..Device::default() })),
            _ => Err(ApiError::not_found("there is no such device")),
        }
    }

    async fn set_policy(
        &self,
        _: By<WritePolicy>,
        _: InTailnet,
        upload: PolicyUpload,
    ) -> Result<PolicyDocument, ApiError> {
        Ok(PolicyDocument {
            etag: format!("{:?} {}", upload.precondition, upload.why),
            body: PolicyBody::Hujson(upload.text),
        })
    }

    async fn delete_device(&self, by: By<WriteDevices>, _: OfDevice) -> Result<Done, ApiError> {
        assert!(by.also::<WriteRoutes>().is_ok());
        Ok(Done)
    }

    unused! {
        expire_device(WriteDevices, OfDevice) -> Done;
        list_device_routes(ReadRoutes, OfDevice) -> Json<DeviceRoutes>;
        set_device_routes(WriteRoutes, OfDevice, Json<SetDeviceRoutes>) -> Json<DeviceRoutes>;
        authorize_device(WriteDevices, OfDevice, Json<AuthorizeDevice>) -> Done;
        set_device_name(WriteDevices, OfDevice, Json<SetDeviceName>) -> Done;
        set_device_tags(WriteDevices, OfDevice, Json<SetDeviceTags>) -> Done;
        set_device_key(WriteDevices, OfDevice, Json<SetDeviceKey>) -> Done;
        ping_device(ReadDevices, OfDevice, Json<PingDevice>) -> Json<DevicePing>;
        list_keys(OrOwn<ReadKeys>, InTailnet, KeyQuery) -> Json<KeyList>;
        create_key(OrOwn<WriteKeys>, InTailnet, Json<CreateKey>) -> Json<Key>;
        get_key(OrOwn<ReadKeys>, OfKey) -> Json<Key>;
        delete_key(OrOwn<WriteKeys>, OfKey) -> Done;
        get_policy(ReadPolicy, InTailnet, PolicyQuery, PolicyForm) -> PolicyDocument;
        preview_policy(ReadPolicy, InTailnet, PreviewQuery, PolicyText) -> Json<PolicyPreview>;
        validate_policy(ReadPolicy, InTailnet, PolicyCheck) -> Json<PolicyVerdict>;
        explain_policy(ReadPolicy, InTailnet, WhyQuery) -> Json<PolicyExplanation>;
        policy_history(ReadPolicy, InTailnet, HistoryQuery) -> Json<PolicyHistory>;
        list_nameservers(ReadDns, InTailnet) -> Json<DnsNameservers>;
        set_nameservers(WriteDns, InTailnet, Json<DnsNameservers>) -> Json<DnsNameserversSet>;
        get_dns_preferences(ReadDns, InTailnet) -> Json<DnsPreferences>;
        set_dns_preferences(WriteDns, InTailnet, Json<DnsPreferences>) -> Json<DnsPreferences>;
        list_search_paths(ReadDns, InTailnet) -> Json<DnsSearchPaths>;
        set_search_paths(WriteDns, InTailnet, Json<DnsSearchPaths>) -> Json<DnsSearchPaths>;
        get_split_dns(ReadDns, InTailnet) -> Json<SplitDns>;
        update_split_dns(WriteDns, InTailnet, Json<SplitDns>) -> Json<SplitDns>;
        set_split_dns(WriteDns, InTailnet, Json<SplitDns>) -> Json<SplitDns>;
        get_dns_configuration(ReadDns, InTailnet) -> Json<DnsConfiguration>;
        set_dns_configuration(WriteDns, InTailnet, Json<DnsConfiguration>) -> Json<DnsConfiguration>;
        list_users(ReadUsers, InTailnet, UserQuery) -> Json<UserList>;
        create_user(WriteUsers, InTailnet, Json<CreateUser>) -> Json<User>;
        get_user(ReadUsers, OfUser) -> Json<User>;
        set_user_role(WriteUsers, OfUser, Json<SetUserRole>) -> Done;
        set_user_password(WriteUsers, OfUser, Json<SetUserPassword>) -> Done;
        set_user_name(WriteUsers, OfUser, Json<SetUserName>) -> Done;
        get_names(ReadNames, InTailnet) -> Json<TailnetNames>;
        set_names(WriteNames, InTailnet, Json<SetTailnetNames>) -> Json<TailnetNames>;
        approve_user(WriteUsers, OfUser) -> Done;
        suspend_user(WriteUsers, OfUser) -> Done;
        restore_user(WriteUsers, OfUser) -> Done;
        delete_user(WriteUsers, OfUser) -> Done;
        get_settings(ReadSettings, InTailnet) -> Json<TailnetSettings>;
        update_settings(WriteSettings, InTailnet, Json<TailnetSettings>) -> Json<TailnetSettings>;
        list_services(ReadServices, InTailnet) -> Json<ServiceList>;
        get_service(ReadServices, OfService) -> Json<VirtualService>;
    }
}

/// Resolves every name to this machine.
#[derive(Debug)]
struct Here;

impl Resolve for Here {
    fn resolve<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async { Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]) })
    }
}

async fn serve(small: Small) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let peer = Peer { source: address.ip(), encrypted: true };
    let router = router(Arc::new(small)).layer(Extension(peer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn client(address: SocketAddr, credential: ClientCredential) -> Client {
    Client::new(ClientConfig {
        base_url: format!("http://localhost:{}", address.port()),
        credential,
        roots: dial::Roots::public(),
        resolver: Arc::new(Here),
        user_agent: "test".to_owned(),
        timeout: Duration::from_secs(5),
    })
    .unwrap()
}

fn token(text: &str) -> ClientCredential {
    ClientCredential::Token(text.to_owned().into())
}

async fn raw(address: SocketAddr, head: &str) -> (u16, serde_json::Value) {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{head}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap())
}

#[tokio::test]
async fn a_call_reaches_its_operation_with_path_and_query() {
    let client = client(serve(Small::default()).await, token("all"));
    let query = DeviceQuery { filters: vec![("isEphemeral".into(), "true".into())], ..DeviceQuery::default() };
    let Json(list) = client.list_devices(&InTailnet::own(), &query).await.unwrap();
    assert_eq!(list.devices.iter().map(|device| device.node_id.as_str()).collect::<Vec<_>>(), ["b"]);
    let at = OfDevice { device: "a/b c".to_owned() };
    assert_eq!(client.get_device(&at, &DeviceFields::All).await.unwrap().0.node_id, "a/b c");
    client.delete_device(&at).await.unwrap();
}

#[tokio::test]
async fn a_missing_thing_is_told_apart() {
    let client = client(serve(Small::default()).await, token("look"));
    let error = client.get_device(&OfDevice { device: "x".to_owned() }, &DeviceFields::All).await.unwrap_err();
    assert!(error.is_not_found() && !error.is_transient());
    assert_eq!(error.to_string(), "there is no such device (404 Not Found)");
}

#[tokio::test]
async fn a_missing_scope_is_refused_by_name() {
    let client = client(serve(Small::default()).await, token("look"));
    let error = client.delete_device(&OfDevice { device: "a".to_owned() }).await.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::FORBIDDEN));
    assert!(error.to_string().contains("\"devices:core\""), "{error}");
}

#[tokio::test]
async fn a_policy_travels_with_its_precondition() {
    let client = client(serve(Small::default()).await, token("all"));
    let upload = PolicyUpload {
        text: "{} // x".to_owned(),
        precondition: Some(PolicyPrecondition::NeverSet),
        why: "a test".to_owned(),
        form: PolicyForm::Hujson,
    };
    let document = client.set_policy(&InTailnet::own(), &upload).await.unwrap();
    assert_eq!(document.body, PolicyBody::Hujson("{} // x".to_owned()));
    assert_eq!(document.etag, "Some(NeverSet) a test");
}

#[tokio::test]
async fn an_oauth_client_fetches_a_token_once_and_again_when_it_is_refused() {
    let small = Small::default();
    let address = serve(small).await;
    let credential =
        ClientCredential::OauthClient { id: "c".into(), secret: "secret".to_owned().into(), scopes: Vec::new() };
    let first = client(address, credential.clone());
    let list = |client: Client| async move {
        let names = client.list_devices(&InTailnet::own(), &DeviceQuery::default()).await;
        (client, names.map(|Json(list)| list.devices.len()))
    };
    let (first, outcome) = list(first).await;
    assert_eq!(outcome.unwrap(), 2);
    // Another client's token makes the first one's void.
    assert_eq!(list(client(address, credential)).await.1.unwrap(), 2);
    assert_eq!(list(first).await.1.unwrap(), 2);
}

#[tokio::test]
async fn a_wrong_secret_is_refused_without_retry() {
    let address = serve(Small::default()).await;
    let credential = ClientCredential::OauthClient { id: "c".into(), secret: "no".to_owned().into(), scopes: vec![] };
    let error = client(address, credential).list_devices(&InTailnet::own(), &DeviceQuery::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "this client is not known (401 Unauthorized)");
}

#[tokio::test]
async fn every_answer_is_json() {
    let address = serve(Small::default()).await;
    let authorization = "Authorization: Bearer all";
    for (head, status, message) in [
        ("GET /api/v2/nothing HTTP/1.1".to_owned(), 404, "there is no such path in this API"),
        ("PUT /api/v2/tailnet/-/devices HTTP/1.1".to_owned(), 405, "this path exists, but not with this method"),
        ("GET /api/v2/tailnet/-/devices HTTP/1.1".to_owned(), 401, "this needs an API access token"),
        (format!("GET /api/v2/tailnet/-/webhooks HTTP/1.1\r\n{authorization}"), 501, "the operation listWebhooks"),
        ("GET /api/v2/tailnet/-/webhooks HTTP/1.1".to_owned(), 401, "this needs an API access token"),
        (
            format!("PUT /api/v2/tailnet/-/vip-services/svc:web HTTP/1.1\r\n{authorization}"),
            501,
            "the operation updateService is not served by this server yet",
        ),
        // Who asks for this has no credential yet.
        (
            "POST /api/v2/oauth/token-exchange HTTP/1.1".to_owned(),
            501,
            "token exchange is not served by this server yet: make an OAuth client",
        ),
        ("GET /api/v2/oauth/token-exchange HTTP/1.1".to_owned(), 405, "this path exists, but not with this method"),
        (
            format!("POST /api/v2/device/a/tags HTTP/1.1\r\n{authorization}\r\nContent-Length: 9999999"),
            413,
            "the body is larger than 1048576 bytes",
        ),
        (
            format!("POST /api/v2/device/a/tags HTTP/1.1\r\n{authorization}\r\nContent-Length: 0"),
            400,
            "the body is not what is expected: missing field `tags`",
        ),
    ] {
        let (got, body) = raw(address, &head).await;
        assert_eq!(got, status, "{head}: {body}");
        assert_eq!(body["status"], status);
        assert!(body["message"].as_str().unwrap().starts_with(message), "{head}: {body}");
    }
}

#[tokio::test]
async fn a_body_needs_a_place_once_it_is_large_whether_or_not_it_tells_its_length() {
    let address = serve(Small::default()).await;
    let head = "POST /api/v2/tailnet/-/acl HTTP/1.1\r\nAuthorization: Bearer all\r\nTransfer-Encoding: chunked";
    let chunked =
        |text: &str| format!("{head}\r\nConnection: close\r\nHost: x\r\n\r\n{:x}\r\n{text}\r\n0\r\n\r\n", text.len());
    let post = |request: String| async move {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        String::from_utf8(answer[9..].to_vec()).unwrap()
    };
    let (small, large) = ("x".repeat(BODY_LIMIT), "x".repeat(BODY_LIMIT + 1));
    for (text, status) in [(&small, "200"), (&large, "200"), (&small, "200"), (&large, "429")] {
        assert_eq!(post(chunked(text)).await, status, "{}", text.len());
    }
    let told = head.replace("Transfer-Encoding: chunked", &format!("Content-Length: {}", large.len()));
    assert_eq!(raw(address, &told).await.0, 429, "before any of it came");
}

#[tokio::test]
async fn both_paths_of_services_are_served() {
    let address = serve(Small::default()).await;
    for path in ["services", "vip-services"] {
        let head = format!("GET /api/v2/tailnet/-/{path} HTTP/1.1\r\nAuthorization: Basic YWxsOg==");
        let (status, body) = raw(address, &head).await;
        assert_eq!((status, body["message"].as_str().unwrap()), (500, "not in this test"));
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let client = client(address, token("all"));
    let error = client.list_devices(&InTailnet::own(), &DeviceQuery::default()).await.unwrap_err();
    assert!(error.is_transient());
    let expected = format!("the server http://localhost:{} can't be reached", address.port());
    assert!(error.to_string().starts_with(&expected), "{error}");
}
