//! OpenID tokens.

use crate::testing::*;
use crate::{Erase, OPENID_LIFETIME};

#[tokio::test]
async fn an_openid_token_names_its_user_until_it_expires() {
    let world = world();
    let (ann, bob) = (world.user("ann_b").await, world.user("bob").await);
    let token = world.accounts.openid_token(&ann.user_id);
    let token = token.expose().as_str();
    let whose = async |token: &str| world.accounts.openid_user(token).await.unwrap();
    assert_eq!(whose(token).await.as_ref(), Some(&ann.user_id));
    assert!(!world.works(token).await, "it opens no account");
    let later = token.replacen("_17", "_18", 1);
    let forged = [token.replace("ann_b", "bob"), later, format!("{token}x"), token[..token.len() - 1].to_owned()];
    for wrong in forged.iter().map(String::as_str).chain(["", "hro_", "hro___", "hro_0_0_0"]) {
        assert_eq!(whose(wrong).await, None, "{wrong}");
    }
    let of_bob = world.accounts.openid_token(&bob.user_id);
    world.accounts.deactivate(bob.user, Erase::No).await.unwrap();
    assert_eq!(whose(of_bob.expose()).await, None);
    world.clock.advance(OPENID_LIFETIME);
    assert_eq!(whose(token).await, None);
}
