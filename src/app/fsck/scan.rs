//! From stored bytes to what has to be looked up about them.

use hearth_schema::{
    AccessToken, AccessTokens, AccountData, AccountDataEntry, AccountDataLog, Aggregate, Aggregates, Change,
    CurrentState, DelayedEvent, DelayedEvents, DelayedList, DelayedLists, Destination, DestinationNid, Destinations,
    Device, Devices, EventIds, EventKey, EventNid, Events, Gaps, LoginTokens, NoticeRoom, NoticeRooms, Outbox,
    PeerKeyAnswer, PeerKeyAnswers, PeerKeys, PeerKeysRow, PendingRelations, Receipt, ReceiptLog, ReceiptName, Receipts,
    RefreshFamilies, RefreshFamily, Relations, RoomAliases, RoomHead, RoomHeads, RoomMeta, RoomNid, Rooms, StateEntry,
    StateKeyNames, StateKeyNid, StateKeys, StateNodes, StoredEvent, ThreadSubscriptionLog, ThreadSubscriptions,
    Threads, Timeline, TokenKey, Transaction, Transactions, TxnIds, User, UserNid, UserRoom, UserRooms, Users,
};
use hearth_store::{DecodeError, KeyReader, Keyspace, Lane, Pos, RawKey, StoreError, TupleKey as _, Value as _};

use super::report::{Invariant, Violation, keyspace_name};
use super::{Context, Finding, accounts, delayed, outbound, peers, relations, rooms};

/// A row that speaks of other rows.
#[derive(Debug)]
pub(super) enum Row {
    Fact(Pos, Change),
    Room(RoomNid, RoomMeta),
    Head(RoomNid, RoomHead),
    EventId(Lane, EventKey, EventNid),
    Event(EventNid, Box<StoredEvent>),
    Timeline(RoomNid, Pos, u32),
    StateKey(RoomNid, (String, String), StateKeyNid),
    StateKeyName(RoomNid, StateKeyNid, (String, String)),
    CurrentState(RoomNid, (String, String), StateEntry),
    TxnId(RoomNid, u32),
    Relation(RoomNid, (u32, Pos), u32),
    Aggregate(RoomNid, u32, Aggregate),
    Thread(RoomNid, u32, u32),
    PendingRelation(RoomNid, u32),
    Gap(RoomNid, Pos),
    Receipt(RoomNid, ReceiptName, Receipt),
    ReceiptLog(RoomNid, Pos, ReceiptName),
    RoomAlias(RoomNid, String),
    UserRoom(UserNid, RoomNid, UserRoom),
    ThreadSubscription(UserNid, EventNid, Pos),
    ThreadSubscriptionLog(UserNid, Pos, EventNid),
    User(UserNid, Box<User>),
    Device(UserNid, String, Box<Device>),
    AccessToken(TokenKey, AccessToken),
    RefreshFamily(TokenKey, RefreshFamily),
    LoginToken(UserNid),
    NoticeRoom(UserNid, NoticeRoom),
    AccountData(UserNid, (String, String), Pos),
    AccountDataLog(UserNid, Pos, (String, String)),
    DelayedEvent(UserNid, String, Box<DelayedEvent>),
    DelayedList(UserNid, DelayedList),
    Destination(DestinationNid, Destination),
    Queued(DestinationNid, Pos, EventNid),
    Transaction(Box<Transaction>),
    PeerKeys(Lane, String, PeerKeysRow),
    PeerKeyAnswer(Lane, String, PeerKeyAnswer),
}

impl Row {
    /// What is to be checked about a row; `None`: nothing but that it decodes, which it does.
    pub(super) fn read(key: &RawKey, value: &[u8], newest: Pos) -> Result<Option<Self>, Violation> {
        let keyspace = keyspace_name(key.keyspace());
        let wrong = |invariant, detail: String| Violation { invariant, keyspace, detail: format!("{key:?}: {detail}") };
        let row = Self::decode(key, value).map_err(|error| wrong(Invariant::I13, error.0.to_owned()))?;
        match row.as_ref().and_then(Self::position) {
            Some(pos) if pos > newest => Err(wrong(Invariant::I4, format!("{pos:?} is beyond the newest, {newest:?}"))),
            _ => Ok(row),
        }
    }

