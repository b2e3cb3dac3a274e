//! The heart of ordered delivery, alike for all sinks: which rows may be sent now, and what becomes of them.
//!
//! The writer of a task pushes rows in the order of their split and asks for requests. The outbox keeps these rules:
//!
//! * Nothing after an undelivered row of the same key is sent: a row waits while an earlier row of its key is in another
//!   request, and when an entry of a request fails, it goes again *with every later row of that request that has its key*,
//!   before newer rows (I10).
//! * P12: after an ambiguous attempt, what it carried may still land until the attempt's start + last breath. The first row of
//!   each key in it may be sent again at once; everything newer of that key waits. That includes later rows of the same
//!   attempt: destinations take the entries of one request one by one, so an old entry could land alone, after a newer one.
//! * P8, and `End` as a newer value of every key: [`Outbox::quiet_at`] says when nothing can land any more.
//! * A request that the destination refused as a whole is halved until the row it refuses stands alone; what that costs is
//!   said in `halves`.
//!
//! ```text
//!           next_request                resolve: delivered
//!  pending ─────────────▶ in flight ─────────────────────────▶ done
//!     ▲                       │ └──── refused, alone ────────▶ refused (on_error decides)
//!     └── again, in order ────┘
//! ```

mod given_up;
mod halves;
mod holds;

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use halves::{Half, Halves};
use holds::Holds;

use crate::{
    ack::ChunkId,
    batch::{Fill, Limits},
    mutant,
};

/// How rows depend on each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Rows of one key stay in order; `Row::key` says which.
    Key,
    /// The same, and no two rows of one key share a request: for destinations that may take one entry of a request and not an
    /// earlier one.
    Single,
    /// All rows are one key.
    Whole,
    /// Rows are sent as they come.
    Free,
}

/// A row on its way, as the writer names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// The chunk that it is in.
    pub chunk: ChunkId,
    /// Its index in that chunk.
    pub index: u32,
    /// Its size.
    pub bytes: u32,
    /// Hash of its key; only looked at under [`Order::Key`] and [`Order::Single`].
    pub key: u64,
}

/// Names a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RequestId(u64);

/// Rows to be sent together, in order.
#[derive(Debug)]
pub struct Request {
    /// For [`Outbox::resolve`].
    pub id: RequestId,
    /// What to send.
    pub rows: Vec<Row>,
}

/// What came of one row that was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// It did not land: send it again.
    Again,
    /// It may have landed, or may still: send it again and hold back what is newer.
    Unknown,
    /// The destination looked at it and refused it.
    Refused,
    /// It was refused at first and landed when it was tried once more, after the rows behind it.
    Late,
}

/// What came of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// All rows are durable, except these (index in the request).
    Answered(Vec<(usize, Failure)>),
    /// Nothing of it landed or can land.
    NotSent,
    /// Any of it may have landed, or may still.
    Unknown,
    /// The destination refused it as a whole.
    Refused,
}

/// What a resolved request leaves behind.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Durable.
    pub done: Vec<Row>,
    /// Refused by the destination; they have left the outbox.
    pub refused: Vec<Row>,
    /// How many rows will be sent again.
    pub again: usize,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    seq: u64,
    row: Row,
    /// Of a refused request: the half that it is in.
    half: Half,
    /// Since when it waits for company; `None` once it was sent.
    since: Option<Duration>,
    /// It was given up while it was under way: it is not sent again.
    given_up: bool,
}

#[derive(Debug)]
struct InFlight {
    rows: Vec<Pending>,
    started: Duration,
}

