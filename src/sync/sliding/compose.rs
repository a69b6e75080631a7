//! One answer: which rooms are in it, what else, and the JSON around them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::begin;
use super::connection::{Added, Sent};
use super::list::Wishes;
use super::request::SlidingBody;
use super::room::Told;
use crate::account_data::content;
use crate::answer::{Answer, Scope};
use crate::filter::Filter;
use crate::json::{self, Parts};
use crate::live::LiveUser;
use crate::presence::PresenceNews;
use crate::token::{Incarnation, SlidingToken, Token};
use crate::v3::{Inner, MAX_VIEWS, UseStateAfter};
use futures::{StreamExt, TryStreamExt, stream};
use hearth_accounts::{Requester, Screening};
use hearth_base::Millis;
use hearth_rooms::Rooms;
use hearth_schema::AccountData;
use hearth_store::{Pos, StoreError, View};

/// Rooms put together at the same time.
const CONCURRENT: usize = 8;

/// An answer.
pub(super) struct Composed {
    pub bytes: Vec<u8>,
    /// Nothing is new.
    pub empty: bool,
    /// The number of its `pos`.
    pub number: u64,
    /// What the connection has with it.
    pub added: Added,
    /// The version of typing up to which everything is told.
    pub typing: u64,
}

/// An answer in the making: everything after what was sent, up to `until`.
pub(super) struct Slide<'a> {
    pub rooms: &'a Rooms,
    pub who: &'a Requester,
    pub user: &'a LiveUser,
    pub body: &'a SlidingBody,
    pub sent: &'a Sent,
    /// At or after `until`.
    pub view: View,
    pub until: Pos,
    pub incarnation: Incarnation,
    pub now: Millis,
    /// Whom the user does not want to hear from.
    pub screening: Arc<Screening>,
    /// Rooms that are direct chats, as the user's account data says.
    pub direct: HashSet<String>,
}

impl Inner {
    /// Puts an answer together. A view may expire under a long one; a new view is as good.
    pub(super) async fn compose(
        &self,
        who: &Requester,
        user: &LiveUser,
        body: &SlidingBody,
        sent: &Sent,
    ) -> Result<Composed, StoreError> {
        let mut attempts = 0;
        loop {
            let number = self.connections.number();
            match self.compose_once(who, user, (body, number), sent).await {
                Err(StoreError::SnapshotExpired) if attempts < MAX_VIEWS => attempts += 1,
                other => return other,
            }
        }
    }

    async fn compose_once(
        &self,
        who: &Requester,
        user: &LiveUser,
        (body, number): (&SlidingBody, u64),
        sent: &Sent,
    ) -> Result<Composed, StoreError> {
        let typing = self.live.typing();
        let until = self.live.processed().max(sent.until);
        let view = self.rooms.view().await?;
        let screening = self.accounts.screening_kept(who.user, &user.screening).await?;
        let row = view.get::<AccountData>(&(who.user, String::new(), "m.direct".to_owned())).await?;
        let direct = row.map(|row| direct_rooms(&row.json)).transpose()?.unwrap_or_default();
        let (rooms, incarnation, now) = (&self.rooms, self.incarnation, self.clock.now());
        let slide = Slide { rooms, who, user, body, sent, view, until, incarnation, now, screening, direct };
        let (bytes, empty, added) = slide.write(number).await?;
        Ok(Composed { bytes, empty, number, added, typing })
    }
}

impl Slide<'_> {
    /// An answer about one room, as `/v3/sync` gives it, since what the connection has of it.
    pub(super) fn answer<'f>(&'f self, filter: &'f Filter, since: Option<Pos>) -> Answer<'f> {
        let token = |pos| Token { incarnation: self.incarnation, pos, typing: 0, presence: 0 };
        Answer {
            rooms: self.rooms,
            who: self.who,
            user: self.user,
            view: self.view.clone(),
            counted: self.until,
            scope: Scope { filter, full_state: false, state_after: UseStateAfter::Yes },
            since: since.map(token),
            until: token(self.until),
            now: self.now,
            presence: PresenceNews::default(),
            screening: Arc::clone(&self.screening),
        }
    }

    /// The JSON, whether it says nothing new, and what the connection has with it.
    async fn write(&self, number: u64) -> Result<(Vec<u8>, bool, Added), StoreError> {
        let wishes = self.wishes().await?;
        // Not a closure within the stream: the compiler could not see that the answer is `Send`.
        let answers: Vec<_> = wishes.rooms.iter().map(|ruled| self.room(ruled)).collect();
        let told: Vec<Option<Told>> = stream::iter(answers).buffered(CONCURRENT).try_collect().await?;
        let told: Vec<Told> = told.into_iter().flatten().collect();
        let mut added = Added {
            until: self.until,
            account_data: self.sent.account_data,
            threads: self.sent.threads,
            rooms: told.iter().map(|told| (told.room, told.sent.clone())).collect::<HashMap<_, _>>(),
            rules: wishes.rules.clone(),
        };
        let extensions = self.extensions((&wishes, &told), &mut added).await?;
        let empty = extensions.empty && told.iter().all(|told| told.json.is_none());
        let rooms: usize = told.iter().map(|told| told.json.as_ref().map_or(0, |json| json.len() + 80)).sum();
        let mut out = Vec::with_capacity(256 + extensions.json.len() + rooms);
        let at = Token::pagination(self.incarnation, self.until);
        begin(&SlidingToken { number, at }, self.body, &mut out);
        write_rooms((&wishes, &told), &mut out);
        out.extend_from_slice(b",\"extensions\":{");
        out.extend_from_slice(&extensions.json);
        out.extend_from_slice(b"}}");
        Ok((out, empty, added))
    }
}

fn write_rooms((wishes, told): (&Wishes<'_>, &[Told]), out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"lists\":");
    let mut lists = Parts::open(b'{', out);
    for (name, count) in &wishes.counts {
        let out = lists.key(name, out);
        out.extend_from_slice(b"{\"count\":");
        json::display(count, out);
        out.push(b'}');
    }
    out.extend_from_slice(b"},\"rooms\":");
    let mut rooms = Parts::open(b'{', out);
    for told in told {
        if let Some(json) = &told.json {
            rooms.key(&told.room_id, out).extend_from_slice(json);
        }
    }
    out.push(b'}');
}

/// The rooms that `m.direct` lists; what users store there may be anything.
fn direct_rooms(json: &str) -> Result<HashSet<String>, StoreError> {
    let content = content(json)?;
    let lists = content.as_object().into_iter().flatten().filter_map(|(_, rooms)| rooms.as_array());
    Ok(lists.flatten().filter_map(|room| room.as_str().map(str::to_owned)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn direct_chats_are_read_from_whatever_is_stored() {
        let found = direct_rooms(r#"{"@a:x":["!1:x","!2:x",7],"@b:x":"!3:x","@c:x":["!4:x"]}"#);
        assert_eq!(found.expect("JSON"), ["!1:x", "!2:x", "!4:x"].map(str::to_owned).into());
        assert!(direct_rooms("[]").expect("JSON").is_empty());
        let damage = direct_rooms("{");
        assert!(matches!(damage, Err(StoreError::Corrupt { .. })), "a damaged row is not a row that says nothing");
    }
}
