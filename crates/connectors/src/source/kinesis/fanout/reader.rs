//! The loop of one shard that is pushed: one subscription after the other.
//!
//! ```text
//!          ┌───────────── over, silent, refused ─────────────┐
//!          ▼                                                 │
//! place ─ SubscribeToShard ─► subscription ─ events ─► Records | Idle | End
//!                                  │  ▲
//!            before 5 minutes      └──┘  a second one takes over while the first still delivers
//! ```
//!
//! * No gap: a subscription begins at the place, which moves only when an event is turned into what `next` returns. The next
//!   one is opened while the old one still delivers; what both bring is known by its number and handed out once.
//! * A connection may be half open: one that says nothing for `silence_max` is given up. The service says something every few
//!   seconds, records or not. Time in which nobody listened (backpressure) does not count.
//! * The subscription lives in the reader, so it ends with the run (one epoch): a worker that is fenced off does not keep it
//!   from its successor.
//! * Memory: `ready` waits until an event begins to arrive, `next` takes it. Between the two the worker reserves.
//!
//! Cancel safe: subscription, call under way and the event in hand live in the reader. There is no task and no thread here.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use connector::{Error, ErrorKind, Gap, Polled, Result, SplitReader};
use futures::future::BoxFuture;
use logic::{backoff::Backoff, mutant};
use model::{Cursor, SplitId, Timestamp};
use tokio::time::Instant;

use super::{
    super::{
        Shared,
        client::{Begin, INVALID_ARGUMENT, NOT_FOUND},
        local_millis, loss,
        meters::Meters,
        place::Place,
    },
    consumers::{Consumers, IN_USE, with_way_out},
    subscription::{Event, Heard, Subscription},
};

/// `SubscribeToShard` may be called once a second for a consumer and a shard.
const CALL_EVERY: Duration = Duration::from_secs(1);
/// A subscription younger than this is not taken over: that long another call is in vain.
const TAKEOVER_AGE: Duration = Duration::from_secs(5);
/// How often in a row the shard may be in use before it is shown: a former owner needs so long to go.
const IN_USE_PATIENCE: u32 = 3;
/// An error that may heal by itself is shown after so long.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// Whose shard is read, and as whom.
#[derive(Clone)]
pub(super) struct Whose {
    pub shared: Arc<Shared>,
    pub consumers: Arc<Consumers>,
    /// Of the consumer.
    pub name: Arc<str>,
    pub split: SplitId,
}

type Opened = Result<(Subscription, Option<Timestamp>)>;

/// Reads one shard by subscriptions.
pub(super) struct Reader {
    whose: Whose,
    meters: Meters,
    place: Place,
    current: Option<Subscription>,
    /// The call under way; with `current` it is to take over.
    opening: Option<BoxFuture<'static, Opened>>,
    /// An event that came whole while only its beginning was waited for.
    in_hand: Option<Event>,
    /// What `next` is to return.
    trouble: Option<Error>,
    ended: bool,
    /// The end was told without children: it is asked for once more.
    doubted: bool,
    not_before: Instant,
    renew_at: Instant,
    /// Nothing came since, although it was listened.
    quiet_since: Instant,
    listening: bool,
    backoff: Backoff,
    failing_since: Option<Instant>,
    /// Calls in a row that met another subscription.
    in_use: u32,
    lag: Duration,
    /// Since when the stream holds its records, as of the newest subscription.
    horizon: Option<Timestamp>,
    gap: Option<Gap>,
    passed: Option<Cursor>,
}

/// What was waited for.
enum Happened {
    Opened(Opened),
    Heard(Heard),
    Time,
}

/// What that means for who waits.
enum Step {
    Event(Event),
    Arrived,
    Again,
}

