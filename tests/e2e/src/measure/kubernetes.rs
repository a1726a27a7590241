use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, ensure};
use serde_json::{Value, json};

use super::counters::Counters;
use super::figures::median;
use super::first_byte::await_first_bytes;
use super::ground::Nodes;
use super::image_size::image_size;
use super::memory::{MemoryWatch, Peak};
use super::nodes::{count_while_idle, per_minute};
use super::{Extent, Figures, Ground, Row, let_be};
use crate::operator::{NAMESPACE, PROXY_NAMESPACE};
use crate::{Operator, PATIENCE, eventually};

const ROWS: [Row; 13] = [
    Row::OperatorMemory,
    Row::OperatorResident,
    Row::InstalledMemory,
    Row::ProxyMemory,
    Row::ProxyResident,
    Row::LargestProxyMemory,
    Row::MedianFirstByte,
    Row::LastFirstByte,
    Row::IdleCalls,
    Row::IdleWrites,
    Row::IdleProcessor,
    Row::OperatorImage,
    Row::ProxyImage,
];

/// Labels of the pods that an operator makes, and of those that its chart does.
const PROXIES: &str = "tailscale.com/parent-resource";
const INSTALLED: &str = "!tailscale.com/parent-resource";
/// The label of the Services that are measured.
const SERVICES: &str = "bench=footprint";

/// How long Services may take to answer, all of them.
const LIMIT: Duration = Duration::from_secs(420);
/// How long after the last Service has answered the system has come to rest: proxies have measured their network and told
/// so, kubelets have seen them ready, and nobody has a backlog.
const REST: Duration = Duration::from_secs(60);

/// A system that exposes Services.
pub(super) struct Exposed<'a> {
    pub(super) ground: &'a Ground,
    pub(super) nodes: &'a Nodes,
    pub(super) operator: &'a Operator,
    pub(super) system: &'static str,
}

/// Notes that nothing more could be measured.
pub(super) fn failed(system: &'static str, error: &Error, figures: &mut Figures) {
    println!("{system}: {error:#}");
    ROWS.into_iter().for_each(|row| figures.note_missing(row, system, &format!("{error:#}")));
}

