//! Row 14: who speaks with whom through the Connector, and what carries it.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::connector::DEVICE;
use crate::operator::NAMESPACE;
use crate::{Arguments, Checks, PATIENCE, Stage, WEB_PAGE, eventually};

/// What a row of the table of flows says between the ends when the far one began.
const FROM_AFAR: &str = "<-";

/// Why those who play can't tell.
pub(super) fn excuse(arguments: &Arguments) -> Option<&'static str> {
    let somebody_tells = arguments.habits().tells_flows || arguments.laptop_is_ours();
    (!somebody_tells).then_some("stock programs tell no flows: it needs --operator towline or --laptop towline")
}

/// Goes from the laptop through the Connector, and asks both ends what flowed.
pub(super) fn play(stage: &Stage, checks: &mut Checks) {
    let operator_tells = stage.operator.habits.tells_flows;
    let Some(ends) = checks.timed("row 14: the laptop goes through the Connector, directly", |_| traffic(stage)) else {
        return;
    };
    if operator_tells {
        checks.check(
            "row 14: towline flows on the Connector shows what leaves it, and who goes where through it",
            || eventually("the Connector's flows", PATIENCE, || told_by_the_connector(stage, &ends)),
        );
        checks.check("row 14: the Connector tells what it refused", || refused(stage));
        checks.check("row 14: towline status, ping and netcheck work in the Connector's pod", || by_hand(stage));
    }
    if stage.tailnet.laptop.is_ours() {
        checks.check("row 14: towline flows on the laptop shows the same from its side", || {
            eventually("the laptop's flows", PATIENCE, || told_by_the_laptop(stage, &ends))
        });
    }
}

/// Between whom the traffic of this row went.
struct Ends {
    laptop: String,
    pod: String,
}

fn traffic(stage: &Stage) -> Result<Ends> {
    stage.tailnet.laptop.cli(["set", "--accept-routes"]).run()?;
    let web = stage.cluster.get("home", "pod/web")?;
    let pod = web["status"]["podIP"].as_str().context("the pod has no address")?.to_owned();
    stage.tailnet.laptop.gets(&format!("http://{pod}/"), WEB_PAGE, 2 * PATIENCE)?;
    eventually("the direct path", 2 * PATIENCE, || stage.tailnet.laptop.ping(DEVICE, "via 203.0.113.20:"))?;
    stage.tailnet.laptop.gets(&format!("http://{pod}/"), WEB_PAGE, PATIENCE)?;
    stage.tailnet.laptop.gets(&format!("http://{}/", lab::PRINTER), "printer: ready", PATIENCE)?;
    let status = stage.tailnet.laptop.status()?;
    let laptop = status["Self"]["TailscaleIPs"][0].as_str().context("the laptop has no address")?.to_owned();
    Ok(Ends { laptop, pod })
}

fn told_by_the_connector(stage: &Stage, ends: &Ends) -> Result<()> {
    let flows = Flows::parse(&in_pod(stage, &["flows", "--output=json"])?)?;
    let cafe = format!("{}:", lab::CAFE_ROUTER);
    flows.find("UDP to the laptop's endpoint", |flow| {
        flow["kind"] == "physical"
            && flow["protocol"] == "udp"
            && flow["peer"] == "laptop"
            && begins(&flow["remote"], &cafe)
    })?;
    flows.servers()?;
    let (destination, laptop) = (format!("{}:80", ends.pod), format!("{}:", ends.laptop));
    let mesh = |local: &str| {
        flows.find(&format!("from the laptop to {local}"), |flow| {
            let is_tcp = flow["kind"] == "mesh" && flow["protocol"] == 6 && flow["initiator"] == "remote";
            is_tcp && flow["peer"] == "laptop" && flow["local"] == local && begins(&flow["remote"], &laptop)
        })
    };
    mesh(&destination)?;
    mesh(&format!("{}:80", lab::PRINTER))?;
    let table = in_pod(stage, &["flows"])?;
    let line = |words: &[&str]| table.lines().any(|line| words.iter().all(|word| line.contains(word)));
    let server = format!("{}:443 ({})", lab::CONTROL, lab::CONTROL_NAME);
    ensure!(line(&["coordination server", "https", &server]), "{table}");
    ensure!(line(&["laptop", "udp", &cafe]), "{table}");
    ensure!(line(&["laptop", "tcp", &destination, FROM_AFAR, &laptop]), "{table}");
    Ok(())
}

