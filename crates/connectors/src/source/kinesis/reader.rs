//! The loop of one shard: iterator, read, open, hand out; at the pace the shard allows, with every wait and retry of
//! docs/kinesis.md 3.4–3.6.
//!
//! ```text
//!            ┌────────── expired, refused, idle 4 min ──────────┐
//!            ▼                                                  │
//! place ─ GetShardIterator ─► iterator ─ GetRecords ─► records ─┴─► Records | Idle      (iterator := the answer's next)
//!                                            │
//!                                            └─ no next ──────────► Records, then End
//! ```
//!
//! Cancel safe: the place and the iterator move only when an answer is turned into what `next` returns, with no await between.
//! The call under way lives in the reader, so a dropped `next` does not throw its work away either, however often it is dropped:
//! `ready` then waits until its answer begins. Any wait is towards a moment that the reader keeps. There is no task and no thread
//! here: a reader that nobody asks does nothing.

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use async_trait::async_trait;
use connector::{Error, ErrorKind, Gap, Polled, Result, SplitReader};
use futures::future::BoxFuture;
use logic::backoff::Backoff;
use model::{RawRecord, SplitId, Timestamp};
use tokio::time::Instant;

use super::{
    Shared,
    client::{EXPIRED_ITERATOR, INVALID_ARGUMENT},
    get_records::{Answer, Heard},
    loss::{self, Whose},
    meters::Meters,
    pace::{Pace, Slot},
    place::Place,
};

/// An iterator lives five minutes; one that waited this long (backpressure) is made anew rather than tried.
const ITERATOR_AGE_MAX: Duration = Duration::from_secs(240);
/// An error that may heal by itself is shown after so long.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Most records that `GetRecords` gives.
const LIMIT_MAX: usize = 10_000;
/// The first answer comes before the size of records is known.
const LIMIT_FIRST: usize = 2_000;
/// How large one answer should be at most (docs/kinesis.md 4): memory is reserved by it.
const ANSWER_AIM: usize = 4 << 20;
/// Empty answers at lag 0 after which the reader slows down.
const EMPTY_BEFORE_IDLE: u32 = 5;
/// Empty answers in a row with growing lag that look like a throttle which the service does not admit.
const GROWING_BEFORE_HIDDEN: u32 = 3;

struct Token {
    text: String,
    made: Instant,
}

/// What a call brought.
enum Brought {
    /// An iterator, and since when the stream holds its records.
    Token(Result<(String, Option<Timestamp>)>),
    /// Records, or why not; the iterator that was asked may still be good.
    Answer { token: Token, took: Duration, outcome: Result<Answer> },
}

/// Reads one shard.
pub(crate) struct Reader {
    shared: Arc<Shared>,
    split: SplitId,
    pace: Arc<Pace>,
    meters: Meters,
    place: Place,
    token: Option<Token>,
    /// For the next read.
    slot: Option<Slot>,
    /// The call under way, and how far it is.
    call: Option<(BoxFuture<'static, Brought>, Arc<Heard>)>,
    /// What a call brought that ended while only its answer's beginning was waited for.
    brought: Option<Brought>,
    ended: bool,
    not_before: Instant,
    backoff: Backoff,
    failing_since: Option<Instant>,
    /// Iterators that expired since the last answer.
    expired: u32,
    empty: u32,
    growing: u32,
    behind: Duration,
    record_bytes: usize,
    /// Since when the stream holds its records, as of the newest iterator.
    horizon: Option<Timestamp>,
    gap: Option<Gap>,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>, split: SplitId, pace: Arc<Pace>, place: Place) -> Self {
        let config = &shared.config;
        let backoff = Backoff::new(config.retry, config.access.limits.backoff_cap);
        Self {
            meters: Meters::new(shared.client.stream(), split.name()),
            shared,
            split,
            pace,
            place,
            token: None,
            slot: None,
            call: None,
            brought: None,
            ended: false,
            not_before: Instant::now(),
            backoff,
            failing_since: None,
            expired: 0,
            empty: 0,
            growing: 0,
            behind: Duration::ZERO,
            record_bytes: ANSWER_AIM / LIMIT_FIRST,
            horizon: None,
            gap: None,
        }
    }

