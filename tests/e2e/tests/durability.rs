//! What the coordination server has acknowledged is there after it was killed, or its machine lost its power, whenever that was.
//!
//! Several writers make and delete auth keys and users, set policies, and let devices join and go, by the CLI and as fast as
//! they are answered, while the server is killed with SIGKILL at random moments and started again: once on the same folder, and
//! once on a disk that has lost what was not written through. `TOWLINE_KILLS` says how often, each.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::{ADMIN, Checks, binary, eventually};
use loopback::free_port;
use serde_json::Value;

#[path = "support/disk.rs"]
mod disk;
#[path = "support/ledger.rs"]
mod ledger;

use disk::Disk;
use ledger::{Kind, Ledger};

/// How many make and delete keys at the same time.
const KEY_WRITERS: u64 = 2;
/// A server lives for so long at most before it is killed.
const LONGEST_LIFE: Duration = Duration::from_millis(600);
/// How long a server may take to start again.
const START: Duration = Duration::from_secs(20);
/// How long a device may take to join a server that lives.
const JOIN: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    Checks::main(|checks| {
        let kills: u32 = match std::env::var("TOWLINE_KILLS") {
            Ok(count) => count.parse().context("TOWLINE_KILLS must be a number")?,
            Err(_) => 12,
        };
        checks.check(&format!("a server that is killed {kills} times forgets nothing that it acknowledged"), || {
            Server::set_up("killed", |_| Ok(None))?.suffer(kills)
        });
        checks.check("a disk whose power is cut forgets what was not written through", disk::forgets);
        checks
            .check(&format!("a server whose power is cut {kills} times forgets nothing that it acknowledged"), || {
                Server::set_up("cut", |folder| Disk::make(folder).map(Some))?.suffer(kills)
            });
        Ok(())
    })
}

/// A coordination server on loopback, with everything it has in one folder.
struct Server {
    binary: PathBuf,
    folder: PathBuf,
    url: String,
    /// Where its data lie: on the disk, where there is one.
    data: PathBuf,
    /// Loses its power with each kill.
    disk: Option<Disk>,
}

impl Server {
    fn set_up(name: &str, disk: impl FnOnce(&Path) -> Result<Option<Disk>>) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("towline-durability-{name}-{}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
        let (port, disk) = (free_port()?, disk(&folder)?);
        let data = disk.as_ref().map_or(folder.as_path(), Disk::folder).join("data");
        let server = Self { binary: binary()?, url: format!("http://127.0.0.1:{port}"), folder, data, disk };
        fs::write(server.folder.join("password"), "a long password for a short test")?;
        let made = server
            .server(&["init", "--domain=durable.ts.net", "--relay=relay.test"])
            .args(["--url", &server.url, "--admin", ADMIN, "--data"])
            .arg(&server.data)
            .arg("--password-file")
            .arg(server.folder.join("password"))
            .output()?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let relays = server.data.join("relays.json");
        let config =
            format!("url = {:?}\n[listen]\nhttp = \"127.0.0.1:{port}\"\n[relays]\nmap = {relays:?}\n", server.url);
        fs::write(server.folder.join("control.toml"), config)?;
        Ok(server)
    }

