//! Several tailnets on one server: each has users, devices, a policy, keys and an authority of its own, and nothing of
//! another's.

use std::sync::Arc;

use api::SecretText;
use control::FirstTailnet;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::machine::Machine;
use crate::server::{ADMIN, PASSWORD, Server, set_up, url};

const DOMAINS: [&str; 2] = ["test.ts.net", "other.ts.net"];
const OTHER_PASSWORD: &str = "a long password for the other one";

/// Everybody would know everybody, were there no tailnets.
const OPEN: &str = r#"{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}]}"#;

/// A server with two tailnets, whose administrators have one login name and different passwords.
struct Two {
    server: Server,
    /// The second administrator's token.
    other: String,
}

impl Two {
    async fn start() -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let data = folder.path().join("data");
        set_up(&data).await;
        let new = FirstTailnet {
            domain: DOMAINS[1].parse().unwrap(),
            name: None,
            owner: ADMIN.parse().unwrap(),
            password: Some(SecretText::new(OTHER_PASSWORD.to_owned())),
        };
        assert!(control::add_tailnet(&data, url(), new).await.unwrap().is_none(), "its password was given");
        let two = Self::of(Server::run(folder).await.unwrap()).await;
        for token in two.tokens() {
            let (status, answer) = two.server.ask_as(token, Method::POST, "/tailnet/-/acl", OPEN).await;
            assert_eq!(status, StatusCode::OK, "{answer}");
        }
        two
    }

    async fn of(server: Server) -> Self {
        let other = token(&server, OTHER_PASSWORD).await;
        Self { server, other }
    }

    /// The administrators' tokens, in the order of the domains.
    fn tokens(&self) -> [&str; 2] {
        [self.server.token(), &self.other]
    }

    /// Makes an auth key with an administrator's token; answers its number and its text.
    async fn key(&self, token: &str) -> (String, String) {
        let wanted = json!({"capabilities": {"devices": {"create": {"reusable": true}}}}).to_string();
        let (status, key) = self.server.ask_as(token, Method::POST, "/tailnet/-/keys", wanted).await;
        assert_eq!(status, StatusCode::OK, "{key}");
        (key["id"].as_str().unwrap().to_owned(), key["key"].as_str().unwrap().to_owned())
    }

    /// Has a machine join by a key of an administrator's.
    async fn join(&self, token: &str, name: &str) -> Machine {
        let machine = Machine::new();
        let (_, key) = self.key(token).await;
        assert_eq!(machine.register(self.server.address, name, &key).await.error, "");
        machine
    }

    /// The devices that a token shows, by name.
    async fn devices(&self, token: &str) -> Vec<Value> {
        let (status, list) = self.server.ask_as(token, Method::GET, "/tailnet/-/devices", "").await;
        assert_eq!(status, StatusCode::OK, "{list}");
        let mut devices = list["devices"].as_array().unwrap().clone();
        devices.sort_by_key(|device| device["name"].to_string());
        devices
    }

    async fn names(&self, token: &str) -> Vec<String> {
        self.devices(token).await.iter().map(|device| device["name"].as_str().unwrap().to_owned()).collect()
    }

    /// What a machine is called, and the peers that its map tells of.
    async fn map(&self, machine: &Machine) -> (String, Vec<String>) {
        let map = machine.call(self.server.address).await.stream(machine).await.next().await;
        let name = |node: &Value| node["Name"].as_str().unwrap().trim_end_matches('.').to_owned();
        (name(&map["Node"]), map["Peers"].as_array().into_iter().flatten().map(name).collect())
    }
}

