//! What the coordination server has acknowledged is there after it was killed, whenever that was.
//!
//! Several writers make and delete auth keys by the CLI, as fast as they are answered, while the server is killed with
//! SIGKILL at random moments and started again on the same folder. `TOWLINE_KILLS` says how often.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::{ADMIN, Checks, binary, eventually};
use serde_json::Value;

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
        let server = Server::set_up(binary()?)?;
        checks.check(&format!("a server that is killed {kills} times forgets nothing that it acknowledged"), || {
            server.suffer(kills)
        });
        Ok(())
    })
}

/// A coordination server on loopback, with everything it has in one folder.
struct Server {
    binary: PathBuf,
    folder: PathBuf,
    url: String,
}

/// What the writers know: keys whose making was acknowledged, and keys whose deletion was asked for or acknowledged.
#[derive(Default)]
struct Ledger {
    made: BTreeSet<String>,
    doomed: BTreeSet<String>,
    deleted: BTreeSet<String>,
}

impl Server {
    fn set_up(binary: PathBuf) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("towline-durability-{}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
        // Free now, and taken again in a moment by the server.
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let server = Self { binary, url: format!("http://127.0.0.1:{port}"), folder };
        fs::write(server.folder.join("password"), "a long password for a short test")?;
        let made = server
            .towline(&["control", "init", "--domain=durable.ts.net", "--relay=relay.test"])
            .args(["--url", &server.url, "--admin", ADMIN])
            .arg("--data")
            .arg(server.folder.join("data"))
            .arg("--password-file")
            .arg(server.folder.join("password"))
            .output()?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let config =
            format!("url = {:?}\n[listen]\nhttp = \"127.0.0.1:{port}\"\n[relays]\nmap = \"relays.json\"\n", server.url);
        fs::write(server.folder.join("data/control.toml"), config)?;
        Ok(server)
    }

    fn suffer(&self, kills: u32) -> Result<()> {
        let mut running = self.start()?;
        let password = self.folder.join("password");
        let login = ["admin", "login", "--server", &self.url, "--user", ADMIN, "--password-file"];
        let login = self.towline(&login).arg(password).output()?;
        ensure!(login.status.success(), "{}", String::from_utf8_lossy(&login.stderr));
        let (ledger, stop) = (Mutex::new(Ledger::default()), AtomicBool::new(false));
        let mut random = Random::seeded()?;
        let suffered = std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (ledger, stop) = (&ledger, &stop);
                scope.spawn(move || self.write(writer, ledger, stop));
            }
            let result = (0..kills).try_for_each(|_| {
                std::thread::park_timeout(LONGEST_LIFE.mul_f64(random.fraction()));
                running.kill().context("killing the server")?;
                running.wait()?;
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
        fs::remove_dir_all(&self.folder).with_context(|| format!("removing {}", self.folder.display()))
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
        let mut child = self
            .towline(&["control", "--data"])
            .arg(self.folder.join("data"))
            .stderr(log)
            .spawn()
            .context("starting")?;
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

    fn towline(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
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