/// The key of a row is a hash already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, _: &[u8]) {
        unreachable!("the key of a row is a u64");
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Rows between the decoder and the destination.
#[derive(Debug)]
pub struct Outbox {
    order: Order,
    last_breath: Duration,
    pending: VecDeque<Pending>,
    pending_bytes: u64,
    in_flight: HashMap<RequestId, InFlight>,
    keys_in_flight: HashMap<u64, RequestId, BuildHasherDefault<Hashed>>,
    holds: Holds,
    quiet_at: Duration,
    lingers_until: Option<Duration>,
    closing: bool,
    /// Every row waits for a request that is under way: no use in looking again before one is resolved or a row comes.
    stalled: bool,
    /// What may be sendable that was not when the last request was made: rows that came, and rows whose request is resolved.
    news: (usize, u64),
    /// The last request was full: more of what it left may be sendable.
    left_some: bool,
    /// When the last request was made.
    started: Duration,
    next_seq: u64,
    next_request: u64,
    halves: Halves,
}

impl Outbox {
    /// An empty one. `last_breath`: how long after its start an attempt of unknown outcome may land.
    #[must_use]
    pub fn new(order: Order, last_breath: Duration) -> Self {
        Self {
            order,
            last_breath,
            pending: VecDeque::new(),
            pending_bytes: 0,
            in_flight: HashMap::new(),
            keys_in_flight: HashMap::default(),
            holds: Holds::default(),
            quiet_at: Duration::ZERO,
            lingers_until: None,
            closing: false,
            stalled: false,
            news: (0, 0),
            left_some: false,
            started: Duration::ZERO,
            next_seq: 0,
            next_request: 0,
            halves: Halves::default(),
        }
    }

    /// The next row of the split.
    pub fn push(&mut self, row: Row, now: Duration) {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.pending_bytes += u64::from(row.bytes);
        self.stalled = false;
        self.news = (self.news.0 + 1, self.news.1 + u64::from(row.bytes));
        self.pending.push_back(Pending { seq, row, half: 0, since: Some(now), given_up: false });
    }

    /// Nothing more is coming: rows no longer wait for company.
    pub fn close(&mut self) {
        self.closing = true;
    }

    /// A row of a request that is under way.
    #[must_use]
    pub fn row(&self, id: RequestId, index: usize) -> Option<Row> {
        self.in_flight.get(&id)?.rows.get(index).map(|pending| pending.row)
    }

    /// How many rows a request that is under way has.
    #[must_use]
    pub fn rows(&self, id: RequestId) -> usize {
        self.in_flight.get(&id).map_or(0, |request| request.rows.len())
    }

    /// Some rows of a request that is under way are sent once more, now: only this attempt can still land.
    pub fn restart(&mut self, id: RequestId, now: Duration) {
        if let Some(request) = self.in_flight.get_mut(&id) {
            request.started = now;
        }
    }

    /// Rows that wait to be sent.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Requests under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// When the last attempt of unknown outcome can land no more: `End` and `drained` wait for it, and for
    /// [`Outbox::in_flight`] to be zero.
    #[must_use]
    pub fn quiet_at(&self) -> Duration {
        self.quiet_at
    }

    /// When asking again may give a request that time alone held back.
    #[must_use]
    pub fn wake_at(&self, now: Duration) -> Option<Duration> {
        if self.pending.is_empty() {
            return None;
        }
        let lingers = self.lingers_until.filter(|until| *until > now);
        self.holds.next_end(now).into_iter().chain(lingers).min()
    }

    /// The longest run of rows that may be sent now, within the limits; `None` if every row has to wait. The attempt counts
    /// as started now.
    pub fn next_request(&mut self, limits: &Limits, now: Duration) -> Option<Request> {
        self.lingers_until = None;
        let whole = self.order == Order::Whole && !self.in_flight.is_empty();
        if self.pending.is_empty() || self.stalled || whole {
            return None;
        }
        if self.gathers(limits, now) {
            self.lingers_until = Some(self.started + limits.linger);
            return None;
        }
        self.holds.forget(now, self.last_breath);
        let id = RequestId(self.next_request);
        let rows = self.take(id, limits, now);
        if rows.is_empty() {
            self.stalled = self.lingers_until.is_none() && self.holds.is_empty();
            return None;
        }
        self.next_request += 1;
        (self.news, self.started) = ((0, 0), now);
        let request = Request { id, rows: rows.iter().map(|p| p.row).collect() };
        self.in_flight.insert(id, InFlight { rows, started: now });
        Some(request)
    }