    fn decode(key: &RawKey, value: &[u8]) -> Result<Option<Self>, DecodeError> {
        if key.keyspace() == hearth_store_rocks::CHANGE_LOG {
            let mut reader = KeyReader(key.0.get(RawKey::HEADER..).unwrap_or_default());
            let pos = Pos::new(u64::from_be_bytes(reader.take()?));
            return Change::decode(value).map(|change| Some(Self::Fact(pos, change)));
        }
        if let Some(row) = Self::decode_room(key, value)? {
            return Ok(Some(row));
        }
        match Self::decode_server(key, value)? {
            Some(row) => Ok(Some(row)),
            None => Self::decode_user(key, value),
        }
    }

    fn decode_server(key: &RawKey, value: &[u8]) -> Result<Option<Self>, DecodeError> {
        let id = key.keyspace();
        Ok(Some(if id == Destinations::DEF.id {
            let ((_, nid), row) = both::<Destinations>(key, value)?;
            Self::Destination(nid, row)
        } else if id == Outbox::DEF.id {
            let ((nid, pos), event) = both::<Outbox>(key, value)?;
            Self::Queued(nid, pos, event)
        } else if id == Transactions::DEF.id {
            let (_, row) = both::<Transactions>(key, value)?;
            Self::Transaction(Box::new(row))
        } else if id == PeerKeys::DEF.id {
            let ((_, name), row) = both::<PeerKeys>(key, value)?;
            Self::PeerKeys(key.lane(), name, row)
        } else if id == PeerKeyAnswers::DEF.id {
            let ((_, name), row) = both::<PeerKeyAnswers>(key, value)?;
            Self::PeerKeyAnswer(key.lane(), name, row)
        } else {
            return Ok(None);
        }))
    }

    fn decode_room(key: &RawKey, value: &[u8]) -> Result<Option<Self>, DecodeError> {
        let id = key.keyspace();
        Ok(Some(if id == Rooms::DEF.id {
            let ((room,), row) = both::<Rooms>(key, value)?;
            Self::Room(room, row)
        } else if id == RoomHeads::DEF.id {
            let ((room,), row) = both::<RoomHeads>(key, value)?;
            Self::Head(room, row)
        } else if id == EventIds::DEF.id {
            // The lane takes no bytes in the tuple: the key's first byte has it.
            let ((_, event), row) = both::<EventIds>(key, value)?;
            Self::EventId(key.lane(), event, row)
        } else if id == Events::DEF.id {
            let ((room, n), row) = both::<Events>(key, value)?;
            Self::Event(EventNid { room, n }, Box::new(row))
        } else if id == Timeline::DEF.id {
            let ((room, pos), n) = both::<Timeline>(key, value)?;
            Self::Timeline(room, pos, n)
        } else if id == StateKeys::DEF.id {
            let ((room, event_type, state_key), nid) = both::<StateKeys>(key, value)?;
            Self::StateKey(room, (event_type, state_key), nid)
        } else if id == StateKeyNames::DEF.id {
            let ((room, nid), name) = both::<StateKeyNames>(key, value)?;
            Self::StateKeyName(room, nid, name)
        } else if id == CurrentState::DEF.id {
            let ((room, event_type, state_key), row) = both::<CurrentState>(key, value)?;
            Self::CurrentState(room, (event_type, state_key), row)
        } else if id == TxnIds::DEF.id {
            let ((room, ..), n) = both::<TxnIds>(key, value)?;
            Self::TxnId(room, n)
        } else if id == Relations::DEF.id {
            let ((room, parent, _, pos), child) = both::<Relations>(key, value)?;
            Self::Relation(room, (parent, pos), child)
        } else if id == Aggregates::DEF.id {
            let ((room, n), row) = both::<Aggregates>(key, value)?;
            Self::Aggregate(room, n, row)
        } else if id == Threads::DEF.id {
            let ((room, latest), top) = both::<Threads>(key, value)?;
            Self::Thread(room, latest, top)
        } else if id == PendingRelations::DEF.id {
            let ((room, _, child), ()) = both::<PendingRelations>(key, value)?;
            Self::PendingRelation(room, child)
        } else if id == Gaps::DEF.id {
            let ((_, room, at), _) = both::<Gaps>(key, value)?;
            Self::Gap(room, at)
        } else if id == Receipts::DEF.id {
            let ((room, kind, thread, user_id), row) = both::<Receipts>(key, value)?;
            Self::Receipt(room, ReceiptName { kind, thread, user_id }, row)
        } else if id == ReceiptLog::DEF.id {
            let ((room, pos), name) = both::<ReceiptLog>(key, value)?;
            Self::ReceiptLog(room, pos, name)
        } else if id == RoomAliases::DEF.id {
            let ((room, alias), _) = both::<RoomAliases>(key, value)?;
            Self::RoomAlias(room, alias)
        } else if id == StateNodes::DEF.id {
            let (_, node) = both::<StateNodes>(key, value)?;
            hearth_rooms::state::Node::decode(&node.0).map_err(|_| DecodeError("not a state trie node"))?;
            return Ok(None);
        } else {
            return Ok(None);
        }))
    }

