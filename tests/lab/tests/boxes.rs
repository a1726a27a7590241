//! Boxes, links, names and daemons, without a cluster. Needs root and the cache that `cargo xtask` fills.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use lab::*;

const SOON: Duration = Duration::from_secs(5);
const NEVER: Duration = Duration::from_millis(300);

fn boxes() -> ScratchWorld {
    ScratchWorld::up(Options::boxes().unwrap()).unwrap()
}

/// A UDP socket in a box.
fn udp(lab_box: &LabBox, port: u16) -> UdpSocket {
    let socket = lab_box.in_network(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap()).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

/// The address that the echo box sees `socket` at.
fn seen_from_outside(socket: &UdpSocket, server: Ipv4Addr) -> SocketAddr {
    socket.send_to(b"who am I?", (server, 80)).unwrap();
    let mut answer = [0; 64];
    let (length, _) = socket.recv_from(&mut answer).unwrap();
    std::str::from_utf8(&answer[..length]).unwrap().parse().unwrap()
}

/// Whether a datagram from `from` arrives at `to`, whose outside is `address`.
fn arrives(from: &UdpSocket, to: &UdpSocket, address: SocketAddr, limit: Duration) -> bool {
    let mark = format!("{:?}", Instant::now());
    from.send_to(mark.as_bytes(), address).unwrap();
    to.set_read_timeout(Some(limit)).unwrap();
    let deadline = Instant::now() + limit;
    let mut packet = [0; 128];
    while Instant::now() < deadline {
        match to.recv_from(&mut packet) {
            Ok((length, _)) if packet[..length] == *mark.as_bytes() => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    false
}

#[test]
fn up_again_changes_nothing() {
    let name = WorldName::scratch("again").unwrap();
    let world = World::up(&name, &Options::boxes().unwrap(), &silent).unwrap();
    let before = serde_json::to_value(world.status().unwrap()).unwrap();
    World::up(&name, &Options::boxes().unwrap(), &silent).unwrap();
    let status = World::attach(&name).unwrap().status().unwrap();
    World::down(&name).unwrap();
    assert!(status.is_well(), "{status}");
    let processes = |value: &serde_json::Value| value.to_string().replace(|letter: char| letter.is_ascii_digit(), "");
    assert_eq!(processes(&before), processes(&serde_json::to_value(&status).unwrap()));
    let pids = |value: &serde_json::Value| -> Vec<i64> {
        let boxes = value["boxes"].as_array().unwrap().clone();
        boxes
            .iter()
            .flat_map(|found| found["daemons"].as_array().unwrap().clone())
            .map(|d| d["pid"].as_i64().unwrap())
            .collect()
    };
    assert_eq!(pids(&before), pids(&serde_json::to_value(&status).unwrap()));
    assert!(World::attach(&name).is_err());
}

#[test]
fn each_home_shows_its_routers_address_to_the_internet() {
    let world = boxes();
    for (name, address) in [("laptop", CAFE_ROUTER), ("robbinsdale", CABIN_ROUTER), ("printer", HOME_ROUTER)] {
        let seen = world.lab_box(name).unwrap().run(["curl", "-sS", "http://echo.towline.test/"]).unwrap();
        assert_eq!(seen.stdout.trim(), address.to_string(), "{name}");
    }
}

#[test]
fn a_router_gives_one_socket_one_address_whomever_it_talks_to_and_drops_what_nobody_asked_for() {
    let world = boxes();
    let init = "/opt/towline/own/lab-init";
    let ready = Ready::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 80)));
    world.lab_box("relay2").unwrap().daemon("echo", [init, "echo"]).ready(ready).start().unwrap();
    let laptop = udp(&world.lab_box("laptop").unwrap(), 40000);
    let outside = seen_from_outside(&laptop, ECHO);
    assert_eq!(outside, seen_from_outside(&laptop, RELAY2));
    assert_eq!(outside, SocketAddr::from((CAFE_ROUTER, 40000)));
    let stranger = udp(&world.lab_box("control").unwrap(), 5000);
    assert!(!arrives(&stranger, &laptop, outside, NEVER));
}

