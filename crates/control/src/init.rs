use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use api::SecretText;
use crypto::{Entropy, MachinePrivate, SystemEntropy};
use jiff::Timestamp;
use tailcfg::{DerpMap, DerpNode, DerpRegion, RegionId, UserId};
use tailnet::{Actor, Command, Domain, LoginName, NewTailnet, PasswordHash, Reply, TailnetId};
use telemetry::Metrics;
use tokio_util::sync::CancellationToken;

use crate::authority::RootAuthority;
use crate::config::ServerUrl;
use crate::coordination::{Coordination, CoordinationConfig};
use crate::files;
use crate::folder::DataFolder;
use crate::password::{self, Passwords};
use crate::store::Store;

/// A server that is to be set up.
#[derive(Debug, Clone)]
pub struct NewServer {
    /// Where it will keep everything.
    pub data: PathBuf,
    /// What nodes, people and programs will call it.
    pub url: ServerUrl,
    /// Its certificate and key; none where a proxy in front has them.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Its relays.
    pub relays: DerpMap,
    /// Its first tailnet.
    pub tailnet: FirstTailnet,
}

/// A tailnet that is to be made, with its first user.
#[derive(Debug, Clone)]
pub struct FirstTailnet {
    /// Where the names of its devices live.
    pub domain: Domain,
    /// What people call it; the domain when not given.
    pub name: Option<String>,
    /// The login name of its owner.
    pub owner: LoginName,
    /// The owner's password; one is made when not given.
    pub password: Option<SecretText>,
}

/// What was set up.
#[derive(Debug)]
pub struct Initialized {
    /// The owner's password, where it was made and must be told now.
    pub made_password: Option<SecretText>,
    /// The configuration file.
    pub config: PathBuf,
    /// The file with the token that relays show.
    pub relay_token: PathBuf,
    /// What an earlier run had made before it was cut off, and was kept.
    pub kept: Vec<PathBuf>,
}

/// What a folder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// No server.
    Absent,
    /// A server whose setting up was cut off: [`init`] finishes it.
    Unfinished,
    /// A server.
    Server {
        /// Whether a password was made for its owner that maybe nobody was shown: see [`told`].
        untold: bool,
    },
}

/// Tells what a folder holds, and changes nothing in it.
///
/// # Errors
///
/// Its database can't be read, or is missing while the keys that belong to it are there.
pub async fn standing(data: &Path) -> anyhow::Result<Standing> {
    let (database, mark) = (DataFolder::database_in(data), DataFolder::mark_in(data));
    if DataFolder::is_in_use(data) {
        return Ok(Standing::Server { untold: false });
    }
    if database.exists() {
        let server = Store::has_tailnet(&database).await?;
        return Ok(if server { Standing::Server { untold: mark.exists() } } else { Standing::Unfinished });
    }
    if mark.exists() {
        return Ok(Standing::Unfinished);
    }
    let alone = DataFolder::secrets_in(data).into_iter().find(|path| path.exists());
    match alone {
        Some(path) => bail!(
            "{path:?} is there, and the database {database:?} is not: put back the one that belongs to it, or choose \
             another folder"
        ),
        None => Ok(Standing::Absent),
    }
}

/// Sets a server up in a folder that has none: keys, certificate authority, database, first tailnet, configuration.
///
/// A run that was cut off, however hard, is finished by the next one: until the tailnet is in the database there is no
/// server, and what lies there is used, or made anew where it is not whole.
///
/// # Errors
///
/// There is a server already, or something can't be written; what was begun is taken away again.
pub async fn init(new: NewServer) -> anyhow::Result<Initialized> {
    let before = standing(&new.data).await?;
    if let Standing::Server { untold } = before {
        let advice = if untold { format!("; {}", advice(&new.data, &new.tailnet.owner, None)) } else { String::new() };
        bail!("there is a server in {:?} already{advice}", new.data);
    }
    let folder = DataFolder::create(&new.data)?;
    finish(&folder, before, &new).await
}

/// Notes that the owner's password, where [`init`] has made one, was shown to somebody.
///
/// # Errors
///
/// The folder can't be written.
pub fn told(data: &Path) -> anyhow::Result<()> {
    Ok(files::remove_if_there(&DataFolder::mark_in(data))?)
}

/// What to do where a password was made and nobody has read it; with the domain of its tailnet where there may be several.
pub(crate) fn advice(data: &Path, login: &LoginName, domain: Option<&Domain>) -> String {
    let data = data.display();
    let domain = domain.map(|domain| format!(" --domain {domain}")).unwrap_or_default();
    format!(
        "if the password was never shown, make another: towline control reset-password --data {data} --user {login}{domain}"
    )
}