    /// While a request is under way, another one that cannot be full waits for company, at most `linger` after the last one:
    /// or each row that becomes free would travel alone.
    fn gathers(&self, limits: &Limits, now: Duration) -> bool {
        let (rows, bytes) = self.news;
        let may_be_full = self.left_some || self.closing || limits.filled_by(rows, bytes);
        !self.in_flight.is_empty() && !may_be_full && self.started + limits.linger > now
    }

    fn take(&mut self, id: RequestId, limits: &Limits, now: Duration) -> Vec<Pending> {
        let (mut taken, mut fill): (Vec<Pending>, _) = (Vec::new(), Fill::default());
        // Rows before `at` were looked at; those that stay have moved together, to before `kept`.
        let (mut at, mut kept) = (0, 0);
        // Keys whose rows are passed over for another reason than `is_held`, and how many rows of the half are still missing.
        let (mut stuck, mut missing): (HashSet<u64>, usize) = (HashSet::new(), usize::MAX);
        self.left_some = true;
        while missing > 0
            && let Some(next) = self.pending.get(at).copied()
        {
            let first = taken.first().map_or(next.half, |first| first.half);
            let key = self.key(&next);
            let stays = self.halves.waits(next.half) || key.is_some_and(|key| stuck.contains(&key));
            if !stays && first != next.half && first == 0 {
                break;
            }
            if stays || first != next.half || self.is_held(&next, id, now) {
                if self.order == Order::Whole {
                    break;
                }
                if stays || first != next.half {
                    stuck.extend(key);
                }
                if kept != at {
                    self.pending[kept] = next;
                }
                (at, kept) = (at + 1, kept + 1);
                continue;
            }
            let waiting = self.pending.len() - at;
            if (taken.is_empty() && self.lingers(&next, waiting, limits, now))
                || !fill.take(next.row.bytes, limits)
            {
                break;
            }
            if next.half != 0 && taken.is_empty() {
                missing = self.count_half(next.half, at);
            }
            missing -= 1;
            at += 1;
            self.pending_bytes -= u64::from(next.row.bytes);
            if self.is_keyed() {
                self.keys_in_flight.insert(next.row.key, id);
            }
            taken.push(next);
        }
        self.left_some &= at < self.pending.len() && !taken.is_empty();
        self.pending.drain(kept..at);
        taken
    }

    fn is_held(&self, pending: &Pending, request: RequestId, now: Duration) -> bool {
        let key = match self.order {
            Order::Free => return false,
            Order::Whole => 0,
            Order::Key | Order::Single => pending.row.key,
        };
        let apart = self.order == Order::Single;
        let elsewhere = self.keys_in_flight.get(&key).is_some_and(|other| apart || *other != request);
        let ambiguous = || self.holds.hold(key, pending.seq, now);
        elsewhere || (!self.holds.is_empty() && !mutant::on("newer_rows_at_once") && ambiguous())
    }

    /// `waiting`: how many rows there are from the first on.
    fn lingers(&mut self, first: &Pending, waiting: usize, limits: &Limits, now: Duration) -> bool {
        let Some(until) = first.since.map(|since| since + limits.linger) else { return false };
        let waits = !self.closing && until > now && !limits.filled_by(waiting, self.pending_bytes);
        self.lingers_until = waits.then_some(until);
        waits
    }