#[test]
fn two_homes_punch_a_hole_although_the_first_probe_meets_a_closed_door() {
    let world = boxes();
    let laptop = udp(&world.lab_box("laptop").unwrap(), 41000);
    let cabin = udp(&world.lab_box("robbinsdale").unwrap(), 42000);
    let (laptop_outside, cabin_outside) = (seen_from_outside(&laptop, ECHO), seen_from_outside(&cabin, ECHO));
    assert!(!arrives(&laptop, &cabin, cabin_outside, NEVER), "the cabin's router let an unsolicited packet in");
    assert!(arrives(&cabin, &laptop, laptop_outside, SOON));
    assert!(arrives(&laptop, &cabin, cabin_outside, SOON));

    world.set_udp(Udp::NotBetweenRouters).unwrap();
    assert!(!arrives(&laptop, &cabin, cabin_outside, NEVER));
    assert_eq!(seen_from_outside(&laptop, ECHO), laptop_outside);

    world.set_udp(Udp::Blocked).unwrap();
    laptop.set_read_timeout(Some(NEVER)).unwrap();
    laptop.send_to(b"who am I?", (ECHO, 80)).unwrap();
    assert!(laptop.recv_from(&mut [0; 64]).is_err());
    world.lab_box("laptop").unwrap().run(["curl", "-sS", "--max-time", "5", "http://echo.towline.test/"]).unwrap();

    world.set_udp(Udp::Open).unwrap();
    laptop.set_read_timeout(Some(SOON)).unwrap();
    let (laptop_outside, cabin_outside) = (seen_from_outside(&laptop, ECHO), seen_from_outside(&cabin, ECHO));
    assert!(!arrives(&laptop, &cabin, cabin_outside, NEVER));
    assert!(arrives(&cabin, &laptop, laptop_outside, SOON));
    assert!(arrives(&laptop, &cabin, cabin_outside, SOON));
}

#[test]
fn blocking_udp_loses_no_tcp_connection() {
    let world = boxes();
    let laptop = world.lab_box("laptop").unwrap();
    let script =
        "exec 3<>/dev/tcp/203.0.113.50/7; while read word; do echo $word >&3; read answer <&3; echo got $answer; done";
    let mut talk = laptop.command(["bash", "-c", script]).with_more_input().spawn().unwrap();
    talk.say("one\n", SOON).unwrap();
    talk.wait_for("got one", SOON).unwrap();
    world.set_udp(Udp::Blocked).unwrap();
    talk.say("two\n", SOON).unwrap();
    talk.wait_for("got two", SOON).unwrap();
    world.set_udp(Udp::Open).unwrap();
    talk.say("three\n", SOON).unwrap();
    talk.wait_for("got three", SOON).unwrap();
}

#[test]
fn the_name_server_knows_the_laboratory_and_nothing_else() {
    let world = boxes();
    let laptop = world.lab_box("laptop").unwrap();
    let dig = |arguments: &[&str]| laptop.run(["dig"].into_iter().chain(arguments.iter().copied())).unwrap().stdout;
    assert_eq!(dig(&["+short", CONTROL_NAME]).trim(), CONTROL.to_string());
    assert!(dig(&["aaaa", CONTROL_NAME]).contains("status: NOERROR"));
    let unknown = dig(&["nobody.towline.test"]);
    assert!(unknown.contains("status: NXDOMAIN") && unknown.contains("SOA"), "{unknown}");
    assert!(dig(&["example.com"]).contains("status: NXDOMAIN"));
    world.add_name("new.towline.test", ECHO).unwrap();
    assert_eq!(dig(&["+short", "new.towline.test"]).trim(), ECHO.to_string());
}

