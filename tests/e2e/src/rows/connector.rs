//! Rows 9, 10 and 11: a Connector that leads the tailnet into the cluster's networks.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use lab::{Ended, Output};

use super::restricted;
use crate::operator::{NAMESPACE, NODE};
use crate::workloads::BALANCED;
use crate::{ADMIN, Checks, MEMBER, PATIENCE, Stage, TAILNET_DOMAIN, WEB_PAGE, eventually};

const MANIFEST: &str = include_str!("../../../../examples/connector.yaml");
pub(super) const OBJECT: &str = "connector/robbinsdale-connector";
pub(super) const DEVICE: &str = "robbinsdale-connector";
const ROUTES: [&str; 4] = ["10.0.0.0/16", "10.1.0.0/16", "10.69.0.0/16", "192.168.50.0/24"];
/// A network that the policy's `autoApprovers` don't name.
const UNAPPROVED: &str = "192.168.77.0/24";

/// How curl ends where nobody answers.
const TIMED_OUT: Ended = Ended::Exit(28);

/// Applies the article's Connector, and goes through it from the laptop.
pub(super) fn play(stage: &Stage, checks: &mut Checks) {
    if stage.operator.habits.forwards_in_user_space {
        checks
            .check("row 9: a Connector of a ProxyClass looks as that says, and connects without a capability", || {
                by_class(stage)
            });
    }
    checks.timed("row 9: the Connector is ready, and its routes are approved with no click", |marks| {
        stage.cluster.apply(MANIFEST)?;
        stage.cluster.wait("", OBJECT, "condition=ConnectorReady", 4 * PATIENCE)?;
        marks.reached("condition after");
        eventually("its routes at the laptop", 2 * PATIENCE, || {
            let peer = stage.tailnet.laptop.peer(DEVICE)?.with_context(|| format!("no {DEVICE}"))?;
            ensure!(peer["Tags"] == serde_json::json!(["tag:k8s"]), "{peer}");
            let routes: BTreeSet<&str> =
                peer["PrimaryRoutes"].as_array().into_iter().flatten().filter_map(|route| route.as_str()).collect();
            ensure!(routes == BTreeSet::from(ROUTES), "{routes:?}");
            Ok(())
        })?;
        marks.reached("routes after");
        eventually("the table", PATIENCE, || shown(stage))
    });
    if stage.operator.habits.ready_is_ready {
        checks
            .check("row 9: a Connector with a route that nobody has approved says so, and is ready once it is", || {
                by_hand(stage)
            });
    }
    checks.check("row 10: the laptop takes the routes and reaches pod, Service, load balancer and printer", || {
        stage.tailnet.laptop.cli(["set", "--accept-routes"]).run()?;
        stage.cluster.assign_load_balancer("home", "web", BALANCED)?;
        for (address, text) in places(stage)? {
            stage.tailnet.laptop.gets(&format!("http://{address}/"), text, 2 * PATIENCE)?;
        }
        Ok(())
    });
    checks.check("row 11: the laptop pings the Connector directly through both NATs", || {
        eventually("the direct path", 2 * PATIENCE, || stage.tailnet.laptop.ping(DEVICE, "via 203.0.113.20:"))
    });
    checks.check("row 10: a member reaches none of it, and does not see the Connector", || {
        let logs_in = |user: &str| -> Result<()> {
            // Where the one before was not let in, there is nobody to log out.
            stage.tailnet.laptop.cli(["logout"]).finish()?;
            stage.tailnet.laptop.log_in(user, &lab::CAFE_ROUTER.to_string())
        };
        let outcome = logs_in(MEMBER).and_then(|()| as_member(stage));
        // Whatever came of it: the rows after this one are the administrator's.
        let back = logs_in(ADMIN);
        outcome.and(back)
    });
}

