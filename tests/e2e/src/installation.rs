use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use lab::{CONTROL_NAME, Command, Daemon, LabBox, RELAY1_NAME, RELAY2_NAME, Ready, World};
use serde_json::{Value, json};

/// The administrator of the walkthrough.
pub const ADMIN: &str = "admin@example.com";
/// The member of the walkthrough.
pub const MEMBER: &str = "member@example.com";
/// Where the names of the tailnet's devices live.
pub const TAILNET_DOMAIN: &str = "taila31de.ts.net";
/// What everybody calls the coordination server.
pub const CONTROL_URL: &str = "https://control.towline.test";

/// Where a relay tells what it counts.
const RELAY_ADMIN: &str = "127.0.0.1:9091";
/// The first relay shares the control box, whose port 443 is taken.
const RELAY1_PORT: u16 = 8443;
const RELAY2_PORT: u16 = 443;

/// The coordination server, as a daemon of its box.
const CONTROL: &str = "control";
const FOLDER: &str = "/etc/towline";
const DATA: &str = "/var/lib/towline";
const RELAY_TOKEN: &str = "/etc/towline/relay-token";

/// A program's credential for the API.
#[derive(Debug)]
pub struct OAuthClient {
    /// Its id.
    pub id: String,
    /// Its secret.
    pub secret: String,
}

/// A coordination server and two relays, set up as the guide says, in the boxes of a world.
#[derive(Debug)]
pub struct Installation {
    control: LabBox,
    relay2: LabBox,
}

impl Installation {
    /// Installs `binary` in the world, makes the tailnet with its users, and starts server and relays. What of that is there
    /// already stays as it is. There is no policy until [`Installation::begin_with`] one.
    pub fn set_up(world: &World, binary: &Path) -> Result<Self> {
        world.install(binary)?;
        let this = Self::of(world)?;
        for (name, password) in [("admin", Self::password(ADMIN)), ("member", Self::password(MEMBER))] {
            this.control.write(&format!("{FOLDER}/{name}-password"), password, 0o600)?;
        }
        this.control.write(&format!("{FOLDER}/relays.json"), relay_map().to_string(), 0o644)?;
        this.once("server", || this.init())?;
        let token = this.control.read(&format!("{DATA}/relay.token"))?;
        for relay in [&this.control, &this.relay2] {
            relay.write(RELAY_TOKEN, &token, 0o600)?;
        }
        this.start_control()?;
        this.log_in()?;
        this.start_relay1()?;
        this.start_relay2()?;
        this.once("member", || this.make_member())?;
        Ok(this)
    }

    /// Puts the first policy in force, unless one was.
    pub fn begin_with(&self, policy: &str) -> Result<()> {
        self.once("policy", || self.set_policy(policy))
    }

    /// Finds the installation of a world, where it was set up.
    pub fn of(world: &World) -> Result<Self> {
        Ok(Self { control: world.lab_box("control")?, relay2: world.lab_box("relay2")? })
    }

    /// The server's daemon, which may have ended; none before it was started.
    pub fn server(&self) -> Result<Option<Daemon>> {
        self.control.find_daemon(CONTROL)
    }

    /// Puts another policy in force.
    pub fn set_policy(&self, policy: &str) -> Result<()> {
        self.control.write(&format!("{FOLDER}/policy.hujson"), policy, 0o644)?;
        self.towline(["policy", "set", "/etc/towline/policy.hujson", "--yes"])
            .run()
            .map(drop)
            .context("setting a policy")
    }

    /// The password of a user of the walkthrough.
    pub fn password(user: &str) -> String {
        format!("the long password of {user}")
    }

    /// Does what must not be done twice, because a user may have changed its outcome since; a note tells the next time.
    fn once(&self, what: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let note = format!("{FOLDER}/done/{what}");
        if !self.control.has(&note) {
            work()?;
            self.control.write(&note, "", 0o644)?;
        }
        Ok(())
    }

    fn init(&self) -> Result<()> {
        // What an attempt has left that was cut off: no server has run on it yet.
        self.control.run(["rm", "-rf", DATA])?;
        let certificate = format!("{FOLDER}/tls/{CONTROL_NAME}.crt");
        let key = format!("{FOLDER}/tls/{CONTROL_NAME}.key");
        let arguments = [
            ["towline", "control"],
            ["init", "--relays=/etc/towline/relays.json"],
            ["--data", DATA],
            ["--url", CONTROL_URL],
            ["--tls-certificate", &certificate],
            ["--tls-key", &key],
            ["--domain", TAILNET_DOMAIN],
            ["--admin", ADMIN],
            ["--password-file", "/etc/towline/admin-password"],
        ];
        let arguments = arguments.concat();
        self.control.run(arguments).context("making the tailnet").map(drop)
    }

