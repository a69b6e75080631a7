//! User-interactive authentication: a request that needs more than an access token is answered with
//! the stages that are missing and repeated with them
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api)).
//!
//! A session belongs to one request (method, path, user, device, body): what was proven for one thing
//! proves nothing for another.

mod request;
mod sessions;

use hearth_store::StoreError;
use serde_json::{Value, json};

pub use request::{RequestDigest, StageData, UiaAttempt, UiaOperation, UiaRequest};
pub(crate) use sessions::UiaSessions;

use crate::names::login_candidates;
use crate::{Accounts, LoginError, Registration, Requester, StorageError, terms};

use sessions::Progress;

/// 143 random bits.
const SESSION_ID_CHARS: usize = 24;

/// A stage that this server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// `m.login.dummy`
    Dummy,
    /// `m.login.registration_token`
    RegistrationToken,
    /// `m.login.password`
    Password,
    /// `m.login.terms`
    Terms,
}

impl Stage {
    /// The spec's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dummy => "m.login.dummy",
            Self::RegistrationToken => "m.login.registration_token",
            Self::Password => "m.login.password",
            Self::Terms => "m.login.terms",
        }
    }
}

/// What became of an attempt.
#[derive(Clone, Debug)]
pub enum UiaOutcome {
    /// All stages of a flow are done: do it, then [`Accounts::uia_complete`].
    Complete(UiaComplete),
    /// Something is missing: answer 401 with this.
    Challenge(UiaChallenge),
}

/// An authentication that has succeeded.
#[derive(Clone, Debug)]
pub struct UiaComplete {
    /// The session, which stays until [`Accounts::uia_complete`], so that a request that fails for
    /// another reason (a name that is taken) can be repeated.
    pub session: String,
    /// The token shown at `m.login.registration_token`, for [`crate::NewAccount`].
    pub registration_token: Option<String>,
}

/// What a 401 says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UiaChallenge {
    /// The session to go on with.
    pub session: String,
    /// Any of these lists of stages will do, each in its order.
    pub flows: Vec<Vec<Stage>>,
    /// What has been done.
    pub completed: Vec<Stage>,
    /// What was wrong with this attempt, if there was one.
    pub failure: Option<StageFailure>,
    /// What clients need to know of a stage, by its name.
    pub params: Value,
}

impl UiaChallenge {
    /// The members `session`, `flows`, `completed` and `params` of the answer. `errcode` and `error`
    /// for a [`StageFailure`] are the caller's.
    pub fn body(&self) -> Value {
        let names = |stages: &[Stage]| stages.iter().map(|stage| stage.as_str()).collect::<Vec<_>>();
        let flows: Vec<_> = self.flows.iter().map(|stages| json!({ "stages": names(stages) })).collect();
        json!({ "session": self.session, "flows": flows, "completed": names(&self.completed), "params": self.params })
    }
}

/// Why a stage was not passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StageFailure {
    /// The password is not that of the user who asks.
    #[error("wrong password")]
    WrongPassword,
    /// The registration token is unknown, expired or used up.
    #[error("the registration token is not valid")]
    InvalidToken,
    /// The stage is in no flow, not yet its turn, or lacks its data.
    #[error("this stage is not available")]
    NotOffered,
}

/// Why an attempt was not looked at.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UiaError {
    /// `auth` is no object, or its members have the wrong types.
    #[error("`auth` is malformed")]
    BadAuth,
    /// The session is unknown or has ended: begin again without one.
    #[error("unknown session")]
    UnknownSession,
    /// The session belongs to another request.
    #[error("the session belongs to another request")]
    OtherRequest,
    /// The password is that of another user.
    #[error("the credentials are another user's")]
    OtherUser,
    /// Nobody can do this here.
    #[error("registration is closed")]
    Closed,
    /// Too many passwords wait to be checked: try later.
    #[error("the server is busy")]
    Busy,
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<StoreError> for UiaError {
    fn from(error: StoreError) -> Self {
        Self::Storage(error.into())
    }
}

