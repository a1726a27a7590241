use std::ffi::OsStr;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

/// A stock program.
pub(crate) fn stock(name: &str) -> PathBuf {
    let cache = std::env::var_os("TOWLINE_CACHE")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/towline"));
    let path = cache.join("bin").join(name);
    assert!(path.exists(), "{} is missing: run `cargo xtask fetch`", path.display());
    path
}

/// Our binary: the one that the environment names, or the one of this build.
pub(crate) fn towline() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("TOWLINE_BINARY") {
            return path.into();
        }
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--package", "towline", "--manifest-path"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml"))
            .status();
        assert!(built.unwrap().success(), "towline does not build");
        // The test is at <target>/<profile>/deps/<name>.
        std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("towline")
    })
}

/// What a program said and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: i32,
}

impl Said {
    /// What it said, provided that it went well.
    #[track_caller]
    pub(crate) fn well(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    #[track_caller]
    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.well()).unwrap()
    }
}

pub(crate) fn run<S: AsRef<OsStr>>(program: &Path, arguments: impl IntoIterator<Item = S>, folder: &Path) -> Said {
    let Output { status, stdout, stderr } = Command::new(program)
        .args(arguments)
        .env("XDG_CONFIG_HOME", folder)
        .env("HOME", folder)
        .env_remove("KUBECONFIG")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { out: text(stdout), err: text(stderr), code: status.code().unwrap() }
}

/// A program that runs until the value is dropped.
struct Running(Child);

impl Running {
    fn start(command: &mut Command, log: &Path) -> Self {
        let log = std::fs::File::create(log).unwrap();
        command.stdin(Stdio::null()).stderr(log.try_clone().unwrap()).stdout(log);
        Self(command.spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
pub(crate) fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        // tidy: sleep, programs that start tell nobody that they listen
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Our coordination server and relay on loopback, with an admin logged in.
pub(crate) struct Installation {
    folder: TempDir,
    pub(crate) url: String,
    _running: Vec<Running>,
}

impl Installation {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let [http, admin, relay, stun] = std::array::from_fn(|_| loopback::free_port().unwrap());
        let url = format!("http://127.0.0.1:{http}");
        write_certificate(&path("relay.crt"), &path("relay.key"));
        let node = json!({
            "Name": "900a", "RegionID": 900, "HostName": "127.0.0.1", "IPv4": "127.0.0.1", "IPv6": "none",
            "DERPPort": relay, "STUNPort": stun, "InsecureForTests": true,
        });
        let region = json!({"RegionID": 900, "RegionCode": "near", "RegionName": "Near by", "Nodes": [node]});
        std::fs::write(path("relays.json"), json!({"Regions": {"900": region}}).to_string()).unwrap();
        std::fs::write(path("password"), "a long password of the admin").unwrap();
        let at = |name: &str| path(name).display().to_string();
        let init = [
            ["control", "init"].map(str::to_owned),
            ["--data".to_owned(), at("data")],
            ["--url".to_owned(), url.clone()],
            ["--relays".to_owned(), at("relays.json")],
            ["--domain", "tail.example.net"].map(str::to_owned),
            ["--admin", "admin@example.com"].map(str::to_owned),
            ["--password-file".to_owned(), at("password")],
        ];
        let init = init.concat();
        run(towline(), init, folder.path()).well();
        let config = std::fs::read_to_string(path("data/control.toml")).unwrap();
        let config = config.replace("[::]:8080", &format!("127.0.0.1:{http}"));
        let config = config.replace("127.0.0.1:9090", &format!("127.0.0.1:{admin}"));
        std::fs::write(path("data/control.toml"), config).unwrap();
        let control =
            Running::start(Command::new(towline()).args(["control", "--data"]).arg(path("data")), &path("control.log"));
        let relay_arguments = [
            "derp".to_owned(),
            "--open".to_owned(),
            format!("--listen=127.0.0.1:{relay}"),
            format!("--stun-listen=127.0.0.1:{stun}"),
            format!("--tls-cert={}", at("relay.crt")),
            format!("--tls-key={}", at("relay.key")),
            format!("--state-dir={}", at("derp")),
        ];
        let derp = Running::start(Command::new(towline()).args(relay_arguments), &path("derp.log"));
        for port in [http, relay] {
            eventually("a server listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        }
        let this = Self { folder, url, _running: vec![control, derp] };
        let password = this.folder.path().join("password").display().to_string();
        let login = ["admin", "login", "--server", &this.url, "--user", "admin@example.com"];
        this.admin([&login[..], &["--password-file", &password]].concat()).well();
        let policy = this.folder.path().join("policy.hujson");
        std::fs::write(&policy, r#"{"grants":[{"src":["*"],"dst":["*"],"ip":["*"]}],"tagOwners":{"tag:server":[]}}"#)
            .unwrap();
        this.admin(["policy", "set", &policy.display().to_string(), "--yes"]).well();
        this
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn admin<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Said {
        run(towline(), arguments, self.folder())
    }

    /// A file with a key by which devices join.
    pub(crate) fn key_file(&self, tags: &[&str]) -> PathBuf {
        let tags: Vec<&str> = tags.iter().flat_map(|tag| ["--tag", *tag]).collect();
        let made = self.admin([&["-o", "json", "keys", "create"], &tags[..]].concat()).json();
        let path = self.folder().join(format!("key-{}", made["id"].as_str().unwrap()));
        std::fs::write(&path, made["key"].as_str().unwrap()).unwrap();
        path
    }

    /// A stock daemon in user space, which knows nobody yet.
    pub(crate) fn daemon(&self, name: &str) -> Daemon {
        let folder = self.folder().join(name);
        std::fs::create_dir(&folder).unwrap();
        let socket = folder.join("sock");
        let mut command = Command::new(stock("tailscaled"));
        command.args(["--tun=userspace-networking", "--state=mem:", "--port=0", "--no-logs-no-support"]);
        command.arg(format!("--statedir={}", folder.display())).arg(format!("--socket={}", socket.display()));
        let running = Running::start(&mut command, &folder.join("log"));
        eventually("the daemon listens", || UnixStream::connect(&socket).is_ok());
        Daemon { folder, socket, _running: running }
    }
}

/// A certificate that nobody checks: the relay map says so.
fn write_certificate(certificate: &Path, key: &Path) {
    let made = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(certificate, params.self_signed(&made).unwrap().pem()).unwrap();
    std::fs::write(key, made.serialize_pem()).unwrap();
}

/// A stock daemon.
pub(crate) struct Daemon {
    pub(crate) folder: PathBuf,
    socket: PathBuf,
    _running: Running,
}

impl Daemon {
    fn with_socket(&self, line: &str) -> Vec<String> {
        let mut arguments = vec!["--socket".to_owned(), self.socket.display().to_string()];
        arguments.extend(line.split_whitespace().map(str::to_owned));
        arguments
    }

    /// Runs our command.
    pub(crate) fn ours(&self, line: &str) -> Said {
        run(towline(), self.with_socket(line), &self.folder)
    }

    /// Runs our command by the name of the stock one.
    pub(crate) fn ours_as_stock(&self, line: &str) -> Said {
        let named = self.folder.join("tailscale");
        if !named.exists() {
            std::os::unix::fs::symlink(towline(), &named).unwrap();
        }
        run(&named, self.with_socket(line), &self.folder)
    }

    /// Runs the stock command.
    pub(crate) fn stocks(&self, line: &str) -> Said {
        run(&stock("tailscale"), self.with_socket(line), &self.folder)
    }
}
