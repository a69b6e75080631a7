//! Account data: what clients keep with the account, global or for a room.
//!
//! Each change writes the item, moves its row in the log by position (so that there is one log row an
//! item) and adds a fact to the change log, in one batch.
//!
//! A deleted item keeps its row, with the content `{}`, so that devices that were away hear of it once
//! from an incremental /sync; everybody else is told that there is no such item. Therefore storing
//! `{}` is deleting. Such rows do not count against the user's limit; when there are as many rows again
//! as the limit, those of deleted items go, and a device that was away for so long does not hear of them.

use std::collections::BTreeSet;
use std::ops::{Bound, ControlFlow};

use hearth_schema::{AccountData, AccountDataEntry, AccountDataLog, Change, UserNid, Users};
use hearth_store::{Batch, Order, Pos, StoreError, View};
use ruma_common::{OwnedRoomId, RoomId};

use crate::devices::change_user;
use crate::register::lane;
use crate::write::{Attempts, row_of};
use crate::{Accounts, StorageError, screening};

/// Bytes of one item's content.
pub const MAX_ACCOUNT_DATA_BYTES: usize = 64 * 1024;
/// Items a user may have, rooms' items included; read markers do not count, because the server bounds
/// them by the user's rooms.
pub const MAX_ACCOUNT_DATA_ENTRIES: u32 = 1000;
/// Rows a user may have, those of deleted items included.
const MAX_ROWS: u32 = 2 * MAX_ACCOUNT_DATA_ENTRIES;
/// Bytes of an item's type.
const MAX_TYPE_BYTES: usize = 255;
const READ_MARKER: &str = "m.fully_read";
/// The content of an item that was deleted.
const DELETED: &str = "{}";
/// Rows read at a time.
const PAGE: usize = 128;

/// An item to store.
#[derive(Clone, Debug)]
pub struct NewAccountData {
    /// The room it belongs to; `None`: global.
    pub room: Option<OwnedRoomId>,
    /// Its type.
    pub kind: String,
    /// Its content: a JSON object, which the caller has parsed.
    pub json: String,
}

/// A stored item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountDataItem {
    /// The room's ID, `""` for a global item.
    pub room: String,
    /// Its type.
    pub kind: String,
    /// Its content.
    pub json: String,
}

