use std::io::Write;

use anyhow::Context;
use api::{
    AuthorizeDevice, Client, Device, DeviceFields, DeviceQuery, InTailnet, Json, OfDevice, SetDeviceKey, SetDeviceName,
    SetDeviceTags,
};
use clap::Subcommand;
use jiff::Timestamp;

use super::device::{block, owner, state};
use crate::{Failure, Output, Table};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List devices by name
    List,
    /// Show a device, a line for each thing; with -o json all that there is
    Show {
        /// Its name, address or id
        device: String,
    },
    /// Give a device another name
    Rename {
        /// Its name, address or id
        device: String,
        /// The new name, or nothing for the one that it reports
        name: Option<String>,
    },
    /// Give a device tags instead of the ones it has; none makes it a user's again
    Tag {
        /// Its name, address or id
        device: String,
        /// The tags, such as tag:server
        tags: Vec<String>,
    },
    /// Let a device in that waits for approval
    Authorize {
        /// Its name, address or id
        device: String,
        /// Keep it out instead
        #[arg(long)]
        revoke: bool,
    },
    /// End a device's key now, so that its user must log in again
    Expire {
        /// Its name, address or id
        device: String,
    },
    /// Say whether a device's key expires at all
    KeyExpiry {
        /// Its name, address or id
        device: String,
        /// on or off
        #[arg(value_parser = ["on", "off"])]
        state: String,
    },
    /// Remove a device; there is no way back
    Delete {
        /// Its name, address or id
        device: String,
        /// Don't only say what would be removed
        #[arg(long)]
        yes: bool,
    },
}

pub(super) async fn run<W: Write>(command: Command, client: &Client, output: &mut Output<W>) -> Result<(), Failure> {
    let printed = match command {
        Command::List => {
            let devices = all(client).await?;
            output.print(&devices, |devices| table(devices, Timestamp::now()).to_string())
        }
        Command::Show { device } => {
            let device = find(client, &device).await?;
            output.print(&device, |device| block(device, Timestamp::now()))
        }
        Command::Rename { device, name } => {
            let device = find(client, &device).await?;
            let name = name.unwrap_or_default();
            client.set_device_name(&of(&device), &Json(SetDeviceName { name })).await?;
            let Json(renamed) = client.get_device(&of(&device), &DeviceFields::Default).await?;
            output.print(&renamed, |renamed| format!("{} is called {} now.", device.name, renamed.name))
        }
        Command::Tag { device, tags } => {
            let device = find(client, &device).await?;
            client.set_device_tags(&of(&device), &Json(SetDeviceTags { tags })).await?;
            let Json(tagged) = client.get_device(&of(&device), &DeviceFields::Default).await?;
            let tags = if tagged.tags.is_empty() { "no tags".to_owned() } else { tagged.tags.join(", ") };
            output.print(&tagged, |tagged| format!("{} has {tags} now.", tagged.name))
        }
        Command::Authorize { device, revoke } => {
            let device = find(client, &device).await?;
            client.authorize_device(&of(&device), &Json(AuthorizeDevice { authorized: !revoke })).await?;
            let state = if revoke { "kept out" } else { "let in" };
            output.print(&device, |device| format!("{} is {state} now.", device.name))
        }
        Command::Expire { device } => {
            let device = find(client, &device).await?;
            client.expire_device(&of(&device)).await?;
            output.print(&device, |device| format!("The key of {} has ended; its user must log in again.", device.name))
        }
        Command::KeyExpiry { device, state } => {
            let device = find(client, &device).await?;
            let request = SetDeviceKey { key_expiry_disabled: state == "off" };
            client.set_device_key(&of(&device), &Json(request)).await?;
            output.print(&device, |device| format!("Key expiry of {} is {state} now.", device.name))
        }
        Command::Delete { device, yes } => {
            let device = find(client, &device).await?;
            if !yes {
                let (name, user) = (&device.name, &device.user);
                return Err(Failure::usage(format!("this removes {name} of {user} for good: add --yes to do it")));
            }
            client.delete_device(&of(&device)).await?;
            output.print(&device, |device| format!("Removed {}.", device.name))
        }
    };
    Ok(printed.context("printing the answer")?)
}

/// All devices with everything about them, by name.
pub(super) async fn all(client: &Client) -> Result<Vec<Device>, Failure> {
    let query = DeviceQuery { fields: DeviceFields::All, ..DeviceQuery::default() };
    let Json(list) = client.list_devices(&InTailnet::own(), &query).await?;
    let mut devices = list.devices;
    devices.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(devices)
}

/// The one device of this name (short or whole), address or id.
pub(super) async fn find(client: &Client, wanted: &str) -> Result<Device, Failure> {
    let short = |device: &Device| device.name.split('.').next().unwrap_or_default().to_owned();
    let is = |device: &Device| {
        device.name == wanted.trim_end_matches('.')
            || short(device) == wanted
            || device.node_id == wanted
            || device.id == wanted
            || device.addresses.iter().any(|address| address == wanted)
    };
    let found = all(client).await?.into_iter().find(is);
    found.ok_or_else(|| Failure::refused(format!("there is no device {wanted:?}; `towline devices list` shows all")))
}

pub(super) fn of(device: &Device) -> OfDevice {
    OfDevice { device: device.node_id.clone() }
}

fn table(devices: &[Device], now: Timestamp) -> Table {
    let mut table = Table::new(["NAME", "ADDRESS", "OWNER", "OS", "STATE", "ID"]);
    for device in devices {
        let address = device.addresses.first().cloned().unwrap_or_default();
        let (owner, state) = (owner(device), state(device, now));
        table.row([device.name.clone(), address, owner, device.os.clone(), state, device.node_id.clone()]);
    }
    table
}
