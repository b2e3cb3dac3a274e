//! What can be wrong with the destination, and what becomes of a request because of it.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;

use crate::net::Net;

/// What can be wrong. Each lasts until a moment; chances are per request, `Rows` per row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Kind {
    /// Connections are refused.
    Down,
    /// Requests wait until it is over.
    Hung,
    /// The request is refused because it is too much.
    Throttle,
    /// Rows are not taken: `Throttled` or `Unavailable`.
    Rows,
    /// The rows are stored and the answer is lost.
    Forget,
    /// The connection breaks at once, and the rows are stored later, or never.
    Late,
    /// The first rows are stored and then the connection breaks.
    Prefix,
}

/// What is wrong now.
#[derive(Debug, Default)]
pub(super) struct Faults {
    spells: BTreeMap<Kind, (f64, Duration)>,
    slow: Option<(Duration, Duration)>,
    pub poison: Option<Bytes>,
}

impl Faults {
    pub fn set(&mut self, kind: Kind, chance: f64, until: Duration) {
        self.spells.insert(kind, (chance, until));
    }

    pub fn set_slow(&mut self, most: Duration, until: Duration) {
        self.slow = Some((most, until));
    }

    pub fn heal(&mut self) {
        self.spells.clear();
        self.slow = None;
    }

    /// Whether it strikes now.
    pub fn strikes(&self, kind: Kind, net: &Net) -> bool {
        match self.spells.get(&kind) {
            Some((chance, until)) => net.now() < *until && net.chance(*chance),
            None => false,
        }
    }

    /// When it is over; `None` if it is.
    pub fn until(&self, kind: Kind, now: Duration) -> Option<Duration> {
        self.spells.get(&kind).map(|(_, until)| *until).filter(|until| now < *until)
    }

    /// How long a request is thought about.
    pub fn thinking(&self, net: &Net) -> Duration {
        match self.slow {
            Some((most, until)) if net.now() < until => up_to(most, net),
            _ => Duration::ZERO,
        }
    }

    pub fn is_poison(&self, value: &[u8]) -> bool {
        let found = |poison: &Bytes| !poison.is_empty() && value.windows(poison.len()).any(|w| w == poison);
        self.poison.as_ref().is_some_and(found)
    }
}

/// A time of the seed's.
pub(super) fn up_to(most: Duration, net: &Net) -> Duration {
    Duration::from_micros(net.below(u64::try_from(most.as_micros()).unwrap_or(u64::MAX)))
}