fn told_by_the_laptop(stage: &Stage, ends: &Ends) -> Result<()> {
    let said =
        stage.tailnet.laptop.lab_box().command(["towline", "flows", "--output=json"]).within(PATIENCE).run()?.stdout;
    let flows = Flows::parse(&said)?;
    let home = format!("{}:", lab::HOME_ROUTER);
    flows.find("UDP to the Connector's endpoint", |flow| {
        flow["protocol"] == "udp" && flow["peer"] == DEVICE && begins(&flow["remote"], &home)
    })?;
    flows.servers()?;
    let (destination, laptop) = (format!("{}:80", ends.pod), format!("{}:", ends.laptop));
    flows.find("to the pod", |flow| {
        let is_ours = flow["kind"] == "mesh" && flow["initiator"] == "local";
        is_ours && flow["peer"] == DEVICE && flow["remote"] == destination && begins(&flow["local"], &laptop)
    })?;
    Ok(())
}

/// Robbinsdale tries what the policy has not granted it.
fn refused(stage: &Stage) -> Result<()> {
    let connector = stage.tailnet.robbinsdale.sees(DEVICE, PATIENCE)?;
    let address = connector["TailscaleIPs"][0].as_str().context("the Connector has no address")?;
    let curl = ["curl", "-sS", "--max-time", "2", &format!("http://{address}:9/")].map(str::to_owned);
    let answer = stage.tailnet.robbinsdale.lab_box().command(curl).finish()?;
    ensure!(!answer.ended.is_success(), "robbinsdale gets {:?}", answer.stdout);
    eventually("the refusal", PATIENCE, || {
        let flows = Flows::parse(&in_pod(stage, &["flows", "--output=json"])?)?;
        let is = |flow: &&Value| {
            flow["peer"] == "robbinsdale" && flow["local"] == format!("{address}:9") && flow["reason"] == "no-rule"
        };
        let flow = flows.0.iter().find(is);
        let flow = flow.with_context(|| format!("it is not among {:#}", Value::Array(flows.0.clone())))?;
        ensure!(flow["refused"]["packets"].as_u64() > Some(0) && flow["received"]["bytes"] == 0, "{flow}");
        Ok(())
    })
}

fn by_hand(stage: &Stage) -> Result<()> {
    let status = in_pod(stage, &["status"])?;
    ensure!(status.contains("laptop"), "{status}");
    let pong = in_pod(stage, &["ping", "-c", "3", "laptop"])?;
    ensure!(pong.contains("pong from laptop"), "{pong}");
    let network = in_pod(stage, &["netcheck"])?;
    ensure!(network.contains(&lab::HOME_ROUTER.to_string()), "{network}");
    Ok(())
}

/// Runs our command in the Connector's pod.
fn in_pod(stage: &Stage, arguments: &[&str]) -> Result<String> {
    let pods = stage.cluster.list(NAMESPACE, "pods", &format!("tailscale.com/parent-resource={DEVICE}"))?;
    let pod = pods.first().and_then(|pod| pod["metadata"]["name"].as_str()).context("the Connector has no pod")?;
    let exec = ["--namespace", NAMESPACE, "exec", pod, "--", "/towline"];
    let command = stage.cluster.kubectl(exec.iter().chain(arguments).copied());
    Ok(command.within(PATIENCE).run()?.stdout)
}

/// What `towline flows` told.
struct Flows(Vec<Value>);

impl Flows {
    fn parse(text: &str) -> Result<Self> {
        let told: Value = serde_json::from_str(text).with_context(|| format!("reading {text:?}"))?;
        Ok(Self(told["flows"].as_array().cloned().with_context(|| format!("no flows in {text}"))?))
    }

    /// A flow with bytes both ways.
    fn find(&self, what: &str, is: impl Fn(&Value) -> bool) -> Result<()> {
        let moved = |flow: &Value, way: &str| flow[way]["bytes"].as_u64() > Some(0);
        let found = self.0.iter().any(|flow| is(flow) && moved(flow, "sent") && moved(flow, "received"));
        ensure!(found, "no flow {what}, with bytes both ways, is among {:#}", Value::Array(self.0.clone()));
        Ok(())
    }

    /// There are HTTPS connections to the coordination server and to a relay, and they are open.
    fn servers(&self) -> Result<()> {
        let is_open = |flow: &Value| flow["open"].as_array().is_some_and(|open| !open.is_empty());
        self.find("by HTTPS to the coordination server", |flow| {
            let is_control = flow["service"] == "control" && flow["name"] == lab::CONTROL_NAME;
            is_control
                && flow["protocol"] == "https"
                && flow["remote"] == format!("{}:443", lab::CONTROL)
                && is_open(flow)
        })?;
        self.find("by HTTPS to the nearest relay", |flow| {
            let is_relay = flow["service"] == "relay" && flow["region"] == "near";
            is_relay
                && flow["protocol"] == "https"
                && flow["remote"] == format!("{}:8443", lab::CONTROL)
                && is_open(flow)
        })
    }
}

fn begins(text: &Value, start: &str) -> bool {
    text.as_str().is_some_and(|text| text.starts_with(start))
}