    fn make_member(&self) -> Result<()> {
        let users = self.ask(["users", "list"])?;
        if users.as_array().into_iter().flatten().all(|user| user["loginName"] != MEMBER) {
            self.towline(["users", "create", MEMBER, "--password-file", "/etc/towline/member-password"]).run()?;
        }
        Ok(())
    }

    /// Starts the coordination server, or starts it again after a kill.
    pub fn start_control(&self) -> Result<Daemon> {
        self.control
            .daemon(CONTROL, ["towline", "control", "--data", DATA])
            .ready(Ready::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 443))))
            .start()
    }

    /// Starts the relay that clients are to choose.
    pub fn start_relay1(&self) -> Result<Daemon> {
        start_relay(&self.control, RELAY1_NAME, RELAY1_PORT)
    }

    /// Starts the relay that the region score makes farther.
    pub fn start_relay2(&self) -> Result<Daemon> {
        start_relay(&self.relay2, RELAY2_NAME, RELAY2_PORT)
    }

    fn log_in(&self) -> Result<()> {
        if self.towline(["users", "list"]).finish()?.ended.is_success() {
            return Ok(());
        }
        let login = [
            "admin",
            "login",
            "--server",
            CONTROL_URL,
            "--user",
            ADMIN,
            "--password-file",
            "/etc/towline/admin-password",
        ];
        self.towline(login).run().map(drop).context("logging the administrator in")
    }

    /// Begins a command of the administrator.
    pub fn towline<S: Into<String>>(&self, arguments: impl IntoIterator<Item = S>) -> Command<'_> {
        self.control.command(std::iter::once("towline".to_owned()).chain(arguments.into_iter().map(Into::into)))
    }

    /// Runs a command of the administrator and reads its answer.
    pub fn ask<S: Into<String>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<Value> {
        let output =
            self.towline(["-o", "json"].map(str::to_owned).into_iter().chain(arguments.into_iter().map(Into::into)));
        let output = output.within(Duration::from_secs(30)).run()?;
        serde_json::from_str(&output.stdout).with_context(|| format!("reading {:?}", output.stdout))
    }

    /// Makes a key by which one device joins with these tags.
    pub fn key(&self, tags: &[&str]) -> Result<String> {
        self.make_key(&[], tags)
    }

    /// Makes a key by which the device called `name` joins with these tags; revokes those made for it before.
    pub fn key_of(&self, name: &str, tags: &[&str]) -> Result<String> {
        for key in self.described("keys", name)? {
            self.towline(["keys", "revoke", &key]).run()?;
        }
        self.make_key(&["--description", name], tags)
    }

    fn make_key(&self, options: &[&str], tags: &[&str]) -> Result<String> {
        let tags = tags.iter().flat_map(|tag| ["--tag", *tag]);
        let key = self.ask(["keys", "create"].into_iter().chain(options.iter().copied()).chain(tags))?;
        key["key"].as_str().map(str::to_owned).with_context(|| format!("no key in {key}"))
    }

    /// The OAuth client that was made for a program, or a new one where it is gone or its secret was lost.
    pub fn oauth_client_of(&self, program: &str, scopes: &[&str], tags: &[&str]) -> Result<OAuthClient> {
        let note = format!("{FOLDER}/oauth-clients/{program}.json");
        let known = self.described("oauth-clients", program)?;
        let kept: Option<Value> = self.control.read(&note).ok().and_then(|text| serde_json::from_slice(&text).ok());
        if let Some(kept) = kept.filter(|kept| known.iter().any(|id| kept["id"] == id.as_str())) {
            return OAuthClient::read(&kept);
        }
        for lost in known {
            self.towline(["oauth-clients", "delete", &lost]).run()?;
        }
        let made = self.make_oauth_client(program, scopes, tags)?;
        self.control.write(&note, made.to_string(), 0o600)?;
        OAuthClient::read(&made)
    }

    /// Ids of keys, or of OAuth clients, with this description.
    fn described(&self, kind: &str, description: &str) -> Result<Vec<String>> {
        let all = self.ask([kind, "list"])?;
        let such = all.as_array().into_iter().flatten().filter(|one| one["description"] == description);
        Ok(such.filter_map(|one| one["id"].as_str().map(str::to_owned)).collect())
    }

    /// Makes an OAuth client with these scopes and tags.
    pub fn oauth_client(&self, scopes: &[&str], tags: &[&str]) -> Result<OAuthClient> {
        OAuthClient::read(&self.make_oauth_client("", scopes, tags)?)
    }

    fn make_oauth_client(&self, description: &str, scopes: &[&str], tags: &[&str]) -> Result<Value> {
        let scopes = scopes.iter().flat_map(|scope| ["--scope", *scope]);
        let tags = tags.iter().flat_map(|tag| ["--tag", *tag]);
        let create = ["oauth-clients", "create", "--description", description];
        self.ask(create.into_iter().chain(scopes).chain(tags))
    }

    /// What the coordination server counts, in the text format of its metrics.
    pub fn metrics(&self) -> Result<String> {
        Ok(self.control.run(["curl", "-fsS", "--max-time", "5", "http://127.0.0.1:9090/metrics"])?.stdout)
    }

    /// How many bytes both relays have taken from clients, to send them on.
    pub fn relayed_bytes(&self) -> Result<u64> {
        let of = |relay: &LabBox| {
            let text = relay.run(["curl", "-fsS", "--max-time", "5", &format!("http://{RELAY_ADMIN}/metrics")])?.stdout;
            let count = text.lines().find_map(|line| line.strip_prefix("towline_relay_bytes_total "));
            let count = count.with_context(|| format!("{} counts no bytes: {text}", relay.name()))?;
            count.trim().parse::<u64>().with_context(|| format!("reading {count:?}"))
        };
        Ok(of(&self.control)? + of(&self.relay2)?)
    }

    /// The device of this short name, as the server lists it.
    pub fn device(&self, name: &str) -> Result<Option<Value>> {
        let devices = self.ask(["devices", "list"])?;
        let is = |device: &&Value| device["name"].as_str().is_some_and(|whole| whole.split('.').next() == Some(name));
        Ok(devices.as_array().and_then(|all| all.iter().find(is)).cloned())
    }
}