    /// One attempt at whatever is next; `None` if there is nothing to tell yet.
    async fn step(&mut self) -> Result<Option<Polled>> {
        tokio::time::sleep_until(self.not_before).await;
        if self.call.is_none() && self.brought.is_none() {
            let heard = Arc::default();
            let call = match self.token.take_if(|token| token.made.elapsed() < ITERATOR_AGE_MAX) {
                Some(token) => self.read(token, Arc::clone(&heard)),
                None => self.locate(),
            };
            self.call = Some((call, heard));
        }
        if let Some((call, _)) = &mut self.call {
            self.brought = Some(call.await);
            self.call = None;
        }
        let Some(brought) = self.brought.take() else { return Ok(None) };
        match brought {
            Brought::Token(Ok((text, horizon))) => {
                self.horizon = horizon;
                self.token = Some(Token { text, made: Instant::now() });
                Ok(None)
            }
            Brought::Token(Err(error)) if error.vendor_code() == Some(INVALID_ARGUMENT) => {
                Err(self.refused(error))
            }
            Brought::Token(Err(error)) => Err(error),
            Brought::Answer { took, outcome: Ok(answer), .. } => Ok(Some(self.answered(answer, took))),
            Brought::Answer { token, outcome: Err(error), .. } => {
                self.token = Some(token);
                self.read_failed(error).map(|()| None)
            }
        }
    }

