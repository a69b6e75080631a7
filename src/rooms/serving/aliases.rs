//! `query/directory`

use hearth_store::StoreError;
use ruma_common::RoomAliasId;

use crate::AliasTarget;
use crate::intake::Rooms;

/// Servers that are named besides this one.
const MAX_SERVERS: usize = 100;

impl Rooms {
    /// Where an alias of this server points, with servers that are in the room, this one first if it is; `None`:
    /// nowhere.
    ///
    /// Spec: <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1querydirectory>
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn alias_for_server(&self, alias: &RoomAliasId) -> Result<Option<AliasTarget>, StoreError> {
        let Some(AliasTarget { room_id, .. }) = self.resolve_alias(alias).await? else { return Ok(None) };
        let view = self.view().await?;
        let inside = self.servers(&view, self.ids().room(&room_id)).await?;
        let own = self.server_name();
        let others = inside.keys().filter(|server| *server != own).take(MAX_SERVERS);
        let servers = inside.contains_key(own).then(|| own.to_owned()).into_iter().chain(others.cloned()).collect();
        Ok(Some(AliasTarget { room_id, servers }))
    }
}
