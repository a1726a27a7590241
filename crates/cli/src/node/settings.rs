//! The settings that `up`, `login` and `set` share: as flags, as changes of the daemon's preferences, and back.

use std::net::IpAddr;

use clap::{Arg, ArgAction, Args};
use ipnet::IpNet;
use serde_json::{Value, json};

use super::exit_node;
use super::prefs::{Changes, Prefs};
use super::state::Status;
use crate::Failure;

const ALL_V4: &str = "0.0.0.0/0";
const ALL_V6: &str = "::/0";

/// Flags that are on or off.
pub(super) trait Switch {
    /// Has `--x` and `--x=true` turn it on, and `--x=false` off, as the stock command's flags do.
    fn switch(self) -> Self;
}

impl Switch for Arg {
    fn switch(self) -> Self {
        let with_value = self.action(ArgAction::Set).num_args(0..=1).require_equals(true);
        with_value.default_missing_value("true").value_parser(parse_bool).value_name("true|false")
    }
}

/// A yes or no as Go's flags read it: `true`, `0`, `F`.
fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("say true or false".to_owned()),
    }
}

/// Settings that can be given to `up`, `login` and `set`.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct SettingsArguments {
    /// Use the names and name servers of the tailnet
    #[arg(long, switch())]
    accept_dns: Option<bool>,
    /// Use the routes that other nodes offer
    #[arg(long, switch())]
    accept_routes: Option<bool>,
    /// Offer to be an app connector for the tailnet (the stock daemon does; ours is none)
    #[arg(long, switch())]
    advertise_connector: Option<bool>,
    /// Offer to carry the tailnet's traffic to the internet
    #[arg(long, switch())]
    advertise_exit_node: Option<bool>,
    /// Offer routes, such as 10.0.0.0/8,192.168.0.0/24; an empty text offers none
    #[arg(long, value_name = "ROUTES")]
    advertise_routes: Option<String>,
    /// Send internet traffic through this exit node: its address or name, with the stock daemon also auto:any; an empty
    /// text for none
    #[arg(long, value_name = "NODE")]
    exit_node: Option<String>,
    /// Reach the local network directly while an exit node is used
    #[arg(long, switch())]
    exit_node_allow_lan_access: Option<bool>,
    /// The name of this machine in place of the system's; an empty text for the system's
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// What the daemon does to the firewall
    #[arg(long, value_name = "MODE", value_parser = ["on", "nodivert", "off"])]
    netfilter_mode: Option<String>,
    /// The user who may change the daemon's settings without sudo
    #[arg(long, value_name = "USER")]
    operator: Option<String>,
    /// Let the coordination server ask about the state of this machine
    #[arg(long, switch())]
    report_posture: Option<bool>,
    /// Take no connections from the tailnet
    #[arg(long, switch())]
    shields_up: Option<bool>,
    /// Give traffic to offered routes this machine's address as its source
    #[arg(long, switch())]
    snat_subnet_routes: Option<bool>,
    /// Run an SSH server (not offered yet)
    #[arg(long, switch())]
    ssh: Option<bool>,
    /// Keep track of the connections that are forwarded, and refuse what belongs to none
    #[arg(long, switch())]
    stateful_filtering: Option<bool>,
}

