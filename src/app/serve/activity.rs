//! What a connection is waiting for, and since when.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long the rest of a request that is answered already is waited for.
const LINGER: Duration = Duration::from_secs(5);

/// Bytes of a body that are read for nothing before a connection is closed.
const BODY_THROWN_AWAY: usize = 16 << 20;
/// The same of a head: far more than any client sends, far less than is worth flooding with.
const HEAD_THROWN_AWAY: usize = 1 << 20;

/// Milliseconds since the connection began, plus one; 0 is "not".
#[derive(Debug, Default)]
struct Since(AtomicU64);

impl Since {
    fn begin(&self, now: u64) {
        // Keeps the first time: what began does not begin again.
        let _ = self.0.compare_exchange(0, now + 1, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn end(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// When it has lasted for `deadline`.
    fn over(&self, deadline: Duration) -> Option<u64> {
        let began = self.0.load(Ordering::Relaxed);
        let deadline = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        (began != 0).then(|| (began - 1).saturating_add(deadline))
    }
}

/// One connection's waiting times. Written by its socket and its requests, read by its task.
#[derive(Debug)]
pub(super) struct Activity {
    born: Instant,
    requests: AtomicU32,
    http2: AtomicBool,
    /// A request's head has begun to arrive (or the first has not).
    head: Since,
    /// Bytes of it have come.
    halfway: AtomicBool,
    /// No request is open.
    quiet: Since,
    /// The peer accepts no bytes.
    stuck: Since,
    /// Bytes of the last request's body that nobody has read; [`u64::MAX`] if it does not say how many.
    unread: AtomicU64,
    /// All is answered, and the rest of a body is thrown away.
    lingering: Since,
}

/// Why a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// The head of a request did not come.
    Head,
    /// Nothing happened.
    Idle,
    /// The peer does not take the answer.
    Stuck,
    /// The peer has its answer, and does not hang up.
    Lingering,
}

impl Activity {
    pub(super) fn begin(now: Instant) -> Arc<Self> {
        let activity = Self {
            born: now,
            requests: AtomicU32::new(0),
            http2: AtomicBool::new(false),
            head: Since::default(),
            halfway: AtomicBool::new(false),
            quiet: Since::default(),
            stuck: Since::default(),
            unread: AtomicU64::new(0),
            lingering: Since::default(),
        };
        activity.head.begin(0);
        activity.quiet.begin(0);
        Arc::new(activity)
    }

    fn age(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.born).as_millis()).unwrap_or(u64::MAX - 1)
    }

    /// Bytes came.
    pub(super) fn received(&self, now: Instant) {
        if self.requests.load(Ordering::Relaxed) == 0 {
            self.head.begin(self.age(now));
            self.halfway.store(true, Ordering::Relaxed);
        }
    }

    /// The peer took bytes, or there were none for it.
    pub(super) fn sent(&self) {
        self.stuck.end();
    }

    /// The peer took none.
    pub(super) fn blocked(&self, now: Instant) {
        self.stuck.begin(self.age(now));
    }