    /// Asks for an iterator at the place.
    fn locate(&mut self) -> BoxFuture<'static, Brought> {
        let (shared, pace, split) = (Arc::clone(&self.shared), Arc::clone(&self.pace), self.split.clone());
        let from = self.place.begin();
        Box::pin(async move {
            let horizon = match shared.check_creation(&split).await {
                Ok(horizon) => horizon,
                Err(error) => return Brought::Token(Err(error)),
            };
            pace.before_iterator().await;
            let token = shared.client.shard_iterator(split.name(), &from).await;
            Brought::Token(token.map(|token| (token, horizon)))
        })
    }

    /// Reads at an iterator.
    fn read(&mut self, token: Token, heard: Arc<Heard>) -> BoxFuture<'static, Brought> {
        let (shared, pace) = (Arc::clone(&self.shared), Arc::clone(&self.pace));
        let limit = (ANSWER_AIM / self.record_bytes.max(1)).clamp(1, LIMIT_MAX);
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let slot = self.slot.take();
        Box::pin(async move {
            if !slot.is_some_and(Slot::take) {
                pace.before_read().await;
            }
            let began = Instant::now();
            let outcome = shared.client.get_records(&token.text, limit, &heard).await;
            Brought::Answer { token, took: began.elapsed(), outcome }
        })
    }

    /// Until the call under way has an answer that begins, or none: a place among the reads is not needed before.
    async fn begins(&mut self) {
        let Self { call, brought, .. } = self;
        let Some((under_way, heard)) = call.as_mut().filter(|(_, heard)| !heard.begun()) else { return };
        heard.stop_at_the_body();
        *brought = poll_fn(|context| match under_way.as_mut().poll(context) {
            Poll::Ready(brought) => Poll::Ready(Some(brought)),
            Poll::Pending if heard.begun() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await;
        if brought.is_some() {
            *call = None;
        }
    }

    /// The service does not take the place. The error that comes back only says "again".
    fn refused(&mut self, error: Error) -> Error {
        let whose = Whose { split: &self.split, stream: self.shared.client.stream(), horizon: self.horizon };
        let (again, gap) = loss::refused(&mut self.place, &whose, error);
        self.gap = gap.or(self.gap.take());
        again
    }

    fn answered(&mut self, answer: Answer, took: Duration) -> Polled {
        let Answer { records, bytes, next, behind } = answer;
        self.backoff.worked();
        self.failing_since = None;
        self.expired = 0;
        self.pace.after_read(bytes);
        self.meters.answered(took, records.len(), bytes, behind);
        self.ended = next.is_none();
        self.token = next.map(|text| Token { text, made: Instant::now() });
        let closed = records.len();
        let records = self.place.take(records);
        // Small records of an aggregate take more memory than the aggregate did.
        let opened = records.iter().map(RawRecord::size).sum();
        self.measure(closed, bytes.max(opened), behind.unwrap_or_default());
        if self.ended {
            self.place.end();
        }
        let whose = Whose { split: &self.split, stream: self.shared.client.stream(), horizon: self.horizon };
        self.gap = loss::found(&mut self.place, &whose).or(self.gap.take());
        if !records.is_empty() {
            self.meters.handed_out(records.len());
            return Polled::Records { records, lag: behind };
        }
        if self.ended { Polled::End } else { Polled::Idle { lag: self.behind } }
    }

    /// Learns from an answer, and from the memory that it takes, how fast and how much to ask next.
    fn measure(&mut self, records: usize, bytes: usize, behind: Duration) {
        if let Some(average) = bytes.checked_div(records) {
            // Quick up, slow down: too large an answer costs memory, too small a one only a call.
            self.record_bytes = average.max((self.record_bytes * 3 + average) / 4).max(1);
            (self.empty, self.growing) = (0, 0);
        } else {
            self.empty = if behind.is_zero() { self.empty + 1 } else { 0 };
            self.growing = if behind > self.behind { self.growing + 1 } else { 0 };
            if self.growing >= GROWING_BEFORE_HIDDEN {
                self.growing = 0;
                self.meters.hidden_throttle();
                tracing::warn!(shard = %self.split, ?behind, "empty answers while the lag grows: the shard seems throttled");
            }
        }
        self.behind = behind;
        if self.empty >= EMPTY_BEFORE_IDLE {
            self.not_before = Instant::now() + self.shared.config.idle;
        }
    }

    /// Decides whether a failed read needs a new iterator.
    fn read_failed(&mut self, error: Error) -> Result<()> {
        match error.vendor_code() {
            Some(EXPIRED_ITERATOR) => {
                self.meters.iterator_expired();
                self.token = None;
                self.expired += 1;
                // Once is what backpressure does; again at once means that they do not live long enough to be used.
                if self.expired > 1 {
                    return Err(Error::new(ErrorKind::Unavailable, error.to_string()).code(EXPIRED_ITERATOR));
                }
                Ok(())
            }
            Some(INVALID_ARGUMENT) => {
                self.token = None;
                Err(Error::new(ErrorKind::Unavailable, error.to_string()).code(INVALID_ARGUMENT))
            }
            _ => Err(error),
        }
    }

    /// After a failure: the wait before the next attempt, and whether it is time to tell.
    fn failed(&mut self, error: Error) -> Result<()> {
        let now = Instant::now();
        let since = *self.failing_since.get_or_insert(now);
        self.not_before = now + self.backoff.failed(rand::random());
        let throttled = error.kind() == ErrorKind::Throttled;
        if throttled {
            self.meters.throttled();
        }
        // Throttles use up no attempt.
        let patient = throttled || self.backoff.failures() < self.shared.config.patience;
        if error.is_transient() && patient && now.duration_since(since) < SILENCE_MAX {
            tracing::debug!(shard = %self.split, %error, "will try again");
            return Ok(());
        }
        Err(error)
    }
}

impl Reader {
    /// The place behind everything that was handed out; a read under way is thrown away.
    pub(crate) fn into_place(self) -> Place {
        self.place
    }
}

#[async_trait]
impl SplitReader for Reader {
    async fn ready(&mut self) {
        if self.ended || self.brought.is_some() {
            return;
        }
        if self.call.is_some() {
            return self.begins().await;
        }
        tokio::time::sleep_until(self.not_before).await;
        if self.slot.is_none() {
            self.slot = Some(self.pace.slot().await);
        }
    }

    async fn next(&mut self) -> Result<Polled> {
        loop {
            if self.ended {
                return Ok(Polled::End);
            }
            match self.step().await {
                Ok(Some(polled)) => return Ok(polled),
                Ok(None) => {}
                Err(error) => self.failed(error)?,
            }
        }
    }

    fn now(&self) -> Timestamp {
        self.shared.client.now()
    }

    fn horizon(&self) -> Option<Timestamp> {
        self.horizon
    }

    fn gap(&mut self) -> Option<Gap> {
        self.gap.take()
    }
}
