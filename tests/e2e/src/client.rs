use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lab::{Command, Daemon, LabBox, Ready, Running, StockNode};
use serde_json::Value;

use crate::installation::CONTROL_URL;
use crate::stage::ONE_CONNECTION;
use crate::{Browser, PATIENCE, eventually};

/// A computer that is a device of the tailnet, and the client program that makes it one.
///
/// Commands and their output are those of the stock client, whichever program runs.
#[derive(Debug)]
pub struct Client {
    lab_box: LabBox,
    program: Program,
}

#[derive(Debug)]
enum Program {
    Stock(StockNode),
    /// Our daemon, and the program that commands it: `towline`, or the stock `tailscale`.
    Towline(&'static str),
}

/// Our daemon in a box.
const DAEMON: &str = "node";
/// Where it is commanded: where both command lines look for it.
const SOCKET: &str = "/var/run/tailscale/tailscaled.sock";

impl Client {
    /// Starts the stock client in a box, not logged in.
    pub fn stock(lab_box: LabBox) -> Result<Self> {
        let program = Program::Stock(StockNode::start(&lab_box)?);
        Ok(Self { lab_box, program })
    }

    /// Starts our client in a box, not logged in.
    pub fn towline(lab_box: LabBox) -> Result<Self> {
        start_ours(&lab_box)?;
        Ok(Self { lab_box, program: Program::Towline("towline") })
    }

    /// Starts our daemon in a box, not logged in, to be commanded by the stock command line.
    pub fn towline_by_stock_commands(lab_box: LabBox) -> Result<Self> {
        start_ours(&lab_box)?;
        Ok(Self { lab_box, program: Program::Towline("tailscale") })
    }

    /// The computer.
    pub fn lab_box(&self) -> &LabBox {
        &self.lab_box
    }

    /// Whether its commands are ours, and not the stock ones.
    pub fn has_our_commands(&self) -> bool {
        matches!(self.program, Program::Towline("towline"))
    }

    /// Whether our daemon runs, whichever command line commands it.
    pub fn is_ours(&self) -> bool {
        matches!(self.program, Program::Towline(_))
    }

    /// Begins a command of the client.
    pub fn cli<S: Into<String>>(&self, arguments: impl IntoIterator<Item = S>) -> Command<'_> {
        match &self.program {
            Program::Stock(node) => node.cli(arguments).within(PATIENCE),
            Program::Towline(program) => {
                let command = std::iter::once((*program).to_owned()).chain(arguments.into_iter().map(Into::into));
                self.lab_box.command(command).within(PATIENCE)
            }
        }
    }

    /// The client's daemon.
    pub fn daemon(&self) -> Result<Daemon> {
        match &self.program {
            Program::Stock(node) => node.daemon(),
            Program::Towline(_) => {
                let daemon = self.lab_box.find_daemon(DAEMON)?;
                daemon.with_context(|| format!("box {}: our daemon was stopped", self.lab_box.name()))
            }
        }
    }

    /// Stops the client's daemon.
    pub fn stop(&self) -> Result<()> {
        self.daemon()?.stop()
    }

    /// Joins with a key, under the box's name.
    pub fn join(&self, key: &str) -> Result<()> {
        let (login, key) = (format!("--login-server={CONTROL_URL}"), format!("--auth-key={key}"));
        let name = format!("--hostname={}", self.lab_box.name());
        self.cli(["up", &login, &key, &name]).run()?;
        Ok(())
    }

    /// Joins by a login that `user` confirms in a browser on the same computer, under the box's name.
    ///
    /// The page must name the device, its system and `address`, from which it is seen.
    pub fn log_in(&self, user: &str, address: &str) -> Result<()> {
        let name = self.lab_box.name();
        let (server, own) = (format!("--login-server={CONTROL_URL}"), format!("--hostname={name}"));
        let mut login = self.cli(["login", &server, &own]).spawn()?;
        let url = login_url(&mut login)?;
        let browser = Browser::open(&self.lab_box, user)?;
        let page = browser.sign_in(&url, user)?;
        for (fact, told) in [("Host name", name), ("System", "linux"), ("Address", address)] {
            let said = page.fact(fact).with_context(|| format!("the page does not tell {fact}:\n{}", page.html))?;
            ensure!(said.split_whitespace().next() == Some(told), "the page tells {said:?} as {fact}, and not {told}");
        }
        browser.let_in(&page)?;
        login.finish(PATIENCE)?;
        Ok(())
    }

    /// Whether it was let into a tailnet and has not logged out since, connected or not.
    pub fn has_key(&self) -> Result<bool> {
        eventually(&format!("the state of {}", self.lab_box.name()), PATIENCE, || {
            let status = self.status()?;
            match status["BackendState"].as_str() {
                Some("Running" | "Starting" | "Stopped" | "NeedsMachineAuth") => Ok(true),
                Some("NeedsLogin") => Ok(false),
                other => bail!("it is {other:?}"),
            }
        })
    }