    /// A request begins; it is open until the guard is dropped.
    pub(super) fn request(self: &Arc<Self>, version: http::Version) -> OpenRequest {
        if version == http::Version::HTTP_2 {
            self.http2.store(true, Ordering::Relaxed);
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.unread.store(0, Ordering::Relaxed);
        self.head.end();
        self.halfway.store(false, Ordering::Relaxed);
        self.quiet.end();
        OpenRequest(self.clone())
    }

    /// So many bytes of the request's body were left; [`u64::MAX`] if it does not say how many.
    pub(super) fn left_unread(&self, bytes: u64) {
        self.unread.store(bytes, Ordering::Relaxed);
    }

    /// What was left of the last request's body.
    pub(super) fn unread(&self) -> u64 {
        self.unread.load(Ordering::Relaxed)
    }

    /// Bytes that may still come of what is answered already and are read for nothing: of a body that nobody wanted, or of
    /// a head that was refused.
    pub(super) fn thrown_away(&self) -> usize {
        if self.unread() != 0 {
            BODY_THROWN_AWAY
        } else if self.halfway.load(Ordering::Relaxed) && !self.is_http2() {
            HEAD_THROWN_AWAY
        } else {
            0
        }
    }

    /// Nothing more is said, only read.
    pub(super) fn lingers(&self, now: Instant) {
        self.lingering.begin(self.age(now));
    }

    /// What has taken too long, if anything.
    pub(super) fn overdue(&self, now: Instant, header_deadline: Duration, idle_deadline: Duration) -> Option<Overdue> {
        let (due, reason) = self.first_over(header_deadline, idle_deadline)?;
        (due <= self.age(now)).then_some(reason)
    }

    /// When something will have taken too long if nothing happens from now on.
    pub(super) fn due(&self, header_deadline: Duration, idle_deadline: Duration) -> Option<Instant> {
        let (due, _) = self.first_over(header_deadline, idle_deadline)?;
        self.born.checked_add(Duration::from_millis(due))
    }

    fn first_over(&self, header_deadline: Duration, idle_deadline: Duration) -> Option<(u64, Overdue)> {
        let is_open = self.requests.load(Ordering::Relaxed) > 0;
        // HTTP/2 sends small frames (window updates, pings) between requests: no head of one.
        let has_heads = !is_open && !self.http2.load(Ordering::Relaxed);
        let waits = [
            (true, &self.stuck, idle_deadline, Overdue::Stuck),
            (true, &self.lingering, header_deadline.min(LINGER), Overdue::Lingering),
            (has_heads, &self.head, header_deadline, Overdue::Head),
            (!is_open, &self.quiet, idle_deadline, Overdue::Idle),
        ];
        let over = waits.into_iter().filter(|(counts, ..)| *counts);
        over.filter_map(|(_, since, deadline, reason)| Some((since.over(deadline)?, reason))).min_by_key(|(at, _)| *at)
    }

    /// Whether the peer speaks HTTP/2, as far as its requests have shown.
    pub(super) fn is_http2(&self) -> bool {
        self.http2.load(Ordering::Relaxed)
    }
}

/// A request of which the answer has not been written.
#[derive(Debug)]
pub(super) struct OpenRequest(Arc<Activity>);

impl Drop for OpenRequest {
    fn drop(&mut self) {
        if self.0.requests.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.quiet.begin(self.0.age(Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(75);

    fn after(began: Instant, seconds: u64) -> Instant {
        began + Duration::from_secs(seconds)
    }

    /// A connection that has had one request, and when that ended.
    fn used(version: http::Version) -> (Arc<Activity>, Instant) {
        let activity = Activity::begin(Instant::now());
        drop(activity.request(version));
        (activity, Instant::now())
    }

    #[test]
    fn the_first_head_has_ten_seconds_from_the_start() {
        let began = Instant::now();
        let activity = Activity::begin(began);
        activity.received(after(began, 9));
        assert_eq!(activity.overdue(after(began, 9), HEAD, IDLE), None);
        assert_eq!(activity.overdue(after(began, 10), HEAD, IDLE), Some(Overdue::Head));
    }

    #[test]
    fn later_heads_have_ten_seconds_from_their_first_byte() {
        let (activity, quiet) = used(http::Version::HTTP_11);
        assert_eq!(activity.overdue(after(quiet, 60), HEAD, IDLE), None, "waiting for a request is idling");
        activity.received(after(quiet, 60));
        activity.received(after(quiet, 69));
        assert_eq!(activity.overdue(after(quiet, 69), HEAD, IDLE), None);
        assert_eq!(activity.overdue(after(quiet, 71), HEAD, IDLE), Some(Overdue::Head));
    }

    #[test]
    fn an_open_request_may_last() {
        let began = Instant::now();
        let activity = Activity::begin(began);
        let request = activity.request(http::Version::HTTP_11);
        activity.received(began);
        assert_eq!(activity.overdue(after(began, 300), HEAD, IDLE), None);
        drop(request);
        let quiet = Instant::now();
        assert_eq!(activity.overdue(after(quiet, 74), HEAD, IDLE), None);
        assert_eq!(activity.overdue(after(quiet, 76), HEAD, IDLE), Some(Overdue::Idle));
    }

    #[test]
    fn a_peer_that_takes_no_bytes_is_stuck() {
        let began = Instant::now();
        let activity = Activity::begin(began);
        let _request = activity.request(http::Version::HTTP_11);
        activity.blocked(began);
        activity.blocked(after(began, 74));
        assert_eq!(activity.overdue(after(began, 74), HEAD, IDLE), None);
        assert_eq!(activity.overdue(after(began, 75), HEAD, IDLE), Some(Overdue::Stuck));
        activity.sent();
        assert_eq!(activity.overdue(after(began, 75), HEAD, IDLE), None);
    }

    #[test]
    fn who_has_the_answer_must_hang_up_soon() {
        let (activity, quiet) = used(http::Version::HTTP_11);
        activity.lingers(quiet);
        activity.received(after(quiet, 3));
        assert_eq!(activity.overdue(after(quiet, 4), HEAD, IDLE), None);
        assert_eq!(activity.overdue(after(quiet, 6), HEAD, IDLE), Some(Overdue::Lingering));
    }

    #[test]
    fn the_next_request_forgets_what_was_left_of_the_last() {
        let activity = Activity::begin(Instant::now());
        let first = activity.request(http::Version::HTTP_11);
        activity.left_unread(7);
        drop(first);
        assert_eq!(activity.unread(), 7);
        let _second = activity.request(http::Version::HTTP_11);
        assert_eq!(activity.unread(), 0);
    }

    #[test]
    fn a_head_that_is_no_request_yet_may_have_more_to_come() {
        let activity = Activity::begin(Instant::now());
        assert_eq!(activity.thrown_away(), 0, "nothing has come");
        activity.received(Instant::now());
        assert_eq!(activity.thrown_away(), HEAD_THROWN_AWAY);
        drop(activity.request(http::Version::HTTP_11));
        assert_eq!(activity.thrown_away(), 0, "all of it has come");
        activity.received(Instant::now());
        assert_eq!(activity.thrown_away(), HEAD_THROWN_AWAY, "the next one");
    }

    #[test]
    fn frames_between_http2_requests_are_no_head() {
        let (activity, quiet) = used(http::Version::HTTP_2);
        activity.received(quiet);
        assert_eq!(activity.thrown_away(), 0);
        assert_eq!(activity.overdue(after(quiet, 60), HEAD, IDLE), None);
        assert_eq!(activity.overdue(after(quiet, 76), HEAD, IDLE), Some(Overdue::Idle));
    }
}
