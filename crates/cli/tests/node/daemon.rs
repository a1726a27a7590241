//! Our commands drive the stock daemon, joined to our coordination server.

use serde_json::Value;

use crate::support::{Installation, eventually, towline};

/// What moves from one look to the next.
fn without_counters(mut status: Value) -> Value {
    let mut forget = |node: &mut Value| {
        for field in ["RxBytes", "TxBytes", "LastWrite", "LastHandshake", "CurAddr", "Addrs", "Active", "LastSeen"] {
            node[field] = Value::Null;
        }
    };
    forget(&mut status["Self"]);
    status["Peer"].as_object_mut().unwrap().values_mut().for_each(&mut forget);
    status
}

#[test]
fn a_stock_daemon_joins_is_shown_changed_and_leaves() {
    let installation = Installation::start();
    let (alpha, beta) = (installation.daemon("alpha"), installation.daemon("beta"));
    let url = &installation.url;

    let before = alpha.ours("status");
    let joins = "This machine is in no tailnet: `towline up --login-server=https://control.example.com` joins one.\n";
    assert_eq!((before.out.as_str(), before.code), (joins, 1));
    assert_eq!(alpha.stocks("status").out, "Logged out.\n");
    let no_server = alpha.ours("up --hostname=alpha");
    assert!(no_server.code == 2 && no_server.err.contains("--login-server=https://"), "{no_server:?}");

    let bogus = alpha.ours(&format!("up --login-server={url} --auth-key=tskey-auth-bogus"));
    assert!(bogus.code == 3 && bogus.err.contains("this auth key is not valid"), "{bogus:?}");
    let waiting = alpha.ours(&format!("up --reset --login-server={url} --hostname=alpha --timeout=3s"));
    assert!(waiting.code == 4 && waiting.err.contains(&format!("\t{url}/a/")), "{waiting:?}");

    let key = installation.key_file(&[]);
    let up = format!("up --reset --login-server={url} --auth-key=file:{} --hostname=alpha --json", key.display());
    assert_eq!(alpha.ours(&up).json()["BackendState"], "Running");
    let key = installation.key_file(&["tag:server"]);
    beta.ours(&format!("up --login-server={url} --authkey=file:{} --hostname=beta", key.display())).well();

    eventually("the peer", || alpha.ours("status").out.contains("beta"));
    // Two looks at a node that is settling in may differ; two at one that has may not.
    let same = |line: &str| alpha.ours(line).well() == alpha.stocks(line).well();
    eventually("the same table", || same("status --header"));
    eventually("the same status", || {
        let [ours, stocks] = [alpha.ours("status --json"), alpha.stocks("status --json")];
        without_counters(ours.json()) == without_counters(stocks.json())
    });

    for line in ["ip", "ip -4", "ip -6 beta", "ip -1 beta"] {
        assert_eq!(alpha.ours(line).well(), alpha.stocks(line).well(), "{line}");
    }
    let address = alpha.ours("ip -4 beta").well();
    let address = address.trim();
    assert_eq!(alpha.ours(&format!("ip --assert={address}")).code, 1);
    for line in [format!("whois {address}"), format!("whois --json {address}")] {
        eventually(&line, || same(&line));
    }
    assert!(alpha.ours("whois 100.99.99.99").err.contains("peer not found"));

    let pong = alpha.ours("ping beta").well();
    assert!(pong.lines().all(|line| line.starts_with(&format!("pong from beta ({address}) via "))), "{pong}");
    assert!(!pong.lines().last().unwrap().contains("DERP"), "{pong}");
    let tsmp = alpha.ours("ping --tsmp beta").well();
    assert!(tsmp.contains(" via TSMP in ") && tsmp.lines().count() == 1, "{tsmp}");
    assert!(alpha.ours("ping alpha").well().contains("is this machine's own address"));
    let nobody = alpha.ours("ping 100.64.99.9").err;
    assert!(nobody.contains("no node of the tailnet has the address 100.64.99.9"), "{nobody}");
    let none = alpha.ours("exit-node list -o json");
    assert_eq!((none.out.as_str(), none.code), ("[]\n", 0), "{none:?}");
    let unused = alpha.ours(&format!("up --reset --hostname=alpha --auth-key=tskey-auth-bogus --login-server={url}"));
    assert!(unused.code == 0 && unused.err.contains("the key was not used"), "{unused:?}");
    let retagged = alpha.ours(&format!("up --hostname=alpha --advertise-tags=tag:server --login-server={url}"));
    assert!(retagged.code == 2 && retagged.err.contains("add --force-reauth"), "{retagged:?}");

    let report = alpha.ours("netcheck --format=json").json();
    assert_eq!((&report["UDP"], &report["PreferredDERP"]), (&Value::from(true), &Value::from(900)), "{report}");

    alpha.ours("set --accept-routes --advertise-routes=10.0.0.0/8").well();
    assert_eq!(alpha.stocks("get accept-routes").out.trim(), "true");
    let refused = alpha.ours("up --shields-up");
    assert_eq!(refused.code, 2);
    let (_, command) = refused.err.split_once("\ttowline ").unwrap();
    alpha.ours(command.trim()).well();
    assert_eq!(alpha.stocks("get shields-up").out.trim(), "true");
    assert_eq!(alpha.stocks("get advertise-routes").out.trim(), "10.0.0.0/8");

    let flows = alpha.ours("flows");
    assert!(flows.code == 3 && flows.err.contains("the stock tailscaled does not"), "{flows:?}");

    alpha.ours("down").well();
    let stopped = alpha.ours("status");
    let stopped_line = "Towline is stopped. `towline up` brings the network back.\n";
    assert_eq!((stopped.out.as_str(), stopped.code), (stopped_line, 1));
    assert!(alpha.ours("ping beta").err.contains("`towline up` brings the network back"));
    alpha.ours("up").well();
    assert_eq!(alpha.stocks("get shields-up").out.trim(), "true", "a plain up changes settings");
    // Nobody confirms it: the node stays who it is, and whoever comes by is told.
    let anew = format!("up --reset --force-reauth --hostname=alpha --timeout=3s --login-server={url}");
    let anew = alpha.ours(&anew);
    assert!(anew.code == 4 && anew.err.contains(&format!("\t{url}/a/")), "{anew:?}");
    assert_eq!(alpha.ours("status --json").json()["BackendState"], "Running");
    let later = alpha.ours("up --timeout=1s");
    assert!(later.code == 4 && later.err.contains(&format!("\t{url}/a/")), "{later:?}");
    alpha.ours("logout").well();
    // The stock daemon forgets its settings with its login.
    assert_eq!(alpha.ours("status").out, joins);
}

