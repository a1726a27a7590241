//! `cargo xtask up` as a user types it: cut off in the middle, completed, typed again, looked at, used, and taken down.
//!
//! The program runs from a folder where nothing lies beside it, with nothing of the tests in its environment, as in a fresh
//! clone. `XTASK` names it.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{Checks, Installation, MEMBER, PATIENCE, WEB_PAGE, eventually, login_url};
use lab::{Deadline, World, WorldName};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

#[path = "../../lab/tests/support/traces.rs"]
mod traces;

use traces::traces;

/// What only the tests set, and a user does not.
const OF_THE_TESTS: [&str; 4] = ["LAB_INIT", "TOWLINE_BINARY", "STOCK_SOURCES", "XTASK"];

/// How long a task may take; what it builds is part of it.
const LONGEST: Duration = Duration::from_secs(1800);

/// The user, with a world of their own.
struct User {
    xtask: PathBuf,
    world: WorldName,
}

fn main() -> ExitCode {
    Checks::main(|checks| {
        let xtask = std::env::var_os("XTASK").map(PathBuf::from);
        let xtask = xtask.context("XTASK must name the program: run this as a stage of `cargo xtask test`")?;
        let world = WorldName::scratch("up")?;
        let user = User { xtask, world };
        is_cut_off(&user, checks);
        is_completed(&user, checks);
        is_used(&user, checks);
        checks.check("down leaves nothing", || user.goes_down());
        // Whatever failed, the machine is to be as it was.
        World::down(&user.world)
    })
}

/// The first three are killed, each a little further on.
fn is_cut_off(user: &User, checks: &mut Checks) {
    checks.check("an up without a cluster that is killed half way is taken down", || {
        user.begins_and_is_cut_off(&["--no-cluster"], "server and relays: done", || Ok(()))?;
        user.goes_down()
    });
    checks.check("an up that is killed while the server is set up leaves a world", || {
        user.begins_and_is_cut_off(&[], "nodes ready: done", || Ok(()))
    });
    checks.check("status of half a world says so, and what completes it", || user.sees_half_a_world());
    checks.check("an up that is interrupted says what it leaves, and how that goes on or goes", || user.interrupts());
    checks.check("the next goes on, and is killed while Helm installs the operator", || {
        user.begins_and_is_cut_off(&[], "images: done", || user.sees_helm_at_work())
    });
}

/// One goes to its end, and those after it find nothing to do.
fn is_completed(user: &User, checks: &mut Checks) {
    checks.check("the next completes all of it, and says what to type next", || {
        let said = user.runs(&["up"])?;
        for word in ["robbinsdale-connector", "home-notes", "node2", "containerd", "cargo xtask shell laptop", MEMBER] {
            ensure!(said.contains(word), "up does not say {word:?}:\n{said}");
        }
        Ok(())
    });
    checks.timed("up again changes nothing", |marks| {
        let before = user.everything()?;
        marks.reached("seen after");
        user.runs(&["up"])?;
        marks.reached("up after");
        let after = user.everything()?;
        let changed: Vec<&String> = before.symmetric_difference(&after).collect();
        ensure!(changed.is_empty(), "{changed:#?}");
        Ok(())
    });
    checks.check("up by another client than the world has is refused, with the way out", || {
        let output = ends(&mut user.command(&["up", "--laptop=stock"]))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && said.contains("cargo xtask down --world"), "{said}");
        Ok(())
    });
}

fn is_used(user: &User, checks: &mut Checks) {
    checks.check("status shows boxes, devices and pods, all well", || {
        let status: Value = serde_json::from_str(&user.runs(&["status", "--json"])?)?;
        let has = |list: &str, name: &str| status[list].as_array().into_iter().flatten().any(|one| one["name"] == name);
        ensure!(status["problems"].as_array().is_some_and(Vec::is_empty), "{status}");
        ensure!(has("boxes", "laptop") && has("devices", "robbinsdale") && has("pods", "shell"), "{status}");
        Ok(())
    });
    checks.check("status whose reader has enough says no more, and nothing else", || user.reads_one_line());
    checks.check("what up says to type works in a prompt on the laptop", || {
        eventually("the exposed Service from the prompt", 2 * PATIENCE, || {
            let said = user.types("laptop", "hostname\ntowline status\ncurl -sS --max-time 5 http://home-notes/\n")?;
            let seen = said.starts_with("laptop\n") && said.contains("robbinsdale");
            ensure!(seen && said.contains(WEB_PAGE), "{said}");
            Ok(())
        })
    });
    checks.check("a command in a box says and ends what it says and ends there", || {
        let mut command = user.command(&["shell", "laptop"]);
        let output = ends(command.args(["--", "sh", "-c", "hostname; exit 3"]))?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(said == "laptop\n" && output.status.code() == Some(3), "{said:?}, {}", output.status);
        Ok(())
    });
    checks.check("a server that was killed is told of, and up starts it again", || user.misses_the_server());
    checks.check("sign-in says in a line why it can't", || user.signs_in_wrongly());
    checks.check("sign-in is the person who confirms somebody else's login", || user.logs_the_member_in());
}