impl SettingsArguments {
    /// What these flags change; `prefs` and `status` are those in force.
    pub(super) fn changes(&self, prefs: &Prefs, status: &Status) -> Result<Changes, Failure> {
        let mut changes = Changes::new();
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                changes.insert(name.to_owned(), value);
            }
        };
        if self.ssh == Some(true) && !prefs.flag("RunSSH") {
            return Err(Failure::usage("there is no SSH server yet: leave --ssh out, and use the machine's own sshd"));
        }
        set("CorpDNS", self.accept_dns.map(Value::from));
        set("RouteAll", self.accept_routes.map(Value::from));
        set("AppConnector", self.advertise_connector.map(|on| json!({ "Advertise": on })));
        set("AdvertiseRoutes", self.routes(prefs)?);
        set("ExitNodeAllowLANAccess", self.exit_node_allow_lan_access.map(Value::from));
        set("Hostname", self.hostname.clone().map(Value::from));
        set("NetfilterMode", self.netfilter_mode.as_deref().map(netfilter_number).map(Value::from));
        set("OperatorUser", self.operator.clone().map(Value::from));
        set("PostureChecking", self.report_posture.map(Value::from));
        set("ShieldsUp", self.shields_up.map(Value::from));
        set("NoSNAT", self.snat_subnet_routes.map(|snat| Value::from(!snat)));
        set("RunSSH", self.ssh.map(Value::from));
        set("NoStatefulFiltering", self.stateful_filtering.map(|stateful| Value::from(!stateful)));
        if let Some(wanted) = &self.exit_node {
            changes.extend(exit_node::changes(wanted, status)?);
        }
        if changes.get("Hostname").and_then(Value::as_str).is_some_and(|name| name.len() > 256) {
            return Err(Failure::usage("--hostname is longer than 256 bytes"));
        }
        Ok(changes)
    }

    /// The settings that the flags mention, as they were typed.
    pub(super) fn mentioned(&self) -> Vec<Mention> {
        let switches = [
            ("accept-dns", self.accept_dns),
            ("accept-routes", self.accept_routes),
            ("advertise-connector", self.advertise_connector),
            ("advertise-exit-node", self.advertise_exit_node),
            ("exit-node-allow-lan-access", self.exit_node_allow_lan_access),
            ("report-posture", self.report_posture),
            ("shields-up", self.shields_up),
            ("snat-subnet-routes", self.snat_subnet_routes),
            ("ssh", self.ssh),
            ("stateful-filtering", self.stateful_filtering),
        ];
        let texts = [
            ("advertise-routes", &self.advertise_routes),
            ("exit-node", &self.exit_node),
            ("hostname", &self.hostname),
            ("netfilter-mode", &self.netfilter_mode),
            ("operator", &self.operator),
        ];
        let switch = |(flag, on): (&'static str, Option<bool>)| {
            let value = on.map(|on| if on { None } else { Some("false".to_owned()) });
            value.map(|value| Mention { flag, value })
        };
        let text = |(flag, value): (&'static str, &Option<String>)| {
            value.clone().map(|value| Mention { flag, value: Some(value) })
        };
        switches.into_iter().filter_map(switch).chain(texts.into_iter().filter_map(text)).collect()
    }

    /// The routes to offer: the two flags share one setting, and each leaves what is the other's.
    fn routes(&self, prefs: &Prefs) -> Result<Option<Value>, Failure> {
        if self.advertise_routes.is_none() && self.advertise_exit_node.is_none() {
            return Ok(None);
        }
        let current = prefs.list("AdvertiseRoutes");
        let mut routes = match &self.advertise_routes {
            Some(text) => parse_routes(text)?,
            None => current.iter().filter(|route| !is_all(route)).filter_map(|route| route.parse().ok()).collect(),
        };
        let exit = self.advertise_exit_node.unwrap_or_else(|| offers_all(&current));
        let has = |all: &str| routes.iter().any(|route: &IpNet| route.to_string() == all);
        match (has(ALL_V4), has(ALL_V6)) {
            (true, false) => return Err(lacks(ALL_V4, "IPv6", ALL_V6)),
            (false, true) => return Err(lacks(ALL_V6, "IPv4", ALL_V4)),
            _ => {}
        }
        if exit {
            routes.extend([ALL_V4, ALL_V6].iter().filter_map(|all| all.parse::<IpNet>().ok()));
        }
        routes.sort_by_key(|route| (route.prefix_len(), route.addr()));
        routes.dedup();
        Ok(Some(routes.iter().map(|route| Value::from(route.to_string())).collect()))
    }
}

fn lacks(all: &str, family: &str, other: &str) -> Failure {
    Failure::usage(format!("{all} advertised without its {family} counterpart, please also advertise {other}"))
}

fn is_all(route: &str) -> bool {
    route == ALL_V4 || route == ALL_V6
}

fn offers_all(routes: &[String]) -> bool {
    [ALL_V4, ALL_V6].iter().all(|all| routes.iter().any(|route| route == all))
}

fn parse_routes(text: &str) -> Result<Vec<IpNet>, Failure> {
    text.split(',').map(str::trim).filter(|route| !route.is_empty()).map(parse_route).collect()
}

