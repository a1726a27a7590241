//! The stock peers run in boxes and trust the laboratory's certificates. Needs root and the cache that `cargo xtask` fills.

use lab::*;

#[test]
fn a_stock_relay_serves_under_a_certificate_that_boxes_trust() {
    let world = ScratchWorld::up(Options::boxes().unwrap()).unwrap();
    start_stock_relay(&world.lab_box("control").unwrap(), RELAY1_NAME, 443).unwrap();
    start_stock_relay(&world.lab_box("relay2").unwrap(), RELAY2_NAME, 443).unwrap();
    let laptop = world.lab_box("laptop").unwrap();
    for name in [RELAY1_NAME, RELAY2_NAME] {
        let page = laptop.run(["curl", "-sS", "--max-time", "10", &format!("https://{name}/derp/probe")]).unwrap();
        assert!(page.stderr.is_empty(), "{}", page.stderr);
    }
    laptop.shell("cp /etc/ssl/certs/ca-certificates.crt /tmp/before && update-ca-certificates").unwrap();
    laptop.run(["curl", "-sS", "--max-time", "10", &format!("https://{RELAY1_NAME}/derp/probe")]).unwrap();
}

#[test]
fn a_stock_node_starts_without_a_login_and_keeps_its_state_over_a_restart() {
    let world = ScratchWorld::up(Options::boxes().unwrap()).unwrap();
    let laptop = world.lab_box("laptop").unwrap();
    let node = StockNode::start(&laptop).unwrap();
    let status = node.cli(["status"]).finish().unwrap();
    assert!(status.stdout.contains("Logged out"), "{status:?}");
    assert!(laptop.run(["ip", "link", "show", "tailscale0"]).is_ok());
    node.daemon().unwrap().kill().unwrap();
    node.daemon().unwrap().restart().unwrap();
    assert!(node.cli(["version"]).run().unwrap().stdout.contains("1.104"));
    assert!(laptop.has("/var/lib/tailscale/tailscaled.state"));
}