    /// What the client says of itself and of those that it sees.
    pub fn status(&self) -> Result<Value> {
        let output = self.cli(["status", "--json"]).run()?;
        serde_json::from_str(&output.stdout).with_context(|| format!("reading {:?}", output.stdout))
    }

    /// The line of the client's table that names a device.
    pub fn line(&self, name: &str) -> Result<String> {
        let table = self.cli(["status"]).run()?.stdout;
        let line = table.lines().find(|line| line.split_whitespace().nth(1) == Some(name));
        line.map(str::to_owned).with_context(|| format!("no line names {name}:\n{table}"))
    }

    /// The peer of this short name, as the client sees it now.
    pub fn peer(&self, name: &str) -> Result<Option<Value>> {
        let status = self.status()?;
        let is = |peer: &&Value| peer["DNSName"].as_str().is_some_and(|dns| dns.split('.').next() == Some(name));
        Ok(status["Peer"].as_object().and_then(|peers| peers.values().find(is)).cloned())
    }

    /// Waits until the client sees a peer of this short name, online.
    pub fn sees(&self, name: &str, limit: Duration) -> Result<Value> {
        eventually(&format!("{name} in the status of {}", self.lab_box.name()), limit, || {
            let peer = self.peer(name)?.with_context(|| format!("there is no {name}"))?;
            ensure!(peer["Online"] == true, "it is not online: {peer}");
            Ok(peer)
        })
    }

    /// Waits until the client sees no peer of this short name.
    pub fn misses(&self, name: &str, limit: Duration) -> Result<()> {
        eventually(&format!("no {name} in the status of {}", self.lab_box.name()), limit, || {
            let peer = self.peer(name)?;
            ensure!(peer.is_none(), "it is there: {peer:?}");
            Ok(())
        })
    }

    /// Pings by disco until an answer comes by the way that `way` names, such as `via DERP(near)`; at most 50 times.
    pub fn ping(&self, peer: &str, way: &str) -> Result<()> {
        let mut ping = self.cli(["ping", "-c", "50", "--timeout=3s", "--until-direct=false", peer]).spawn()?;
        Ok(ping.wait_for(way, 2 * PATIENCE)?)
    }

    /// Begins to ping by disco, once a second for minutes, whichever way the answers come.
    pub fn pinging(&self, peer: &str) -> Result<Running> {
        let options = ["ping", "-c", "300", "--timeout=1s", "--until-direct=false"];
        Ok(self.cli(options.into_iter().chain([peer])).spawn()?)
    }

    /// What the client measures of the network around it.
    pub fn netcheck(&self) -> Result<Value> {
        let output = self.cli(["netcheck", "--format=json"]).run()?;
        serde_json::from_str(&output.stdout).with_context(|| format!("reading {:?}", output.stdout))
    }

    /// Waits until an HTTP server, named as a user would, answers with `text`.
    pub fn gets(&self, url: &str, text: &str, limit: Duration) -> Result<()> {
        eventually(&format!("{url} from {}", self.lab_box.name()), limit, || {
            let answer = self.lab_box.run(["curl", "-sS", "--max-time", "3", url])?.stdout;
            ensure!(answer.contains(text), "it answers {answer:?} in place of {text:?}");
            Ok(())
        })
    }

    /// As [`Client::gets`], at the first try, which may take as long as one connection does on a busy machine.
    pub fn gets_at_once(&self, url: &str, text: &str) -> Result<()> {
        let limit = ONE_CONNECTION.as_secs().to_string();
        let answer = self.lab_box.run(["curl", "-sS", "--max-time", &limit, url])?.stdout;
        ensure!(answer.contains(text), "{url} answers {answer:?} in place of {text:?}");
        Ok(())
    }

    /// Waits until an UDP echo server sends back what it is sent.
    pub fn echoes(&self, name: &str, port: u16, limit: Duration) -> Result<()> {
        eventually(&format!("UDP port {port} of {name} from {}", self.lab_box.name()), limit, || {
            let to = format!("UDP4:{name}:{port}");
            let said = self.lab_box.command(["socat", "-t2", "-", &to]).input("is it you").run()?.stdout;
            ensure!(said == "is it you", "it sends back {said:?}");
            Ok(())
        })
    }
}

/// Waits until a command that logs in shows the URL to be opened, and answers that.
pub fn login_url(login: &mut Running) -> Result<String> {
    login.wait_for("/a/", PATIENCE)?;
    let said = login.output();
    let said = said.stdout + &said.stderr;
    let url = said.split_whitespace().find(|word| word.contains("/a/")).context("no URL was shown")?;
    Ok(url.to_owned())
}

fn start_ours(lab_box: &LabBox) -> Result<Daemon> {
    let node = ["towline", "node", "--log=info"];
    lab_box.daemon(DAEMON, node).ready(Ready::File(SOCKET.to_owned())).start()
}
