use std::time::Duration;

use http::StatusCode;
use tailnet::{Refusal, RefusalKind};

use crate::authority::AuthorityError;
use crate::machine;
use crate::store::StoreError;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The tailnet refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is no such tailnet.
    #[error("there is no such tailnet")]
    NoTailnet,
    /// It could not be written down.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A certificate could not be made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The server stops.
    #[error("the server is stopping; try again in a few seconds")]
    Stopped,
}

/// After how many seconds it is worth to try again what could not be written, or not be done just now.
const RETRY: u32 = 5;

impl Failure {
    /// The HTTP status that says it.
    fn status(&self) -> StatusCode {
        match self {
            Self::Refused(refusal) => match refusal.kind() {
                RefusalKind::Invalid => StatusCode::BAD_REQUEST,
                RefusalKind::Unauthenticated => StatusCode::UNAUTHORIZED,
                RefusalKind::Forbidden => StatusCode::FORBIDDEN,
                RefusalKind::Absent => StatusCode::NOT_FOUND,
                RefusalKind::Conflict => StatusCode::CONFLICT,
                RefusalKind::Precondition => StatusCode::PRECONDITION_FAILED,
                RefusalKind::Exhausted => StatusCode::INSUFFICIENT_STORAGE,
                RefusalKind::TooOften => StatusCode::TOO_MANY_REQUESTS,
            },
            Self::NoTailnet => StatusCode::NOT_FOUND,
            Self::Store(_) | Self::Stopped => StatusCode::SERVICE_UNAVAILABLE,
            Self::Authority(AuthorityError::Request(_) | AuthorityError::Foreign { .. }) => StatusCode::BAD_REQUEST,
            Self::Authority(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What a stranger is told: paths and causes within the server are for its log.
    fn text(&self) -> String {
        match self {
            Self::Store(StoreError::Locked | StoreError::Full { .. }) => {
                "the server can't write right now, so nothing was changed; it is tried again by itself".to_owned()
            }
            Self::Store(_) => "the server can't write to its database, so nothing was changed; see its log".to_owned(),
            Self::Authority(error) if self.status().is_server_error() => {
                tracing::error!(%error, "a certificate could not be made");
                "the server's certificate authority can't be used; see the server's log".to_owned()
            }
            other => other.to_string(),
        }
    }

    fn retry_after(&self) -> Option<u32> {
        match self {
            Self::Store(_) | Self::Stopped | Self::Refused(Refusal::TailnetChanged) => Some(RETRY),
            Self::Refused(Refusal::DescribedTooOften { seconds, .. }) => Some(*seconds),
            Self::Refused(_) | Self::NoTailnet | Self::Authority(_) => None,
        }
    }
}

impl From<Failure> for machine::Refusal {
    fn from(failure: Failure) -> Self {
        let retry_after = failure.retry_after().map(|seconds| Duration::from_secs(seconds.into()));
        Self { status: failure.status(), text: failure.text(), retry_after }
    }
}

impl From<Failure> for api::ApiError {
    fn from(failure: Failure) -> Self {
        let data = match &failure {
            Failure::Refused(refusal) => findings(refusal),
            _ => Vec::new(),
        };
        let retry_after = failure.retry_after();
        Self { retry_after, ..Self::new(failure.status(), failure.text()).with_data(data) }
    }
}

/// The tests of a policy that failed, in the words of the API.
pub(crate) fn findings(refusal: &Refusal) -> Vec<api::Finding> {
    let Refusal::BadPolicy(::policy::PolicyError::Tests(failed)) = refusal else { return Vec::new() };
    failed
        .iter()
        .map(|test| api::Finding { user: test.user.clone(), errors: test.errors.clone(), warnings: Vec::new() })
        .collect()
}