/// Why an item was not stored.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AccountDataError {
    /// The content or the type is too long.
    #[error("{0}")]
    TooLarge(&'static str),
    /// The user has [`MAX_ACCOUNT_DATA_ENTRIES`] items.
    #[error("too many kinds of account data")]
    TooMany,
    /// The name of a room's tag is empty or too long.
    #[error("a tag has 1 to 255 bytes")]
    BadTag,
    /// The room has [`crate::MAX_TAGS`] tags.
    #[error("too many tags")]
    TooManyTags,
    /// Nobody can ignore oneself.
    #[error("you cannot ignore yourself")]
    IgnoresItself,
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<StoreError> for AccountDataError {
    fn from(error: StoreError) -> Self {
        Self::Storage(error.into())
    }
}

impl Accounts {
    /// The content of one item; `None` if it is not there or was deleted.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn account_data(
        &self,
        user: UserNid,
        room: Option<&RoomId>,
        kind: &str,
    ) -> Result<Option<String>, StoreError> {
        let row = self.view().await?.get::<AccountData>(&(user, room_key(room), kind.to_owned())).await?;
        Ok(row.map(|row| row.json).filter(|json| !is_empty_object(json)))
    }

    /// Stores an item and gives its position.
    ///
    /// # Errors
    /// If nothing has changed.
    pub async fn set_account_data(&self, user: UserNid, data: NewAccountData) -> Result<Pos, AccountDataError> {
        if data.room.is_none() && screening::ignores_itself(&self.ids, user, &data.kind, &data.json) {
            return Err(AccountDataError::IgnoresItself);
        }
        let key = (user, room_key(data.room.as_deref()), data.kind);
        let mut attempts = Attempts::default();
        loop {
            let view = self.view().await?;
            let old = view.get::<AccountData>(&key).await?;
            if let Some(pos) = self.try_put(&view, &mut attempts, &key, (old, data.json.clone())).await? {
                return Ok(pos);
            }
        }
    }

    /// Changes an item with nothing in between: `edit` gets the content (`None`: there is none, or it
    /// was deleted) and gives the new one, or `None` to leave it. It is called again if somebody else
    /// was faster. Gives the position of the change.
    ///
    /// # Errors
    /// Those of `edit`, and if nothing has changed.
    pub(crate) async fn edit_account_data<E, F>(
        &self,
        user: UserNid,
        (room, kind): (Option<&RoomId>, &str),
        edit: F,
    ) -> Result<Option<Pos>, E>
    where
        E: From<AccountDataError>,
        F: Fn(Option<&str>) -> Result<Option<String>, E> + Send + Sync,
    {
        let key = (user, room_key(room), kind.to_owned());
        let mut attempts = Attempts::default();
        loop {
            let view = self.view().await.map_err(AccountDataError::from)?;
            let old = view.get::<AccountData>(&key).await.map_err(AccountDataError::from)?;
            let content = old.as_ref().map(|row| row.json.as_str()).filter(|json| !is_empty_object(json));
            let Some(json) = edit(content)? else { return Ok(None) };
            if let Some(pos) = self.try_put(&view, &mut attempts, &key, (old, json)).await? {
                return Ok(Some(pos));
            }
        }
    }

    /// Stores an item if its content is still `expected` (`None`: there is none); `false`: it is not.
    ///
    /// # Errors
    /// See [`AccountDataError`]; nothing is stored then.
    pub async fn replace_account_data(
        &self,
        user: UserNid,
        data: NewAccountData,
        expected: Option<&str>,
    ) -> Result<bool, AccountDataError> {
        let replace = |found: Option<&str>| Ok::<_, AccountDataError>((found == expected).then(|| data.json.clone()));
        Ok(self.edit_account_data(user, (data.room.as_deref(), &data.kind), replace).await?.is_some())
    }

    /// Deletes an item; `false`: there was none.
    ///
    /// # Errors
    /// If nothing has changed.
    pub async fn delete_account_data(
        &self,
        user: UserNid,
        room: Option<&RoomId>,
        kind: &str,
    ) -> Result<bool, AccountDataError> {
        let delete = |content: Option<&str>| Ok::<_, AccountDataError>(content.map(|_| DELETED.to_owned()));
        Ok(self.edit_account_data(user, (room, kind), delete).await?.is_some())
    }

    /// One try to put `json` in the place of `old`; `None`: somebody else was faster.
    async fn try_put(
        &self,
        view: &View,
        attempts: &mut Attempts,
        key: &Key,
        (old, json): (Option<AccountDataEntry>, String),
    ) -> Result<Option<Pos>, AccountDataError> {
        let (user, room, kind) = key;
        if json.len() > MAX_ACCOUNT_DATA_BYTES {
            return Err(AccountDataError::TooLarge("account data has at most 65536 bytes"));
        }
        if kind.len() > MAX_TYPE_BYTES {
            return Err(AccountDataError::TooLarge("a type has at most 255 bytes"));
        }
        let mut batch = Batch::new(lane(*user));
        if !is_read_marker(key) {
            let was = old.as_ref().map(|row| !is_empty_object(&row.json));
            count(&mut batch, view, *user, (was, !is_empty_object(&json))).await?;
        }
        let pos = put_item(&mut batch, key, old.as_ref(), json);
        let committed = if screening::decides(room, kind) {
            attempts.commit_screening(self, batch, *user).await?
        } else {
            attempts.commit(self, batch).await?
        };
        Ok(committed.map(|committed| committed.resolve(pos)))
    }

    /// Items of `user` that changed after `from` and not after `upto`, oldest change first.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn account_data_since(
        &self,
        user: UserNid,
        from: Pos,
        upto: Pos,
    ) -> Result<Vec<AccountDataItem>, StoreError> {
        account_data_since(&self.view().await?, user, from, upto).await
    }

    /// All items of `user` but the deleted ones.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn all_account_data(&self, user: UserNid) -> Result<Vec<AccountDataItem>, StoreError> {
        all_account_data(&self.view().await?, user).await
    }
}

/// Items of `user` in `view` that changed after `from` and not after `upto`, oldest change first.
///
/// # Errors
/// If the store cannot be read.
pub async fn account_data_since(
    view: &View,
    user: UserNid,
    from: Pos,
    upto: Pos,
) -> Result<Vec<AccountDataItem>, StoreError> {
    let mut items = Vec::new();
    let mut after = from;
    // Ends: there is one log row an item, and `after` grows.
    loop {
        let window = (Bound::Excluded(after), Bound::Included(upto));
        let log = view.page_between::<AccountDataLog, _>(&(user,), window, Order::Ascending, PAGE).await?;
        let Some(((_, last), _)) = log.last() else { return Ok(items) };
        after = *last;
        let complete = log.len() < PAGE;
        let keys: Vec<_> = log.into_iter().map(|(_, (room, kind))| (user, room, kind)).collect();
        let rows = view.get_many::<AccountData>(&keys).await?;
        for ((_, room, kind), row) in keys.into_iter().zip(rows) {
            let row: AccountDataEntry = row_of(row, "AccountData")?;
            items.push(AccountDataItem { room, kind, json: row.json });
        }
        if complete {
            return Ok(items);
        }
    }
}

/// All items of `user` in `view` but the deleted ones: global ones first, then room by room.
///
/// # Errors
/// If the store cannot be read.
pub async fn all_account_data(view: &View, user: UserNid) -> Result<Vec<AccountDataItem>, StoreError> {
    let mut items = Vec::new();
    view.scan::<AccountData, _>(&(user,), Order::Ascending, PAGE, |(_, room, kind), row| {
        if !is_empty_object(&row.json) {
            items.push(AccountDataItem { room, kind, json: row.json });
        }
        ControlFlow::Continue(())
    })
    .await?;
    Ok(items)
}

