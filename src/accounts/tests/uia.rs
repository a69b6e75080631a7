//! User-interactive authentication. Row F1 of the attack classes.

use std::time::Duration;

use serde_json::{Value, json};

use crate::testing::*;
use crate::{
    AccountsSettings, NewRegistrationToken, Registration, RequestDigest, Requester, Stage, StageFailure, UiaAttempt,
    UiaChallenge, UiaComplete, UiaError, UiaOperation, UiaOutcome, UiaRequest,
};

const REGISTER: UiaRequest<'static> = UiaRequest {
    operation: UiaOperation::Register,
    method: "POST",
    path: "/_matrix/client/v3/register",
    body: RequestDigest::unbound(),
};

fn delete_device<'a>(requester: &'a Requester, path: &'a str) -> UiaRequest<'a> {
    let operation = UiaOperation::Account(requester);
    UiaRequest { operation, method: "DELETE", path, body: RequestDigest::of(&json!({})) }
}

fn password(user: &str, password: &str, session: &str) -> Value {
    let identifier = json!({"type": "m.id.user", "user": user});
    json!({"type": "m.login.password", "identifier": identifier, "password": password, "session": session})
}

impl World {
    async fn try_uia(&self, request: &UiaRequest<'_>, auth: Value) -> Result<UiaOutcome, UiaError> {
        self.accounts.uia_advance(request, UiaAttempt::parse(Some(&auth))?).await
    }

    async fn challenge(&self, request: &UiaRequest<'_>, auth: Value) -> UiaChallenge {
        match self.try_uia(request, auth).await.unwrap() {
            UiaOutcome::Challenge(challenge) => challenge,
            UiaOutcome::Complete(_) => panic!("not expected to succeed"),
        }
    }

    async fn complete(&self, request: &UiaRequest<'_>, auth: Value) -> UiaComplete {
        match self.try_uia(request, auth).await.unwrap() {
            UiaOutcome::Complete(complete) => complete,
            UiaOutcome::Challenge(challenge) => panic!("{challenge:?}"),
        }
    }
}

#[tokio::test]
async fn open_registration_asks_for_the_dummy_stage() {
    let world = world();
    let challenge = world.challenge(&REGISTER, json!(null)).await;
    assert_eq!(
        challenge.body(),
        json!({
            "session": challenge.session,
            "flows": [{"stages": ["m.login.dummy"]}],
            "completed": [],
            "params": {},
        })
    );
    let auth = json!({"type": "m.login.dummy", "session": challenge.session});
    let done = world.complete(&REGISTER, auth.clone()).await;
    // The account did not come about (a name that was taken): the same session will do again.
    assert_eq!(world.complete(&REGISTER, auth.clone()).await.session, done.session);
    world.accounts.uia_complete(&done);
    assert!(matches!(world.try_uia(&REGISTER, auth).await, Err(UiaError::UnknownSession)));
}

#[tokio::test]
async fn a_first_request_may_bring_its_stage_along() {
    let world = world();
    world.complete(&REGISTER, json!({"type": "m.login.dummy"})).await;
}

#[tokio::test]
async fn nobody_registers_where_registration_is_closed() {
    let world = world_with(AccountsSettings { registration: Registration::Closed, ..settings() });
    assert!(matches!(world.try_uia(&REGISTER, json!(null)).await, Err(UiaError::Closed)));
    let dummy = json!({"type": "m.login.dummy"});
    assert!(matches!(world.try_uia(&REGISTER, dummy).await, Err(UiaError::Closed)));
}

#[tokio::test]
async fn a_registration_token_is_asked_for_and_handed_on() {
    let world = world_with(AccountsSettings { registration: Registration::Token, ..settings() });
    let wish = NewRegistrationToken { token: Some("invite".into()), uses_allowed: Some(1), expires_at: None };
    world.accounts.create_registration_token(wish).await.unwrap();
    let session = world.challenge(&REGISTER, json!(null)).await.session;
    let auth = |kind: &str, token: &str| json!({"type": kind, "token": token, "session": session});
    let wrong = world.challenge(&REGISTER, auth("m.login.registration_token", "wrong")).await;
    assert_eq!(wrong.failure, Some(StageFailure::InvalidToken));
    let dummy = world.challenge(&REGISTER, auth("m.login.dummy", "")).await;
    assert_eq!(dummy.failure, Some(StageFailure::NotOffered));
    assert_eq!(dummy.completed, []);
    let done = world.complete(&REGISTER, auth("m.login.registration_token", "invite")).await;
    let account = crate::NewAccount { registration_token: done.registration_token.clone(), ..new_account("ann") };
    world.accounts.register(account.clone()).await.unwrap();
    // The stage was passed, but the token is used up: the account is what counts.
    let again = crate::NewAccount { localpart: Some("bob".into()), ..account };
    assert!(matches!(world.accounts.register(again).await, Err(crate::RegisterError::InvalidToken)));
}

