use std::time::Duration;

use anyhow::Result;
use lab::{Cluster, Options, ScratchWorld};

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
}
