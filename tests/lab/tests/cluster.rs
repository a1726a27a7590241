//! The cluster, proven: `cargo test -p lab --test cluster [-- --world NAME]`. Needs root and the cache that `cargo xtask` fills.
//!
//! Not part of a plain `cargo test`, because it takes a minute and a gigabyte. With `--world` it uses a world that is up and
//! leaves it up; else it makes one and takes it down.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::Duration;

use image::{Image, LayerBuilder, Process, Reference};
use lab::*;

#[path = "support/traces.rs"]
mod traces;

use traces::traces;

const LIMIT: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => {
            let world = ScratchWorld::up_telling(Options::whole().unwrap(), &tell).unwrap();
            let name = world.name().clone();
            let all_good = prove(&world);
            drop(world);
            let is_kept = std::env::var_os("LAB_KEEP").is_some();
            assert!(is_kept || traces(&name).is_empty(), "down left something: {:#?}", traces(&name));
            all_good
        }
        ["--world", name] => prove(&World::attach(&WorldName::parse(name).unwrap()).unwrap()),
        _ => panic!("usage: cluster [--world NAME]"),
    }
}

fn tell(event: Event) {
    if let StepState::Done(took) = event.state {
        println!("{:<24} {:>6} ms", event.step, took.as_millis());
    }
}

fn prove(world: &World) -> ExitCode {
    let scenarios: [(&str, fn(&World)); 7] = [
        ("a pod on one node reaches a pod on the other through a Service by its name", reach_by_name),
        ("pods resolve public names and leave by the home router", leave_home),
        ("a load balancer's address answers on the home network, an unknown one is refused", load_balancer),
        ("a namespace that wants restricted pods refuses a privileged one", pod_security),
        ("an unsafe setting of the kernel is refused", unsafe_setting),
        ("a pod's memory is counted apart from its node's", pod_usage),
        ("up again changes nothing", up_again),
    ];
    let proof = Proof(world);
    prepare(world);
    let mut failed = 0;
    for (name, scenario) in scenarios {
        let passed = catch_unwind(|| scenario(world)).is_ok();
        println!("{} {name}", if passed { "ok    " } else { "FAILED" });
        failed += u32::from(!passed);
    }
    drop(proof);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The namespace in which all is proven: it goes, also where something breaks off, from a world that stays.
struct Proof<'a>(&'a World);

impl Drop for Proof<'_> {
    fn drop(&mut self) {
        let delete = ["delete", "namespace", "proof", "--ignore-not-found"];
        match self.0.cluster().map(|cluster| cluster.kubectl(delete).run().map(drop)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("{error:#}"),
            Err(error) => eprintln!("{error:#}"),
        }
    }
}

/// A web server on the second node, and a shell on the first.
fn prepare(world: &World) {
    let tree = Options::whole().unwrap().cache.tree();
    let library = |name: &str| tree.join("usr/lib/x86_64-linux-gnu").join(name);
    let web = LayerBuilder::new().file("/web", locate_init().unwrap(), 0o755).build().unwrap();
    let shell = ["bash", "cat", "sleep"]
        .iter()
        .fold(LayerBuilder::new(), |layer, name| {
            layer.file(&format!("/bin/{name}"), tree.join("usr/bin").join(name), 0o755)
        })
        .file("/lib64/ld-linux-x86-64.so.2", library("ld-linux-x86-64.so.2"), 0o755)
        .file("/lib/x86_64-linux-gnu/libc.so.6", library("libc.so.6"), 0o755)
        .file("/lib/x86_64-linux-gnu/libtinfo.so.6", library("libtinfo.so.6"), 0o644)
        .build()
        .unwrap();
    for (name, layer) in [("web", web), ("shell", shell)] {
        let image = Image::new(Process::default(), vec![layer]);
        world.push(&image, &Reference::new(format!("proof/{name}"), "1")).unwrap();
    }
    let cluster = world.cluster().unwrap();
    cluster.apply(MANIFESTS).unwrap();
    cluster.wait("proof", "pod/web", "condition=Ready", LIMIT).unwrap();
    cluster.wait("proof", "pod/client", "condition=Ready", LIMIT).unwrap();
}

const MANIFESTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: proof}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: proof, labels: {app: web}}
spec:
  nodeSelector: {kubernetes.io/hostname: node2}
  terminationGracePeriodSeconds: 0
  containers:
  - {name: web, image: registry.towline.test/proof/web:1, command: [/web, web, hello from node2]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: proof}
