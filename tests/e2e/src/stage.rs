use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use lab::{Cluster, Listener, Options, ScratchWorld, World, step};

use crate::operator::{NAMESPACE, PROXY_NAMESPACE};
use crate::{ADMIN, Cast, Client, Installation, Marks, Operator, Parts};

mod furniture;

/// The policy of the walkthrough.
pub(crate) const POLICY: &str = include_str!("../../../examples/policy.hujson");

/// How long something may take that needs the network, or a pod, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What the rows of the walkthrough are played on: the whole world with our server, the two devices and an operator.
#[derive(Debug)]
pub struct Stage {
    /// The boxes.
    pub world: World,
    /// The coordination server and its relays.
    pub installation: Installation,
    /// Kubernetes.
    pub cluster: Cluster,
    /// The operator, which row 3 installs.
    pub operator: Operator,
    /// The laptop, logged in as the administrator.
    pub laptop: Client,
    /// The server in the cabin.
    pub robbinsdale: Client,
    /// A test's own world goes with its stage.
    _scratch: Option<ScratchWorld>,
}

/// The part of a stage that does without Kubernetes.
#[derive(Debug)]
pub struct Tailnet {
    /// The coordination server and its relays.
    pub installation: Installation,
    /// The laptop, logged in as the administrator.
    pub laptop: Client,
    /// The server in the cabin.
    pub robbinsdale: Client,
}

impl Stage {
    /// Sets the stage for a cast in a world of its own, and notes how long the parts take.
    pub fn set(cast: &Cast, marks: &Marks) -> Result<Self> {
        let parts = Parts::of_the_test()?;
        let scratch = ScratchWorld::up(Options::whole()?)?;
        marks.reached("world after");
        let stage = Self::on(&scratch, cast, &parts, &|event| marks.listen(&event))?;
        Ok(Self { _scratch: Some(scratch), ..stage })
    }

    /// Sets the stage for a cast in a world that stays; what is there already stays as it is.
    pub fn on(world: &World, cast: &Cast, parts: &Parts, listener: Listener<'_>) -> Result<Self> {
        let Tailnet { installation, laptop, robbinsdale } = Tailnet::set_up(world, cast, &parts.binary, listener)?;
        let cluster = world.cluster()?;
        let operator = step(listener, "images", || {
            world.push_workloads()?;
            (cast.operator)(world, parts)
        })?;
        Ok(Self { world: world.clone(), installation, cluster, operator, laptop, robbinsdale, _scratch: None })
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
        let installation = step(listener, "server and relays", || Installation::set_up(world, binary, POLICY))?;
        let laptop = step(listener, "laptop", || {
            let laptop = (cast.laptop)(world.lab_box("laptop")?)?;
            if !laptop.has_key()? {
                laptop.log_in(ADMIN, &lab::CAFE_ROUTER.to_string())?;
            }
            Ok(laptop)
        })?;
        let robbinsdale = step(listener, "robbinsdale", || {
            let robbinsdale = (cast.robbinsdale)(world.lab_box("robbinsdale")?)?;
            if !robbinsdale.has_key()? {
                robbinsdale.join(&installation.key_of("robbinsdale", &["tag:server"])?)?;
            }
            Ok(robbinsdale)
        })?;
        Ok(Self { installation, laptop, robbinsdale })
    }
}
