//! Pagination tokens.

use hearth_store::Pos;
use hearth_sync::{PageToken, Token};

use crate::Api;
use crate::error::ApiError;
use crate::params::{Query, invalid};

/// The position that the query parameter `name` holds.
///
/// # Errors
/// `M_INVALID_PARAM` if it is there and no token of this server.
pub(crate) fn read(api: &Api, query: &Query, name: &str) -> Result<Option<Pos>, ApiError> {
    // Some clients send an empty `from` for "from the end".
    let text = query.get(name).filter(|text| !text.is_empty());
    let parse = |text| PageToken::parse(text, api.sync.incarnation()).map_err(|_| invalid(name));
    Ok(text.map(parse).transpose()?.map(|token| token.pos))
}

/// The token that means `pos`.
pub(crate) fn write(api: &Api, pos: Pos) -> String {
    Token::pagination(api.sync.incarnation(), pos).to_string()
}