spec:
  nodeSelector: {kubernetes.io/hostname: node1}
  terminationGracePeriodSeconds: 0
  containers:
  - {name: shell, image: docker.io/proof/shell:1, command: [/bin/sleep, infinity]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: proof}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80}]}
"#;

/// What a pod on the first node gets from a web server.
fn page(world: &World, host: &str) -> String {
    let script = format!("exec 3<>/dev/tcp/{host}/80; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3");
    let cluster = world.cluster().unwrap();
    let exec = ["-n", "proof", "exec", "client", "--", "/bin/bash", "-c", &script];
    cluster.kubectl(exec).within(LIMIT).run().unwrap().stdout
}

fn reach_by_name(world: &World) {
    for host in ["web", "web.proof", "web.proof.svc.cluster.local"] {
        assert!(page(world, host).contains("hello from node2"), "{host}");
    }
}

fn leave_home(world: &World) {
    assert!(page(world, ECHO_NAME).ends_with("203.0.113.20\n"));
    let script = "cat /proc/sys/net/ipv4/tcp_congestion_control";
    let exec = ["-n", "proof", "exec", "client", "--", "/bin/bash", "-c", script];
    assert_eq!(world.cluster().unwrap().kubectl(exec).run().unwrap().stdout.trim(), "cubic");
}

fn load_balancer(world: &World) {
    let cluster = world.cluster().unwrap();
    let printer = world.lab_box("printer").unwrap();
    cluster.assign_load_balancer("proof", "web", "10.69.0.7".parse().unwrap()).unwrap();
    let curl =
        "curl -sS --retry 20 --retry-connrefused --retry-all-errors --retry-delay 1 --max-time 5 http://10.69.0.7/";
    assert!(printer.shell(curl).unwrap().stdout.contains("hello from node2"));
    let unknown = printer.command(["curl", "-sS", "--max-time", "5", "http://10.69.0.99/"]).finish().unwrap();
    assert!(!unknown.ended.is_success() && !unknown.stderr.contains("timed out"), "{}", unknown.stderr);
    assert!(cluster.assign_load_balancer("proof", "web", "192.0.2.1".parse().unwrap()).is_err());
}

fn pod_security(world: &World) {
    let cluster = world.cluster().unwrap();
    cluster
        .kubectl(["label", "--overwrite", "namespace", "proof", "pod-security.kubernetes.io/enforce=restricted"])
        .run()
        .unwrap();
    let pod = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"strong","namespace":"proof"},
        "spec":{"containers":[{"name":"c","image":"x","securityContext":{"privileged":true}}]}}"#;
    let refused = cluster.apply(pod).unwrap_err().to_string();
    cluster.kubectl(["label", "namespace", "proof", "pod-security.kubernetes.io/enforce-"]).run().unwrap();
    assert!(refused.contains("violates PodSecurity \"restricted"), "{refused}");
}

fn unsafe_setting(world: &World) {
    let cluster = world.cluster().unwrap();
    let pod = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"tuned","namespace":"proof"},
        "spec":{"nodeName":"node1","securityContext":{"sysctls":[{"name":"net.ipv4.ip_forward","value":"1"}]},
        "containers":[{"name":"c","image":"docker.io/proof/shell:1"}]}}"#;
    cluster.apply(pod).unwrap();
    cluster.wait("proof", "pod/tuned", "jsonpath={.status.reason}=SysctlForbidden", LIMIT).unwrap();
}

fn pod_usage(world: &World) {
    let cluster = world.cluster().unwrap();
    let uid =
        cluster.kubectl(["-n", "proof", "get", "pod", "web", "-o", "jsonpath={.metadata.uid}"]).run().unwrap().stdout;
    let [first, second] = cluster.nodes();
    let usage = second.pod_usage(&uid).unwrap();
    assert!((100_000..50_000_000).contains(&usage.working_set_bytes), "{usage:?}");
    assert!(first.pod_usage(&uid).is_err());
    assert!(second.pods_usage().unwrap().contains_key(&uid) && !first.pods_usage().unwrap().contains_key(&uid));
}

fn up_again(world: &World) {
    let processes = || -> Vec<(String, i32)> {
        let boxes = world.status().unwrap().boxes;
        boxes.into_iter().flat_map(|found| found.daemons).map(|daemon| (daemon.name, daemon.pid)).collect()
    };
    let before = processes();
    World::up(world.name(), &Options::whole().unwrap(), &silent).unwrap();
    let status = world.status().unwrap();
    assert!(status.is_well(), "{status}");
    assert_eq!(before, processes());
}
