//! Looking for the bad row of a refused request: which half is tried, and what waits for the answer.
//!
//! A request that was refused as a whole is split, and only its first half is sent. If that lands, the bad row is in the second
//! half, which is split at once without being sent as a whole; if it is refused, the second half waits with the others until
//! the bad row is found, and they go together. So one bad row among n costs log₂(n) requests, the one in which it stands alone,
//! and one for the others.

use std::collections::HashMap;

use super::{InFlight, Outbox, Pending, Resolved};

/// Names the rows of one half; zero is none.
pub(super) type Half = u32;

/// What waits for a half that is tried.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waiting {
    /// The other half; zero if the bad row must be in the one that is tried.
    pub(super) other: Half,
    /// Rows that nothing is known of, until the bad row is found.
    pub(super) parked: Half,
}

/// The halves that are tried, each with what waits for it.
#[derive(Debug, Default)]
pub(super) struct Halves {
    searches: HashMap<Half, Waiting>,
    newest: Half,
}

impl Halves {
    /// A new name.
    pub(super) fn name(&mut self) -> Half {
        self.newest = self.newest.wrapping_add(1).max(1);
        self.newest
    }

    /// Nothing is looked for; old names are not used again.
    pub(super) fn anew(&self) -> Self {
        Self { searches: HashMap::new(), newest: self.newest }
    }

    /// This half is tried next.
    pub(super) fn search(&mut self, tried: Half, waiting: Waiting) {
        self.searches.insert(tried, waiting);
    }

    /// True for rows that may not be sent yet.
    pub(super) fn waits(&self, half: Half) -> bool {
        half != 0 && self.searches.values().any(|waiting| waiting.other == half || waiting.parked == half)
    }

    /// It is clear what came of a half that was tried: what waited for it.
    pub(super) fn settle(&mut self, tried: Half) -> Option<Waiting> {
        self.searches.remove(&tried)
    }
}

impl Outbox {
    /// Refused as a whole: the first half is tried next, the second waits for what comes of it.
    pub(super) fn halve(&mut self, mut rows: Vec<Pending>) -> Resolved {
        let before = rows.first().and_then(|first| self.halves.settle(first.half)).unwrap_or_default();
        let parked = if before.parked == 0 { self.halves.name() } else { before.parked };
        self.rename(before.other, usize::MAX, (parked, parked));
        let (middle, tried, other) = (rows.len() / 2, self.halves.name(), self.halves.name());
        for (index, pending) in rows.iter_mut().enumerate() {
            pending.half = if index < middle { tried } else { other };
        }
        self.halves.search(tried, Waiting { other, parked });
        self.again(rows)
    }

    /// A request with rows of a half was answered. Once all of the half has landed, the bad row is in the other one.
    pub(super) fn tried(&mut self, half: Half, refused: bool) {
        let under_way = |request: &InFlight| request.rows.iter().any(|p| p.half == half);
        if !refused && (self.count_half(half, 0) > 0 || self.in_flight.values().any(under_way)) {
            return;
        }
        let Some(Waiting { other, parked }) = self.halves.settle(half) else { return };
        let rows = if refused || other == 0 { 0 } else { self.count_half(other, 0) };
        match rows {
            0 => {
                self.rename(other, usize::MAX, (0, 0));
                self.rename(parked, usize::MAX, (0, 0));
            }
            1 => self.halves.search(other, Waiting { other: 0, parked }),
            rows => {
                let (tried, rest) = (self.halves.name(), self.halves.name());
                self.rename(other, rows / 2, (tried, rest));
                self.halves.search(tried, Waiting { other: rest, parked });
            }
        }
    }

    /// The first `count` rows of a half and those behind them get other names.
    fn rename(&mut self, half: Half, count: usize, (first, rest): (Half, Half)) {
        if half == 0 {
            return;
        }
        for (index, pending) in self.pending.iter_mut().filter(|p| p.half == half).enumerate() {
            pending.half = if index < count { first } else { rest };
        }
    }

    /// Rows of a half that are pending, the first `from` pending ones left out.
    pub(super) fn count_half(&self, half: Half, from: usize) -> usize {
        self.pending.range(from..).filter(|pending| pending.half == half).count()
    }
}