impl Reader {
    pub(super) fn new(whose: Whose, place: Place) -> Self {
        let config = &whose.shared.config;
        let now = Instant::now();
        Self {
            meters: Meters::new(whose.shared.client.stream(), whose.split.name()),
            place,
            current: None,
            opening: None,
            in_hand: None,
            trouble: None,
            ended: false,
            doubted: false,
            not_before: now,
            renew_at: now,
            quiet_since: now,
            listening: false,
            backoff: Backoff::new(config.retry, config.access.limits.backoff_cap),
            failing_since: None,
            in_use: 0,
            lag: Duration::ZERO,
            horizon: None,
            gap: None,
            passed: None,
            whose,
        }
    }

    /// The place behind everything that was handed out; the subscription ends.
    pub(super) fn into_place(self) -> Place {
        self.place
    }

    /// Time in which nobody listened is not silence.
    fn listen(&mut self) {
        if !std::mem::replace(&mut self.listening, true) {
            self.quiet_since = Instant::now();
            if let Some(current) = &self.current {
                current.listened(true);
            }
        }
    }

    fn listened(&mut self) {
        self.listening = false;
        if let Some(current) = &self.current {
            current.listened(false);
        }
    }

    /// Waits for one thing and deals with it. Errors are those that are to be shown.
    async fn step(&mut self, whole: bool) -> Result<Step> {
        let now = Instant::now();
        if self.opening.is_none() {
            let due = if self.current.is_some() { self.renew_at } else { self.not_before };
            if due <= now {
                self.opening = Some(self.open());
            }
        }
        match self.happened(whole).await {
            Happened::Opened(Ok((subscription, horizon))) => {
                self.called();
                self.opened(subscription, horizon);
                Ok(Step::Again)
            }
            Happened::Opened(Err(error)) => {
                self.called();
                self.not_opened(error).map(|()| Step::Again)
            }
            Happened::Heard(Heard::Event(event)) => {
                self.quiet_since = Instant::now();
                Ok(Step::Event(event))
            }
            Happened::Heard(Heard::Arrived) => Ok(Step::Arrived),
            Happened::Heard(Heard::Over(why)) => self.over(why).map(|()| Step::Again),
            Happened::Time => {
                self.look_at_silence();
                Ok(Step::Again)
            }
        }
    }

    async fn happened(&mut self, whole: bool) -> Happened {
        let mut until = if self.current.is_some() {
            self.quiet_since + self.whose.consumers.config.silence_max
        } else {
            self.not_before
        };
        if self.current.is_some() && self.opening.is_none() {
            until = until.min(self.renew_at);
        }
        // Without a subscription a call under way is all there is; it has its own time limit.
        let timed = self.current.is_some() || self.opening.is_none();
        let Self { current, opening, .. } = self;
        tokio::select! {
            biased;
            opened = async { opening.as_mut().expect("looked at").await }, if opening.is_some() => Happened::Opened(opened),
            heard = async { current.as_mut().expect("looked at").hear(whole).await }, if current.is_some() => {
                Happened::Heard(heard)
            }
            () = tokio::time::sleep_until(until), if timed => Happened::Time,
        }
    }