impl User {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.xtask);
        for name in OF_THE_TESTS {
            command.env_remove(name);
        }
        command.args(arguments).arg(format!("--world={}", self.world)).stdin(Stdio::null());
        command
    }

    /// Runs a task to its end and returns what it printed.
    fn runs(&self, arguments: &[&str]) -> Result<String> {
        let output = ends(&mut self.command(arguments))?;
        let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "xtask {arguments:?} ended with {}:\n{said}\n{errors}", output.status);
        Ok(said.into_owned())
    }

    /// Runs a task that must fail and returns all that it said.
    fn fails(&self, arguments: &[&str]) -> Result<String> {
        let output = ends(&mut self.command(arguments))?;
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        ensure!(output.status.code() == Some(1), "xtask {arguments:?} ended with {}:\n{said}", output.status);
        Ok(said)
    }

    fn sees_half_a_world(&self) -> Result<()> {
        let said = self.fails(&["status"])?;
        ensure!(said.contains("This world is not complete") && said.contains("  cargo xtask up --world"), "{said}");
        Ok(())
    }

    /// `up` and Ctrl-C.
    fn interrupts(&self) -> Result<()> {
        let mut up = self.command(&["up"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let deadline = Deadline::of(&up, LONGEST);
        let mut words = Words::of(&mut up)?;
        words.until("boxes: done")?;
        kill_process(Pid::from_child(&up), Signal::INT)?;
        let ended = up.wait()?;
        deadline.kept()?;
        let said = words.rest();
        ensure!(ended.code() == Some(130), "it ended with {ended}:\n{said}");
        for way in ["cargo xtask up --world", "cargo xtask down --world"] {
            ensure!(said.contains(way), "it does not say {way:?}:\n{said}");
        }
        Ok(())
    }

    fn misses_the_server(&self) -> Result<()> {
        let control = World::attach(&self.world)?.lab_box("control")?;
        control.find_daemon("control")?.context("no server was started")?.kill()?;
        let said = self.fails(&["status"])?;
        for word in ["no answer from the coordination server: it has ended", "`cargo xtask up --world"] {
            ensure!(said.contains(word), "{word:?} is missing:\n{said}");
        }
        self.runs(&["up"])?;
        let said = self.runs(&["status"])?;
        ensure!(said.contains("DEVICE"), "{said}");
        Ok(())
    }

    fn signs_in_wrongly(&self) -> Result<()> {
        let never = format!("{}/a/never", e2e::CONTROL_URL);
        for (url, user, word) in [
            ("nonsense", MEMBER, "no URL that a login shows"),
            (never.as_str(), MEMBER, "This login is over or never was"),
            (never.as_str(), "nobody@example.com", "the password of nobody@example.com is not known here"),
        ] {
            let said = self.fails(&["sign-in", url, "--user", user])?;
            ensure!(said.contains(word) && !said.contains("<") && said.lines().count() == 1, "{said}");
        }
        Ok(())
    }

    /// `cargo xtask status --json | head -1`: whoever reads goes before the task has said all.
    fn reads_one_line(&self) -> Result<()> {
        let mut command = self.command(&["status", "--json"]);
        let mut status = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let deadline = Deadline::of(&status, LONGEST);
        let mut line = String::new();
        BufReader::with_capacity(1, status.stdout.take().context("its answer goes elsewhere")?).read_line(&mut line)?;
        let ended = status.wait_with_output()?;
        deadline.kept()?;
        let said = String::from_utf8_lossy(&ended.stderr);
        ensure!(line == "{\n" && ended.status.success() && said.is_empty(), "{line:?}, {}: {said}", ended.status);
        Ok(())
    }

    /// Types lines at the prompt of a box.
    fn types(&self, place: &str, lines: &str) -> Result<String> {
        let mut shell = self.command(&["shell", place]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let deadline = Deadline::of(&shell, LONGEST);
        shell.stdin.take().context("the prompt has no input")?.write_all(lines.as_bytes())?;
        let output = shell.wait_with_output()?;
        deadline.kept()?;
        ensure!(output.status.success(), "the prompt ended with {}", output.status);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Begins `up` and kills it some time after it has said `moment`: when `come` returns.
    fn begins_and_is_cut_off(&self, options: &[&str], moment: &str, come: impl FnOnce() -> Result<()>) -> Result<()> {
        let arguments: Vec<&str> = ["up"].iter().chain(options).copied().collect();
        let mut up = self.command(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let outcome = Words::of(&mut up).and_then(|mut words| words.until(moment)).and_then(|()| come());
        up.kill()?;
        let ended = up.wait()?;
        outcome?;
        ensure!(!ended.success(), "up came to its end before it was killed");
        Ok(())
    }

    /// Waits until Helm has begun a release and not yet ended it.
    fn sees_helm_at_work(&self) -> Result<()> {
        let cluster = World::attach(&self.world)?.cluster()?;
        eventually("a release that Helm works on", 4 * PATIENCE, || {
            let releases = cluster.list("tailscale", "secrets", "owner=helm,status=pending-install")?;
            ensure!(!releases.is_empty(), "no release is pending");
            Ok(())
        })
    }

    /// All that runs or was made and has an identity: a second `up` may neither replace nor add any.
    fn everything(&self) -> Result<BTreeSet<String>> {
        let world = World::attach(&self.world)?;
        let mut found = BTreeSet::new();
        for one in world.status()?.boxes {
            found.insert(format!("box {} {:?}", one.name, one.pid));
            found
                .extend(one.daemons.iter().map(|daemon| format!("daemon {} {} {}", one.name, daemon.name, daemon.pid)));
        }
        let installation = Installation::of(&world)?;
        for kind in ["devices", "keys", "oauth-clients", "users"] {
            let listed = installation.ask([kind, "list"])?;
            found.extend(listed.as_array().into_iter().flatten().map(|one| format!("{kind} {}", one["id"])));
        }
        let kinds = "pods,services,secrets,configmaps,statefulsets.apps,deployments.apps,connectors";
        let objects = world.cluster()?.kubectl(["get", kinds, "--all-namespaces", "--output=json"]).run()?.stdout;
        let objects: Value = serde_json::from_str(&objects)?;
        for object in objects["items"].as_array().into_iter().flatten() {
            let containers = object["status"]["containerStatuses"].as_array().into_iter().flatten();
            let containers: Vec<&Value> = containers.map(|one| &one["containerID"]).collect();
            let about = &object["metadata"];
            found.insert(format!("{} {} {} {containers:?}", object["kind"], about["name"], about["uid"]));
        }
        Ok(found)
    }

    /// The laptop goes from one user to the other, as the last lines of `up` say.
    fn logs_the_member_in(&self) -> Result<()> {
        let laptop = World::attach(&self.world)?.lab_box("laptop")?;
        laptop.run(["towline", "logout"])?;
        let server = format!("--login-server={}", e2e::CONTROL_URL);
        let mut login = laptop.command(["towline", "login", &server]).within(2 * PATIENCE).spawn()?;
        let url = login_url(&mut login)?;
        self.runs(&["sign-in", &url, "--user", MEMBER])?;
        login.finish(PATIENCE)?;
        eventually("the member's view", PATIENCE, || {
            let status = laptop.run(["towline", "status"])?.stdout;
            ensure!(status.contains("member@") && !status.contains("home-notes"), "{status}");
            Ok(())
        })
    }

    fn goes_down(&self) -> Result<()> {
        self.runs(&["down"])?;
        let left = traces(&self.world);
        ensure!(left.is_empty(), "{left:#?}");
        Ok(())
    }
}

/// Lets a task run to its end, and tells how it ended and what it said.
fn ends(command: &mut Command) -> Result<Output> {
    let task = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("starting xtask")?;
    let deadline = Deadline::of(&task, LONGEST);
    let output = task.wait_with_output();
    deadline.kept().with_context(|| format!("{command:?}"))?;
    output.context("waiting for xtask")
}

/// What a task tells on standard error, as it tells it.
struct Words {
    hear: Receiver<String>,
    said: Vec<String>,
}

impl Words {
    /// Begins to listen; a thread reads, so that the task is never kept waiting.
    fn of(task: &mut Child) -> Result<Self> {
        let lines = BufReader::new(task.stderr.take().context("the task's words go elsewhere")?).lines();
        let (tell, hear) = std::sync::mpsc::channel();
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(tell.send(line))));
        Ok(Self { hear, said: Vec::new() })
    }

    /// Waits for a line that begins with `text`.
    fn until(&mut self, text: &str) -> Result<()> {
        loop {
            // A build may come first.
            let line = self.hear.recv_timeout(Duration::from_secs(900)).ok();
            let line = line.with_context(|| format!("it ended without {text:?}:\n{}", self.said.join("\n")))?;
            let is_it = line.starts_with(text);
            self.said.push(line);
            if is_it {
                return Ok(());
            }
        }
    }

    /// All that is still told once the task has ended. Programs that it has started may keep its standard error open.
    fn rest(self) -> String {
        std::iter::from_fn(|| self.hear.recv_timeout(PATIENCE).ok()).map(|line| line + "\n").collect()
    }
}
