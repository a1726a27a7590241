//! Row 1: an administrator has users, keys and OAuth clients, and a policy that is looked at before it is in force.

use anyhow::{Context, Result, ensure};
use lab::Output;
use serde_json::Value;

use crate::stage::POLICY;
use crate::{ADMIN, Checks, Client, MEMBER, PATIENCE, Tailnet, eventually};

/// Where the administrator writes policies that are tried out.
const FILE: &str = "/etc/towline/trial.hujson";
/// What members may do in the walkthrough's policy, and what in the change that is tried out.
const GRANTED: &str = r#"{"src": ["autogroup:member"], "dst": ["tag:k8s-operator"], "ip": ["tcp:443"]}"#;
const CHANGED: &str = r#"{"src": ["autogroup:member"], "dst": ["tag:k8s-operator"], "ip": ["tcp:8443"]}"#;

/// What is wrong with a policy, its text, and what the refusal must name.
const BROKEN: [(&str, &str, [&str; 2]); 2] = [
    ("a comma too many", "{\n  \"grants\": [,],\n}", ["line 2, column 14", "a value is missing"]),
    (
        "a tag that nobody defined",
        "{\n  \"grants\": [{\"src\": [\"tag:nobodys\"], \"dst\": [\"*\"], \"ip\": [\"*\"]}],\n}",
        ["tag not found", "tag:nobodys"],
    ),
];

/// Goes from a server without a policy to the walkthrough's, and through the administrator's other commands.
pub(super) fn play(tailnet: &Tailnet, checks: &mut Checks) {
    checks.check("row 1: the server has an owner and a member", || users(tailnet));
    checks.check("row 1: before any policy people reach their own devices and no others", || {
        let outcome = own_devices(tailnet);
        leave(tailnet, &tailnet.laptop)?;
        leave(tailnet, &tailnet.robbinsdale)?;
        outcome
    });
    checks.check("row 1: a policy is checked, shown with what it opens, and set", || first_policy(tailnet));
    checks.check("row 1: a change is shown, with what it opens and closes, before it is made", || change(tailnet));
    for (what, text, named) in BROKEN {
        checks.check(
            &format!("row 1: a policy with {what} is refused by place and reason, and the old one stays"),
            || broken(tailnet, text, named),
        );
    }
    checks.check("row 1: a key is made, listed and taken back", || keys(tailnet));
    checks.check("row 1: an OAuth client is made, listed and taken back", || oauth_clients(tailnet));
}

fn users(tailnet: &Tailnet) -> Result<()> {
    let users = tailnet.installation.ask(["users", "list"])?;
    let has = |name: &str, role: &str| {
        users.as_array().into_iter().flatten().any(|user| user["loginName"] == name && user["role"] == role)
    };
    ensure!(has(ADMIN, "owner") && has(MEMBER, "member"), "{users}");
    Ok(())
}

/// The laptop is the member's; robbinsdale is the administrator's at first, and the member's then.
fn own_devices(tailnet: &Tailnet) -> Result<()> {
    let Tailnet { laptop, robbinsdale, .. } = tailnet;
    laptop.log_in(MEMBER, &lab::CAFE_ROUTER.to_string())?;
    robbinsdale.log_in(ADMIN, &lab::CABIN_ROUTER.to_string())?;
    ensure!(robbinsdale.peer("laptop")?.is_none(), "the administrator sees the member's device");
    ensure!(laptop.peer("robbinsdale")?.is_none(), "the member sees the administrator's device");
    let status = robbinsdale.status()?;
    let address = status["Self"]["TailscaleIPs"][0].as_str().context("robbinsdale has no address")?;
    let curl = ["curl", "-sS", "--max-time", "2", &format!("http://{address}/")].map(str::to_owned);
    let answer = laptop.lab_box().command(curl).finish()?;
    ensure!(!answer.ended.is_success(), "the member gets {:?} from the administrator's device", answer.stdout);

    leave(tailnet, robbinsdale)?;
    robbinsdale.log_in(MEMBER, &lab::CABIN_ROUTER.to_string())?;
    laptop.sees("robbinsdale", PATIENCE)?;
    laptop.gets("http://robbinsdale/", "robbinsdale: hello", PATIENCE)
}

/// A device leaves, and the server forgets it.
fn leave(tailnet: &Tailnet, client: &Client) -> Result<()> {
    let name = client.lab_box().name();
    client.cli(["logout"]).run()?;
    eventually(&format!("{name} logged out"), PATIENCE, || {
        ensure!(!client.has_key()?, "it still has a key");
        Ok(())
    })?;
    if let Some(device) = tailnet.installation.device(name)? {
        let id = text(&device, "nodeId")?;
        tailnet.installation.towline(["devices", "delete", id, "--yes"]).run()?;
    }
    Ok(())
}

