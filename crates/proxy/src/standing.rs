use node::{BackendState, Snapshot};

/// Where a node stands with its coordination server, as far as a proxy can do something about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is not in yet, and tries.
    Trying(String),
    /// It is in.
    In,
    /// It can't get in by itself: only another key helps.
    Stuck {
        /// Why.
        reason: String,
        /// Whether the node's own keys are of no use any more.
        forget: bool,
    },
}

impl Standing {
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        Self::judge(
            snapshot.state,
            snapshot.login_error.as_deref(),
            snapshot.auth_url.is_some(),
            snapshot.mesh.is_expired(),
            snapshot.control_error.as_deref(),
            !snapshot.addresses().is_empty(),
        )
    }

    fn judge(
        state: BackendState,
        refusal: Option<&str>,
        wants_person: bool,
        expired: bool,
        away: Option<&str>,
        has_address: bool,
    ) -> Self {
        let stuck = |reason: String, forget| Self::Stuck { reason, forget };
        if let Some(refusal) = refusal {
            return stuck(format!("the coordination server refuses: {refusal}"), false);
        }
        if expired {
            return stuck("the node key has expired".to_owned(), true);
        }
        if wants_person {
            // A server that knows neither key nor node asks for a person, and in a pod there is none.
            return stuck("the coordination server does not know this node any more".to_owned(), true);
        }
        match state {
            BackendState::NeedsLogin => stuck("there is no auth key".to_owned(), false),
            BackendState::NeedsMachineAuth => Self::Trying("an administrator has to approve the device".to_owned()),
            BackendState::NoState | BackendState::Starting | BackendState::Running if has_address => Self::In,
            BackendState::Stopped => Self::Trying("the node was told to disconnect (towline down)".to_owned()),
            _ => Self::Trying(match away {
                Some(away) => format!("the coordination server is not reached: {away}"),
                None => "waiting for the coordination server".to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_in_stays_so_while_control_is_away() {
        let standing = Standing::judge(BackendState::Running, None, false, false, Some("connection refused"), true);
        assert_eq!(standing, Standing::In);
        let standing = Standing::judge(BackendState::Starting, None, false, false, Some("connection refused"), false);
        assert_eq!(standing, Standing::Trying("the coordination server is not reached: connection refused".to_owned()));
    }

    #[test]
    fn a_refused_key_keeps_the_nodes_own_keys_and_a_deleted_node_does_not() {
        let forgets = |standing| matches!(standing, Standing::Stuck { forget: true, .. });
        let judge = |refusal, wants_person, expired| {
            Standing::judge(BackendState::NeedsLogin, refusal, wants_person, expired, None, false)
        };
        assert!(!forgets(judge(Some("the key was used"), false, false)));
        assert!(forgets(judge(None, true, false)));
        assert!(forgets(judge(None, false, true)));
        assert_eq!(
            judge(None, false, false),
            Standing::Stuck { reason: "there is no auth key".to_owned(), forget: false }
        );
    }
}
