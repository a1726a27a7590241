use std::collections::BTreeSet;
use std::io::Write;

use anyhow::Context;
use api::{Client, Device, Json, SetDeviceRoutes};
use clap::Subcommand;
use ipnet::IpNet;
use serde::Serialize;

use super::devices;
use crate::{Failure, Output, Table};

/// The routes of an exit node.
const EXIT: [&str; 2] = ["0.0.0.0/0", "::/0"];

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the routes that devices offer by address, and whether others may use them
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
            sort(&mut routes);
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
            let enabled = without(&device, &routes)?;
            set(client, &device, enabled, output).await?
        }
    };
    Ok(printed.context("printing the answer")?)
}

/// The routes of a device that stay approved when some no longer are. The server lets an exit node have both of its routes
/// or none: who takes one back means both.
fn without(device: &Device, revoked: &[String]) -> Result<BTreeSet<String>, Failure> {
    let mut enabled: BTreeSet<String> = device.enabled_routes.iter().flatten().cloned().collect();
    for route in revoked {
        if !enabled.remove(route) {
            return Err(Failure::refused(format!("{route} of {} is not approved", device.name)));
        }
    }
    if EXIT.iter().any(|route| revoked.iter().any(|revoked| revoked == route)) {
        enabled.retain(|route| !EXIT.contains(&route.as_str()));
    }
    Ok(enabled)
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

/// By address, wider networks first, then by device: as text, 100.64.0.0/10 would stand before 2.0.0.0/8.
fn sort(routes: &mut [Route]) {
    routes.sort_by_cached_key(|route| {
        let prefix = route.route.parse::<IpNet>().ok();
        (prefix.map(|prefix| (prefix.network(), prefix.prefix_len())), route.route.clone(), route.device.clone())
    });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_back_one_route_of_an_exit_node_takes_back_both_and_nothing_else() {
        let texts = |routes: &[&str]| routes.iter().map(ToString::to_string).collect::<Vec<_>>();
        let enabled_routes = Some(texts(&["0.0.0.0/0", "10.0.0.0/8", "::/0"]));
        let device = Device { name: "gateway".to_owned(), enabled_routes, ..Device::default() };
        let left = |revoked: &[&str]| {
            without(&device, &texts(revoked)).map(Vec::from_iter).map_err(|failure| failure.to_string())
        };
        for revoked in [&["0.0.0.0/0"][..], &["::/0"], &["::/0", "0.0.0.0/0"]] {
            assert_eq!(left(revoked), Ok(texts(&["10.0.0.0/8"])), "{revoked:?}");
        }
        assert_eq!(left(&["10.0.0.0/8"]), Ok(texts(&["0.0.0.0/0", "::/0"])));
        assert_eq!(left(&["10.0.0.0/9"]), Err("10.0.0.0/9 of gateway is not approved".to_owned()));
    }

    #[test]
    fn routes_are_listed_by_address_and_not_by_letters() {
        let route = |(route, device): (&str, &str)| Route {
            route: route.to_owned(),
            device: device.to_owned(),
            advertised: true,
            enabled: true,
        };
        let listed = [
            ("100.64.0.0/10", "a"),
            ("2.0.0.0/8", "b"),
            ("2.0.0.0/8", "a"),
            ("::/0", "a"),
            ("2.0.0.0/16", "a"),
            ("0.0.0.0/0", "a"),
        ];
        let mut routes = listed.map(route);
        sort(&mut routes);
        let sorted = routes.map(|route| format!("{} {}", route.route, route.device));
        let wanted = ["0.0.0.0/0 a", "2.0.0.0/8 a", "2.0.0.0/8 b", "2.0.0.0/16 a", "100.64.0.0/10 a", "::/0 a"];
        assert_eq!(sorted, wanted);
    }
}