#[test]
fn a_kubeconfig_gets_the_context_that_the_stock_command_would_write() {
    let installation = Installation::start();
    let daemon = installation.daemon("alpha");
    let key = installation.key_file(&[]);
    let up = format!("up --login-server={} --auth-key=file:{} --hostname=alpha", installation.url, key.display());
    daemon.ours(&up).well();
    let cluster = installation.daemon("cluster");
    let key = installation.key_file(&["tag:server"]);
    let up = format!("up --login-server={} --auth-key=file:{} --hostname=cluster", installation.url, key.display());
    cluster.ours(&up).well();
    eventually("the peer", || daemon.ours("status").out.contains("cluster"));

    let root = daemon.ours("trust show --pem").well();
    assert!(root.starts_with("-----BEGIN CERTIFICATE-----"), "{root}");
    let planned = daemon.ours("trust install --dry-run").well();
    assert!(planned.starts_with("Would write /"), "{planned}");
    let other = daemon.ours("trust install --yes --fingerprint=00");
    assert!(other.code == 3 && other.err.contains("nothing was installed"), "{other:?}");

    let path = daemon.folder.join(".kube/config");
    let read = || serde_yaml_ng::from_str::<Value>(&std::fs::read_to_string(&path).unwrap()).unwrap();
    // The peer forwards to this machine's own port 80, where nobody is or whoever it is: no API server in any case.
    let none = daemon.ours("configure kubeconfig http://cluster");
    assert!([1, 4].contains(&none.code) && none.err.contains("http://cluster.tail.example.net"), "{none:?}");
    assert!(none.err.contains("as it was; --force") && !path.exists(), "{none:?}");
    daemon.stocks("configure kubeconfig http://cluster").well();
    let stocks = read();
    std::fs::remove_file(&path).unwrap();
    daemon.ours("configure kubeconfig http://cluster --force").well();
    let ours = read();
    assert_eq!(ours, stocks);
    std::fs::remove_file(&path).unwrap();
    daemon.ours_as_stock("configure kubeconfig http://cluster").well();
    assert_eq!(read(), stocks);
    assert_eq!(ours["clusters"][0]["cluster"]["server"], "http://cluster.tail.example.net");
    assert_eq!(ours["current-context"], "cluster.tail.example.net");

    std::fs::write(&path, "my notes: [").unwrap();
    let refused = daemon.ours("configure kubeconfig http://cluster --force");
    assert!(refused.code == 1 && refused.err.contains("is not a kubeconfig and was left as it is"), "{refused:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "my notes: [");
}

#[test]
fn without_a_daemon_the_next_step_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let said = crate::support::run(towline(), ["--socket", "/nonexistent/sock", "status"], folder.path());
    assert_eq!(said.code, 4);
    assert!(said.err.contains("towline node"), "{said:?}");
}