impl Exposed<'_> {
    /// Installs the operator, exposes the Services, lets it all be, and measures on the way.
    pub(super) fn measure(&self, extent: &Extent, before: &Counters, figures: &mut Figures) -> Result<()> {
        let system = self.system;
        println!("{system}: installing the operator");
        let watch = MemoryWatch::pods(self.ground.cluster.nodes().into_iter().cloned().collect());
        self.operator.install(&self.ground.cluster, &self.ground.installation)?;
        self.warm_up()?;
        self.first_bytes(extent, figures)?;

        println!("{system}: let be for {} s", (REST + extent.idle).as_secs());
        let_be(REST);
        let used = self.processor()?;
        let counted = count_while_idle(self.ground, extent);
        let used = self.processor().and_then(|now| spent(&used, &now));
        if let Ok(counted) = &counted {
            println!("{system}: with {} Services: {counted}", extent.services);
        }
        // What nodes and cluster do by themselves was counted when there was nothing else.
        let net = counted.map(|counted| {
            [counted.calls() - before.calls(), counted.writes() - before.writes()].map(|more| per_minute(more, extent))
        });
        figures.note_all([Row::IdleCalls, Row::IdleWrites], system, net);
        figures.note(Row::IdleProcessor, system, used.map(|used| per_minute(used.as_secs_f64(), extent)));
        self.memory(&watch.peaks()?, figures)?;
        self.images(figures)
    }

    /// Removes the Services, then the operator.
    pub(super) fn uninstall(&self) -> Result<()> {
        self.remove_services()?;
        self.operator.uninstall(&self.ground.cluster)
    }

    /// Has each image pulled and started once on both nodes.
    fn warm_up(&self) -> Result<()> {
        println!("{}: warming up", self.system);
        let nodes = self.ground.cluster.nodes().map(lab::LabBox::name);
        for node in nodes {
            let others: Vec<&str> = nodes.into_iter().filter(|other| *other != node).collect();
            self.allow_pods("cordon", &others)?;
            let warmed = self.warm_node(node);
            self.allow_pods("uncordon", &others)?;
            warmed?;
        }
        self.remove_services()
    }

    /// `cordon` keeps new pods away from these nodes, `uncordon` lets them come again.
    fn allow_pods(&self, verb: &str, nodes: &[&str]) -> Result<()> {
        self.ground.cluster.kubectl([verb].iter().chain(nodes).copied()).run()?;
        Ok(())
    }

    /// Has a proxy serve from the only node that takes pods.
    fn warm_node(&self, node: &str) -> Result<()> {
        let names = self.expose(&format!("warm-{node}"), 1)?;
        let answers = await_first_bytes(self.nodes.laptop.lab_box(), &names, Instant::now(), 4 * PATIENCE)?;
        answers.into_iter().collect::<Result<Vec<Duration>>>()?;
        let is_there = self.pods(PROXIES)?.iter().any(|pod| pod["spec"]["nodeName"] == node);
        ensure!(is_there, "no proxy was put on {node}, which has had no image of theirs");
        Ok(())
    }

    fn first_bytes(&self, extent: &Extent, figures: &mut Figures) -> Result<()> {
        let system = self.system;
        println!("{system}: exposing {} Services", extent.services);
        let names = device_names("bench", extent.services);
        let began = Instant::now();
        let answers = std::thread::scope(|scope| -> Result<_> {
            let asking = scope.spawn(|| await_first_bytes(self.nodes.laptop.lab_box(), &names, began, LIMIT));
            self.expose("bench", extent.services)?;
            asking.join().map_err(|_| anyhow!("asking the Services broke off"))?
        })?;
        let (answered, silent): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        let seconds: Vec<f64> = answered.into_iter().flatten().map(|after| after.as_secs_f64()).collect();
        let last = seconds.iter().copied().fold(0.0, f64::max);
        figures.note(Row::MedianFirstByte, system, median(seconds.iter().copied()).context("no Service answered"));
        let last = match silent.into_iter().find_map(Result::err) {
            None => Ok(last),
            Some(error) => {
                Err(error.context(format!("only {} of {} Services answered", seconds.len(), extent.services)))
            }
        };
        if let Ok(last) = &last {
            println!("{system}: the last of {} Services answered after {last:.1} s", extent.services);
        }
        figures.note(Row::LastFirstByte, system, last);
        Ok(())
    }

    fn expose(&self, prefix: &str, count: usize) -> Result<Vec<String>> {
        let names = device_names(prefix, count);
        let service = |name: &String| {
            json!({
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {
                    "name": name, "namespace": "home", "labels": {"bench": "footprint"},
                    "annotations": {"tailscale.com/expose": "true", "tailscale.com/hostname": name},
                },
                "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
            })
        };
        let list = json!({"apiVersion": "v1", "kind": "List", "items": names.iter().map(service).collect::<Vec<_>>()});
        self.ground.cluster.apply(&list.to_string())?;
        Ok(names)
    }

    fn remove_services(&self) -> Result<()> {
        let delete = ["-n", "home", "delete", "services", "--selector", SERVICES, "--timeout=240s"];
        self.ground.cluster.kubectl(delete).within(Duration::from_secs(250)).run()?;
        eventually("no proxy left", 8 * PATIENCE, || {
            let pods = self.pods(PROXIES)?;
            ensure!(pods.is_empty(), "{} pods are left", pods.len());
            Ok(())
        })
    }

    /// Processor time of each of the system's pods until now.
    fn processor(&self) -> Result<BTreeMap<String, Duration>> {
        let pods = [self.pods(PROXIES)?, self.pods(INSTALLED)?].concat();
        let usages = self.ground.cluster.nodes().map(lab::LabBox::pods_usage);
        let usages: BTreeMap<String, lab::Usage> =
            usages.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        let each = of_each(&pods, &usages)?;
        Ok(each.into_iter().map(|(uid, usage)| (uid.to_owned(), usage.processor)).collect())
    }

    fn memory(&self, peaks: &BTreeMap<String, Peak>, figures: &mut Figures) -> Result<()> {
        let of = |labels| -> Result<Vec<Peak>> {
            let pods = self.pods(labels)?;
            Ok(of_each(&pods, peaks).context("its memory")?.into_iter().map(|(_, peak)| *peak).collect())
        };
        let largest = |peaks: &[Peak]| peaks.iter().copied().fold(Peak::default(), Peak::or);
        let installed = of(INSTALLED).map(|peaks| {
            let Peak { working_set, resident } = largest(&peaks);
            [working_set, resident, peaks.iter().map(|peak| peak.working_set).sum()]
        });
        figures.note_all([Row::OperatorMemory, Row::OperatorResident, Row::InstalledMemory], self.system, installed);
        let proxies = of(PROXIES).map(|peaks| {
            let middle = |part: fn(&Peak) -> f64| median(peaks.iter().map(part)).unwrap_or_default();
            [middle(|peak| peak.working_set), middle(|peak| peak.resident), largest(&peaks).working_set]
        });
        figures.note_all([Row::ProxyMemory, Row::ProxyResident, Row::LargestProxyMemory], self.system, proxies);
        Ok(())
    }

    fn images(&self, figures: &mut Figures) -> Result<()> {
        for (row, labels) in [(Row::OperatorImage, INSTALLED), (Row::ProxyImage, PROXIES)] {
            let pods = self.pods(labels)?;
            let image = pods.first().and_then(|pod| pod["spec"]["containers"][0]["image"].as_str());
            let size = image.context("no pod names an image").and_then(|image| image_size(&self.ground.world, image));
            figures.note(row, self.system, size);
        }
        Ok(())
    }

    fn pods(&self, labels: &str) -> Result<Vec<Value>> {
        let mut found = self.ground.cluster.list(NAMESPACE, "pods", labels)?;
        if labels == INSTALLED {
            // What the chart makes is in two namespaces.
            found.extend(self.ground.cluster.list(PROXY_NAMESPACE, "pods", labels)?);
        }
        Ok(found)
    }
}

