use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use api::SecretText;
use tailcfg::DerpMap;
use tailnet::{Domain, LoginName};
use telemetry::Shutdown;
use zeroize::Zeroizing;

use crate::config::{Config, ServerUrl};
use crate::files;
use crate::init::{self, FirstTailnet, NewServer, Standing};

/// Runs the coordination server, or sets one up.
#[derive(Debug, Clone, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Action>,

    #[command(flatten)]
    run: Place,
}

/// Where a server is.
#[derive(Debug, Clone, clap::Args)]
struct Place {
    /// The folder that the server keeps everything in.
    #[arg(long, env = "TOWLINE_CONTROL_DATA", default_value = "/var/lib/towline/control", value_name = "FOLDER")]
    data: PathBuf,

    /// The configuration file; `control.toml` in the data folder when not given.
    #[arg(long, env = "TOWLINE_CONTROL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Action {
    /// Sets up a server in a new folder: keys, certificate authority, first tailnet and its owner.
    Init(Init),
    /// Adds a tailnet to a server that is not running.
    AddTailnet(AddTailnet),
    /// Prints the token that relays show to be told which nodes to admit.
    RelayToken(Place),
    /// Gives a user another password on a server that is not running, when nobody can sign in any more.
    ResetPassword(ResetPassword),
}

#[derive(Debug, Clone, clap::Args)]
struct Init {
    /// The folder that the server will keep everything in.
    #[arg(long, env = "TOWLINE_CONTROL_DATA", default_value = "/var/lib/towline/control", value_name = "FOLDER")]
    data: PathBuf,

    /// Do nothing, and succeed, when the folder holds a server already: for scripts and pods that start again.
    /// A run that was cut off is finished, with or without this.
    #[arg(long)]
    if_absent: bool,

    /// What nodes, people and programs will call the server: https://control.example.com
    #[arg(long, env = "TOWLINE_CONTROL_URL", value_name = "URL")]
    url: String,

    /// The server's certificate, in PEM; without it a proxy in front has to end TLS.
    #[arg(long, env = "TOWLINE_CONTROL_TLS_CERTIFICATE", value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,

    /// Its private key, in PEM.
    #[arg(long, env = "TOWLINE_CONTROL_TLS_KEY", value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,

    /// A relay, as host or host:port; may be given several times.
    #[arg(long = "relay", value_name = "HOST", conflicts_with = "relays")]
    relay: Vec<String>,

    /// A file with the whole map of relays, in JSON.
    #[arg(long, value_name = "FILE")]
    relays: Option<PathBuf>,

    #[command(flatten)]
    tailnet: TailnetArguments,
}

#[derive(Debug, Clone, clap::Args)]
struct AddTailnet {
    #[command(flatten)]
    place: Place,

    #[command(flatten)]
    tailnet: TailnetArguments,
}

#[derive(Debug, Clone, clap::Args)]
struct TailnetArguments {
    /// Where the names of the tailnet's devices live: example.ts.net
    #[arg(long, env = "TOWLINE_CONTROL_DOMAIN", value_name = "DOMAIN")]
    domain: String,

    /// What people call the tailnet; its domain when not given.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// The login name of the tailnet's owner: admin@example.com
    #[arg(long, env = "TOWLINE_CONTROL_ADMIN", value_name = "LOGIN")]
    admin: String,

    #[command(flatten)]
    password: PasswordArgument,
}

#[derive(Debug, Clone, clap::Args)]
struct PasswordArgument {
    /// A file with the password; when not given, one is made and shown once.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

#[derive(Debug, Clone, clap::Args)]
struct ResetPassword {
    #[command(flatten)]
    place: Place,

    /// The user's login name.
    #[arg(long, value_name = "LOGIN")]
    user: String,

    /// The domain of the user's tailnet, where several have a user of that name.
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,

    #[command(flatten)]
    password: PasswordArgument,
}

/// Does what the arguments say.
///
/// # Errors
///
/// The message says what was wrong and what to do.
pub async fn execute(arguments: Arguments, shutdown: Shutdown) -> anyhow::Result<()> {
    match arguments.command {
        None => crate::run(arguments.run.load()?, shutdown).await,
        Some(Action::Init(init)) => init.execute().await,
        Some(Action::AddTailnet(add)) => add.execute().await,
        Some(Action::RelayToken(place)) => place.print_relay_token(),
        Some(Action::ResetPassword(reset)) => reset.execute().await,
    }
}

impl Place {
    fn load(&self) -> anyhow::Result<Config> {
        let config = self.config.clone().unwrap_or_else(|| self.data.join("control.toml"));
        Config::load(&self.data, &config).map_err(|error| match error.is_missing() && !config.exists() {
            true => anyhow::Error::from(error).context(format!(
                "can't read the configuration; `towline control init --data {}` makes one",
                self.data.display()
            )),
            false => error.into(),
        })
    }