    fn suffer(self, kills: u32) -> Result<()> {
        let mut running = self.start()?;
        let password = self.folder.join("password");
        let login = ["admin", "login", "--server", &self.url, "--user", ADMIN, "--password-file"];
        let login = self.towline(&login).arg(password).output()?;
        ensure!(login.status.success(), "{}", String::from_utf8_lossy(&login.stderr));
        let (ledger, stop) = (Mutex::new(Ledger::default()), AtomicBool::new(false));
        let mut random = Random::seeded()?;
        let suffered = std::thread::scope(|scope| {
            let (server, ledger, stop) = (&self, &ledger, &stop);
            for writer in 0..KEY_WRITERS {
                scope.spawn(move || server.write(writer, ledger, stop, Self::write_key));
            }
            scope.spawn(move || server.write(0, ledger, stop, Self::write_user));
            scope.spawn(move || server.write(0, ledger, stop, Self::write_policy));
            scope.spawn(move || server.write(0, ledger, stop, Self::write_device));
            let result = (1..=kills).try_for_each(|kill| {
                std::thread::park_timeout(LONGEST_LIFE.mul_f64(random.fraction()));
                if kill == kills {
                    // A device needs longer to join than most servers live.
                    eventually("something of each kind is acknowledged", JOIN, || locked(ledger).is_of_all_kinds())?;
                }
                running.kill().context("killing the server")?;
                running.wait()?;
                self.disk.iter().try_for_each(Disk::cut)?;
                running = self.start()?;
                self.compare(ledger)
            });
            stop.store(true, Ordering::Relaxed);
            result
        });
        let ended = suffered.and_then(|()| self.compare(&ledger));
        running.kill()?;
        running.wait()?;
        ended?;
        let ledger = ledger.into_inner().map_err(|_| anyhow::anyhow!("a writer broke off"))?;
        println!("       {ledger}, all as acknowledged");
        ensure!(ledger.count() > kills as usize, "the writers hardly wrote: {ledger}");
        let Self { folder, disk, .. } = self;
        drop(disk);
        fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))
    }

    /// Writes again and again until told to stop; what fails because the server is gone is nothing that it acknowledged.
    fn write(
        &self,
        writer: u64,
        ledger: &Mutex<Ledger>,
        stop: &AtomicBool,
        once: fn(&Self, &str, u64, &Mutex<Ledger>) -> Result<()>,
    ) {
        for round in 0_u64.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let _ = once(self, &format!("{writer}-{round}"), round, ledger);
        }
    }

    fn write_key(&self, name: &str, round: u64, ledger: &Mutex<Ledger>) -> Result<()> {
        let made = self.ask(&["keys", "create", "--reusable", &format!("--description=writer {name}")])?;
        let id = made["id"].as_str().context("a key without an id")?;
        self.note(Kind::Key, id, round, ledger, &["keys", "revoke", id])
    }

    fn write_user(&self, name: &str, round: u64, ledger: &Mutex<Ledger>) -> Result<()> {
        let (login, password) = (format!("user-{name}@example.com"), self.folder.join("password"));
        let password = password.to_str().context("a path that is no text")?;
        self.ask(&["users", "create", &login, "--password-file", password])?;
        self.note(Kind::User, &login, round, ledger, &["users", "delete", &login, "--yes"])
    }

    /// Has a device join, which is killed then.
    fn write_device(&self, name: &str, round: u64, ledger: &Mutex<Ledger>) -> Result<()> {
        let made = self.ask(&["keys", "create"])?;
        let (socket, key) = (self.folder.join("node.sock"), self.folder.join("node.key"));
        fs::write(&key, made["key"].as_str().context("a key without its text")?)?;
        let mut command = self.towline(&["node", "--state=mem:", "--tun=userspace-networking", "--port=0"]);
        command
            .args(["--hostname", &format!("device-{name}"), "--login-server", &self.url])
            .arg("--socket")
            .arg(&socket);
        command.arg("--auth-key-file").arg(key).stdout(Stdio::null()).stderr(Stdio::null());
        let mut device = command.spawn().context("starting a device")?;
        let joined = eventually("the device is in", START, || {
            let status = self.towline(&["status", "--json"]).arg("--socket").arg(&socket).output()?;
            let status: Value = serde_json::from_slice(&status.stdout)?;
            ensure!(status["BackendState"] == "Running", "it is {}", status["BackendState"]);
            Ok(status["Self"]["ID"].as_str().context("a device without an id")?.to_owned())
        });
        device.kill()?;
        device.wait()?;
        let id = joined?;
        self.note(Kind::Device, &id, round, ledger, &["devices", "delete", &id, "--yes"])
    }

    /// Sets a policy that nobody has set before. There is one writer of these, so each comes after the ones before.
    fn write_policy(&self, _: &str, round: u64, ledger: &Mutex<Ledger>) -> Result<()> {
        let path = self.folder.join("policy.hujson");
        fs::write(
            &path,
            format!("// {round}\n{{\"grants\": [{{\"src\": [\"*\"], \"dst\": [\"*\"], \"ip\": [\"*\"]}}]}}\n"),
        )?;
        let path = path.to_str().context("a path that is no text")?;
        self.ask(&["policy", "set", path, "--yes", "-m", &round.to_string()])?;
        locked(ledger).set(round);
        Ok(())
    }

    /// Writes down that something was made, and has all but every eighth deleted again.
    fn note(&self, kind: Kind, id: &str, round: u64, ledger: &Mutex<Ledger>, delete: &[&str]) -> Result<()> {
        locked(ledger).made(kind, id);
        if round % 8 != 0 {
            locked(ledger).doomed(kind, id);
            self.ask(delete)?;
            locked(ledger).deleted(kind, id);
        }
        Ok(())
    }

    /// Holds what the server has against what it acknowledged before it was asked.
    fn compare(&self, ledger: &Mutex<Ledger>) -> Result<()> {
        let before = locked(ledger).clone();
        for (kind, list, id) in [
            (Kind::Key, ["keys", "list"], "id"),
            (Kind::User, ["users", "list"], "loginName"),
            (Kind::Device, ["devices", "list"], "nodeId"),
        ] {
            let listed = self.ask(&list)?;
            let listed = listed.as_array().with_context(|| format!("no list of {kind}s"))?;
            let there = listed.iter().filter_map(|thing| thing[id].as_str()).collect();
            // What is being deleted meanwhile may be there or not.
            before.compare(kind, &there, &locked(ledger))?;
        }
        let in_force = self.ask(&["policy", "get"])?;
        let history = self.ask(&["policy", "history"])?;
        let versions = history["versions"].as_array().context("no history of policies")?;
        let rounds = versions.iter().filter_map(|version| version["why"].as_str()?.parse().ok()).collect();
        let text = in_force["policy"].as_str().context("no policy")?;
        let round = text.lines().next().and_then(|line| line.strip_prefix("// ")?.parse().ok());
        before.compare_policies(round, &rounds)
    }

    fn start(&self) -> Result<Child> {
        let log = File::options().create(true).append(true).open(self.folder.join("log"))?;
        let mut command = self.server(&["--data"]);
        command.arg(&self.data).arg("--config").arg(self.folder.join("control.toml"));
        let mut child = command.stderr(log).spawn().context("starting")?;
        let ready = eventually("the server answers", START, || {
            if let Some(status) = child.try_wait()? {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                bail!("the server ended with {status}: {}", log.lines().last().unwrap_or_default());
            }
            let address = self.url.trim_start_matches("http://").parse()?;
            Ok(std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1))?)
        });
        if let Err(error) = ready {
            child.kill()?;
            child.wait()?;
            return Err(error);
        }
        Ok(child)
    }

    fn ask(&self, arguments: &[&str]) -> Result<Value> {
        let output = self.towline(&["-o", "json"]).args(arguments).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// A command of the administrator's.
    fn towline(&self, arguments: &[&str]) -> Command {
        self.at_home(Command::new(&self.binary), arguments)
    }

    /// A command of the server, which sees its disk.
    fn server(&self, arguments: &[&str]) -> Command {
        let command = match &self.disk {
            Some(disk) => disk.command(&self.binary),
            None => Command::new(&self.binary),
        };
        self.at_home(command, &[&["control"][..], arguments].concat())
    }

    fn at_home(&self, mut command: Command, arguments: &[&str]) -> Command {
        command.args(arguments).env("HOME", &self.folder).env("XDG_CONFIG_HOME", self.folder.join("config"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// The ledger, while nobody else has it.
fn locked(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().expect("no writer breaks off while it holds the ledger")
}

/// Moments to kill at: xorshift, seeded by the clock, with the seed printed.
struct Random(u64);

impl Random {
    fn seeded() -> Result<Self> {
        let seed = match std::env::var("TOWLINE_SEED") {
            Ok(seed) => seed.parse().context("TOWLINE_SEED must be a number")?,
            Err(_) => std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_micros() as u64,
        };
        println!("       TOWLINE_SEED={seed}");
        Ok(Self(seed | 1))
    }

    /// From 0 to below 1.
    fn fraction(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}