/// Tries a policy with a command of `towline policy`.
fn policy(tailnet: &Tailnet, command: &str, text: &str) -> Result<Output> {
    tailnet.world.lab_box("control")?.write(FILE, text, 0o644)?;
    Ok(tailnet.installation.towline(["policy", command, FILE]).finish()?)
}

fn in_force(tailnet: &Tailnet) -> Result<String> {
    Ok(tailnet.installation.towline(["policy", "get"]).run()?.stdout)
}

fn first_policy(tailnet: &Tailnet) -> Result<()> {
    let checked = policy(tailnet, "check", POLICY)?;
    ensure!(checked.ended.is_success() && checked.stdout.contains("is fine"), "{}{}", checked.stdout, checked.stderr);
    let diff = policy(tailnet, "diff", POLICY)?;
    let opens = format!("{ADMIN} -> ");
    let shown = diff.stdout.contains("+  \"grants\": [") && diff.stdout.contains("It opens:");
    ensure!(diff.ended.is_success() && shown, "{}{}", diff.stdout, diff.stderr);
    ensure!(diff.stdout.contains(&opens) || diff.stdout.contains("autogroup:admin -> "), "{}", diff.stdout);
    ensure!(in_force(tailnet)?.trim() != POLICY.trim(), "the policy is in force before it was set");
    tailnet.installation.begin_with(POLICY)?;
    ensure!(in_force(tailnet)?.trim() == POLICY.trim(), "another policy is in force");
    Ok(())
}

fn change(tailnet: &Tailnet) -> Result<()> {
    let changed = POLICY.replace(GRANTED, CHANGED);
    ensure!(changed != POLICY, "the walkthrough's policy has no line {GRANTED}");
    let set = policy(tailnet, "set", &changed)?;
    let said = format!("{}{}", set.stdout, set.stderr);
    ensure!(set.ended.is_success(), "{said}");
    let (gone, come) = (format!("-    {GRANTED}"), format!("+    {CHANGED}"));
    for word in [&gone, &come, "It opens:", "tcp:8443", "It closes:", "tcp:443"] {
        ensure!(said.contains(word), "{word:?} is missing:\n{said}");
    }
    ensure!(in_force(tailnet)?.contains(CHANGED), "it is not in force");
    tailnet.installation.set_policy(POLICY)
}

fn broken(tailnet: &Tailnet, text: &str, named: [&str; 2]) -> Result<()> {
    let before = in_force(tailnet)?;
    for command in ["check", "set"] {
        let refused = policy(tailnet, command, text)?;
        let said = format!("{}{}", refused.stdout, refused.stderr);
        ensure!(!refused.ended.is_success(), "policy {command} takes it: {said}");
        for word in named {
            ensure!(said.contains(word), "policy {command}: {word:?} is missing:\n{said}");
        }
    }
    ensure!(in_force(tailnet)? == before, "another policy is in force");
    Ok(())
}

fn keys(tailnet: &Tailnet) -> Result<()> {
    let installation = &tailnet.installation;
    let made = installation.ask(["keys", "create", "--tag", "tag:server", "--description", "trial"])?;
    let (id, secret) = (text(&made, "id")?, text(&made, "key")?);
    let listed = installation.ask(["keys", "list"])?;
    ensure!(listed.to_string().contains(id), "it is not listed: {listed}");
    ensure!(!listed.to_string().contains(secret), "the list shows the key itself");
    installation.towline(["keys", "revoke", id]).run()?;
    let listed = installation.ask(["keys", "list"])?;
    ensure!(listed.as_array().into_iter().flatten().all(|key| key["id"] != id), "it is still listed: {listed}");
    Ok(())
}

fn oauth_clients(tailnet: &Tailnet) -> Result<()> {
    let installation = &tailnet.installation;
    let client = installation.oauth_client(&["devices:core", "auth_keys"], &["tag:k8s-operator"])?;
    let listed = installation.ask(["oauth-clients", "list"])?;
    ensure!(listed.to_string().contains(&client.id), "it is not listed: {listed}");
    ensure!(!listed.to_string().contains(&client.secret), "the list shows the secret");
    installation.towline(["oauth-clients", "delete", &client.id]).run()?;
    let listed = installation.ask(["oauth-clients", "list"])?;
    let works = |known: &Value| known["id"] == client.id.as_str() && known["invalid"] != true;
    ensure!(!listed.as_array().into_iter().flatten().any(works), "it still works: {listed}");
    Ok(())
}

fn text<'a>(answer: &'a Value, field: &str) -> Result<&'a str> {
    answer[field].as_str().with_context(|| format!("no {field} in {answer}"))
}