    fn print_relay_token(&self) -> anyhow::Result<()> {
        let config = self.load()?;
        let path = config.relay_token.context("the configuration names no token for relays: set relays.token")?;
        let token = Zeroizing::new(files::read_private(&path)?);
        tell(&format!("{}\n", String::from_utf8_lossy(&token).trim()))
    }
}

impl Init {
    async fn execute(self) -> anyhow::Result<()> {
        match init::standing(&self.data).await? {
            Standing::Server { untold } if self.if_absent => {
                let data = self.data.display();
                let mut text = format!("There is a server in {data} already; nothing was changed.\n");
                if untold {
                    let advice = init::advice(&self.data, &self.tailnet.admin.parse()?, None);
                    text += &format!("The run that set it up was cut off at its end: {advice}\n");
                }
                return tell(&text);
            }
            Standing::Unfinished => tell("An earlier run was cut off; this one goes on from there.\n")?,
            Standing::Server { .. } | Standing::Absent => {}
        }
        let relays = match &self.relays {
            Some(path) => read_relays(path)?,
            None => init::relay_map(&self.relay)?,
        };
        let new = NewServer {
            data: std::path::absolute(&self.data)?,
            url: ServerUrl::parse(&self.url)?,
            certificate: self.tls_certificate.clone().zip(self.tls_key.clone()),
            relays,
            tailnet: self.tailnet.resolve()?,
        };
        let (data, url, owner) = (new.data.clone(), new.url.clone(), new.tailnet.owner.clone());
        let made = init::init(new).await?;
        let data = data.display();
        let kept: String = made.kept.iter().map(|path| format!("  {}\n", path.display())).collect();
        let kept = match kept.as_str() {
            "" => kept,
            _ => format!("These were there already, and are used as they are:\n{kept}\n"),
        };
        let text = format!(
            "The server is set up in {data}.\n\n{kept}{}Next:\n  \
             1. Look at {} and start the server:\n       towline control --data {data}\n  \
             2. Start the relays; each needs the token in {}.\n  \
             3. Sign in as the administrator of the tailnet:\n       towline admin login --server {url} --user {owner}\n  \
             4. Join a device:\n       towline up --login-server={url}\n     or, with the stock client:\n       \
             tailscale up --login-server={url}\n\nKeep a copy of {data}/authority/root.key elsewhere and take it off \
             this machine when all tailnets are\nmade: the running server does not need it.\n",
            shown_once(&owner, made.made_password.as_ref()),
            made.config.display(),
            made.relay_token.display(),
        );
        if made.made_password.is_none() {
            return tell(&text);
        }
        show(&text, &self.data, &owner, None)?;
        init::told(&self.data)
    }
}

impl AddTailnet {
    async fn execute(self) -> anyhow::Result<()> {
        let config = self.place.load()?;
        let new = self.tailnet.resolve()?;
        let (owner, domain) = (new.owner.clone(), new.domain.clone());
        let made = init::add_tailnet(&config.data, config.url, new).await?;
        let password = shown_once(&owner, made.as_ref());
        let text = format!("The tailnet {domain} is made; start the server again to use it.\n\n{password}");
        if made.is_some() { show(&text, &self.place.data, &owner, Some(&domain)) } else { tell(&text) }
    }
}

impl ResetPassword {
    async fn execute(self) -> anyhow::Result<()> {
        let config = self.place.load()?;
        let user: LoginName = self.user.parse()?;
        let domain = self.domain.as_deref().map(str::parse::<Domain>).transpose()?;
        let password = self.password.read()?;
        let made = init::reset_password(&config.data, config.url, &user, domain.as_ref(), password).await?;
        let password = shown_once(&user, made.as_ref());
        let text =
            format!("The password of {user} is changed, and all their tokens and sessions have ended.\n\n{password}");
        if made.is_some() {
            show(&text, &self.place.data, &user, domain.as_ref())?;
        } else {
            tell(&text)?;
        }
        // Somebody can sign in now who could not before.
        init::told(&config.data)
    }
}

impl TailnetArguments {
    fn resolve(&self) -> anyhow::Result<FirstTailnet> {
        Ok(FirstTailnet {
            domain: self.domain.parse::<Domain>()?,
            name: self.name.clone(),
            owner: self.admin.parse()?,
            password: self.password.read()?,
        })
    }
}

impl PasswordArgument {
    fn read(&self) -> anyhow::Result<Option<SecretText>> {
        let Some(path) = &self.password_file else { return Ok(None) };
        let text = std::fs::read_to_string(path).with_context(|| format!("can't read the password in {path:?}"))?;
        // The end of the line is the editor's, not the password's.
        Ok(Some(SecretText::new(text.trim_end_matches(['\r', '\n']).to_owned())))
    }
}

/// Prints what was done. It stays done where whoever read has enough, as in `… | head -1`.
fn tell(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome.context("printing the answer"),
    }
}

/// Prints a password that was made. Where nobody reads it nobody can use it, so that is a failure.
fn show(text: &str, data: &Path, login: &LoginName, domain: Option<&Domain>) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| {
        let advice = init::advice(data, login, domain);
        anyhow::anyhow!("it is done, but the password of {login} could not be printed ({error}); {advice}")
    })
}

/// A password that this program has made.
fn shown_once(user: &LoginName, made: Option<&SecretText>) -> String {
    made.map_or_else(String::new, |password| {
        format!("The password of {user}, shown only now:\n\n    {}\n\n", password.expose())
    })
}

fn read_relays(path: &Path) -> anyhow::Result<DerpMap> {
    let text = std::fs::read(path).with_context(|| format!("can't read the relay map {path:?}"))?;
    serde_json::from_slice(&text).with_context(|| format!("the relay map {path:?} can't be used"))
}
