//! Trouble on command. Each fault lasts until a moment or for so many calls; [`Model::heal`] ends them all.

use std::{collections::BTreeMap, time::Duration};

use rand::Rng;

use super::{Model, Number, Refusal};

/// How a shard refuses to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Throttle {
    /// `ProvisionedThroughputExceededException`.
    Error,
    /// A successful answer without records, although there are some (docs/kinesis.md 1).
    Silence,
}

/// How an entry of a `PutRecords` fails while others are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryFailure {
    /// The shard takes no more in this second.
    Throughput,
    /// The service's own trouble.
    Internal,
    /// The key that encrypts the stream is throttled.
    Kms,
}

impl EntryFailure {
    /// `ErrorCode`.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Throughput => "ProvisionedThroughputExceededException",
            Self::Internal => "InternalFailure",
            Self::Kms => "KMSThrottlingException",
        }
    }
}

type ShardKey = (String, u32);

#[derive(Default, Debug)]
pub(super) struct Faults {
    throttled: BTreeMap<ShardKey, (Duration, Throttle)>,
    hidden: BTreeMap<ShardKey, Duration>,
    half_open: BTreeMap<ShardKey, Duration>,
    empty_pages: BTreeMap<ShardKey, u32>,
    /// Iterators made at this moment or earlier are expired.
    pub(super) expired: Option<Duration>,
    /// Subscriptions made at this moment or earlier bring nothing any more, and do not end.
    pub(super) dead: Option<Duration>,
    /// Listings show resharding so much later.
    pub(super) listing_lag: Duration,
    /// Whether it is looked at when a request was signed.
    pub(super) strict_clocks: bool,
    broken: Option<(Duration, f64)>,
    slow: Option<(Duration, Duration)>,
    entries: Option<(u32, EntryFailure)>,
    entries_sometimes: Option<(Duration, f64)>,
    lost_answers: u32,
}

impl Model {
    /// Reads of a shard are throttled until then.
    pub fn throttle(&mut self, stream: &str, shard: u32, until: Duration, how: Throttle) {
        self.faults.throttled.insert((stream.to_owned(), shard), (until, how));
    }

    /// Listings do not show a shard until then.
    pub fn hide(&mut self, stream: &str, shard: u32, until: Duration) {
        self.faults.hidden.insert((stream.to_owned(), shard), until);
    }

    /// From now on, listings show a split or merge so much after it happened.
    pub fn lag_listings(&mut self, lag: Duration) {
        self.faults.listing_lag = lag;
    }

    /// Subscriptions of a shard bring nothing until then, and do not end either.
    pub fn half_open(&mut self, stream: &str, shard: u32, until: Duration) {
        self.faults.half_open.insert((stream.to_owned(), shard), until);
    }

    /// The connections of all subscriptions so far are half open, for good.
    pub fn deaden_subscriptions(&mut self, now: Duration) {
        self.faults.dead = Some(now);
    }

    /// The next reads of a shard come back empty although records follow.
    pub fn empty_pages(&mut self, stream: &str, shard: u32, pages: u32) {
        self.faults.empty_pages.insert((stream.to_owned(), shard), pages);
    }

    /// All iterators that were handed out so far are expired.
    pub fn expire_iterators(&mut self, now: Duration) {
        self.faults.expired = Some(now);
    }

    /// Until then, this part of all calls ends with an error of the service.
    pub fn fail_calls(&mut self, until: Duration, probability: f64) {
        self.faults.broken = Some((until, probability));
    }

    /// From now on, and through [`Model::heal`], a request is refused if the clock that signed it is more than five minutes
    /// wrong. The real service is always so; a world with worse clocks than that must ask for it.
    pub fn check_clocks(&mut self, check: bool) {
        self.faults.strict_clocks = check;
    }

    /// Until then, answers leave so much later.
    pub fn slow_down(&mut self, until: Duration, delay: Duration) {
        self.faults.slow = Some((until, delay));
    }

    /// The next entries of `PutRecords` fail.
    pub fn fail_entries(&mut self, entries: u32, how: EntryFailure) {
        self.faults.entries = Some((entries, how));
    }