impl Accounts {
    /// Judges the attempt that came with `request`; without one it begins a session.
    ///
    /// # Errors
    /// If the attempt could not be judged.
    pub async fn uia_advance(
        &self,
        request: &UiaRequest<'_>,
        attempt: Option<UiaAttempt>,
    ) -> Result<UiaOutcome, UiaError> {
        let flows = self.flows(request.operation)?;
        let (session, stage) = match attempt {
            None => (None, None),
            Some(UiaAttempt { session, stage }) => (session, stage),
        };
        let now = self.clock.now();
        // A first request may try a stage at once, without a session.
        let session = session.unwrap_or_else(|| {
            let id = self.random.alphanumeric(SESSION_ID_CHARS);
            self.uia.begin(id.clone(), request, now);
            id
        });
        let progress = self.uia.progress(&session, request, now)?;
        let Some(data) = stage else { return Ok(self.outcome(session, flows, progress, None)) };
        // A stage that was passed is not judged again.
        if data.stage().is_some_and(|stage| progress.completed.contains(&stage)) {
            return Ok(self.outcome(session, flows, progress, None));
        }
        let verdict = match data.stage() {
            Some(stage) if is_next(&flows, &progress.completed, stage) => self.judge(request.operation, data).await?,
            _ => Err(StageFailure::NotOffered),
        };
        let now = self.clock.now();
        match verdict {
            Ok((stage, token)) => {
                let progress = self.uia.complete_stage((&session, request), now, stage, token)?;
                Ok(self.outcome(session, flows, progress, None))
            }
            Err(failure) => {
                let progress = self.uia.fail_stage(&session, request, now)?;
                Ok(self.outcome(session, flows, progress, Some(failure)))
            }
        }
    }

    /// Ends the session of a request that has been done: it cannot be used again.
    pub fn uia_complete(&self, done: &UiaComplete) {
        self.uia.end(&done.session);
    }

    /// The flows that `operation` offers.
    fn flows(&self, operation: UiaOperation<'_>) -> Result<Vec<Vec<Stage>>, UiaError> {
        let terms = !self.settings.policies.is_empty();
        match (operation, self.settings.registration) {
            (UiaOperation::Account(_), _) => Ok(vec![vec![Stage::Password]]),
            (UiaOperation::Register, Registration::Open) if terms => Ok(vec![vec![Stage::Terms]]),
            (UiaOperation::Register, Registration::Open) => Ok(vec![vec![Stage::Dummy]]),
            (UiaOperation::Register, Registration::Token) if terms => {
                Ok(vec![vec![Stage::RegistrationToken, Stage::Terms]])
            }
            (UiaOperation::Register, Registration::Token) => Ok(vec![vec![Stage::RegistrationToken]]),
            (UiaOperation::Register, Registration::Closed) => Err(UiaError::Closed),
        }
    }

    fn outcome(
        &self,
        session: String,
        flows: Vec<Vec<Stage>>,
        progress: Progress,
        failure: Option<StageFailure>,
    ) -> UiaOutcome {
        let Progress { completed, registration_token } = progress;
        if flows.iter().any(|flow| flow.iter().all(|stage| completed.contains(stage))) {
            return UiaOutcome::Complete(UiaComplete { session, registration_token });
        }
        let offers_terms = flows.iter().flatten().any(|stage| *stage == Stage::Terms);
        let params = if offers_terms {
            json!({ Stage::Terms.as_str(): terms::params(&self.settings.policies) })
        } else {
            json!({})
        };
        UiaOutcome::Challenge(UiaChallenge { session, flows, completed, failure, params })
    }

    /// The stage passed, and the registration token if that was it.
    async fn judge(
        &self,
        operation: UiaOperation<'_>,
        data: StageData,
    ) -> Result<Result<(Stage, Option<String>), StageFailure>, UiaError> {
        Ok(match (data, operation) {
            (StageData::Dummy, _) => Ok((Stage::Dummy, None)),
            (StageData::Terms, _) => Ok((Stage::Terms, None)),
            (StageData::RegistrationToken(token), _) => {
                if self.registration_token_is_valid(&token).await? {
                    Ok((Stage::RegistrationToken, Some(token)))
                } else {
                    Err(StageFailure::InvalidToken)
                }
            }
            (StageData::Password { user, password }, UiaOperation::Account(requester)) => {
                if !self.means(requester, &user) {
                    return Err(UiaError::OtherUser);
                }
                match self.is_password_of(requester.user, &password).await {
                    Ok(true) => Ok((Stage::Password, None)),
                    Ok(false) => Err(StageFailure::WrongPassword),
                    Err(LoginError::Storage(error)) => return Err(error.into()),
                    Err(_) => return Err(UiaError::Busy),
                }
            }
            (StageData::Password { .. }, UiaOperation::Register) | (StageData::Unsupported, _) => {
                Err(StageFailure::NotOffered)
            }
        })
    }

    /// Whether somebody who types `user` means the requester.
    fn means(&self, requester: &Requester, user: &str) -> bool {
        login_candidates(user, &self.server_name).contains(&requester.user_id)
    }
}

/// Whether `stage` comes next in a flow whose earlier stages are done.
fn is_next(flows: &[Vec<Stage>], completed: &[Stage], stage: Stage) -> bool {
    flows.iter().any(|flow| flow.iter().find(|next| !completed.contains(next)) == Some(&stage))
}
