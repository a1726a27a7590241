use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use api::{
    Client, CreateUser, InTailnet, Json, OfUser, SetUserName, SetUserPassword, SetUserRole, User, UserQuery, UserRole,
};
use clap::Subcommand;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use crate::{Failure, Output, Table};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List users by login name
    List,
    /// Make a user who logs in with a password of this server
    Create {
        /// The login name, such as member@example.com
        name: String,
        /// What the user may do
        #[arg(long, default_value = "member", value_parser = role())]
        role: UserRole,
        /// The name that others see; otherwise the login name's first part
        #[arg(long, value_name = "TEXT")]
        display_name: Option<String>,
        /// A file that holds the password
        #[arg(long, value_name = "FILE")]
        password_file: PathBuf,
    },
    /// Say what a user may do
    Role {
        /// The login name or id
        user: String,
        /// What the user may do from now on
        #[arg(value_parser = role())]
        role: UserRole,
    },
    /// Give a user a new password
    Password {
        /// The login name or id
        user: String,
        /// A file that holds the password
        #[arg(long, value_name = "FILE")]
        password_file: PathBuf,
    },
    /// Say what people call a user; the login name stays
    Rename {
        /// The login name or id
        user: String,
        /// The name that others see
        display_name: String,
    },
    /// Keep a user and their devices out
    Suspend {
        /// The login name or id
        user: String,
    },
    /// Let a suspended user in again
    Restore {
        /// The login name or id
        user: String,
    },
    /// Remove a user with their devices and keys; there is no way back
    Delete {
        /// The login name or id
        user: String,
        /// Don't only say what would be removed
        #[arg(long)]
        yes: bool,
    },
}

/// Reads a role; help and completions name them all, with what each may do.
fn role() -> impl TypedValueParser<Value = UserRole> {
    let values = UserRole::NAMES.map(|(role, name)| PossibleValue::new(name).help(may(role)));
    PossibleValuesParser::new(values)
        .try_map(|name| UserRole::parse(&name).ok_or_else(|| format!("{name:?} is no role")))
}

/// What a role may do, in a few words; the guide has all of it.
fn may(role: UserRole) -> &'static str {
    match role {
        UserRole::Owner => "everything",
        UserRole::Admin => "everything but touch owners",
        UserRole::ItAdmin => "users, devices, auth keys and settings; look at everything",
        UserRole::NetworkAdmin => "policy, DNS, routes and services; look at everything",
        UserRole::BillingAdmin => "look at users",
        UserRole::Auditor => "look at everything",
        UserRole::Member => "use their own devices",
    }
}

pub(super) async fn run<W: Write>(command: Command, client: &Client, output: &mut Output<W>) -> Result<(), Failure> {
    let own = InTailnet::own();
    let printed = match command {
        Command::List => {
            let Json(mut list) = client.list_users(&own, &UserQuery::default()).await?;
            list.users.sort_by(|a, b| a.login_name.cmp(&b.login_name));
            output.print(&list.users, |users| table(users))
        }
        Command::Create { name, role, display_name, password_file } => {
            let request = new_user(name, role, display_name, password(&password_file)?);
            let Json(user) = client.create_user(&own, &Json(request)).await?;
            output.print(&user, |user| format!("Made {} with the role {}.", user.login_name, user.role.name()))
        }
        Command::Role { user, role } => {
            let user = find(client, &user).await?;
            client.set_user_role(&of(&user), &Json(SetUserRole { role })).await?;
            output.print(&SetUserRole { role }, |_| format!("{} has the role {} now.", user.login_name, role.name()))
        }
        Command::Password { user, password_file } => {
            let user = find(client, &user).await?;
            let request = SetUserPassword { password: password(&password_file)? };
            client.set_user_password(&of(&user), &Json(request)).await?;
            output.print(&user, |user| format!("{} has a new password.", user.login_name))
        }
        Command::Rename { user, display_name } => {
            let user = find(client, &user).await?;
            client.set_user_name(&of(&user), &Json(SetUserName { display_name })).await?;
            let Json(user) = client.get_user(&of(&user)).await?;
            output.print(&user, |user| format!("{} is called {} now.", user.login_name, user.display_name))
        }
        Command::Suspend { user } => {
            let user = find(client, &user).await?;
            client.suspend_user(&of(&user)).await?;
            output.print(&user, |user| format!("{} and their devices are kept out now.", user.login_name))
        }
        Command::Restore { user } => {
            let user = find(client, &user).await?;
            client.restore_user(&of(&user)).await?;
            output.print(&user, |user| format!("{} may use the tailnet again.", user.login_name))
        }
        Command::Delete { user, yes } => {
            let user = find(client, &user).await?;
            confirm_deletion(&user, yes)?;
            client.delete_user(&of(&user)).await?;
            output.print(&user, |user| format!("Removed {}.", user.login_name))
        }
    };
    Ok(printed.context("printing the answer")?)
}

fn table(users: &[User]) -> String {
    let mut table = Table::new(["LOGIN NAME", "ROLE", "STATUS", "DEVICES", "ID"]);
    for user in users {
        let status = serde_json::to_value(user.status).ok();
        let status = status.as_ref().and_then(|status| status.as_str()).unwrap_or_default().to_owned();
        let role = user.role.name().to_owned();
        table.row([user.login_name.clone(), role, status, user.device_count.to_string(), user.id.clone()]);
    }
    table.to_string()
}

fn new_user(name: String, role: UserRole, display_name: Option<String>, password: String) -> CreateUser {
    let display_name = display_name.unwrap_or_else(|| name.split('@').next().unwrap_or_default().to_owned());
    CreateUser { display_name, login_name: name, role, password }
}

fn confirm_deletion(user: &User, yes: bool) -> Result<(), Failure> {
    let (name, devices) = (&user.login_name, user.device_count);
    let warning =
        || format!("this removes {name} with {devices} devices and all their keys, for good: add --yes to do it");
    if yes { Ok(()) } else { Err(Failure::usage(warning())) }
}

fn of(user: &User) -> OfUser {
    OfUser { user: user.id.clone() }
}

/// The user of this login name or id.
async fn find(client: &Client, name: &str) -> Result<User, Failure> {
    let query = UserQuery { kind: None, role: None };
    let Json(list) = client.list_users(&InTailnet::own(), &query).await?;
    let found = list.users.into_iter().find(|user| user.login_name == name || user.id == name);
    found.ok_or_else(|| Failure::refused(format!("there is no user {name:?}; `towline users list` shows all")))
}

fn password(path: &std::path::Path) -> anyhow::Result<String> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("reading the password from {}", path.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }

    #[test]
    fn the_help_names_every_role() {
        let mut line = Line::command();
        let help = line.find_subcommand_mut("create").unwrap().render_long_help().to_string();
        for (_, name) in UserRole::NAMES {
            assert!(help.contains(name), "{name} is missing in\n{help}");
        }
        let wrong = Line::try_parse_from(["users", "role", "a@b", "boss"]).unwrap_err().to_string();
        assert!(wrong.contains("network-admin"), "{wrong}");
    }
}
