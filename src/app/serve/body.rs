//! Bodies with a bound on time.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::activity::OpenRequest;

/// How long a body may take before its rate counts.
const GRACE: Duration = Duration::from_secs(10);
/// The rate that a body must have after that.
const BYTES_PER_SECOND: u64 = 1024;

/// The peer sends a body too slowly.
#[derive(Debug, thiserror::Error)]
#[error("the request's body comes too slowly")]
struct TooSlow;

/// A request's body that must come at 1 KiB/s.
pub(super) struct Paced {
    inner: Incoming,
    received: u64,
    /// Made when the body first has to be waited for: most have come with the head.
    clock: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Paced {
    pub(super) const fn new(inner: Incoming) -> Self {
        Self { inner, received: 0, clock: None }
    }

    fn deadline(began: Instant, received: u64) -> Instant {
        began + GRACE + Duration::from_millis(received.saturating_mul(1000) / BYTES_PER_SECOND)
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.received += frame.data_ref().map_or(0, |data| data.len() as u64);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                let received = self.received;
                let (began, sleep) = self.clock.get_or_insert_with(|| {
                    let now = Instant::now();
                    (now, Box::pin(tokio::time::sleep_until(Self::deadline(now, 0))))
                });
                sleep.as_mut().reset(Self::deadline(*began, received));
                sleep.as_mut().poll(cx).map(|()| Some(Err(TooSlow.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// An answer's body, which keeps its request open until it has been written.
pub(super) struct Answer {
    pub(super) inner: Body,
    pub(super) _open: OpenRequest,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
