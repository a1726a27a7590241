use std::sync::Arc;

use crypto::{NodePrivate, NodePublic};
use engine::{Engine, Events, Ledger, Offloads, QueueDevice};
use mesh::View;

use super::machine::MachineNetwork;
use crate::config::Config;
use crate::user_space::UserSpace;

/// The environment variable that turns the kernel's batching off where hardware gets it wrong.
const NO_OFFLOADS: &str = "TOWLINE_NODE_NO_OFFLOADS";

/// A running engine, and what it was started with.
pub(super) struct DataPlane {
    pub(super) engine: Engine,
    pub(super) events: Events,
    pub(super) key: NodePublic,
    port: u16,
}

impl DataPlane {
    /// Starts the data plane on the machine's interface, which is made now, or on the program's own IP stack.
    pub(super) fn start(
        config: &Config,
        key: NodePrivate,
        ledger: &Ledger,
        machine: &mut MachineNetwork,
        user_space: Option<&UserSpace>,
    ) -> Result<Self, String> {
        let public = key.public();
        let mut settings = engine::Config::new(key, config.roots.clone(), config.resolver.clone());
        settings.ledger = ledger.clone();
        settings.port = config.port;
        settings.socket_setup = machine.socket_setup();
        settings.offloads = Offloads::without(&std::env::var(NO_OFFLOADS).unwrap_or_default())?;
        let (engine, events) = match user_space {
            Some(user_space) => {
                let (device, queue) = QueueDevice::new(false);
                let started = Engine::start(settings, device).map_err(|error| error.to_string())?;
                user_space.attach(queue);
                started
            }
            None => {
                let device = machine.device()?;
                Engine::start(settings, Arc::clone(&device)).map_err(|error| error.to_string())?
            }
        };
        Ok(Self { engine, events, key: public, port: config.port })
    }

    /// Shows the engine the network as it is now.
    pub(super) fn show(&self, view: View) {
        self.engine.set_view(view);
    }

    /// The UDP port that was asked for; 0 when the system chose.
    pub(super) fn udp_port(&self) -> u16 {
        self.port
    }

    pub(super) async fn stop(self) {
        self.engine.shutdown().await;
    }
}
