use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use dial::{NameSettings, SystemResolver};
use host::{HostError, ResolvConf, SystemDns};
use mesh::{SERVICE_V4, SERVICE_V6};

use super::forward::mark;

/// Resolves names by the name servers that this machine has at the time besides the node's own MagicDNS, which needs the
/// coordination server and the relays to be found first. A node `with_interface` serves MagicDNS at its address on the
/// machine, and has routes: its questions go past them, as they are for what the routes stand on.
pub fn machine_resolver(with_interface: bool) -> SystemResolver {
    let resolver = SystemResolver::of(MachineServers { settings: SystemDns::default(), with_interface });
    if !with_interface {
        return resolver;
    }
    resolver.with_socket_setup(Arc::new(|socket: BorrowedFd<'_>| {
        mark(&socket);
        Ok(())
    }))
}

/// The settings of a machine where MagicDNS is this node's, without it: neither as this process wrote it, nor as an earlier
/// one left it, nor as somebody wrote it by hand.
pub(super) fn own_settings(settings: &SystemDns) -> Result<ResolvConf, HostError> {
    let is_magic = |server: &IpAddr| *server == SERVICE_V4 || *server == SERVICE_V6;
    let mut own = settings.base()?;
    // Where systemd-resolved was told to ask MagicDNS, asking it would go round in a circle.
    if let Some(asked) = settings.resolved_servers()?.filter(|asked| asked.nameservers.iter().any(is_magic)) {
        own.nameservers = asked.nameservers;
    }
    own.nameservers.retain(|server| !is_magic(server));
    Ok(own)
}

#[derive(Debug)]
struct MachineServers {
    settings: SystemDns,
    with_interface: bool,
}

impl NameSettings for MachineServers {
    fn read(&self) -> io::Result<String> {
        let own = match self.with_interface {
            true => own_settings(&self.settings),
            // Whose MagicDNS stands in the file then, if any, is another program's.
            false => self.settings.base(),
        };
        own.map(|own| own.to_string()).map_err(|error| io::Error::other(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use host::DnsConfig;

    use super::*;

    const STUB: &str = "nameserver 127.0.0.53\noptions edns0 trust-ad\n";

    struct Machine {
        _folder: tempfile::TempDir,
        file: PathBuf,
        resolved: PathBuf,
        settings: SystemDns,
    }

    fn machine(text: &str) -> Machine {
        let folder = tempfile::tempdir().unwrap();
        let (file, resolved) = (folder.path().join("resolv.conf"), folder.path().join("resolved.conf"));
        fs::write(&file, text).unwrap();
        let settings = SystemDns::at(&file).with_resolved_at(&resolved);
        Machine { _folder: folder, file, resolved, settings }
    }

    fn servers(machine: &Machine) -> String {
        MachineServers { settings: machine.settings.clone(), with_interface: true }.read().unwrap()
    }

    fn serve_magic_dns(machine: &Machine) {
        let config = DnsConfig { nameservers: vec![SERVICE_V4], search: vec!["taila31de.ts.net".to_owned()] };
        machine.settings.apply(&config).unwrap();
    }

    #[test]
    fn the_node_asks_the_machines_own_servers_while_programs_ask_magic_dns() {
        let machine = machine("nameserver 192.168.1.1\nsearch home.example\n");
        serve_magic_dns(&machine);
        assert!(fs::read_to_string(&machine.file).unwrap().contains("nameserver 100.100.100.100"));
        assert_eq!(servers(&machine), "nameserver 192.168.1.1\nsearch home.example\n");
    }

    #[test]
    fn what_a_killed_process_left_in_the_file_is_not_asked() {
        let machine = machine("nameserver 192.168.1.1\n");
        serve_magic_dns(&machine);
        let later = Machine { settings: SystemDns::at(&machine.file), ..machine };
        assert_eq!(servers(&later), "nameserver 192.168.1.1\n");
    }

    #[test]
    fn the_servers_of_another_network_are_asked_as_soon_as_they_are_in_the_file() {
        let machine = machine("nameserver 192.168.1.1\n");
        serve_magic_dns(&machine);
        fs::write(&machine.file, "nameserver 10.20.0.1\n").unwrap();
        assert_eq!(servers(&machine), "nameserver 10.20.0.1\n");
        serve_magic_dns(&machine);
        assert_eq!(servers(&machine), "nameserver 10.20.0.1\n");
    }

    #[test]
    fn magic_dns_that_somebody_wrote_by_hand_is_not_asked() {
        let machine = machine("nameserver 100.100.100.100\nnameserver fd7a:115c:a1e0::53\nnameserver 9.9.9.9\n");
        assert_eq!(servers(&machine), "nameserver 9.9.9.9\n");
    }

    #[test]
    fn the_magic_dns_of_another_program_is_asked_by_a_node_without_an_interface() {
        let text = "nameserver 100.100.100.100\n";
        let machine = machine(text);
        let servers = MachineServers { settings: machine.settings.clone(), with_interface: false };
        assert_eq!(servers.read().unwrap(), text);
    }

    #[test]
    fn systemd_resolved_is_asked_unless_it_asks_magic_dns() {
        let machine = machine(STUB);
        assert_eq!(servers(&machine), STUB);
        fs::write(&machine.resolved, "nameserver 192.168.1.1\n").unwrap();
        assert_eq!(servers(&machine), STUB);
        fs::write(&machine.resolved, "nameserver 192.168.1.1\nnameserver 100.100.100.100\n").unwrap();
        assert_eq!(servers(&machine), STUB.replace("127.0.0.53", "192.168.1.1"));
    }
}
