//! What can be wrong with the store at a moment.

use std::time::Duration;

use store::Revision;

/// Why nobody is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outage {
    /// The server is down: connections are refused, watches break. When it is back, all leases have their whole time again.
    Down,
    /// The server hangs: nobody gets an answer. When it goes on, it serves what has piled up, and leases have run out.
    Hung,
    /// The members have no leader: each request is refused in a way that does not tell whether it was carried out, and watches
    /// are cancelled. When there is one, all leases have their whole time again.
    NoLeader,
}

/// Something that lasts until a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spell<T> {
    pub what: T,
    pub until: Duration,
}

/// What is wrong now, or ordered for later.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub outage: Option<Spell<Outage>>,
    /// How long the server thinks, at most: before it serves a request, and again before it answers.
    pub slow: Option<Spell<Duration>>,
    /// How much later watches are told.
    pub watch_lag: Option<Spell<Duration>>,
    /// Chance that a commit is carried out and its answer is lost.
    pub forgets: Option<Spell<f64>>,
    /// Chance that a commit is carried out later, after its connection broke, or never.
    pub delays: Option<Spell<f64>>,
}

impl Faults {
    /// Ends all but an outage, which has an end of its own.
    pub fn heal(&mut self) {
        *self = Self { outage: self.outage, ..Self::default() };
    }
}

/// What a fault does at `now`, if it has not passed.
pub(super) fn current<T: Copy>(spell: Option<Spell<T>>, now: Duration) -> Option<T> {
    spell.filter(|spell| now < spell.until).map(|spell| spell.what)
}

/// What a server says no to, having done nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    LeaseGone(i64),
    Compacted,
    Future(Revision),
    NoSpace,
}

/// Why a request has no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Failure {
    /// No server saw it.
    NotSent,
    /// The connection broke: it is not known whether it was served.
    Broken,
    /// Nobody will ever answer, served or not.
    Silent,
    /// The server did nothing, and says why.
    Refused(Refusal),
}