    /// Calls for a subscription at the place.
    fn open(&mut self) -> BoxFuture<'static, Opened> {
        let overlapping = self.current.is_some() || self.in_hand.is_some();
        // The proof that nothing is gone is one record that comes once more: not when records come meanwhile, unless that very
        // record is still to come.
        let mut from =
            if overlapping && !self.place.expects() { self.place.from.clone() } else { self.place.begin() };
        if mutant::on("renewal_from_now") && self.place.resumed {
            from = Begin::At(self.whose.shared.client.now());
        }
        let Whose { shared, consumers, name, split } = self.whose.clone();
        let limit = consumers.config.silence_max;
        Box::pin(async move {
            let horizon = shared.check_creation(&split).await?;
            let arn = consumers.arn(&shared.client, &name).await?;
            let call = Subscription::open(&shared.client, (&arn, &consumers.lines), split.name(), &from);
            let opened = match tokio::time::timeout(limit, call).await {
                Ok(opened) => opened,
                Err(_) => {
                    let text = format!("shard `{split}` was not subscribed to within {} s", limit.as_secs());
                    Err(Error::new(ErrorKind::Unavailable, text))
                }
            };
            match opened {
                Ok(subscription) => Ok((subscription, horizon)),
                Err(error) if error.vendor_code() == Some(INVALID_ARGUMENT) => {
                    Err(blame(&shared, &split, &from, error).await)
                }
                Err(error) => {
                    forget(&consumers, &name, &error);
                    Err(with_way_out(error))
                }
            }
        })
    }

    /// A call has ended, whatever came of it.
    fn called(&mut self) {
        self.opening = None;
        self.not_before = Instant::now() + CALL_EVERY;
    }

    fn opened(&mut self, subscription: Subscription, horizon: Option<Timestamp>) {
        self.meters.subscribed("ok");
        tracing::debug!(shard = %self.whose.split, took_over = self.current.is_some(), "subscribed");
        self.horizon = horizon;
        self.quiet_since = Instant::now();
        // Not all shards of a stream at the same moment.
        let spread = 0.9 + 0.1 * rand::random::<f64>();
        self.renew_at = self.quiet_since + self.whose.consumers.config.renew_after.mul_f64(spread);
        // What the old one still holds comes again in the new one.
        self.current = Some(subscription);
    }

    fn not_opened(&mut self, error: Error) -> Result<()> {
        self.meters.subscribed(error.vendor_code().unwrap_or(error.kind().as_str()));
        if self.current.is_some() {
            tracing::debug!(shard = %self.whose.split, %error, "not renewed yet");
            self.renew_at = Instant::now() + TAKEOVER_AGE;
            return Ok(());
        }
        if error.vendor_code() == Some(INVALID_ARGUMENT) {
            let (again, gap) = loss::refused(&mut self.place, &whose(&self.whose, self.horizon), error);
            self.gap = gap.or(self.gap.take());
            return self.failed(again);
        }
        self.failed(error)
    }

    /// The subscription delivers no more.
    fn over(&mut self, why: Option<Error>) -> Result<()> {
        let useful = self.current.take().is_some_and(|old| old.useful);
        // One is on its way already; this one was taken over.
        if self.opening.is_some() {
            return Ok(());
        }
        match why {
            None if useful => Ok(()),
            None => {
                let text = format!("the subscription to shard `{}` ended without an event", self.whose.split);
                self.failed(Error::new(ErrorKind::Unavailable, text))
            }
            Some(error) => {
                forget(&self.whose.consumers, &self.whose.name, &error);
                self.failed(with_way_out(error))
            }
        }
    }

    fn look_at_silence(&mut self) {
        let limit = self.whose.consumers.config.silence_max;
        if self.current.is_some() && self.quiet_since.elapsed() >= limit {
            tracing::warn!(shard = %self.whose.split, ?limit, "the subscription says nothing: it is renewed");
            self.meters.silent();
            self.current = None;
        }
    }

    /// After a failure: the wait before the next attempt, and whether it is time to tell.
    fn failed(&mut self, error: Error) -> Result<()> {
        let now = Instant::now();
        let since = *self.failing_since.get_or_insert(now);
        let mut wait = self.backoff.failed(rand::random());
        let mut patient = self.backoff.failures() < self.whose.shared.config.patience;
        if error.vendor_code() == Some(IN_USE) {
            self.in_use += 1;
            let least = if self.in_use == 1 { CALL_EVERY } else { TAKEOVER_AGE };
            wait = least + wait.min(CALL_EVERY);
            patient = self.in_use <= IN_USE_PATIENCE;
        } else {
            patient &= now.duration_since(since) < SILENCE_MAX;
        }
        self.not_before = self.not_before.max(now + wait);
        if error.is_transient() && patient {
            tracing::debug!(shard = %self.whose.split, %error, "will subscribe again");
            return Ok(());
        }
        Err(error)
    }

    /// What an event means.
    fn take(&mut self, event: Event) -> Polled {
        self.backoff.worked();
        (self.failing_since, self.in_use) = (None, 0);
        let Event { mut records, bytes, continuation, behind, children } = event;
        self.meters.arrived(records.len(), bytes, behind);
        self.lag = behind.unwrap_or_default();
        // Some servers name the children from the moment the shard is closed, with records still to come.
        let closed = continuation.is_none() || (children && records.is_empty());
        records
            .retain(|record| mutant::on("renewal_repeats") || !self.place.is_behind(&record.sequence_number));
        let records = self.place.take(records);
        self.passed = None;
        if closed {
            self.closed(children);
        } else if let Some(number) = continuation {
            self.doubted = false;
            let cursor = self.place.pass(&number, Timestamp(local_millis()));
            self.passed = cursor.filter(|_| self.lag.is_zero());
        }
        let whose = whose(&self.whose, self.horizon);
        self.gap = loss::found(&mut self.place, &whose).or(self.gap.take());
        if !records.is_empty() {
            self.passed = None;
            self.meters.handed_out(records.len());
            return Polled::Records { records, lag: behind };
        }
        if self.ended { Polled::End } else { Polled::Idle { lag: self.lag } }
    }

    /// The end is final, so it is believed at once only with its proof: the children.
    fn closed(&mut self, children: bool) {
        (self.current, self.opening) = (None, None);
        self.ended = children || self.doubted;
        self.doubted = true;
        if self.ended {
            self.place.end();
        }
    }
}

