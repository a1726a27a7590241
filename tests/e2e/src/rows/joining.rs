//! Row 2: devices join by a key and by a login, and see each other.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::{ADMIN, CONTROL_URL, Checks, Client, PATIENCE, TAILNET_DOMAIN, Tailnet, eventually};

/// Lets robbinsdale in with a key and the laptop by a login, and a third device in and out again.
pub(super) fn play(tailnet: &Tailnet, checks: &mut Checks) {
    checks.check("row 2: a node joins with a tagged key", || {
        tailnet.installation.begin_with(crate::stage::POLICY)?;
        by_key(tailnet)
    });
    checks.check("row 2: a node joins by a login that its user confirms", || by_login(tailnet));
    checks.check("row 2: they see each other with name, address, owner, system and path", || {
        // Only what something goes by is shown as a path; what the laptop sends and gets gives each side one. The stock
        // client shows none for answers that it sends where it has not yet heard a ping from: they go on talking.
        eventually("both show the path to the other", PATIENCE, || {
            tailnet.laptop.gets("http://robbinsdale/", "robbinsdale: hello", PATIENCE)?;
            shown(&tailnet.laptop, "robbinsdale", "tagged-devices")?;
            shown(&tailnet.robbinsdale, "laptop", "admin@")
        })?;
        let device = tailnet.installation.device("laptop")?.context("the server lists no laptop")?;
        ensure!(device["user"] == ADMIN, "{device}");
        Ok(())
    });
    checks.check("row 2: a used key lets nobody in, and the client says why; who is removed is gone at once", || {
        let spare = Client::stock(tailnet.world.lab_box("echo")?)?;
        let outcome = used_key(tailnet, &spare);
        spare.stop()?;
        outcome
    });
}

fn by_key(tailnet: &Tailnet) -> Result<()> {
    tailnet.robbinsdale.join(&tailnet.installation.key_of("robbinsdale", &["tag:server"])?)?;
    let status = tailnet.robbinsdale.status()?;
    ensure!(status["BackendState"] == "Running", "{status}");
    let own = &status["Self"];
    ensure!(own["DNSName"] == format!("robbinsdale.{TAILNET_DOMAIN}."), "{own}");
    ensure!(own["Tags"][0] == "tag:server", "{own}");
    Ok(())
}

fn by_login(tailnet: &Tailnet) -> Result<()> {
    tailnet.laptop.log_in(ADMIN, &lab::CAFE_ROUTER.to_string())?;
    let status = tailnet.laptop.status()?;
    ensure!(status["BackendState"] == "Running", "{status}");
    Ok(())
}

/// What the client's table says of a peer.
fn shown(client: &Client, name: &str, owner: &str) -> Result<()> {
    let peer = client.sees(name, PATIENCE)?;
    let address = peer["TailscaleIPs"][0].as_str().context("it has no address")?;
    let line = client.line(name)?;
    let words = line.starts_with(address) && line.contains(owner) && line.contains(" linux ");
    let path = line.contains("direct 203.0.113.") || line.contains("relay \"");
    ensure!(words && path, "the status shows {line:?}");
    Ok(())
}

/// A third device joins, leaves, is refused with the same key, joins with another, and is removed.
fn used_key(tailnet: &Tailnet, spare: &Client) -> Result<()> {
    let (login, name) = (format!("--login-server={CONTROL_URL}"), "--hostname=spare");
    let key = |key: &str| format!("--auth-key={key}");
    let first = tailnet.installation.key(&["tag:server"])?;
    spare.cli(["up", &login, &key(&first), name]).run()?;
    spare.cli(["logout"]).run()?;
    let refused = spare.cli(["up", &login, &key(&first), name, "--timeout=10s"]).finish()?;
    ensure!(!refused.ended.is_success(), "the second use went through");
    let said = format!("{}{}", refused.stdout, refused.stderr);
    ensure!(said.contains("was already used and works only once"), "{said}");
    // The daemon goes on trying the key that was refused, and an `up` that it answers meanwhile with what became of that
    // one ends by it. Such an answer names the first key: then a person tries again, and what names another is a fault.
    let first_id = first.split('-').nth(2).context("the key has no ID in it")?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let another = tailnet.installation.key(&["tag:server"])?;
        let joined = spare.cli(["up", &login, &key(&another), name, "--force-reauth"]).finish()?;
        if joined.ended.is_success() {
            break;
        }
        let said = format!("{}{}", joined.stdout, joined.stderr);
        ensure!(said.contains(first_id) && Instant::now() < deadline, "{said}");
    }
    tailnet.laptop.sees("spare", PATIENCE)?;
    tailnet.installation.towline(["devices", "delete", "spare", "--yes"]).run()?;
    tailnet.laptop.misses("spare", PATIENCE)
}
