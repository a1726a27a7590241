use std::time::Duration;

use anyhow::Result;
use lab::{Cluster, Options, ScratchWorld};

use crate::operator::NAMESPACE;
use crate::{ADMIN, Cast, Client, Installation, Marks, Operator, binary};

const POLICY: &str = include_str!("../../../examples/policy.hujson");

/// How long something may take that needs the network, or a pod, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What the rows of the walkthrough are played on: the whole world with our server, the two devices and an operator.
#[derive(Debug)]
pub struct Stage {
    /// The boxes.
    pub world: ScratchWorld,
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
}

impl Stage {
    /// Sets the stage for a cast, and notes how long the parts take.
    pub fn set(cast: &Cast, marks: &mut Marks) -> Result<Self> {
        let world = ScratchWorld::up(Options::whole()?)?;
        marks.reached("world after");
        let installation = Installation::set_up(&world, &binary()?, POLICY)?;
        marks.reached("server after");
        world.push_workloads()?;
        let operator = (cast.operator)(&world)?;
        marks.reached("images after");
        let laptop = (cast.laptop)(world.lab_box("laptop")?)?;
        let robbinsdale = (cast.robbinsdale)(world.lab_box("robbinsdale")?)?;
        laptop.log_in(ADMIN, &lab::CAFE_ROUTER.to_string())?;
        robbinsdale.join(&installation.key(&["tag:server"])?)?;
        let cluster = world.cluster()?;
        Ok(Self { world, installation, cluster, operator, laptop, robbinsdale })
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
        let found = self.cluster.kubectl(["--namespace", NAMESPACE, "get"].into_iter().chain(pods)).finish();
        for pod in found.iter().flat_map(|found| found.stdout.lines()) {
            questions.push(words(&["logs", "--namespace", NAMESPACE, "--tail=40", pod]));
            questions.push(words(&["logs", "--namespace", NAMESPACE, "--tail=40", "--previous", pod]));
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