fn whose(whose: &Whose, horizon: Option<Timestamp>) -> loss::Whose<'_> {
    loss::Whose { split: &whose.split, stream: whose.shared.client.stream(), horizon }
}

/// An invalid argument may be the place, or the consumer (that of another stream): only the place is ever given up, so polling
/// is asked whether it takes the same place. Who may not ask takes it for the place.
async fn blame(shared: &Shared, split: &SplitId, from: &Begin, error: Error) -> Error {
    match shared.client.shard_iterator(split.name(), from).await {
        Err(other) if other.vendor_code() == Some(INVALID_ARGUMENT) => error,
        Err(other) if other.kind() == ErrorKind::Denied => error,
        Err(other) => other,
        Ok(_) => Error::new(ErrorKind::Config, error.to_string()),
    }
}

/// The consumer may be another one by now.
fn forget(consumers: &Consumers, name: &str, error: &Error) {
    if error.vendor_code() == Some(NOT_FOUND) {
        consumers.forget(name);
    }
}

#[async_trait]
impl SplitReader for Reader {
    async fn ready(&mut self) {
        self.listen();
        while !self.ended && self.in_hand.is_none() && self.trouble.is_none() {
            match self.step(false).await {
                Ok(Step::Event(event)) => self.in_hand = Some(event),
                Ok(Step::Arrived) => break,
                Ok(Step::Again) => {}
                Err(error) => self.trouble = Some(error),
            }
        }
        self.listened();
    }

    async fn next(&mut self) -> Result<Polled> {
        self.listen();
        let outcome = loop {
            if self.ended {
                break Ok(Polled::End);
            }
            if let Some(error) = self.trouble.take() {
                break Err(error);
            }
            if let Some(event) = self.in_hand.take() {
                break Ok(self.take(event));
            }
            match self.step(true).await {
                Ok(Step::Event(event)) => self.in_hand = Some(event),
                Ok(Step::Arrived | Step::Again) => {}
                Err(error) => break Err(error),
            }
        };
        self.listened();
        outcome
    }

    fn passed(&mut self) -> Option<Cursor> {
        self.passed.take()
    }

    fn now(&self) -> Timestamp {
        self.whose.shared.client.now()
    }

    fn horizon(&self) -> Option<Timestamp> {
        self.horizon
    }

    fn gap(&mut self) -> Option<Gap> {
        self.gap.take()
    }
}
