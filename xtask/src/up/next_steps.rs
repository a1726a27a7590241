//! What a person may want to type once a world is up.

use std::fmt::Write;

use e2e::{ADMIN, CONTROL_URL, Installation, MEMBER, Overview, Program};

use super::roles::Roles;
use crate::world::option;

/// Commands by the place where they are typed, with what each is good for.
struct Steps {
    lines: Vec<(String, String)>,
    /// Names the world, where it is not the one that is meant without.
    option: String,
}

/// The commands that a world offers.
pub(super) fn text(overview: &Overview, roles: &Roles) -> String {
    let mut steps = Steps { lines: Vec::new(), option: option(&overview.boxes.world) };
    let client = match roles.laptop {
        Program::Towline => "towline",
        Program::Stock | Program::Mixed => "tailscale",
    };
    let user = overview.login("laptop").map_or("", |login| login.user.as_str());
    steps.on_the_laptop(overview, client, user);
    if !overview.pods.is_empty() {
        steps.task("shell node1", "Kubernetes, as its administrator");
        steps.command("kubectl get pods,services,connectors -A", "what runs there");
        steps.command(
            "kubectl -n home exec shell -- curl -s http://tailscale-robbinsdale.home/",
            "robbinsdale, from a pod",
        );
    }
    steps.task("shell control", "the coordination server, as the tailnet's administrator");
    steps.command("towline devices list", "the same as above; --help shows what else");
    steps.command("towline policy get", "who may reach what");
    steps.task("status", "what runs where");
    steps.task("down", "remove all of it");
    steps.table() + &people(client, user, &steps.option)
}

impl Steps {
    /// What whoever is logged in there may do by the walkthrough's policy.
    fn on_the_laptop(&mut self, overview: &Overview, client: &str, user: &str) {
        let has_device = |name: &str| overview.devices.iter().any(|device| device.name == name);
        if user.is_empty() {
            self.task("shell laptop", "the laptop, where nobody is logged in");
            return self.command(&format!("{client} login --login-server={CONTROL_URL}"), "shows a URL to sign in at");
        }
        self.task("shell laptop", &format!("the laptop, a device of {user}"));
        self.command(&format!("{client} status"), "who is there");
        if user == ADMIN {
            self.command(&format!("{client} ping robbinsdale"), "which way it goes, through two NATs");
            self.command("ssh robbinsdale", "a prompt there, over the tailnet");
            if has_device("home-notes") {
                self.command("curl http://home-notes/", "a Service of the cluster, exposed to the tailnet");
            }
            if has_device("robbinsdale-connector") {
                let command = format!("{client} set --accept-routes");
                self.command(&command, "and then through the Connector, for example:");
                self.command(&format!("curl http://{}/", lab::PRINTER), "the printer in the home's LAN");
            }
        }
        if has_device("tailscale-operator") && client == "towline" {
            self.command("towline configure kubeconfig tailscale-operator", "kubectl by tailnet identity");
        }
    }

    fn task(&mut self, task: &str, what: &str) {
        self.lines.push((format!("  cargo xtask {task}{}", self.option), what.to_owned()));
    }

    fn command(&mut self, command: &str, what: &str) {
        self.lines.push((format!("      {command}"), what.to_owned()));
    }

    fn table(&self) -> String {
        let width = self.lines.iter().map(|(command, _)| command.len()).max().unwrap_or_default();
        let lines = self.lines.iter().map(|(command, what)| format!("{command:<width$}   {what}\n"));
        std::iter::once("Next:\n".to_owned()).chain(lines).collect()
    }
}

/// How to be somebody else on the laptop than `user`, and back, and who there is.
fn people(client: &str, user: &str, option: &str) -> String {
    let other = if user == MEMBER { ADMIN } else { MEMBER };
    let back = if user == ADMIN || user == MEMBER {
        format!("; --user {user} in the same way leads back")
    } else {
        String::new()
    };
    let mut text = format!(
        "\nTo be {other} on the laptop: there, type\n      {client} logout\n      {client} login --login-server={CONTROL_URL}\nand \
         open the URL that it shows, as in a browser on the laptop, by\n  cargo xtask sign-in URL --user \
         {other}{option}\n(needs another terminal, as the login waits{back})\n\nUsers of {CONTROL_URL}:\n"
    );
    for user in [ADMIN, MEMBER] {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {user:<20} password: {}", Installation::password(user));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_is_good_for_stands_in_one_column() {
        let mut steps = Steps { lines: Vec::new(), option: " --world other".to_owned() };
        steps.task("down", "remove it");
        steps.command("curl http://home-notes/ and more", "a Service");
        let table = steps.table();
        let columns: Vec<Option<usize>> =
            table.lines().skip(1).zip(["remove it", "a Service"]).map(|(line, what)| line.find(what)).collect();
        assert!(columns[0].is_some() && columns[0] == columns[1], "{table}");
        assert!(table.contains("cargo xtask down --world other"), "{table}");
    }

    fn offered(user: &str) -> String {
        let mut steps = Steps { lines: Vec::new(), option: String::new() };
        let overview = Overview {
            boxes: lab::Status { world: "demo".to_owned(), boxes: Vec::new() },
            devices: Vec::new(),
            logins: Vec::new(),
            pods: Vec::new(),
            silent: Vec::new(),
        };
        steps.on_the_laptop(&overview, "towline", user);
        steps.table()
    }

    #[test]
    fn the_laptop_is_offered_as_whose_it_is_now() {
        assert!(
            offered(ADMIN).contains("a device of admin@example.com") && offered(ADMIN).contains("ping robbinsdale")
        );
        let of_the_member = offered(MEMBER);
        assert!(of_the_member.contains("a device of member@example.com"), "{of_the_member}");
        assert!(
            !of_the_member.contains("ping robbinsdale"),
            "the policy lets members reach no server: {of_the_member}"
        );
        assert!(offered("").contains("nobody is logged in") && offered("").contains("towline login"));
    }

    #[test]
    fn whoever_is_logged_in_is_told_how_to_become_the_other_and_back() {
        let from_admin = people("towline", ADMIN, "");
        assert!(
            from_admin.contains("--user member@example.com")
                && from_admin.contains("--user admin@example.com in the same")
        );
        let from_member = people("towline", MEMBER, " --world other");
        assert!(from_member.contains("--user admin@example.com --world other"), "{from_member}");
        assert!(people("towline", "", "").contains("To be member@example.com"));
    }
}
