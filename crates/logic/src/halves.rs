//! Looking for the bad row of a refused request: which half is tried, and which half waits for the answer. Used by the outbox.
//!
//! A request that was refused as a whole is split, and only its first half is sent. If that lands, the bad row is in the second
//! half, which is split at once without being sent as a whole; if it is refused, the second half is free to go with others. So
//! one bad row among n costs log₂(n) requests and the one in which it stands alone.

use std::collections::HashMap;

/// Names the rows of one half; zero is none.
pub(crate) type Half = u32;

/// The halves that wait for another.
#[derive(Debug, Default)]
pub(crate) struct Halves {
    /// By the half that is tried: the one that waits for what comes of it.
    waiting: HashMap<Half, Half>,
    newest: Half,
}

impl Halves {
    /// Two new halves: one to be tried, and one that waits for it.
    pub(crate) fn split(&mut self) -> (Half, Half) {
        let (tried, waits) = (self.name(), self.name());
        self.waiting.insert(tried, waits);
        (tried, waits)
    }

    fn name(&mut self) -> Half {
        self.newest = self.newest.wrapping_add(1).max(1);
        self.newest
    }

    /// True for a half that may not be sent yet.
    pub(crate) fn waits(&self, half: Half) -> bool {
        half != 0 && self.waiting.values().any(|waits| *waits == half)
    }

    /// It is clear what came of a half: the one that waited for it, which waits no more.
    pub(crate) fn settle(&mut self, tried: Half) -> Option<Half> {
        self.waiting.remove(&tried)
    }
}