#[tokio::test]
async fn the_own_password_is_asked_for_and_no_other_counts() {
    let world = world();
    let (ann, _bob) = (world.user("ann").await, world.user("bob").await);
    let request = delete_device(&ann, "/devices/A");
    let challenge = world.challenge(&request, json!({})).await;
    assert_eq!(challenge.flows, [[Stage::Password]]);
    let session = challenge.session;
    for secret in ["wrong", ""] {
        let wrong = world.challenge(&request, password("ann", secret, &session)).await;
        assert_eq!(wrong.failure, Some(StageFailure::WrongPassword), "{secret}");
        assert_eq!((wrong.session, wrong.completed), (session.clone(), vec![]));
    }
    for user in ["bob", "nobody", ""] {
        let other = world.try_uia(&request, password(user, PASSWORD, &session)).await;
        assert!(matches!(other, Err(UiaError::OtherUser)), "{user}");
    }
    let dummy = world.challenge(&request, json!({"type": "m.login.dummy", "session": session})).await;
    assert_eq!(dummy.failure, Some(StageFailure::NotOffered));
    let done = world.complete(&request, password("@ann:hs.test", PASSWORD, &session)).await;
    // How things stand is told to whoever asks with the session.
    world.complete(&request, json!({"session": session})).await;
    world.accounts.uia_complete(&done);
}

#[tokio::test]
async fn a_session_serves_the_request_it_was_made_for_and_no_other() {
    let world = world();
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let phone = world.token("ann", "PHONE").await;
    let phone = world.accounts.authenticate(&phone).await.unwrap().unwrap();
    let request = delete_device(&ann, "/devices/A");
    let session = world.challenge(&request, json!({})).await.session;
    world.complete(&request, password("ann", PASSWORD, &session)).await;
    let others = [
        UiaRequest { method: "POST", ..request.clone() },
        UiaRequest { path: "/account/deactivate", ..request.clone() },
        UiaRequest { path: "/devices/B", ..request.clone() },
        UiaRequest { body: RequestDigest::of(&json!({"devices": ["B"]})), ..request.clone() },
        UiaRequest { operation: UiaOperation::Account(&phone), ..request.clone() },
        UiaRequest { operation: UiaOperation::Account(&bob), ..request.clone() },
        REGISTER,
    ];
    for other in others {
        for auth in [json!({"session": session}), password("ann", PASSWORD, &session)] {
            assert!(matches!(world.try_uia(&other, auth).await, Err(UiaError::OtherRequest)), "{other:?}");
        }
    }
    world.complete(&request, json!({"session": session})).await;
    // What was done in one session does not count in another.
    let second = world.challenge(&request, json!({})).await;
    assert_ne!(second.session, session);
    assert_eq!(world.challenge(&request, json!({"session": second.session})).await.completed, []);
}

#[tokio::test]
async fn a_session_ends_after_a_quarter_of_an_hour() {
    let world = world();
    let ann = world.user("ann").await;
    let request = delete_device(&ann, "/devices/A");
    let session = world.challenge(&request, json!({})).await.session;
    world.complete(&request, password("ann", PASSWORD, &session)).await;
    world.clock.advance(Duration::from_secs(15 * 60 - 1));
    world.complete(&request, json!({"session": session})).await;
    world.clock.advance(Duration::from_secs(1));
    for auth in [json!({"session": session}), password("ann", PASSWORD, &session)] {
        assert!(matches!(world.try_uia(&request, auth).await, Err(UiaError::UnknownSession)));
    }
}

#[tokio::test]
async fn guessing_ends_with_the_session() {
    let world = world();
    let ann = world.user("ann").await;
    let request = delete_device(&ann, "/devices/A");
    let session = world.challenge(&request, json!({})).await.session;
    for _ in 0..10 {
        world.challenge(&request, password("ann", "guess", &session)).await;
    }
    let right = world.try_uia(&request, password("ann", PASSWORD, &session)).await;
    assert!(matches!(right, Err(UiaError::UnknownSession)));
}

#[tokio::test]
async fn malformed_and_unknown_attempts_are_refused() {
    let world = world();
    for bad in [json!([]), json!("x"), json!(true), json!({"session": {}}), json!({"type": 1})] {
        assert!(matches!(world.try_uia(&REGISTER, bad.clone()).await, Err(UiaError::BadAuth)), "{bad}");
    }
    for session in ["", "unknown", "\0", &"x".repeat(10_000)] {
        let auth = json!({"session": session, "type": "m.login.dummy"});
        assert!(matches!(world.try_uia(&REGISTER, auth).await, Err(UiaError::UnknownSession)), "{session}");
    }
    for kind in ["m.login.unknown", "m.login.sso", "", "m.login.password"] {
        let challenge = world.challenge(&REGISTER, json!({"type": kind})).await;
        assert_eq!(challenge.failure, Some(StageFailure::NotOffered), "{kind}");
    }
}
