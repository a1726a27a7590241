//! What the coordination server has acknowledged is there after it was killed, or its machine lost its power, whenever that was.
//!
//! Several writers make and delete auth keys by the CLI, as fast as they are answered, while the server is killed with
//! SIGKILL at random moments and started again: once on the same folder, and once on a disk that has lost what was not written
//! through. `TOWLINE_KILLS` says how often, each.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::{ADMIN, Checks, binary, eventually};
use loopback::free_port;
use serde_json::Value;

#[path = "support/disk.rs"]
mod disk;

use disk::Disk;

/// How many write at the same time.
const WRITERS: u64 = 3;
/// A server lives for so long at most before it is killed.
const LONGEST_LIFE: Duration = Duration::from_millis(600);
/// How long a server may take to start again.
const START: Duration = Duration::from_secs(20);

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

/// What the writers know: keys whose making was acknowledged, and keys whose deletion was asked for or acknowledged.
#[derive(Default)]
struct Ledger {
    made: BTreeSet<String>,
    doomed: BTreeSet<String>,
    deleted: BTreeSet<String>,
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
            for writer in 0..WRITERS {
                let (server, ledger, stop) = (&self, &ledger, &stop);
                scope.spawn(move || server.write(writer, ledger, stop));
            }
            let result = (0..kills).try_for_each(|_| {
                std::thread::park_timeout(LONGEST_LIFE.mul_f64(random.fraction()));
                running.kill().context("killing the server")?;
                running.wait()?;
                self.disk.iter().try_for_each(Disk::cut)?;
                running = self.start()?;
                self.compare(&ledger)
            });
            stop.store(true, Ordering::Relaxed);
            result
        });
        let ended = suffered.and_then(|()| self.compare(&ledger));
        running.kill()?;
        running.wait()?;
        ended?;
        let ledger = ledger.into_inner().map_err(|_| anyhow::anyhow!("a writer broke off"))?;
        println!("       {} keys made and {} deleted, all as acknowledged", ledger.made.len(), ledger.deleted.len());
        ensure!(ledger.made.len() as u64 > u64::from(kills), "the writers hardly wrote: {}", ledger.made.len());
        let Self { folder, disk, .. } = self;
        drop(disk);
        fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))
    }

    /// Makes keys, and deletes all but every eighth again, until told to stop; what fails because the server is gone is nothing
    /// that it acknowledged.
    fn write(&self, writer: u64, ledger: &Mutex<Ledger>, stop: &AtomicBool) {
        let locked = || ledger.lock().expect("no writer breaks off while it holds the ledger");
        for round in 0_u64.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let about = format!("--description=writer {writer} round {round}");
            let Ok(made) = self.ask(&["keys", "create", "--reusable", &about]) else { continue };
            let Some(id) = made["id"].as_str() else { continue };
            locked().made.insert(id.to_owned());
            if round % 8 != 0 {
                locked().doomed.insert(id.to_owned());
                if self.ask(&["keys", "revoke", id]).is_ok() {
                    locked().deleted.insert(id.to_owned());
                }
            }
        }
    }

    /// Holds what the server has against what it acknowledged before it was asked.
    fn compare(&self, ledger: &Mutex<Ledger>) -> Result<()> {
        let (made, deleted) = {
            let ledger = ledger.lock().map_err(|_| anyhow::anyhow!("a writer broke off"))?;
            (ledger.made.clone(), ledger.deleted.clone())
        };
        let listed = self.ask(&["keys", "list"])?;
        let keys = listed.as_array().context("no list of keys")?;
        let there: BTreeSet<&str> = keys.iter().filter_map(|key| key["id"].as_str()).collect();
        let doomed = ledger.lock().map_err(|_| anyhow::anyhow!("a writer broke off"))?.doomed.clone();
        let lost: Vec<&String> =
            made.iter().filter(|id| !doomed.contains(*id) && !there.contains(id.as_str())).collect();
        ensure!(lost.is_empty(), "acknowledged and gone: {lost:?}");
        let back: Vec<&String> = deleted.iter().filter(|id| there.contains(id.as_str())).collect();
        ensure!(back.is_empty(), "deleted and back: {back:?}");
        Ok(())
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