/// Processor time that pods have used between two looks.
fn spent(before: &BTreeMap<String, Duration>, now: &BTreeMap<String, Duration>) -> Result<Duration> {
    let each = before.iter().map(|(uid, before)| {
        let used = now.get(uid).and_then(|now| now.checked_sub(*before));
        used.with_context(|| format!("pod {uid} was replaced while its processor time was counted"))
    });
    let newcomers = now.iter().filter(|(uid, _)| !before.contains_key(*uid)).map(|(_, used)| Ok(*used));
    each.chain(newcomers).sum()
}

fn device_names(prefix: &str, count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("{prefix}-{number}")).collect()
}

/// What was measured of each of these pods, by its uid; of all of them, or the figures would be those of some.
fn of_each<'a, T>(pods: &'a [Value], measured: &'a BTreeMap<String, T>) -> Result<Vec<(&'a str, &'a T)>> {
    ensure!(!pods.is_empty(), "there are no pods to be measured");
    let of = |pod: &'a Value| -> Result<(&'a str, &'a T)> {
        let uid = pod["metadata"]["uid"].as_str().context("a pod has no uid")?;
        let found = measured.get(uid).with_context(|| format!("pod {} was not measured", pod["metadata"]["name"]))?;
        Ok((uid, found))
    };
    pods.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_was_not_measured_is_missing_and_not_left_out() {
        let pods = ["a", "b"].map(|uid| json!({"metadata": {"uid": uid, "name": format!("pod-{uid}")}}));
        let both = BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 2), ("c".to_owned(), 3)]);
        assert_eq!(of_each(&pods, &both).unwrap(), [("a", &1), ("b", &2)]);
        let one = BTreeMap::from([("a".to_owned(), 1)]);
        assert!(of_each(&pods, &one).unwrap_err().to_string().contains("pod-b"));
        assert!(of_each(&[], &both).is_err());
    }

    #[test]
    fn processor_time_of_a_pod_that_went_is_missing_and_no_zero() {
        let used = |pods: &[(&str, u64)]| -> BTreeMap<String, Duration> {
            pods.iter().map(|(uid, seconds)| ((*uid).to_owned(), Duration::from_secs(*seconds))).collect()
        };
        let before = used(&[("a", 5), ("b", 7)]);
        assert_eq!(spent(&before, &used(&[("a", 6), ("b", 9), ("c", 1)])).unwrap(), Duration::from_secs(4));
        assert!(spent(&before, &used(&[("a", 6)])).is_err());
    }
}
