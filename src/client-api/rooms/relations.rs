//! `GET /rooms/{roomId}/relations/{eventId}/{relType}/{eventType}` and the same without the last one or
//! two segments.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_accounts::Requester;
use hearth_rooms::{Direction, RelationsQuery};
use hearth_sync::RoomSection;
use ruma_common::{OwnedEventId, OwnedRoomId};

use super::errors::hidden;
use super::messages::limit;
use super::render;
use super::screening::drop_ignored;
use crate::Api;
use crate::auth::Authed;
use crate::error::ApiError;
use crate::params::{Query, Segments};
use crate::reply;
use crate::tokens;

/// Children of any kind.
pub(crate) async fn of_event(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((room_id, event_id)): Segments<(OwnedRoomId, OwnedEventId)>,
    query: Query,
) -> Result<Response, ApiError> {
    answer(&api, &requester, &query, ask(&api, &query, room_id, event_id)?).await
}

/// Children with one relation type.
pub(crate) async fn with_relation(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((room_id, event_id, rel_type)): Segments<(OwnedRoomId, OwnedEventId, String)>,
    query: Query,
) -> Result<Response, ApiError> {
    let ask = RelationsQuery { rel_type: Some(rel_type), ..ask(&api, &query, room_id, event_id)? };
    answer(&api, &requester, &query, ask).await
}

/// Children with one relation type and one event type.
pub(crate) async fn with_type(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((room_id, event_id, rel_type, event_type)): Segments<(OwnedRoomId, OwnedEventId, String, String)>,
    query: Query,
) -> Result<Response, ApiError> {
    let ask = ask(&api, &query, room_id, event_id)?;
    let ask = RelationsQuery { rel_type: Some(rel_type), event_type: Some(event_type), ..ask };
    answer(&api, &requester, &query, ask).await
}

fn ask(api: &Api, query: &Query, room_id: OwnedRoomId, event_id: OwnedEventId) -> Result<RelationsQuery, ApiError> {
    let direction = query.choice("dir", &[("b", Direction::Backward), ("f", Direction::Forward)])?;
    Ok(RelationsQuery {
        room_id,
        event_id,
        rel_type: None,
        event_type: None,
        from: tokens::read(api, query, "from")?,
        to: tokens::read(api, query, "to")?,
        direction: direction.unwrap_or(Direction::Backward),
        limit: limit(query, &RoomSection::default())?.max(1),
        recurse: query.parse("recurse")?.unwrap_or(false),
    })
}

async fn answer(api: &Api, requester: &Requester, query: &Query, ask: RelationsQuery) -> Result<Response, ApiError> {
    let mut page = api.rooms.relations(&requester.user_id, &ask).await.map_err(hidden)?;
    drop_ignored(api, requester, &mut page.events).await?;
    let mut body = Vec::with_capacity(render::size(&page.events) + 128);
    body.extend_from_slice(br#"{"chunk":"#);
    render::array(api, requester, &page.events, &mut body).await?;
    // Tokens are made of letters, digits and _: nothing to escape.
    if let Some(next) = page.next {
        body.extend_from_slice(format!(r#","next_batch":"{}""#, tokens::write(api, next)).as_bytes());
    }
    if let Some(from) = query.get("from").and(ask.from) {
        body.extend_from_slice(format!(r#","prev_batch":"{}""#, tokens::write(api, from)).as_bytes());
    }
    if let Some(depth) = page.recursion_depth {
        body.extend_from_slice(format!(r#","recursion_depth":{depth}"#).as_bytes());
    }
    body.push(b'}');
    Ok(reply::raw(body))
}
