//! The scenarios, one file per theme.

mod accounts;
mod ephemeral;
mod fanout;
mod idle;
mod keys;
mod media;
mod rooms;
mod sending;
mod syncing;

use crate::client::{Fail, Res};
use crate::ctx::Ctx;
use serde_json::json;
use std::sync::Arc;

/// In the order in which "all" runs them: later ones use rooms of earlier ones.
pub(crate) const NAMES: &[&str] = &[
    "idle",
    "argon2id",
    "register",
    "login",
    "beside_register",
    "send_single_room",
    "send_many_rooms",
    "create_room",
    "messages_pagination",
    "search",
    "sync_fanout",
    "initial_sync",
    "incremental_sync_idle",
    "sliding_sync",
    "edus",
    "media",
    "keys",
    "to_device",
    "joins",
    "members",
    "state_fetch",
    "send_big_room",
    "after_run",
];

pub(crate) async fn run(ctx: &Arc<Ctx>, name: &str) {
    let r: Res<()> = match name {
        "idle" => idle::idle(ctx).await,
        "argon2id" => {
            accounts::argon2id(ctx);
            Ok(())
        }
        "register" => accounts::register(ctx).await,
        "login" => accounts::login(ctx).await,
        "beside_register" => accounts::beside_register(ctx).await,
        "after_run" => idle::after_run(ctx).await,
        "send_single_room" => sending::single_room(ctx).await,
        "send_many_rooms" => sending::many_rooms(ctx).await,
        "send_big_room" => sending::big(ctx).await,
        "create_room" => rooms::create_room(ctx).await,
        "messages_pagination" => rooms::pagination(ctx).await,
        "search" => rooms::search(ctx).await,
        "joins" => rooms::joins(ctx).await,
        "members" => rooms::members(ctx).await,
        "state_fetch" => rooms::state_fetch(ctx).await,
        "sync_fanout" => fanout::sync_fanout(ctx).await,
        "to_device" => fanout::to_device(ctx).await,
        "initial_sync" => syncing::initial(ctx).await,
        "incremental_sync_idle" => syncing::incremental_idle(ctx).await,
        "sliding_sync" => syncing::sliding(ctx).await,
        "edus" => ephemeral::edus(ctx).await,
        "media" => media::media(ctx).await,
        "keys" => keys::keys(ctx).await,
        _ => Err(Fail::Other("no such scenario (see --list)".into())),
    };
    match r {
        Ok(()) => {}
        Err(Fail::Unsupported(m)) => {
            eprintln!("[{name}] unsupported: {m}");
            ctx.emit(json!({"scenario": name, "unsupported": true}));
        }
        Err(Fail::Other(m)) => {
            eprintln!("[{name}] failed in setup: {m}");
            ctx.emit(json!({"scenario": name, "failed": m}));
        }
    }
}
