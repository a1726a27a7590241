//! Logins by SSH that the policy has confirmed by their user: what the SSH server of a device is told, and who may confirm.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::machine::{Line, Machine};
use crate::server::{ADMIN, PASSWORD, Server};

const POLICY: &str = r#"{
    "tagOwners": {"tag:server": ["autogroup:admin"], "tag:k8s-operator": []},
    "grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}],
    "ssh": [
        {"action": "check", "checkPeriod": "PERIOD", "src": ["autogroup:admin"], "dst": ["tag:server"], "users": ["root", "ubuntu"]},
        {"action": "accept", "src": ["autogroup:admin"], "dst": ["tag:server"], "users": ["guest"]},
    ],
}"#;

/// A laptop of the administrator's and a server that it logs in to.
struct Scene {
    server: Server,
    laptop: String,
    destination: String,
    sshd: Machine,
}

impl Scene {
    async fn new(period: &str) -> Self {
        let server = Server::start().await;
        let (status, answer) = server.ask(Method::POST, "/tailnet/-/acl", POLICY.replace("PERIOD", period)).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let (_, own) = server.make_key(json!({}), None).await;
        let (_, tagged) = server.make_key(json!({"tags": ["tag:server"]}), None).await;
        let sshd = Machine::new();
        assert_eq!(Machine::new().register(server.address, "laptop", &own).await.error, "");
        assert_eq!(sshd.register(server.address, "server", &tagged).await.error, "");
        let (_, list) = server.ask(Method::GET, "/tailnet/-/devices", "").await;
        let number = |name: &str| {
            let devices = list["devices"].as_array().unwrap();
            let device = devices.iter().find(|device| device["hostname"] == name).unwrap();
            device["id"].as_str().unwrap().to_owned()
        };
        Self { laptop: number("laptop"), destination: number("server"), server, sshd }
    }

    async fn line(&self) -> Line {
        self.sshd.call(self.server.address).await
    }

    /// What the SSH server asks first about a login.
    fn question(&self, account: &str) -> String {
        let Self { laptop, destination, .. } = self;
        format!("/machine/ssh/action/{laptop}/to/{destination}?ssh_user={account}&local_user={account}")
    }

    async fn ask(&self, account: &str) -> Value {
        let (status, action) = self.line().await.send(Method::GET, &self.question(account), "").await.unwrap();
        assert_eq!(status, StatusCode::OK, "{action}");
        action
    }

    /// Signs in on the page of a login, as a browser that was there before.
    async fn confirm(&self, page: &str, name: &str, password: &str) -> (StatusCode, String) {
        let (status, cookie, text) = self.server.browse(page, "", None).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        let token = text.split("name=\"form\" value=\"").nth(1).unwrap().split('"').next().unwrap();
        let form = format!("form={token}&name={name}&password={}", password.replace(' ', "+"));
        let (status, _, text) = self.server.browse(&format!("{page}/confirm"), &cookie, Some(form)).await;
        (status, text)
    }
}

/// The page that a user is sent to, and the path to ask at again.
fn waits(action: &Value) -> (String, String) {
    let page = action["message"].as_str().unwrap().split_whitespace().find(|word| word.contains("/ssh/")).unwrap();
    let again = action["holdAndDelegate"].as_str().unwrap().strip_prefix("https://unused").unwrap();
    let again = again.replace("$SSH_USER", "root").replace("$LOCAL_USER", "root");
    (page.strip_prefix("http://control.test").unwrap().to_owned(), again)
}

#[tokio::test]
async fn a_login_goes_on_once_its_user_has_signed_in_and_the_next_is_not_asked_about() {
    let scene = Scene::new("12h").await;
    assert_eq!(scene.ask("guest").await["accept"], true, "no check is asked for");
    let (page, again) = waits(&scene.ask("root").await);

    let (status, _, text) = scene.server.browse(&page, "", None).await;
    assert_eq!(status, StatusCode::OK);
    for fact in ["laptop.test.ts.net", "server.test.ts.net", "root"] {
        assert!(text.contains(fact), "{text}");
    }
    let mut line = scene.line().await;
    let held = tokio::spawn(async move { line.send(Method::GET, &again, "").await.unwrap() });
    let (status, text) = scene.confirm(&page, ADMIN, "a wrong password").await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{text}");
    assert!(!held.is_finished(), "nobody has confirmed it");
    let (status, text) = scene.confirm(&page, ADMIN, PASSWORD).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    let (_, action) = held.await.unwrap();
    assert_eq!((&action["accept"], &action["holdAndDelegate"]), (&json!(true), &Value::Null));
    assert_eq!(scene.ask("root").await["accept"], true, "it is remembered");
    assert_eq!(scene.server.browse(&page, "", None).await.0, StatusCode::NOT_FOUND, "the page is used up");
}