    /// Says what came of a request. Rows to be sent again are pending at their old place.
    pub fn resolve(&mut self, id: RequestId, outcome: &Outcome) -> Resolved {
        let Some(InFlight { rows, started }) = self.in_flight.remove(&id) else { return Resolved::default() };
        let bytes: u64 = rows.iter().map(|pending| u64::from(pending.row.bytes)).sum();
        self.news = (self.news.0 + rows.len(), self.news.1 + bytes);
        self.stalled = false;
        if self.is_keyed() {
            for pending in &rows {
                self.keys_in_flight.remove(&pending.row.key);
            }
        }
        let until = started + self.last_breath;
        let half = rows.first().map_or(0, |first| first.half);
        let resolved = match outcome {
            Outcome::Answered(failed) if failed.is_empty() => {
                Resolved { done: rows.iter().map(|p| p.row).collect(), ..Resolved::default() }
            }
            Outcome::Answered(failed) => self.answered(&rows, failed, until),
            Outcome::NotSent => self.again(rows),
            Outcome::Unknown => {
                for pending in &rows {
                    self.hold(pending, until);
                }
                self.again(rows)
            }
            Outcome::Refused if rows.len() == 1 => {
                Resolved { refused: rows.iter().map(|p| p.row).collect(), ..Resolved::default() }
            }
            // Whom it meant is not known, and halves of what is left would not tell.
            Outcome::Refused if rows.iter().any(|pending| pending.given_up) => self.again(rows),
            Outcome::Refused => return self.halve(rows),
        };
        if half != 0 {
            self.tried(half, !resolved.refused.is_empty());
        }
        resolved
    }

    fn answered(&mut self, rows: &[Pending], failed: &[(usize, Failure)], until: Duration) -> Resolved {
        let failed: HashMap<usize, Failure> = failed.iter().copied().collect();
        let (mut resolved, mut again) = (Resolved::default(), Vec::new());
        let mut stuck: HashSet<u64> = HashSet::new();
        for (index, pending) in rows.iter().enumerate() {
            let key = self.key(pending);
            match failed.get(&index) {
                Some(Failure::Refused) => resolved.refused.push(pending.row),
                Some(Failure::Late) if !key.is_some_and(|key| stuck.contains(&key)) => {
                    stuck.extend(key);
                    resolved.done.push(pending.row);
                }
                Some(failure) => {
                    if *failure == Failure::Unknown {
                        self.hold(pending, until);
                    }
                    stuck.extend(key);
                    again.push(*pending);
                }
                None if key.is_some_and(|key| stuck.contains(&key)) => again.push(*pending),
                None => resolved.done.push(pending.row),
            }
        }
        Resolved { again: self.again(again).again, ..resolved }
    }

    fn key(&self, pending: &Pending) -> Option<u64> {
        match self.order {
            Order::Free => None,
            Order::Whole => Some(0),
            Order::Key | Order::Single => Some(pending.row.key),
        }
    }

    fn is_keyed(&self) -> bool {
        matches!(self.order, Order::Key | Order::Single)
    }

    /// An attempt that carried this row may land until `until`: newer rows of its key wait.
    fn hold(&mut self, pending: &Pending, until: Duration) {
        self.quiet_at = self.quiet_at.max(until);
        if let Some(key) = self.key(pending) {
            self.holds.add(key, pending.seq, until);
        }
    }

    /// Puts rows back where they were: before everything newer.
    fn again(&mut self, mut rows: Vec<Pending>) -> Resolved {
        rows.retain(|pending| !pending.given_up);
        let again = rows.len();
        let Some(newest) = rows.last().map(|last| last.seq) else { return Resolved::default() };
        let mut front: Vec<Pending> = Vec::with_capacity(again);
        while self.pending.front().is_some_and(|p| p.seq < newest) {
            front.extend(self.pending.pop_front());
        }
        for mut pending in rows {
            pending.since = None;
            self.pending_bytes += u64::from(pending.row.bytes);
            front.push(pending);
        }
        front.sort_unstable_by_key(|p| p.seq);
        for pending in front.into_iter().rev() {
            self.pending.push_front(pending);
        }
        Resolved { again, ..Resolved::default() }
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