    fn decode_user(key: &RawKey, value: &[u8]) -> Result<Option<Self>, DecodeError> {
        let id = key.keyspace();
        Ok(Some(if id == UserRooms::DEF.id {
            let ((user, room), row) = both::<UserRooms>(key, value)?;
            Self::UserRoom(user, room, row)
        } else if id == ThreadSubscriptions::DEF.id {
            let ((user, room, n), row) = both::<ThreadSubscriptions>(key, value)?;
            Self::ThreadSubscription(user, EventNid { room, n }, row.pos)
        } else if id == ThreadSubscriptionLog::DEF.id {
            let ((user, pos), root) = both::<ThreadSubscriptionLog>(key, value)?;
            Self::ThreadSubscriptionLog(user, pos, root)
        } else if id == Users::DEF.id {
            let ((user,), row) = both::<Users>(key, value)?;
            Self::User(user, Box::new(row))
        } else if id == Devices::DEF.id {
            let ((user, device), row) = both::<Devices>(key, value)?;
            Self::Device(user, device, Box::new(row))
        } else if id == RefreshFamilies::DEF.id {
            let ((family,), row) = both::<RefreshFamilies>(key, value)?;
            Self::RefreshFamily(family, row)
        } else if id == LoginTokens::DEF.id {
            let ((user, _), _) = both::<LoginTokens>(key, value)?;
            Self::LoginToken(user)
        } else if id == NoticeRooms::DEF.id {
            let ((user,), row) = both::<NoticeRooms>(key, value)?;
            Self::NoticeRoom(user, row)
        } else if id == AccessTokens::DEF.id {
            let ((token,), row) = both::<AccessTokens>(key, value)?;
            Self::AccessToken(token, row)
        } else if id == AccountData::DEF.id {
            let ((user, room, kind), AccountDataEntry { pos, .. }) = both::<AccountData>(key, value)?;
            Self::AccountData(user, (room, kind), pos)
        } else if id == AccountDataLog::DEF.id {
            let ((user, pos), name) = both::<AccountDataLog>(key, value)?;
            Self::AccountDataLog(user, pos, name)
        } else if id == DelayedEvents::DEF.id {
            let ((user, secret), row) = both::<DelayedEvents>(key, value)?;
            Self::DelayedEvent(user, secret, Box::new(row))
        } else if id == DelayedLists::DEF.id {
            let ((_, user), list) = both::<DelayedLists>(key, value)?;
            Self::DelayedList(user, list)
        } else {
            hearth_schema::decode_row(id, key.0.get(RawKey::HEADER..).unwrap_or_default(), value)?;
            return Ok(None);
        }))
    }

    fn position(&self) -> Option<Pos> {
        match self {
            Self::Fact(pos, _)
            | Self::Timeline(_, pos, _)
            | Self::Relation(_, (_, pos), _)
            | Self::Gap(_, pos)
            | Self::ReceiptLog(_, pos, _)
            | Self::AccountData(_, _, pos)
            | Self::AccountDataLog(_, pos, _)
            | Self::ThreadSubscription(_, _, pos)
            | Self::ThreadSubscriptionLog(_, pos, _)
            | Self::Queued(_, pos, _) => Some(*pos),
            Self::Event(_, row) => Some(row.pos),
            Self::Receipt(_, _, row) => Some(row.pos),
            Self::UserRoom(_, _, row) => Some(row.pos),
            _ => None,
        }
    }

