//! Answers that are as large as a room: they are written while they are loaded, so that one that nobody reads takes no
//! memory. If the store fails on the way the connection breaks off, and the other server knows that it has no answer.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use hearth_rooms::{ServedEvent, ServedEvents};
use hearth_store::StoreError;

use crate::reply;

/// What is written of each event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The event.
    Pdu,
    /// Its ID.
    Id,
}

/// A part of an answer.
pub(crate) enum Part {
    /// Text as it is.
    Text(Bytes),
    /// Events with commas between them.
    Events(ServedEvents, Form),
}

impl Part {
    pub(crate) fn text(text: impl Into<Bytes>) -> Self {
        Self::Text(text.into())
    }
}

/// How far an answer has been written.
struct Writing {
    parts: std::vec::IntoIter<Part>,
    /// The events of the part that is being written, whether one has been.
    list: Option<(ServedEvents, Form, bool)>,
}

/// 200 with the parts, one behind the other.
pub(crate) fn answer(parts: Vec<Part>) -> Response {
    let writing = Writing { parts: parts.into_iter(), list: None };
    let chunks = stream::try_unfold(writing, |mut writing| async move {
        Ok::<_, StoreError>(writing.next().await?.map(|chunk| (chunk, writing)))
    });
    let mut response = reply::raw(Bytes::new());
    *response.body_mut() = Body::from_stream(chunks);
    response
}

impl Writing {
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        loop {
            if let Some((events, form, begun)) = &mut self.list {
                let page = events.next_page().await?;
                if page.is_empty() {
                    self.list = None;
                    continue;
                }
                let chunk = written(&page, *form, *begun);
                *begun = true;
                return Ok(Some(chunk));
            }
            match self.parts.next() {
                Some(Part::Text(text)) => return Ok(Some(text)),
                Some(Part::Events(events, form)) => self.list = Some((events, form, false)),
                None => return Ok(None),
            }
        }
    }
}

#[expect(clippy::fn_params_excessive_bools, reason = "whether a comma comes first")]
fn written(page: &[ServedEvent], form: Form, begun: bool) -> Bytes {
    let bytes = page.iter().map(|event| event.json.len().max(event.event_id.len()).saturating_add(3)).sum();
    let mut out = Vec::with_capacity(bytes);
    for (i, event) in page.iter().enumerate() {
        if begun || i > 0 {
            out.push(b',');
        }
        match form {
            Form::Pdu => out.extend_from_slice(&event.json),
            Form::Id => reply::write_string(&event.event_id, &mut out),
        }
    }
    out.into()
}