    /// Until then, this part of all entries of `PutRecords` fails, in one way or another.
    pub fn fail_some_entries(&mut self, until: Duration, probability: f64) {
        self.faults.entries_sometimes = Some((until, probability));
    }

    /// The next `PutRecords` are carried out and then answered with an error.
    pub fn lose_answers(&mut self, calls: u32) {
        self.faults.lost_answers = calls;
    }

    /// Lets go the records of a shard below a number, or all. A closed shard of which all goes is gone itself. Returns how
    /// many records went.
    ///
    /// # Errors
    /// No such stream or shard.
    pub fn trim(
        &mut self,
        now: Duration,
        stream: &str,
        shard: u32,
        below: Option<Number>,
    ) -> Result<usize, Refusal> {
        let shard = self.stream(stream)?.shard(now, shard)?;
        let below = below.unwrap_or_else(|| shard.tip());
        Ok(shard.trim(below))
    }

    /// From now on, records stay so long.
    ///
    /// # Errors
    /// No such stream.
    pub fn retain(&mut self, now: Duration, stream: &str, retention: Duration) -> Result<(), Refusal> {
        let stream = self.stream(stream)?;
        stream.shape.retention = retention;
        stream.age(now);
        Ok(())
    }

    /// Ends all faults. What was trimmed stays trimmed, expired iterators stay expired, and dead connections dead.
    pub fn heal(&mut self) {
        let Faults { expired, dead, strict_clocks, .. } = self.faults;
        self.faults = Faults { expired, dead, strict_clocks, ..Faults::default() };
    }
}

impl Faults {
    /// How reads of a shard are throttled, if they are.
    pub(super) fn throttled(&self, now: Duration, stream: &str, shard: u32) -> Option<Throttle> {
        if self.throttled.is_empty() {
            return None;
        }
        let (until, how) = self.throttled.get(&(stream.to_owned(), shard))?;
        (now < *until).then_some(*how)
    }

    pub(super) fn hidden(&self, now: Duration, stream: &str, shard: u32) -> bool {
        !self.hidden.is_empty()
            && self.hidden.get(&(stream.to_owned(), shard)).is_some_and(|&until| now < until)
    }

    pub(super) fn is_half_open(&self, now: Duration, stream: &str, shard: u32) -> bool {
        !self.half_open.is_empty()
            && self.half_open.get(&(stream.to_owned(), shard)).is_some_and(|&until| now < until)
    }

    /// Whether this read comes back empty although records follow.
    pub(super) fn take_empty_page(&mut self, stream: &str, shard: u32) -> bool {
        if self.empty_pages.is_empty() {
            return false;
        }
        match self.empty_pages.get_mut(&(stream.to_owned(), shard)) {
            Some(left) if *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        }
    }

    /// Whether this call fails whatever it is.
    pub(super) fn call(&self, now: Duration, random: &mut impl Rng) -> Result<(), Refusal> {
        match self.broken {
            Some((until, probability)) if now < until && random.random_bool(probability) => {
                Err(if random.random_bool(0.5) { Refusal::internal() } else { Refusal::unavailable() })
            }
            _ => Ok(()),
        }
    }

    /// How much later an answer leaves.
    pub(super) fn delay(&self, now: Duration) -> Duration {
        self.slow.filter(|(until, _)| now < *until).map_or(Duration::ZERO, |(_, delay)| delay)
    }

    /// How the next entry of a `PutRecords` fails, if it does.
    pub(super) fn take_entry(&mut self, now: Duration, random: &mut impl Rng) -> Option<EntryFailure> {
        if let Some((left, how)) = &mut self.entries
            && *left > 0
        {
            *left -= 1;
            return Some(*how);
        }
        let (_, probability) = self.entries_sometimes.filter(|(until, _)| now < *until)?;
        random.random_bool(probability).then(|| match random.random_range(0..3) {
            0 => EntryFailure::Internal,
            1 => EntryFailure::Kms,
            _ => EntryFailure::Throughput,
        })
    }

    /// Whether this `PutRecords` is carried out and then denied.
    pub(super) fn take_lost_answer(&mut self) -> bool {
        let lost = self.lost_answers > 0;
        self.lost_answers = self.lost_answers.saturating_sub(1);
        lost
    }
}