#[tokio::test]
async fn where_the_policy_says_always_each_login_is_asked_about() {
    let scene = Scene::new("always").await;
    let (page, again) = waits(&scene.ask("root").await);
    assert_eq!(scene.confirm(&page, ADMIN, PASSWORD).await.0, StatusCode::OK);
    let mut line = scene.line().await;
    assert_eq!(line.send(Method::GET, &again, "").await.unwrap().1["accept"], true);
    let (next, _) = waits(&scene.ask("root").await);
    assert_ne!(next, page);
    let (_, action) = line.send(Method::GET, &again, "").await.unwrap();
    assert_eq!((&action["reject"], &action["accept"]), (&json!(true), &Value::Null), "a check lets in once");
}

#[tokio::test]
async fn of_two_logins_that_wait_for_one_account_only_the_confirmed_one_goes_on() {
    let scene = Scene::new("always").await;
    let (mine, other) = (waits(&scene.ask("root").await), waits(&scene.ask("root").await));
    assert_ne!(mine.0, other.0, "each is asked about for itself");
    let mut line = scene.line().await;
    let held = tokio::spawn(async move { line.send(Method::GET, &other.1, "").await.unwrap() });
    assert_eq!(scene.confirm(&mine.0, ADMIN, PASSWORD).await.0, StatusCode::OK);
    let (_, action) = scene.line().await.send(Method::GET, &mine.1, "").await.unwrap();
    assert_eq!(action["accept"], true);
    assert!(!held.is_finished(), "the other one still waits");
    held.abort();
}

#[tokio::test]
async fn a_confirmation_is_for_the_account_that_the_page_named() {
    let scene = Scene::new("12h").await;
    let (page, again) = waits(&scene.ask("root").await);
    assert_eq!(scene.confirm(&page, ADMIN, PASSWORD).await.0, StatusCode::OK);
    assert_eq!(scene.line().await.send(Method::GET, &again, "").await.unwrap().1["accept"], true);
    assert_eq!(scene.ask("root").await["accept"], true, "for its time");
    waits(&scene.ask("ubuntu").await);
}

#[tokio::test]
async fn another_user_confirms_nothing() {
    let scene = Scene::new("12h").await;
    let other = json!({"loginName": "other@example.com", "role": "admin", "password": "another long password"});
    let (status, answer) = scene.server.ask(Method::POST, "/tailnet/-/users", other.to_string()).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let (page, _) = waits(&scene.ask("root").await);
    let (status, text) = scene.confirm(&page, "other@example.com", "another long password").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(text.contains("only the user whose device it is can confirm this login"), "{text}");
    assert_eq!(scene.ask("root").await["accept"], Value::Null);
}

#[tokio::test]
async fn a_form_from_elsewhere_confirms_nothing() {
    let scene = Scene::new("12h").await;
    let (page, _) = waits(&scene.ask("root").await);
    let (_, cookie, _) = scene.server.browse(&page, "", None).await;
    let form = format!("form=guessed&name={ADMIN}&password={}", PASSWORD.replace(' ', "+"));
    for cookie in ["", cookie.as_str()] {
        let (status, _, text) = scene.server.browse(&format!("{page}/confirm"), cookie, Some(form.clone())).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{text}");
    }
    assert_eq!(scene.ask("root").await["accept"], Value::Null);
}

#[tokio::test]
async fn a_machine_asks_about_logins_to_itself_and_bad_questions_are_refused() {
    let scene = Scene::new("12h").await;
    let stranger = Machine::new();
    let (status, text) =
        stranger.call(scene.server.address).await.send(Method::GET, &scene.question("root"), "").await.unwrap();
    assert_eq!(status, StatusCode::FORBIDDEN, "{text}");
    let mut line = scene.line().await;
    let Scene { laptop, destination, .. } = &scene;
    for (path, expected) in [
        (format!("/machine/ssh/action/{laptop}/to/{destination}"), StatusCode::BAD_REQUEST),
        (format!("/machine/ssh/action/x/to/{destination}?ssh_user=root"), StatusCode::BAD_REQUEST),
        (
            format!("/machine/ssh/action/{laptop}/to/{destination}?ssh_user={}", "a".repeat(257)),
            StatusCode::BAD_REQUEST,
        ),
        (format!("/machine/ssh/action/{destination}/to/{laptop}?ssh_user=root"), StatusCode::FORBIDDEN),
        ("/machine/ssh/action/".to_owned(), StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(line.send(Method::GET, &path, "").await.unwrap().0, expected, "{path}");
    }
    for (path, says) in [
        (format!("/machine/ssh/action/999/to/{destination}?ssh_user=root"), "takes no part"),
        (scene.question("nobody"), "doesn't let this login in"),
        (format!("{}&check=never-was", scene.question("root")), "was not confirmed in time"),
    ] {
        let (status, action) = line.send(Method::GET, &path, "").await.unwrap();
        assert_eq!((status, &action["reject"]), (StatusCode::OK, &json!(true)), "{path}: {action}");
        assert!(action["message"].as_str().unwrap().contains(says), "{action}");
    }
}