/// Addresses in the cluster's networks, and what answers there.
fn places(stage: &Stage) -> Result<[(String, &'static str); 4]> {
    let text = |object: &str, path: &str| -> Result<String> {
        let found = stage.cluster.get("home", object)?;
        found
            .pointer(path)
            .and_then(|value| value.as_str())
            .map(str::to_owned)
            .context(format!("{object} has no {path}"))
    };
    Ok([
        (text("pod/web", "/status/podIP")?, WEB_PAGE),
        (text("service/web", "/spec/clusterIP")?, WEB_PAGE),
        (BALANCED.to_string(), WEB_PAGE),
        (lab::PRINTER.to_string(), "printer: ready"),
    ])
}

/// A Connector whose class has it run in user space, while no other Connector is there.
fn by_class(stage: &Stage) -> Result<()> {
    let resources =
        serde_json::json!({"requests": {"cpu": "3m", "memory": "24Mi"}, "limits": {"cpu": "2", "memory": "96Mi"}});
    let class = serde_json::json!({
        "apiVersion": "tailscale.com/v1alpha1",
        "kind": "ProxyClass",
        "metadata": {"name": "quiet"},
        "spec": {"statefulSet": {
            "labels": {"team": "home"},
            "annotations": {"example.com/owner": "somebody"},
            "pod": {
                "labels": {"tier": "edge"},
                "annotations": {"example.com/scrape": "no"},
                "tailscaleContainer": {
                    "env": [{"name": "TS_USERSPACE", "value": "true"}],
                    "resources": resources,
                },
            },
        }},
    });
    let connector = serde_json::json!({
        "apiVersion": "tailscale.com/v1alpha1",
        "kind": "Connector",
        "metadata": {"name": "by-class"},
        "spec": {
            "hostname": "by-class", "proxyClass": "quiet",
            "subnetRouter": {"advertiseRoutes": [ROUTES[0], ROUTES[3]]},
        },
    });
    stage.cluster.apply(&format!("{class}\n---\n{connector}\n"))?;
    stage.cluster.wait("", "connector/by-class", "condition=ConnectorReady", 4 * PATIENCE)?;

    let pod = restricted::pod_of(stage, "by-class")?;
    ensure!(pod["metadata"]["labels"]["tier"] == "edge", "{}", pod["metadata"]["labels"]);
    ensure!(pod["metadata"]["annotations"]["example.com/scrape"] == "no", "{}", pod["metadata"]["annotations"]);
    let container = &pod["spec"]["containers"][0];
    ensure!(container["resources"] == resources, "{}", container["resources"]);
    restricted::takes(stage, &pod)?;
    let sets = stage.cluster.list(NAMESPACE, "statefulsets", "tailscale.com/parent-resource=by-class,team=home")?;
    ensure!(sets.len() == 1, "{} StatefulSets have the label of the class", sets.len());
    let annotations = &sets[0]["metadata"]["annotations"];
    ensure!(annotations["example.com/owner"] == "somebody", "{annotations}");

    let laptop = &stage.tailnet.laptop;
    laptop.cli(["set", "--accept-routes"]).run()?;
    let web = stage.cluster.get("home", "pod/web")?;
    let web = web["status"]["podIP"].as_str().context("the pod has no address")?;
    laptop.gets(&format!("http://{web}/"), WEB_PAGE, 2 * PATIENCE)?;
    laptop.gets(&format!("http://{}/", lab::PRINTER), "printer: ready", PATIENCE)?;
    laptop.echoes(web, 7, PATIENCE)?;

    laptop.cli(["set", "--accept-routes=false"]).run()?;
    stage.cluster.kubectl(["delete", "connector/by-class", "proxyclass/quiet"]).run()?;
    laptop.misses("by-class", 2 * PATIENCE)
}

/// A Connector with a route that the policy does not approve: an administrator does.
fn by_hand(stage: &Stage) -> Result<()> {
    let connector = serde_json::json!({
        "apiVersion": "tailscale.com/v1alpha1",
        "kind": "Connector",
        "metadata": {"name": "by-hand"},
        "spec": {"hostname": "by-hand", "subnetRouter": {"advertiseRoutes": [UNAPPROVED]}},
    });
    stage.cluster.apply(&connector.to_string())?;
    eventually("what the Connector says of its route", 4 * PATIENCE, || {
        let found = stage.cluster.get("", "connector/by-hand")?;
        let said = &found["status"]["conditions"][0];
        let message = said["message"].as_str().unwrap_or_default();
        ensure!(said["status"] == "False" && said["reason"] == "RoutesNotServed", "{said}");
        ensure!(message.contains("towline routes approve by-hand") && message.contains(UNAPPROVED), "{said}");
        Ok(())
    })?;
    stage.tailnet.installation.towline(["routes", "approve", "by-hand", UNAPPROVED]).run()?;
    stage.cluster.wait("", "connector/by-hand", "condition=ConnectorReady", PATIENCE)?;
    stage.cluster.kubectl(["delete", "connector/by-hand"]).run()?;
    stage.tailnet.laptop.misses("by-hand", 2 * PATIENCE)
}

/// `kubectl get connector` names the routes.
fn shown(stage: &Stage) -> Result<()> {
    let table = stage.cluster.kubectl(["get", "connector"]).run()?.stdout;
    let mut lines = table.lines();
    let (head, row) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    ensure!(head.contains("SUBNETROUTES") && head.contains("ISEXITNODE"), "{table}");
    ensure!(ROUTES.iter().all(|route| row.contains(route)) && row.contains("ConnectorCreated"), "{table}");
    let status = &stage.cluster.get("", OBJECT)?["status"];
    let addresses = status["devices"][0]["tailnetIPs"].as_array().map_or(0, Vec::len);
    ensure!(addresses > 0, "its status does not name the device's addresses: {status}");
    Ok(())
}

fn as_member(stage: &Stage) -> Result<()> {
    let laptop = &stage.tailnet.laptop;
    laptop.cli(["set", "--accept-routes"]).run()?;
    eventually("the member's view", PATIENCE, || {
        let status = laptop.status()?;
        ensure!(status["BackendState"] == "Running", "{status}");
        let owner = status["Self"]["UserID"].to_string();
        ensure!(status["User"][&owner]["LoginName"] == MEMBER, "{}", status["User"]);
        Ok(())
    })?;
    ensure!(laptop.peer(DEVICE)?.is_none(), "a member sees {DEVICE}");
    reaches_what_members_may(stage)?;
    for (address, _) in places(stage)? {
        let curl = ["curl", "-sS", "--max-time", "3", &format!("http://{address}/")].map(str::to_owned);
        let Output { ended, stdout, stderr } = laptop.lab_box().command(curl).finish()?;
        ensure!(ended == TIMED_OUT, "a member gets {stdout:?} from {address}, {ended}: {stderr}");
    }
    Ok(())
}

/// The operator's device is a member's to see, and the API server on it to reach: the tunnel works, and names do.
fn reaches_what_members_may(stage: &Stage) -> Result<()> {
    let laptop = &stage.tailnet.laptop;
    laptop.sees(NODE, PATIENCE)?;
    laptop.ping(NODE, "pong from")?;
    if !stage.operator.habits.proxies_the_api_server {
        return Ok(());
    }
    eventually("an answer of the API server to the member", PATIENCE, || {
        let url = format!("https://{NODE}.{TAILNET_DOMAIN}/version");
        let ask = ["curl", "-sSk", "--max-time", "5", "-o", "/dev/null", "-w", "%{http_code}", &url];
        let status = laptop.lab_box().run(ask)?.stdout;
        ensure!(status.starts_with(['2', '4']), "it answers {status}");
        Ok(())
    })
}
