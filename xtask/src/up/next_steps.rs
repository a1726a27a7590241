//! What a person may want to type once a world is up.

use std::fmt::Write;

use e2e::{ADMIN, CONTROL_URL, Installation, MEMBER, Overview, Program};

use super::roles::Roles;
use crate::world::DEMO;

/// Commands by the place where they are typed, with what each is good for.
struct Steps {
    lines: Vec<(String, String)>,
    /// Names the world, where it is not the one that is meant without.
    option: String,
}

/// The commands that a world offers.
pub(super) fn text(overview: &Overview, roles: &Roles) -> String {
    let name = &overview.boxes.world;
    let option = if name == DEMO { String::new() } else { format!(" --world {name}") };
    let mut steps = Steps { lines: Vec::new(), option };
    let has_device = |name: &str| overview.devices.iter().any(|device| device.name == name);
    let client = match roles.laptop {
        Program::Towline => "towline",
        Program::Stock | Program::Mixed => "tailscale",
    };
    steps.task("shell laptop", &format!("the laptop, a device of {ADMIN}"));
    steps.command(&format!("{client} status"), "who is there");
    steps.command(&format!("{client} ping robbinsdale"), "which way it goes, through two NATs");
    steps.command("ssh robbinsdale", "a prompt there, over the tailnet");
    if has_device("home-notes") {
        steps.command("curl http://home-notes/", "a Service of the cluster, exposed to the tailnet");
    }
    if has_device("robbinsdale-connector") {
        steps.command(&format!("{client} set --accept-routes"), "and then through the Connector, for example:");
        steps.command(&format!("curl http://{}/", lab::PRINTER), "the printer in the home's LAN");
    }
    if has_device("tailscale-operator") && roles.laptop == Program::Towline {
        steps.command("towline configure kubeconfig tailscale-operator", "kubectl by tailnet identity");
    }
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
    steps.table() + &people(client, &steps.option)
}

impl Steps {
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

/// How to be somebody else, and who there is.
fn people(client: &str, option: &str) -> String {
    let mut text = format!(
        "\nSomebody else on the laptop: there, type\n      {client} logout\n      {client} login --login-server={CONTROL_URL}\nand open \
         the URL that it shows, as in a browser on the laptop, by\n  cargo xtask sign-in URL --user {MEMBER}{option}\n\nUsers of \
         {CONTROL_URL}:\n"
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
}
