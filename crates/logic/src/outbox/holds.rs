//! P12: attempts that may still land, and what waits until they cannot.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::time::Duration;

/// Rows newer than `upto` wait until `until`.
#[derive(Clone, Copy, Debug)]
struct Hold {
    upto: u64,
    until: Duration,
}

/// What holds rows back, by key.
#[derive(Debug, Default)]
pub(super) struct Holds {
    of_key: HashMap<u64, Vec<Hold>>,
    /// How many end when: attempts are few, keys are many.
    ends: BTreeMap<Duration, usize>,
    /// When those that were over were last looked for.
    swept: Duration,
}

impl Holds {
    pub(super) fn is_empty(&self) -> bool {
        self.of_key.is_empty()
    }

    /// An attempt that carried row `upto` of this key may land until `until`.
    pub(super) fn add(&mut self, key: u64, upto: u64, until: Duration) {
        let holds = self.of_key.entry(key).or_default();
        let new = Hold { upto, until };
        let stricter = |a: &Hold, b: &Hold| a.upto <= b.upto && a.until >= b.until;
        if holds.iter().any(|old| stricter(old, &new)) {
            return;
        }
        for old in holds.extract_if(.., |old| stricter(&new, old)) {
            if let Some(count) = self.ends.get_mut(&old.until) {
                *count -= 1;
                if *count == 0 {
                    self.ends.remove(&old.until);
                }
            }
        }
        holds.push(new);
        *self.ends.entry(until).or_default() += 1;
    }

    /// Whether row `seq` of this key waits.
    pub(super) fn hold(&self, key: u64, seq: u64, now: Duration) -> bool {
        let holds = self.of_key.get(&key).map_or(&[][..], Vec::as_slice);
        holds.iter().any(|hold| seq > hold.upto && hold.until > now)
    }

    /// When the next of them ends.
    pub(super) fn next_end(&self, now: Duration) -> Option<Duration> {
        self.ends.range((Bound::Excluded(now), Bound::Unbounded)).next().map(|(until, _)| *until)
    }

    /// Forgets what is over: at once if all is, otherwise looked for once in `every`.
    pub(super) fn forget(&mut self, now: Duration, every: Duration) {
        if self.next_end(now).is_none() {
            self.clear();
        } else if now >= self.swept + every {
            self.swept = now;
            self.of_key.retain(|_, holds| {
                holds.retain(|hold| hold.until > now);
                !holds.is_empty()
            });
            self.ends.retain(|until, _| *until > now);
        }
    }

    pub(super) fn clear(&mut self) {
        self.of_key.clear();
        self.ends.clear();
    }

    #[cfg(test)]
    pub(super) fn keys(&self) -> usize {
        self.of_key.len()
    }
}