impl OAuthClient {
    /// Reads the server's answer to the one who made it.
    fn read(answer: &Value) -> Result<Self> {
        let text =
            |field: &str| answer[field].as_str().map(str::to_owned).with_context(|| format!("no {field} in {answer}"));
        Ok(Self { id: text("id")?, secret: text("key")? })
    }
}

fn start_relay(lab_box: &LabBox, name: &str, port: u16) -> Result<Daemon> {
    let arguments = [
        "towline".to_owned(),
        "derp".to_owned(),
        format!("--listen=0.0.0.0:{port}"),
        "--stun-listen=0.0.0.0:3478".to_owned(),
        format!("--admin-listen={RELAY_ADMIN}"),
        format!("--tls-cert=/etc/towline/tls/{name}.crt"),
        format!("--tls-key=/etc/towline/tls/{name}.key"),
        "--state-dir=/var/lib/towline-derp".to_owned(),
        format!("--admission-url={CONTROL_URL}/relay/admission"),
        format!("--admission-token-file={RELAY_TOKEN}"),
        // The system's certificates, which hold the laboratory's root.
        "--ca-file=/etc/ssl/certs/ca-certificates.crt".to_owned(),
    ];
    lab_box.daemon("derp", arguments).ready(Ready::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))).start()
}

fn relay_map() -> Value {
    let region = |id: u32, code: &str, host: &str, address: Ipv4Addr, port: u16| {
        json!({
            "RegionID": id, "RegionCode": code, "RegionName": code,
            "Nodes": [{
                "Name": format!("{id}a"), "RegionID": id, "HostName": host,
                "IPv4": address, "IPv6": "none", "DERPPort": port,
            }],
        })
    };
    json!({
        // All are as near as can be: without UDP a handshake on a busy machine takes many times as long as the one before.
        "HomeParams": {"RegionScore": {"901": 1000.0}},
        "Regions": {
            "900": region(900, "near", RELAY1_NAME, lab::CONTROL, RELAY1_PORT),
            "901": region(901, "far", RELAY2_NAME, lab::RELAY2, RELAY2_PORT),
        },
    })
}