async fn finish(folder: &DataFolder, before: Standing, new: &NewServer) -> anyhow::Result<Initialized> {
    if !DataFolder::mark_in(&new.data).exists() {
        files::write_new_private(
            &DataFolder::mark_in(&new.data),
            b"`towline control init` goes on where it was cut off\n",
        )?;
    }
    let made = set_up(folder, new).await;
    match &made {
        // Until its password is told, nobody can use the server: the mark stays for the next run to say so.
        Ok(made) if made.made_password.is_some() => {}
        Ok(_) => told(&new.data)?,
        Err(_) if before == Standing::Absent => {
            // Only what was made just now: none of it was there when the folder was taken.
            let database = folder.database();
            for suffix in ["", "-wal", "-shm"] {
                let _ = std::fs::remove_file(format!("{}{suffix}", database.display()));
            }
            let _ = std::fs::remove_file(folder.key_file());
            let _ = std::fs::remove_dir_all(folder.authority());
            let _ = std::fs::remove_file(DataFolder::mark_in(&new.data));
        }
        // The next run goes on from here.
        Err(_) => {}
    }
    made
}

async fn set_up(folder: &DataFolder, new: &NewServer) -> anyhow::Result<Initialized> {
    let (relay_token, map, config) =
        (new.data.join("relay.token"), new.data.join("relays.json"), new.data.join("control.toml"));
    let whole =
        [folder.key_file(), folder.authority().join("root.crt"), relay_token.clone(), map.clone(), config.clone()];
    let kept = whole.into_iter().filter(|path| path.exists()).collect();
    for folder in [new.data.clone(), folder.authority()] {
        files::remove_leftovers(&folder);
    }
    if !folder.key_file().exists() {
        let key = MachinePrivate::generate(&mut SystemEntropy);
        files::write_new_private(&folder.key_file(), key.expose_text().as_bytes())?;
    }
    let root = RootAuthority::complete(&folder.authority(), Timestamp::now())?;
    if !relay_token.exists() {
        files::write_new_private(&relay_token, hex::encode(SystemEntropy.bytes32()).as_bytes())?;
    }
    if !map.exists() {
        files::write_new_private(&map, serde_json::to_string_pretty(&new.relays)?.as_bytes())?;
    }
    if !config.exists() {
        files::write_new_private(&config, configuration(new)?.as_bytes())?;
    }
    // Last: a database with a tailnet is a server.
    let store = Store::open(&folder.database()).await?;
    let made_password = make_tailnet(folder, store, root, new.url.clone(), &new.tailnet).await?;
    Ok(Initialized { made_password, config, relay_token, kept })
}

/// Adds a tailnet to a server that is not running; answers the owner's password where one was made.
pub async fn add_tailnet(data: &Path, url: ServerUrl, new: FirstTailnet) -> anyhow::Result<Option<SecretText>> {
    let folder = DataFolder::open(data)?;
    let root = RootAuthority::load(&folder.authority())
        .context("the root's key is needed to sign the new tailnet's authority: put it back for this command")?;
    let store = Store::open(&folder.database()).await?;
    make_tailnet(&folder, store, root, url, &new).await
}

async fn make_tailnet(
    folder: &DataFolder,
    store: Store,
    root: RootAuthority,
    url: ServerUrl,
    new: &FirstTailnet,
) -> anyhow::Result<Option<SecretText>> {
    let (password, made) = match &new.password {
        Some(password) => (password.clone(), None),
        None => {
            let made = password::generate();
            (made.clone(), Some(made))
        }
    };
    let hash = Passwords::new()?.hash(password).await?;
    let coordination = offline(folder, store.clone(), url).await?;
    let name = new.name.clone().unwrap_or_else(|| new.domain.to_string());
    let command =
        NewTailnet { name, domain: new.domain.clone(), owner: new.owner.clone(), password: Some(PasswordHash(hash)) };
    let created = coordination.create_tailnet(command, root).await?;
    drop(coordination);
    store.close().await;
    match created {
        Reply::User(_) => Ok(made),
        _ => bail!("the tailnet was not made"),
    }
}

/// Gives a user another password on a server that is not running, when nobody can sign in any more; answers it where it
/// was made. Where several tailnets have a user of that name, the domain says which of them is meant.
pub async fn reset_password(
    data: &Path,
    url: ServerUrl,
    login: &LoginName,
    domain: Option<&Domain>,
    password: Option<SecretText>,
) -> anyhow::Result<Option<SecretText>> {
    let folder = DataFolder::open(data)?;
    let store = Store::open(&folder.database()).await?;
    let coordination = offline(&folder, store.clone(), url).await?;
    let (tailnet, user) = only_user(&coordination, login, domain)?;
    let made = password.is_none().then(password::generate);
    let Some(password) = password.or_else(|| made.clone()) else { bail!("no password was given or made") };
    let hash = PasswordHash(Passwords::new()?.hash(password).await?);
    coordination.execute(tailnet, Command::SetPassword(user, hash), Actor::Server).await?;
    store.end_sessions(&crate::store::EndedSessions::User(user)).await?;
    drop(coordination);
    store.close().await;
    Ok(made)
}