#[test]
fn a_box_has_files_processes_and_names_of_its_own() {
    let world = boxes();
    let (laptop, control) = (world.lab_box("laptop").unwrap(), world.lab_box("control").unwrap());
    laptop.shell("echo 1.2.3.4 gone > /etc/hosts; rm -rf /etc/apt; hostname elsewhere").unwrap();
    assert!(!String::from_utf8(control.read("/etc/hosts").unwrap()).unwrap().contains("gone"));
    assert!(control.has("/etc/apt"));
    assert_eq!(control.run(["hostname"]).unwrap().stdout.trim(), "control");
    let processes = |name: &str| world.lab_box(name).unwrap().shell("cat /proc/[0-9]*/cmdline").unwrap().stdout;
    assert!(processes("names").contains("coredns") && !processes("laptop").contains("coredns"));
    assert_eq!(laptop.shell("cat /proc/sys/net/ipv4/tcp_congestion_control").unwrap().stdout.trim(), "cubic");
    assert!(laptop.finish_fails("touch /opt/towline/bin/x"));
    // An absolute link inside the box leads to the box's file, not to the machine's.
    laptop.shell("ln -s /etc/hostname /root/link").unwrap();
    assert_eq!(laptop.read("/root/link").unwrap(), b"laptop\n");
    let addresses = std::fs::read_to_string("/proc/net/fib_trie").unwrap();
    assert!(addresses.contains("127.0.0.1") && !addresses.contains("203.0.113."), "{addresses}");
}

trait Fails {
    fn finish_fails(&self, line: &str) -> bool;
}

impl Fails for LabBox {
    fn finish_fails(&self, line: &str) -> bool {
        !self.command(["bash", "-c", line]).finish().unwrap().ended.is_success()
    }
}

#[test]
fn a_failed_command_is_told_with_box_status_and_last_words() {
    let world = boxes();
    let error = world.lab_box("laptop").unwrap().shell("echo why >&2; exit 3").unwrap_err();
    assert_eq!(error.to_string(), "box laptop: `bash -c 'echo why >&2; exit 3'` ended by exit status 3\n  | why\n");
    let error = world.lab_box("laptop").unwrap().run(["no-such-program"]).unwrap_err();
    assert!(error.to_string().contains("no-such-program"), "{error}");
    let error = world.lab_box("nowhere").unwrap_err();
    assert!(error.to_string().contains("robbinsdale"), "{error}");
}

#[test]
fn a_command_that_takes_too_long_dies_with_its_children() {
    let world = boxes();
    let laptop = world.lab_box("laptop").unwrap();
    let command = laptop.command(["bash", "-c", "echo begun; sleep 1234 & wait"]).within(Duration::from_millis(200));
    let error = command.run().unwrap_err();
    assert!(matches!(error, CommandError::TimedOut { .. }), "{error}");
    let deadline = Instant::now() + SOON;
    while laptop.shell("grep -l 1234 /proc/[0-9]*/cmdline").is_ok_and(|found| found.stdout.lines().count() > 1) {
        assert!(Instant::now() < deadline, "its children live on");
    }
}

#[test]
fn input_and_output_larger_than_a_pipe_pass_whole() {
    let world = boxes();
    let input: Vec<u8> = (0..3_000_000_u32).map(|number| b'a' + (number % 26) as u8).collect();
    let output = world.lab_box("echo").unwrap().command(["cat"]).input(input.clone()).run().unwrap();
    assert!(output.stdout.as_bytes() == input);
}

#[test]
fn a_daemon_is_started_once_killed_and_brought_back() {
    let world = boxes();
    let laptop = world.lab_box("laptop").unwrap();
    let start = || {
        let web = laptop.daemon("web", ["/opt/towline/own/lab-init", "web", "hello"]);
        web.ready(Ready::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 80)))).start().unwrap()
    };
    let first = start();
    assert_eq!(first.process(), start().process());
    first.kill().unwrap();
    assert!(!first.is_running());
    let second = first.restart().unwrap();
    assert!(second.is_running() && second.process() != first.process());
    second.check().unwrap();
    second.stop().unwrap();
    assert!(laptop.find_daemon("web").unwrap().is_none());
}

