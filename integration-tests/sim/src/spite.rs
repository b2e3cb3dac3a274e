//! What is late and waits for the worst moment to land. Chance alone seldom finds it; so whatever must not land after something
//! else is kept here, and comes right after that something, if it comes in time.

use std::collections::BTreeMap;

/// Late things, oldest first.
#[derive(Debug)]
pub(crate) struct Spite<T> {
    last: u64,
    late: BTreeMap<u64, T>,
}

impl<T> Default for Spite<T> {
    fn default() -> Self {
        Self { last: 0, late: BTreeMap::new() }
    }
}

impl<T> Spite<T> {
    /// Keeps one; the number takes it back.
    pub fn keep(&mut self, late: T) -> u64 {
        self.last += 1;
        self.late.insert(self.last, late);
        self.last
    }

    /// Takes one back, if its moment has not come.
    pub fn take(&mut self, number: u64) -> Option<T> {
        self.late.remove(&number)
    }

    /// Takes those out whose worst moment is now.
    pub fn provoked(&mut self, is_worst: impl Fn(&T) -> bool) -> Vec<T> {
        let now: Vec<u64> = self.late.iter().filter(|(_, late)| is_worst(late)).map(|(&n, _)| n).collect();
        now.into_iter().filter_map(|number| self.take(number)).collect()
    }
}