async fn token(server: &Server, password: &str) -> String {
    let (status, answer) = server.log_in(ADMIN, password).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer["access_token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn devices_of_two_tailnets_know_nothing_of_each_other_also_after_a_restart() {
    let mut two = Two::start().await;
    let mut machines = Vec::new();
    for token in two.tokens() {
        machines.push((two.join(token, "laptop").await, two.join(token, "printer").await));
    }
    for restarted in [false, true] {
        if restarted {
            two = Two::of(two.server.restart().await).await;
        }
        for ((domain, token), (laptop, printer)) in DOMAINS.into_iter().zip(two.tokens()).zip(&machines) {
            let (first, second) = (format!("laptop.{domain}"), format!("printer.{domain}"));
            assert_eq!(two.names(token).await, [first.clone(), second.clone()], "restarted: {restarted}");
            assert_eq!(two.map(laptop).await, (first.clone(), vec![second.clone()]), "restarted: {restarted}");
            assert_eq!(two.map(printer).await, (second, vec![first]), "restarted: {restarted}");
        }
    }
}

#[tokio::test]
async fn the_password_tells_in_which_of_its_tailnets_a_login_name_signs_in() {
    let two = Two::start().await;
    let server = &two.server;
    for (domain, token) in DOMAINS.into_iter().zip(two.tokens()) {
        let (_, names) = server.ask_as(token, Method::GET, "/tailnet/-/names", "").await;
        assert_eq!(names["domain"], domain);
    }
    let (status, answer) = server.log_in(ADMIN, "a password of neither").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "{answer}");

    // A device that has no key waits for somebody who signs in.
    for (at, (domain, password)) in DOMAINS.into_iter().zip([PASSWORD, OTHER_PASSWORD]).enumerate() {
        let page = Machine::new().register(server.address, "tablet", "").await.auth_url;
        let page = page.strip_prefix("http://control.test").unwrap();
        let (status, cookie, text) = server.browse(page, "", None).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        let form =
            |text: &str| text.split("name=\"form\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        let sign_in = format!("form={}&name={ADMIN}&password={}", form(&text), password.replace(' ', "+"));
        let (status, cookie, text) = server.browse(&format!("{page}/sign-in"), &cookie, Some(sign_in)).await;
        assert_eq!(status, StatusCode::SEE_OTHER, "{text}");
        let (_, cookie, text) = server.browse(page, &cookie, None).await;
        assert!(text.contains(&format!("<strong>{domain}</strong> as a device of <strong>{ADMIN}</strong>")), "{text}");
        let confirm = format!("form={}", form(&text));
        let (status, _, text) = server.browse(&format!("{page}/confirm"), &cookie, Some(confirm)).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        assert_eq!(two.names(two.tokens()[at]).await, [format!("tablet.{domain}")]);
    }
}

#[tokio::test]
async fn what_is_handed_out_to_be_trusted_is_the_authority_of_the_tailnet_that_is_named() {
    let two = Two::start().await;
    let server = &two.server;
    let (status, said) = server.get("/trust.pem").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(said, "this server has several tailnets: name yours, as in /trust.pem?domain=example.ts.net\n");
    let anchor = |domain: &str| {
        let mut files = std::fs::read_dir(server.data().join("authority")).unwrap().map(|file| file.unwrap().path());
        let end = format!(".{domain}.anchor.crt");
        std::fs::read_to_string(files.find(|path| path.to_string_lossy().ends_with(&end)).unwrap()).unwrap()
    };
    for domain in DOMAINS {
        let (status, pem) = server.get(&format!("/trust.pem?domain={domain}")).await;
        assert_eq!(status, StatusCode::OK, "{pem}");
        assert_eq!(pem, anchor(domain));
    }
    let (status, said) = server.get("/trust.pem?domain=third.ts.net").await;
    assert_eq!((status, said.as_str()), (StatusCode::BAD_REQUEST, Some("there is no tailnet with this domain here\n")));
}

#[tokio::test]
async fn a_credential_opens_its_own_tailnet_and_no_other() {
    let two = Two::start().await;
    let server = &two.server;
    let [own, other] = two.tokens();
    let (mine, theirs) = (two.join(own, "mine").await, two.join(other, "theirs").await);
    let (their_key, their_text) = two.key(other).await;
    let shown = &two.devices(other).await[0];
    let [device, number] = ["nodeId", "id"].map(|name| shown[name].as_str().unwrap().to_owned());
    let (_, users) = server.ask_as(other, Method::GET, "/tailnet/-/users", "").await;
    let user = users["users"][0]["id"].as_str().unwrap();

    // By every name that the other has, with the administrator's own right to everything.
    let renamed = json!({"name": "mine"}).to_string();
    let things = [
        (Method::GET, "/tailnet/other.ts.net/devices".to_owned(), String::new()),
        (Method::GET, format!("/device/{device}"), String::new()),
        (Method::DELETE, format!("/device/{device}"), String::new()),
        (Method::DELETE, format!("/device/{number}"), String::new()),
        (Method::POST, format!("/device/{device}/name"), renamed),
        (Method::POST, format!("/users/{user}/suspend"), String::new()),
        (Method::GET, format!("/tailnet/-/keys/{their_key}"), String::new()),
        (Method::DELETE, format!("/tailnet/-/keys/{their_key}"), String::new()),
        (Method::POST, "/tailnet/other.ts.net/acl".to_owned(), OPEN.to_owned()),
    ];
    for (method, path, body) in things {
        let (status, answer) = server.ask_as(own, method.clone(), &path, body).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{method} {path}: {answer}");
    }
    // A program of the other one's is held to it just so.
    let wanted = json!({"keyType": "client", "scopes": ["devices:core:read"]}).to_string();
    let (_, client) = server.ask_as(other, Method::POST, "/tailnet/-/keys", wanted).await;
    let (_, granted) = server.grant(client["key"].as_str().unwrap()).await;
    let program = granted["access_token"].as_str().unwrap();
    assert_eq!(two.names(program).await, ["theirs.other.ts.net"]);
    let (status, _) = server.ask_as(program, Method::GET, "/tailnet/test.ts.net/devices", "").await;
    assert_eq!(status, StatusCode::NOT_FOUND);

    // A device that is in one stays there whatever key it brings along, unless it comes with a node key of its own.
    assert_eq!(mine.register(server.address, "mine", &their_text).await.error, "");
    assert_eq!(two.names(other).await, ["theirs.other.ts.net"]);
    assert_eq!(two.names(own).await, ["mine.test.ts.net"]);
    let again = Machine { node: Machine::new().node, ..mine };
    assert_eq!(again.register(server.address, "guest", &their_text).await.error, "");
    assert_eq!(two.names(other).await, ["guest.other.ts.net", "theirs.other.ts.net"]);
    assert_eq!(two.names(own).await, ["mine.test.ts.net"]);
    assert_eq!(two.map(&theirs).await.1, ["guest.other.ts.net"]);
}

#[tokio::test]
async fn a_password_is_reset_in_one_tailnet_and_a_name_of_several_has_to_be_told_apart() {
    let two = Two::start().await;
    let [own, other] = two.tokens().map(str::to_owned);
    let folder = two.server.stop().await;
    let (data, login) = (folder.path().join("data"), ADMIN.parse().unwrap());
    let reset = |domain: Option<&str>| {
        let domain = domain.map(|domain| domain.parse().unwrap());
        let (data, login) = (&data, &login);
        let password = SecretText::new("a third password".to_owned());
        async move { control::reset_password(data, url(), login, domain.as_ref(), Some(password)).await }
    };
    assert_eq!(
        reset(None).await.unwrap_err().to_string(),
        "there is a user admin@example.com in each of the tailnets test.ts.net, other.ts.net: name one with --domain, as \
         in --domain test.ts.net"
    );
    assert_eq!(
        reset(Some("third.ts.net")).await.unwrap_err().to_string(),
        "there is no user admin@example.com in the tailnet third.ts.net who may sign in"
    );
    reset(Some("Other.ts.net.")).await.unwrap();

    let server = Server::run(folder).await.unwrap();
    assert_eq!(server.log_in(ADMIN, OTHER_PASSWORD).await.0, StatusCode::UNAUTHORIZED);
    let new = token(&server, "a third password").await;
    let (_, names) = server.ask_as(&new, Method::GET, "/tailnet/-/names", "").await;
    assert_eq!(names["domain"], "other.ts.net");
    assert_eq!(server.ask_as(&other, Method::GET, "/tailnet/-/names", "").await.0, StatusCode::UNAUTHORIZED);
    let (status, names) = server.ask_as(&own, Method::GET, "/tailnet/-/names", "").await;
    assert_eq!((status, &names["domain"]), (StatusCode::OK, &json!("test.ts.net")), "what it had goes on");
}
