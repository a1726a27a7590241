use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use lab::{Cluster, Listener, World, step};

use crate::operator::{NAMESPACE, PROXY_NAMESPACE};
use crate::{ADMIN, Cast, Client, Installation, Operator, Parts};

mod furniture;

/// The policy of the walkthrough.
pub(crate) const POLICY: &str = include_str!("../../../examples/policy.hujson");

/// How long something may take that needs the network, or a pod, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long a single connection may take on a busy machine, which makes it slow and doesn't refuse it.
pub(crate) const ONE_CONNECTION: Duration = Duration::from_secs(25);

/// What the rows of the walkthrough are played on: the whole world with our server, the two devices and an operator.
#[derive(Debug)]
pub struct Stage {
    /// The part that does without Kubernetes.
    pub tailnet: Tailnet,
    /// Kubernetes.
    pub cluster: Cluster,
    /// The operator, which row 3 installs.
    pub operator: Operator,
}

/// The part of a stage that does without Kubernetes.
#[derive(Debug)]
pub struct Tailnet {
    /// The boxes.
    pub world: World,
    /// The coordination server and its relays.
    pub installation: Installation,
    /// The laptop.
    pub laptop: Client,
    /// The server in the cabin.
    pub robbinsdale: Client,
}

impl Stage {
    /// Sets the stage for a cast in a world that stays; what is there already stays as it is.
    pub fn on(world: &World, cast: &Cast, parts: &Parts, listener: Listener<'_>) -> Result<Self> {
        let tailnet = Tailnet::set_up(world, cast, &parts.binary, listener)?;
        Self::around(tailnet, cast, parts, listener)
    }

    /// Sets the stage around a tailnet whose world has a cluster.
    pub fn around(tailnet: Tailnet, cast: &Cast, parts: &Parts, listener: Listener<'_>) -> Result<Self> {
        let cluster = tailnet.world.cluster()?;
        let operator = step(listener, "images", || {
            tailnet.world.push_workloads()?;
            (cast.operator)(&tailnet.world, parts)
        })?;
        Ok(Self { tailnet, cluster, operator })
    }

    /// How long traffic may take to flow once a condition has turned True.
    pub fn grace(&self) -> Duration {
        if self.operator.habits.ready_is_ready { Duration::ZERO } else { 2 * PATIENCE }
    }

    /// Prints what Kubernetes knows of the operator and its proxies, for whoever looks into a failure.
    pub fn tell(&self) {
        let pods = ["pod", "--output=name"];
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let mut questions = vec![
            words(&["get", "pods,statefulsets,services,connectors", "--all-namespaces", "--output=wide"]),
            words(&["get", "events", "--namespace", NAMESPACE, "--sort-by=.lastTimestamp"]),
        ];
        for namespace in [NAMESPACE, PROXY_NAMESPACE] {
            let found = self.cluster.kubectl(["--namespace", namespace, "get"].into_iter().chain(pods)).finish();
            for pod in found.iter().flat_map(|found| found.stdout.lines()) {
                questions.push(words(&["logs", "--namespace", namespace, "--tail=40", pod]));
                questions.push(words(&["logs", "--namespace", namespace, "--tail=40", "--previous", pod]));
            }
        }
        for question in questions {
            println!("# kubectl {}", question.join(" "));
            match self.cluster.kubectl(question).finish() {
                Ok(answer) => println!("{}{}", answer.stdout, answer.stderr),
                Err(error) => println!("{error:#}"),
            }
        }
    }
}

impl Tailnet {
    /// Sets server and relays up, logs the laptop in as the administrator and joins robbinsdale with a key; what is there
    /// already stays as it is.
    pub fn set_up(world: &World, cast: &Cast, binary: &Path, listener: Listener<'_>) -> Result<Self> {
        let this = Self::found(world, cast, binary, listener)?;
        this.settle(listener)?;
        Ok(this)
    }

    /// Sets server and relays up and starts the clients; there is no policy yet, and nobody has joined.
    pub fn found(world: &World, cast: &Cast, binary: &Path, listener: Listener<'_>) -> Result<Self> {
        let installation = step(listener, "server and relays", || Installation::set_up(world, binary))?;
        let (laptop, robbinsdale) = step(listener, "clients", || {
            Ok(((cast.laptop)(world.lab_box("laptop")?)?, (cast.robbinsdale)(world.lab_box("robbinsdale")?)?))
        })?;
        Ok(Self { world: world.clone(), installation, laptop, robbinsdale })
    }

    /// Puts the walkthrough's policy in force, logs the laptop in as the administrator and joins robbinsdale with a key, as
    /// far as that was not done before.
    pub fn settle(&self, listener: Listener<'_>) -> Result<()> {
        step(listener, "policy", || self.installation.begin_with(POLICY))?;
        step(listener, "laptop", || match self.laptop.has_key()? {
            true => Ok(()),
            false => self.laptop.log_in(ADMIN, &lab::CAFE_ROUTER.to_string()),
        })?;
        step(listener, "robbinsdale", || match self.robbinsdale.has_key()? {
            true => Ok(()),
            false => self.robbinsdale.join(&self.installation.key_of("robbinsdale", &["tag:server"])?),
        })
    }
}