#[test]
fn a_daemon_that_fails_is_told_with_the_end_of_its_log() {
    let world = boxes();
    let laptop = world.lab_box("laptop").unwrap();
    let started =
        laptop.daemon("bad", ["bash", "-c", "echo no luck; sleep 0.05; exit 1"]).ready(Ready::File("/x".to_owned()));
    let message = format!("{:#}", started.start().unwrap_err());
    assert!(message.contains("box laptop: daemon bad") && message.contains("no luck"), "{message}");
    let limit = Duration::from_millis(200);
    let started = laptop.daemon("slow", ["sleep", "1000"]).ready(Ready::Log("ready".to_owned())).within(limit);
    let message = format!("{:#}", started.start().unwrap_err());
    assert!(message.contains("does not say \"ready\""), "{message}");
}

#[test]
fn a_dead_box_is_made_anew_and_the_others_are_left_alone() {
    let world = boxes();
    let (laptop, echo) = (world.lab_box("laptop").unwrap(), world.lab_box("echo").unwrap());
    laptop.kill().unwrap();
    assert!(laptop.run(["true"]).is_err());
    World::up(world.name(), &Options::boxes().unwrap(), &silent).unwrap();
    assert_eq!(world.lab_box("echo").unwrap().init(), echo.init());
    let again = world.lab_box("laptop").unwrap();
    assert_eq!(again.run(["curl", "-sS", "http://echo.towline.test/"]).unwrap().stdout.trim(), CAFE_ROUTER.to_string());
}

#[test]
fn a_pulled_cable_cuts_a_box_off_until_it_is_back() {
    let world = boxes();
    let laptop = world.lab_box("laptop").unwrap();
    world.unplug(&laptop, "eth0").unwrap();
    assert!(laptop.finish_fails("curl -sS --max-time 0.3 http://203.0.113.50/"));
    world.plug(&laptop, "eth0").unwrap();
    laptop.run(["curl", "-sS", "--max-time", "5", "http://203.0.113.50/"]).unwrap();
}

#[test]
fn the_worlds_key_logs_in_to_robbinsdale_and_a_password_does_not() {
    let world = boxes();
    let cabin = world.lab_box("cabin").unwrap();
    let key = world.ssh_key().unwrap();
    cabin.write("/root/key", &key.private, 0o600).unwrap();
    let ssh = "ssh -o StrictHostKeyChecking=no -o BatchMode=yes";
    let said = cabin.shell(&format!("{ssh} -i /root/key {ROBBINSDALE} hostname")).unwrap();
    assert_eq!(said.stdout.trim(), "robbinsdale");
    assert!(cabin.finish_fails(&format!("{ssh} {ROBBINSDALE} hostname")));
    let page = cabin.run(["curl", "-sS", &format!("http://{ROBBINSDALE}/")]).unwrap();
    assert!(page.stdout.contains("robbinsdale"));
}

#[test]
fn a_daemons_processor_time_and_memory_are_counted_apart() {
    let world = boxes();
    let laptop = world.lab_box("laptop").unwrap();
    let before = laptop.usage().unwrap();
    let busy = "for number in {1..100000}; do :; done; touch /done; sleep 1000";
    let daemon = laptop.daemon("busy", ["bash", "-c", busy]).ready(Ready::File("/done".to_owned())).start().unwrap();
    let (used, after) = (daemon.usage().unwrap(), laptop.usage().unwrap());
    assert!(used.processor > Duration::from_millis(20) && used.working_set_bytes > 100_000, "{used:?}");
    assert!(after.processor < before.processor + used.processor / 2, "{before:?} {after:?} {used:?}");
}

#[test]
fn a_boxs_processor_time_and_memory_are_counted() {
    let world = boxes();
    let laptop = world.lab_box("laptop").unwrap();
    let before = laptop.usage().unwrap();
    laptop.shell("for number in {1..100000}; do :; done").unwrap();
    let after = laptop.usage().unwrap();
    assert!(after.processor > before.processor + Duration::from_millis(20), "{before:?} {after:?}");
    assert!(after.working_set_bytes > 100_000, "{after:?}");
}
