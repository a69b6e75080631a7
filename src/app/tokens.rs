//! `hearth registration-token`: works on the store itself, so the server must be stopped.

use std::fmt::Write as _;
use std::time::Duration;

use hearth_accounts::{Accounts, NewRegistrationToken, RegistrationTokenError};
use hearth_base::{Clock as _, SystemClock};
use hearth_settings::Settings;

use crate::cli::TokenAction;
use crate::exit::{Code, Failure};
use crate::graph;
use crate::open::{self, Rollback};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Does what `action` says and prints the result.
pub(crate) fn run(settings: &Settings, action: TokenAction) -> Result<(), Failure> {
    open::prepare_directory(settings)?;
    let store = open::store(settings, Rollback::Refuse).map_err(|failure| match failure.code {
        Code::Busy => Failure::new(
            Code::Busy,
            format!("{failure}. Stop the server first, or add the token to registration.tokens_file and restart it"),
        ),
        _ => failure,
    })?;
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Failure::new(Code::Io, format!("cannot start threads: {error}")))?;
    let accounts = graph::accounts_only(settings, &store)?;
    let text = runtime.block_on(act(&accounts, action))?;
    drop(accounts);
    store.shutdown().map_err(|error| Failure::new(Code::Io, error))?;
    crate::print(&text)
}

async fn act(accounts: &Accounts, action: TokenAction) -> Result<String, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(Code::Io, error);
    match action {
        TokenAction::Create { token, uses, days } => {
            let expires_at = days.map(|days| SystemClock.now().plus(DAY * days));
            let wish = NewRegistrationToken { token, uses_allowed: uses, expires_at };
            let token = accounts.create_registration_token(wish).await.map_err(|error| match error {
                RegistrationTokenError::Storage(error) => failed(&error),
                refused => Failure::new(Code::Refused, refused),
            })?;
            Ok(format!("{token}\n"))
        }
        TokenAction::List => {
            let tokens = accounts.registration_tokens().await.map_err(|error| failed(&error))?;
            // Tokens themselves are not stored.
            let mut text = String::from("used  allowed  expires (ms)   hash\n");
            for token in tokens {
                let allowed = token.uses_allowed.map_or_else(|| "any".to_owned(), |uses| uses.to_string());
                let expires = token.expires_at.map_or_else(|| "never".to_owned(), |at| at.0.to_string());
                let _ = writeln!(text, "{:>4}  {allowed:>7}  {expires:<13}  {:?}", token.used, token.key);
            }
            Ok(text)
        }
        TokenAction::Delete { token } => {
            if accounts.delete_registration_token(&token).await.map_err(|error| failed(&error))? {
                Ok("deleted\n".to_owned())
            } else {
                Err(Failure::new(Code::Refused, "there is no such token"))
            }
        }
    }
}