/// Items of `user` in `view` that belong to `room`, but the deleted ones.
///
/// # Errors
/// If the store cannot be read.
pub async fn account_data_of_room(view: &View, user: UserNid, room: &str) -> Result<Vec<AccountDataItem>, StoreError> {
    let mut items = Vec::new();
    let prefix = (user, room.to_owned());
    view.scan::<AccountData, _>(&prefix, Order::Ascending, PAGE, |(_, room, kind), row| {
        if !is_empty_object(&row.json) {
            items.push(AccountDataItem { room, kind, json: row.json });
        }
        ControlFlow::Continue(())
    })
    .await?;
    Ok(items)
}

type Key = (UserNid, String, String);

/// The room's part of the key.
fn room_key(room: Option<&RoomId>) -> String {
    room.map_or_else(String::new, ToString::to_string)
}

/// Whether the JSON object `json` has no members, which means deleted.
fn is_empty_object(json: &str) -> bool {
    let inside = json.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    inside.is_some_and(|members| members.trim().is_empty())
}

/// Counts an item that appears, comes back or goes. `was` is `None` if it has no row, else whether it was
/// there; `is` whether it will be.
async fn count(
    batch: &mut Batch,
    view: &View,
    user: UserNid,
    (was, is): (Option<bool>, bool),
) -> Result<(), AccountDataError> {
    if was == Some(is) {
        return Ok(());
    }
    let row = row_of(view.get::<Users>(&(user,)).await?, "Users")?;
    let mut counted = row.clone();
    match (was == Some(true), is) {
        (false, true) if row.account_data >= MAX_ACCOUNT_DATA_ENTRIES => return Err(AccountDataError::TooMany),
        (false, true) => counted.account_data += 1,
        (true, false) => counted.account_data = row.account_data.saturating_sub(1),
        _ => {}
    }
    if was.is_none() {
        if row.account_data_rows >= MAX_ROWS {
            counted.account_data_rows = row.account_data_rows.saturating_sub(drop_deleted(batch, view, user).await?);
        }
        counted.account_data_rows += 1;
    }
    change_user(batch, user, &row, counted);
    Ok(())
}

/// Takes the rows of deleted items away: gives how many there were that count.
async fn drop_deleted(batch: &mut Batch, view: &View, user: UserNid) -> Result<u32, StoreError> {
    let mut deleted = Vec::new();
    view.scan::<AccountData, _>(&(user,), Order::Ascending, PAGE, |key, row| {
        if is_empty_object(&row.json) && !is_read_marker(&key) {
            deleted.push((key, row));
        }
        ControlFlow::Continue(())
    })
    .await?;
    let mut dropped = 0;
    for (key, row) in deleted {
        batch.check::<AccountData>(&key, Some(&row));
        batch.delete::<AccountData>(&key);
        batch.delete::<AccountDataLog>(&(user, row.pos));
        dropped += 1;
    }
    Ok(dropped)
}

/// Read markers of rooms do not count.
fn is_read_marker((_, room, kind): &Key) -> bool {
    kind == READ_MARKER && !room.is_empty()
}

fn put_item(batch: &mut Batch, key: &Key, old: Option<&AccountDataEntry>, json: String) -> Pos {
    let pos = batch.next_pos();
    batch.check::<AccountData>(key, old);
    if let Some(old) = old {
        batch.delete::<AccountDataLog>(&(key.0, old.pos));
    }
    batch.put::<AccountData>(key, &AccountDataEntry { pos, json });
    batch.put::<AccountDataLog>(&(key.0, pos), &(key.1.clone(), key.2.clone()));
    batch.fact(pos, Change::AccountData { user: key.0 }.to_bytes());
    pos
}

/// Settings that one device keeps for another, by the device's ID (MSC3890): they go with it.
const LOCAL_NOTIFICATION_SETTINGS: [&str; 2] =
    ["m.local_notification_settings.", "org.matrix.msc3890.local_notification_settings."];

/// Deletes what `devices` of `user` were told about their notifications.
///
/// # Errors
/// If the store cannot be read.
pub(crate) async fn remove_local_notification_settings(
    view: &View,
    batch: &mut Batch,
    user: UserNid,
    devices: &BTreeSet<String>,
) -> Result<(), StoreError> {
    let named =
        |device: &String| LOCAL_NOTIFICATION_SETTINGS.map(|kind| (user, String::new(), format!("{kind}{device}")));
    let keys: Vec<Key> = devices.iter().flat_map(named).collect();
    let rows = view.get_many::<AccountData>(&keys).await?;
    for (key, row) in keys.iter().zip(rows) {
        if let Some(old) = row.filter(|row| !is_empty_object(&row.json)) {
            put_item(batch, key, Some(&old), DELETED.to_owned());
        }
    }
    Ok(())
}