/// The one user of a login name, in the tailnet of that domain if one is given.
fn only_user(
    coordination: &Coordination,
    login: &LoginName,
    domain: Option<&Domain>,
) -> anyhow::Result<(TailnetId, UserId)> {
    let mut found = Vec::new();
    for (tailnet, user, _) in coordination.users_named(login.as_str()) {
        let Some((_, own)) = coordination.names_of(tailnet, user) else { continue };
        if domain.is_none_or(|domain| domain.as_str() == own) {
            found.push((tailnet, user, own));
        }
    }
    match found.as_slice() {
        [(tailnet, user, _)] => Ok((*tailnet, *user)),
        [] => {
            let place = domain.map_or("on this server".to_owned(), |domain| format!("in the tailnet {domain}"));
            bail!("there is no user {login} {place} who may sign in")
        }
        several => {
            let domains: Vec<&str> = several.iter().map(|(.., own)| own.as_str()).collect();
            bail!(
                "there is a user {login} in each of the tailnets {}: name one with --domain, as in --domain {}",
                domains.join(", "),
                domains[0]
            )
        }
    }
}

/// The tailnets of a server that is not running.
async fn offline(folder: &DataFolder, store: Store, url: ServerUrl) -> anyhow::Result<Arc<Coordination>> {
    let config = CoordinationConfig {
        url,
        relays: DerpMap::default(),
        authority_folder: folder.authority(),
        stop: CancellationToken::new(),
    };
    Ok(Coordination::load(store, config, &Metrics::new()).await?)
}

/// A relay map of single relays, `host` or `host:port`, each a region of its own.
pub fn relay_map(hosts: &[String]) -> anyhow::Result<DerpMap> {
    /// Numbers from here on are free for installations of their own.
    const FIRST: u16 = 900;
    anyhow::ensure!(
        !hosts.is_empty(),
        "devices need at least one relay: name it with --relay relay.example.com, or give a map with --relays FILE"
    );
    let mut regions = std::collections::BTreeMap::new();
    for (number, host) in (FIRST..=999).zip(hosts) {
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) => (name, port.parse().with_context(|| format!("{host:?} is no host and port"))?),
            None => (host.as_str(), 0),
        };
        let id = RegionId(number);
        let label = name.split('.').next().unwrap_or(name);
        let node = DerpNode {
            name: format!("{number}a"),
            region_id: id,
            host_name: name.to_owned(),
            derp_port: port,
            ..DerpNode::default()
        };
        let region = DerpRegion {
            region_id: id,
            region_code: label.to_owned(),
            region_name: name.to_owned(),
            nodes: vec![node],
            ..DerpRegion::default()
        };
        regions.insert(id, region);
    }
    Ok(DerpMap { regions: Some(regions), omit_default_regions: true, ..DerpMap::default() })
}

fn configuration(new: &NewServer) -> anyhow::Result<String> {
    let quoted = |path: &Path| toml::Value::String(path.display().to_string()).to_string();
    let listen = match &new.certificate {
        Some((certificate, key)) => format!(
            "[listen]\n# Where everybody comes by TLS.\nhttps = \"[::]:443\"\n\
             # Where nodes come without TLS: their channel is encrypted by itself. Clients knock here first.\n\
             http = \"[::]:80\"\n# Health and metrics, for this machine only.\nadmin = \"127.0.0.1:9090\"\n\n\
             [tls]\n# Read again whenever they change.\ncertificate = {}\nkey = {}\n",
            quoted(&std::path::absolute(certificate)?),
            quoted(&std::path::absolute(key)?),
        ),
        None => "[listen]\n# A proxy in front of this server ends TLS.\nhttp = \"[::]:8080\"\n\
                 # Health and metrics, for this machine only.\nadmin = \"127.0.0.1:9090\"\n\n\
                 [proxies]\n# Whose word on the client's address and on TLS is believed.\ntrusted = [\"127.0.0.0/8\", \"::1/128\"]\n"
            .to_owned(),
    };
    Ok(format!(
        "# The coordination server. Relative paths start at this file.\n\n\
         # What nodes, people and programs call the server.\nurl = \"{}\"\n\n{listen}\n\
         [relays]\n# The relays that devices use.\nmap = \"relays.json\"\n\
         # Relays show the token in this file when they ask whom to admit.\ntoken = \"relay.token\"\n",
        new.url
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_relay_is_a_region() {
        let map = relay_map(&["r1.example.com".to_owned(), "r2.example.com:8443".to_owned()]).unwrap();
        let regions = map.regions.unwrap();
        assert_eq!(regions.keys().map(|id| id.0).collect::<Vec<_>>(), [900, 901]);
        assert_eq!(regions[&RegionId(901)].nodes[0].derp_port, 8443);
        assert!(relay_map(&[]).unwrap_err().to_string().contains("--relay relay.example.com"));
        assert!(relay_map(&["r:x".to_owned()]).is_err());
    }
}