    /// Looks for what the row speaks of.
    pub(super) async fn check(self, context: &Context) -> Result<Finding, StoreError> {
        match self {
            Self::Fact(pos, change) => rooms::fact(context, pos, &change).await,
            Self::Room(room, row) => rooms::room(context, room, &row).await,
            Self::Head(room, row) => rooms::head(context, room, &row).await,
            Self::EventId(lane, key, nid) => rooms::event_id(context, lane, key, nid).await,
            Self::Event(nid, row) => rooms::event(context, nid, &row).await,
            Self::Timeline(room, pos, n) => rooms::timeline(context, room, pos, n).await,
            Self::StateKey(room, name, nid) => rooms::state_key(context, room, name, nid).await,
            Self::StateKeyName(room, nid, name) => rooms::state_key_name(context, room, nid, name).await,
            Self::CurrentState(room, name, row) => rooms::current_state(context, room, &name, row).await,
            Self::TxnId(room, n) => rooms::txn_id(context, room, n).await,
            Self::Relation(room, place, child) => relations::relation(context, room, place, child).await,
            Self::Aggregate(room, n, row) => relations::aggregate(context, room, n, &row).await,
            Self::Thread(room, latest, top) => relations::thread(context, room, latest, top).await,
            Self::PendingRelation(room, child) => relations::pending(context, room, child).await,
            Self::Gap(room, at) => rooms::gap(context, room, at).await,
            Self::Receipt(room, name, row) => rooms::receipt(context, room, &name, &row).await,
            Self::ReceiptLog(room, pos, name) => rooms::receipt_log(context, room, pos, name).await,
            Self::RoomAlias(room, alias) => rooms::alias(context, room, &alias).await,
            Self::UserRoom(user, room, row) => rooms::user_room(context, user, room, &row).await,
            Self::ThreadSubscription(user, root, pos) => relations::subscription(context, user, root, pos).await,
            Self::ThreadSubscriptionLog(user, pos, root) => relations::subscription_log(context, user, pos, root).await,
            Self::User(user, row) => Ok(accounts::user(context, user, &row)),
            Self::Device(user, device, row) => accounts::device(context, user, &device, &row).await,
            Self::AccessToken(key, row) => accounts::access_token(context, key, row).await,
            Self::LoginToken(user) => accounts::login_token(context, user).await,
            Self::NoticeRoom(user, row) => accounts::notice_room(context, user, &row).await,
            Self::RefreshFamily(key, row) => accounts::refresh_family(context, key, row).await,
            Self::AccountData(user, name, pos) => accounts::account_data(context, user, name, pos).await,
            Self::AccountDataLog(user, pos, name) => accounts::account_data_log(context, user, pos, name).await,
            Self::DelayedEvent(user, id, row) => delayed::event(context, user, id, &row).await,
            Self::DelayedList(user, list) => delayed::list(context, user, list).await,
            Self::Destination(nid, row) => Ok(outbound::destination(&context.ids, nid, &row)),
            Self::Queued(nid, _, event) => outbound::queued(context, nid, event).await,
            Self::Transaction(row) => outbound::transaction(context, &row).await,
            Self::PeerKeys(lane, name, row) => Ok(peers::keys(&context.ids, lane, &name, &row)),
            Self::PeerKeyAnswer(lane, name, row) => Ok(peers::answer(&context.ids, lane, &name, &row)),
        }
    }
}

fn both<K: Keyspace>(key: &RawKey, value: &[u8]) -> Result<(K::Key, K::Value), DecodeError> {
    let mut reader = KeyReader(key.0.get(RawKey::HEADER..).unwrap_or_default());
    let decoded = K::Key::decode(&mut reader)?;
    reader.finish()?;
    Ok((decoded, K::Value::decode(value)?))
}