fn parse_route(text: &str) -> Result<IpNet, Failure> {
    let address = text.parse::<IpAddr>().ok().map(IpNet::from);
    let route = text.parse::<IpNet>().ok().or(address);
    let route = route.ok_or_else(|| Failure::usage(format!("{text:?} is not a valid IP address or CIDR prefix")))?;
    match route.trunc() {
        whole if whole == route => Ok(route),
        whole => Err(Failure::usage(format!("{text} has non-address bits set; expected {whole}"))),
    }
}

/// Tags as typed, where the prefix may be missing.
pub(super) fn parse_tags(text: &str) -> Result<Vec<String>, Failure> {
    text.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(parse_tag).collect()
}

fn parse_tag(text: &str) -> Result<String, Failure> {
    let name = text.strip_prefix("tag:").unwrap_or(text);
    let wrong = if !name.starts_with(|letter: char| letter.is_ascii_alphabetic()) {
        "a tag's name starts with a letter"
    } else if !name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-') {
        "a tag's name has letters, digits and dashes"
    } else {
        return Ok(format!("tag:{name}"));
    };
    Err(Failure::usage(format!("the tag {text:?} can't be used: {wrong}, as in tag:server")))
}

fn netfilter_number(mode: &str) -> i64 {
    match mode {
        "off" => 0,
        "nodivert" => 1,
        _ => 2,
    }
}

/// A setting in force that is not the default, as the flag that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mention {
    /// `--accept-routes`, without the dashes.
    pub(super) flag: &'static str,
    /// The flag's value; `None` for a switch that is on.
    pub(super) value: Option<String>,
}

impl std::fmt::Display for Mention {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "--{}", self.flag)?;
        match &self.value {
            Some(value) => write!(f, "={}", quoted(value)),
            None => Ok(()),
        }
    }
}

