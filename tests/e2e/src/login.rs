use anyhow::{Context, Result};
use lab::{LabBox, World};
use serde::Serialize;
use serde_json::Value;

/// The boxes whose clients the walkthrough lets in.
const PLACES: [&str; 2] = ["laptop", "robbinsdale"];
/// What our daemon and the stock one are called in their boxes.
const DAEMONS: [&str; 2] = ["node", "tailscaled"];

/// How far the client of a box is in the tailnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Login {
    /// The box.
    pub place: String,
    /// How far it is.
    pub state: LoginState,
    /// The login name of whose device it is; empty where it is nobody's, or its tags'.
    pub user: String,
}

/// How far a client is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoginState {
    /// It is a device of the tailnet.
    In,
    /// Somebody is to open this URL.
    Waiting(String),
    /// It is a device of the tailnet, and stays who it is until somebody opens this URL.
    Renewing(String),
    /// It was never let in, or has logged out.
    Out,
    /// An administrator is to let it in.
    Unapproved,
    /// It was let in, and its network was turned off.
    Down,
    /// Its daemon does not run.
    Ended,
    /// Something else, in the daemon's word.
    Other(String),
}

impl Login {
    /// Looks at the clients of a world, as far as there are any.
    ///
    /// # Errors
    /// When a record cannot be read, or a client that runs does not answer.
    pub fn all(world: &World) -> Result<Vec<Self>> {
        let places = PLACES.iter().filter_map(|place| world.lab_box(place).ok());
        let found: Vec<Option<Self>> = places.map(|place| Self::of(&place)).collect::<Result<_>>()?;
        Ok(found.into_iter().flatten().collect())
    }

    fn of(place: &LabBox) -> Result<Option<Self>> {
        let daemons: Vec<_> = place.daemons()?.into_iter().filter(|daemon| DAEMONS.contains(&daemon.name())).collect();
        if daemons.is_empty() {
            return Ok(None);
        }
        if !daemons.iter().any(|daemon| daemon.is_running()) {
            return Ok(Some(Self { place: place.name().to_owned(), state: LoginState::Ended, user: String::new() }));
        }
        // It ends with 1 where the client is not in, and says so all the same.
        let said = place.command(["towline", "status", "--json"]).finish()?.stdout;
        let status: Value = serde_json::from_str(&said)
            .with_context(|| format!("reading what the client in {} says: {said:?}", place.name()))?;
        Ok(Some(Self::read(place.name(), &status)))
    }

    fn read(place: &str, status: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (state, url) = (text(&status["BackendState"]), text(&status["AuthURL"]));
        let state = match (state.as_str(), url.as_str()) {
            ("Running" | "Starting", "") => LoginState::In,
            ("Running" | "Starting", _) => LoginState::Renewing(url),
            ("NeedsLogin", "") => LoginState::Out,
            ("NeedsLogin", _) => LoginState::Waiting(url),
            ("NeedsMachineAuth", _) => LoginState::Unapproved,
            ("Stopped", _) => LoginState::Down,
            _ => LoginState::Other(state),
        };
        let own = &status["Self"];
        let is_let_in =
            matches!(state, LoginState::In | LoginState::Renewing(_) | LoginState::Down | LoginState::Unapproved);
        let is_persons = is_let_in && own["Tags"].as_array().is_none_or(Vec::is_empty);
        let user =
            if is_persons { text(&status["User"][own["UserID"].to_string()]["LoginName"]) } else { String::new() };
        Self { place: place.to_owned(), state, user }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_persons_device_is_that_persons_and_a_tagged_one_nobodys() {
        let status = |tags: Value| {
            let own = json!({"UserID": 2, "Tags": tags});
            json!({"BackendState": "Running", "Self": own, "User": {"2": {"LoginName": "member@example.com"}}})
        };
        let own = Login::read("laptop", &status(Value::Null));
        assert_eq!((own.state, own.user.as_str()), (LoginState::In, "member@example.com"));
        assert_eq!(Login::read("robbinsdale", &status(json!(["tag:server"]))).user, "");
    }

    #[test]
    fn a_new_login_that_waits_leaves_the_device_whose_it_is() {
        let url = "https://control.towline.test/a/x";
        let (own, users) = (json!({"UserID": 2}), json!({"2": {"LoginName": "member@example.com"}}));
        let status = json!({"BackendState": "Running", "AuthURL": url, "Self": own, "User": users});
        let told = Login::read("laptop", &status);
        assert_eq!((told.state, told.user.as_str()), (LoginState::Renewing(url.to_owned()), "member@example.com"));
    }

    #[test]
    fn a_login_that_waits_is_told_from_one_that_nobody_began() {
        let state = |status: Value| Login::read("laptop", &status).state;
        let url = "https://control.towline.test/a/x";
        assert_eq!(state(json!({"BackendState": "NeedsLogin", "AuthURL": url})), LoginState::Waiting(url.to_owned()));
        assert_eq!(state(json!({"BackendState": "NeedsLogin", "AuthURL": ""})), LoginState::Out);
        assert_eq!(state(json!({"BackendState": "Stopped"})), LoginState::Down);
        assert_eq!(state(json!({"BackendState": "NoState"})), LoginState::Other("NoState".to_owned()));
    }

    #[test]
    fn who_is_logged_out_is_nobody_whatever_the_daemon_remembers() {
        let own = json!({"UserID": 2});
        let status =
            json!({"BackendState": "NeedsLogin", "Self": own, "User": {"2": {"LoginName": "member@example.com"}}});
        assert_eq!(Login::read("laptop", &status).user, "");
    }
}
