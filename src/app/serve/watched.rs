//! The socket of a connection.
//!
//! The problem: a request may be answered before all of it has come, because its head or its body is too large or nobody
//! may ask it. Whoever closes a socket that still has bytes to be read resets it, and the peer's kernel throws the answer
//! away with the reset. So the sending half is closed first, and what still comes is read for a while.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::activity::Activity;

/// Bytes that are read at once for nothing.
const PIECE: usize = 8 << 10;

/// A socket that tells its [`Activity`] what happens.
pub(super) struct Watched<S> {
    inner: TokioIo<S>,
    activity: Arc<Activity>,
    end: End,
}

/// How far the end of a connection has come.
#[derive(Clone, Copy)]
enum End {
    /// It is not ended.
    Open,
    /// The peer has been told that nothing more comes; so many bytes of it are still taken.
    Lingering(usize),
}

impl<S> Watched<S> {
    pub(super) fn new(inner: TokioIo<S>, activity: Arc<Activity>) -> Self {
        Self { inner, activity, end: End::Open }
    }

    fn wrote<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_pending() {
            self.activity.blocked(Instant::now());
        } else {
            self.activity.sent();
        }
        result
    }
}

impl<S: AsyncRead + Unpin> Read for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_read(cx, buf);
        if matches!(result, Poll::Ready(Ok(()))) {
            self.activity.received(Instant::now());
        }
        result
    }
}

impl<S: AsyncRead + Unpin> Watched<S> {
    /// Ready when the peer has hung up, or has sent more than is read for nothing.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut piece = [MaybeUninit::uninit(); PIECE];
        while let End::Lingering(left @ 1..) = self.end {
            let mut buf = ReadBuf::uninit(&mut piece);
            let read = ready!(Pin::new(&mut self.inner).poll_read(cx, buf.unfilled()));
            let taken = buf.filled().len();
            // A peer that is gone does not wait for anything.
            if read.is_err() || taken == 0 {
                break;
            }
            self.end = End::Lingering(left.saturating_sub(taken));
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Write for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.wrote(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if matches!(self.end, End::Open) {
            ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
            let more = self.activity.thrown_away();
            if more == 0 {
                return Poll::Ready(Ok(()));
            }
            self.activity.lingers(Instant::now());
            self.end = End::Lingering(more);
        }
        self.poll_linger(cx).map(Ok)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.wrote(result)
    }
}