/// A text as a shell reads it back.
pub(super) fn quoted(text: &str) -> String {
    let plain = |letter: char| letter.is_alphanumeric() || "-_./:=,@%+[]".contains(letter);
    if text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// All settings in force that differ from their defaults, by the names of their flags.
pub(super) fn mentions(prefs: &Prefs, status: &Status) -> Vec<Mention> {
    let mut mentions = Vec::new();
    let mut switch = |flag, on: bool, default: bool| match (on, default) {
        (true, false) => mentions.push(Mention { flag, value: None }),
        (false, true) => mentions.push(Mention { flag, value: Some("false".to_owned()) }),
        _ => {}
    };
    let routes = prefs.list("AdvertiseRoutes");
    switch("accept-dns", prefs.flag("CorpDNS"), true);
    switch("accept-routes", prefs.flag("RouteAll"), false);
    let connector = prefs.value("AppConnector").get("Advertise").and_then(Value::as_bool).unwrap_or_default();
    switch("advertise-connector", connector, false);
    switch("advertise-exit-node", offers_all(&routes), false);
    switch("exit-node-allow-lan-access", prefs.flag("ExitNodeAllowLANAccess"), false);
    switch("report-posture", prefs.flag("PostureChecking"), false);
    switch("shields-up", prefs.flag("ShieldsUp"), false);
    switch("snat-subnet-routes", !prefs.flag("NoSNAT"), true);
    switch("ssh", prefs.flag("RunSSH"), false);
    switch("stateful-filtering", prefs.value("NoStatefulFiltering").as_bool() == Some(false), false);
    let mut text = |flag, value: String| {
        if !value.is_empty() {
            mentions.push(Mention { flag, value: Some(value) });
        }
    };
    let own: Vec<String> = routes.iter().filter(|route| !is_all(route)).cloned().collect();
    text("advertise-routes", own.join(","));
    text("advertise-tags", prefs.list("AdvertiseTags").join(","));
    text("exit-node", exit_node::current(prefs, status));
    text("hostname", prefs.text("Hostname").to_owned());
    text("login-server", prefs.text("ControlURL").to_owned());
    text("operator", prefs.text("OperatorUser").to_owned());
    let mode = prefs.value("NetfilterMode").as_i64();
    text("netfilter-mode", mode.map_or("", |mode| ["off", "nodivert"].get(mode as usize).unwrap_or(&"")).to_owned());
    mentions.sort_by_key(|mention| mention.flag);
    mentions
}

/// The defaults of all settings that `up` knows but the login server, which has none.
pub(super) fn defaults() -> Changes {
    let defaults = json!({
        "CorpDNS": true, "RouteAll": false, "AppConnector": {"Advertise": false}, "AdvertiseRoutes": null,
        "AdvertiseTags": null, "ExitNodeAllowLANAccess": false, "ExitNodeID": "", "ExitNodeIP": "",
        "AutoExitNode": "", "Hostname": "", "NetfilterMode": 2, "OperatorUser": "", "PostureChecking": false,
        "ShieldsUp": false, "NoSNAT": false, "RunSSH": false, "NoStatefulFiltering": true,
    });
    match defaults {
        Value::Object(defaults) => defaults,
        _ => Changes::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefs(value: Value) -> Prefs {
        serde_json::from_value(value).unwrap()
    }

    fn changes(arguments: SettingsArguments, current: Value) -> Value {
        Value::Object(arguments.changes(&prefs(current), &Status::default()).unwrap())
    }

    #[test]
    fn routes_and_exit_node_share_a_setting_and_leave_each_other() {
        let exit = SettingsArguments { advertise_exit_node: Some(true), ..Default::default() };
        assert_eq!(
            changes(exit, json!({"AdvertiseRoutes": ["10.0.0.0/8"]})),
            json!({"AdvertiseRoutes": ["0.0.0.0/0", "::/0", "10.0.0.0/8"]})
        );
        let none = SettingsArguments { advertise_routes: Some(String::new()), ..Default::default() };
        assert_eq!(
            changes(none, json!({"AdvertiseRoutes": ["0.0.0.0/0", "::/0", "10.0.0.0/8"]})),
            json!({"AdvertiseRoutes": ["0.0.0.0/0", "::/0"]})
        );
    }

    #[test]
    fn routes_that_make_no_sense_are_named() {
        for (text, message) in [
            ("foo", "\"foo\" is not a valid IP address or CIDR prefix"),
            ("10.1.2.3/8", "10.1.2.3/8 has non-address bits set; expected 10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0 advertised without its IPv6 counterpart, please also advertise ::/0"),
        ] {
            let arguments = SettingsArguments { advertise_routes: Some(text.into()), ..Default::default() };
            let failure = arguments.changes(&Prefs::default(), &Status::default()).unwrap_err();
            assert_eq!(failure.to_string(), message);
        }
        assert_eq!(parse_route("10.1.2.3").unwrap().to_string(), "10.1.2.3/32");
    }

    #[test]
    fn an_ssh_server_is_refused_in_words() {
        let arguments = SettingsArguments { ssh: Some(true), ..Default::default() };
        let failure = arguments.changes(&Prefs::default(), &Status::default()).unwrap_err();
        assert!(failure.to_string().contains("no SSH server yet"), "{failure}");
    }

    #[test]
    fn settings_in_force_are_mentioned_by_flag_unless_they_are_the_default() {
        let current = prefs(json!({
            "CorpDNS": false, "RouteAll": true, "NetfilterMode": 1, "NoSNAT": true, "Hostname": "a b",
            "AdvertiseRoutes": ["0.0.0.0/0", "10.0.0.0/8", "::/0"], "ControlURL": "https://c",
        }));
        let shown: Vec<String> = mentions(&current, &Status::default()).iter().map(Mention::to_string).collect();
        assert_eq!(
            shown.join(" "),
            "--accept-dns=false --accept-routes --advertise-exit-node --advertise-routes=10.0.0.0/8 --hostname='a b' --login-server=https://c --netfilter-mode=nodivert --snat-subnet-routes=false"
        );
        assert!(mentions(&prefs(Value::Object(defaults())), &Status::default()).is_empty());
    }

    #[test]
    fn tags_get_their_prefix() {
        assert_eq!(parse_tags("tag:a, b-1,").unwrap(), ["tag:a", "tag:b-1"]);
        for text in ["tag:", "1a", "a_b", "tag:tag:x"] {
            assert!(parse_tags(text).is_err(), "{text}");
        }
    }
}
