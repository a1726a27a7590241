use std::collections::BTreeSet;
use std::io::Write;

use anyhow::Context;
use api::{Client, Device, Json, SetDeviceRoutes};
use clap::Subcommand;
use serde::Serialize;

use super::devices;
use crate::{Failure, Output, Table};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the routes that devices offer, and whether others may use them
    List,
    /// Let others use routes of a device
    Approve {
        /// The device's name, address or id
        device: String,
        /// The routes, such as 192.168.50.0/24; 0.0.0.0/0 and ::/0 make it an exit node
        #[arg(required = true)]
        routes: Vec<String>,
    },
    /// Let nobody use these routes of a device any more
    Revoke {
        /// The device's name, address or id
        device: String,
        /// The routes
        #[arg(required = true)]
        routes: Vec<String>,
    },
}

#[derive(Debug, Serialize)]
struct Route {
    route: String,
    device: String,
    advertised: bool,
    enabled: bool,
}

pub(super) async fn run<W: Write>(command: Command, client: &Client, output: &mut Output<W>) -> Result<(), Failure> {
    let printed = match command {
        Command::List => {
            let mut routes: Vec<Route> = devices::all(client).await?.iter().flat_map(routes_of).collect();
            routes.sort_by(|a, b| (&a.route, &a.device).cmp(&(&b.route, &b.device)));
            output.print(&routes, |routes| {
                let mut table = Table::new(["ROUTE", "DEVICE", "STATE"]);
                for route in routes {
                    let state = match (route.advertised, route.enabled) {
                        (true, true) => "in use",
                        (true, false) => "waits for approval",
                        (false, _) => "approved, not offered",
                    };
                    table.row([route.route.clone(), route.device.clone(), state.to_owned()]);
                }
                table.to_string()
            })
        }
        Command::Approve { device, routes } => {
            let device = devices::find(client, &device).await?;
            let mut enabled: BTreeSet<String> = device.enabled_routes.iter().flatten().cloned().collect();
            enabled.extend(routes);
            set(client, &device, enabled, output).await?
        }
        Command::Revoke { device, routes } => {
            let device = devices::find(client, &device).await?;
            let mut enabled: BTreeSet<String> = device.enabled_routes.iter().flatten().cloned().collect();
            for route in &routes {
                if !enabled.remove(route) {
                    return Err(Failure::refused(format!("{route} of {} is not approved", device.name)));
                }
            }
            set(client, &device, enabled, output).await?
        }
    };
    Ok(printed.context("printing the answer")?)
}

async fn set<W: Write>(
    client: &Client,
    device: &Device,
    routes: BTreeSet<String>,
    output: &mut Output<W>,
) -> Result<std::io::Result<()>, Failure> {
    let request = Json(SetDeviceRoutes { routes: routes.into_iter().collect() });
    let Json(now) = client.set_device_routes(&devices::of(device), &request).await?;
    Ok(output.print(&now, |now| match now.enabled_routes.as_slice() {
        [] => format!("No route of {} may be used now.", device.name),
        routes => format!("Routes of {} that may be used now: {}.", device.name, routes.join(", ")),
    }))
}

fn routes_of(device: &Device) -> Vec<Route> {
    let advertised: BTreeSet<&String> = device.advertised_routes.iter().flatten().collect();
    let enabled: BTreeSet<&String> = device.enabled_routes.iter().flatten().collect();
    let route = |route: &&String| Route {
        route: (*route).clone(),
        device: device.name.clone(),
        advertised: advertised.contains(*route),
        enabled: enabled.contains(*route),
    };
    advertised.union(&enabled).map(route).collect()
}
