//! How far a task is: the contiguous prefix of its split that is delivered, over acks that come in any order (I1, I4).
//!
//! The writer of a task tracks every chunk of records in the order of the split and acks its rows as they become durable. Only
//! the front moves the position, so no checkpoint passes a record that is not delivered or put into the dead letters. The
//! `End` of a split is a chunk like any other whose single mark is acked last. Bytes count until the prefix has passed them:
//! that bounds what a stuck row can pile up behind itself (I8).

use std::{collections::VecDeque, time::Duration};

use model::Position;

use crate::mutant;

/// Names a tracked chunk; ascending in the order of the split.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ChunkId(pub u64);

/// What is known of a chunk when it is tracked.
#[derive(Clone, Debug)]
pub struct Tracked {
    /// The position once everything in it is acked.
    pub after: Position,
    /// Marks that must be acked before it is done: rows, dead letters, the end itself. Zero is done at once.
    pub marks: usize,
    /// Records of the source in it, for the count of delivered records.
    pub records: u64,
    /// Bytes it holds in memory.
    pub bytes: u64,
}

/// What the prefix has newly passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advance {
    /// The newest position.
    pub position: Position,
    /// The newest chunk that is done; every older one is, too.
    pub chunk: ChunkId,
    /// Records passed by this advance.
    pub records: u64,
    /// Bytes set free by this advance.
    pub bytes: u64,
}

#[derive(Debug)]
struct Item {
    tracked: Tracked,
    at: Duration,
}

/// Chunks in order, each with the marks that are still missing.
#[derive(Debug)]
pub struct AckTracker {
    items: VecDeque<Item>,
    first: u64,
    position: Position,
}

impl AckTracker {
    /// Nothing is tracked; the position is where the task starts.
    #[must_use]
    pub fn new(start: Position) -> Self {
        Self { items: VecDeque::new(), first: 0, position: start }
    }

    /// Tracks the next chunk of the split.
    pub fn track(&mut self, tracked: Tracked, now: Duration) -> ChunkId {
        let id = ChunkId(self.first + self.items.len() as u64);
        self.items.push_back(Item { tracked, at: now });
        id
    }

    /// `marks` of a chunk are durable. Acks of a chunk that the prefix has passed change nothing.
    pub fn ack(&mut self, chunk: ChunkId, marks: usize) {
        let Some(index) = chunk.0.checked_sub(self.first) else { return };
        let Some(item) = usize::try_from(index).ok().and_then(|i| self.items.get_mut(i)) else { return };
        debug_assert!(item.tracked.marks >= marks, "more acks than marks in {chunk:?}");
        item.tracked.marks = item.tracked.marks.saturating_sub(marks);
    }

    /// Moves the prefix over every chunk that is done; `None` if it stands where it stood.
    pub fn advance(&mut self) -> Option<Advance> {
        let mut advance: Option<Advance> = None;
        let done = |item: &Item| item.tracked.marks == 0;
        while self.items.front().is_some_and(done)
            || (mutant::on("highest_ack") && self.items.iter().any(done))
        {
            let Some(Item { tracked, .. }) = self.items.pop_front() else { break };
            let chunk = ChunkId(self.first);
            self.first += 1;
            let (records, bytes) = advance.map_or((0, 0), |a| (a.records, a.bytes));
            advance = Some(Advance {
                position: tracked.after,
                chunk,
                records: records + tracked.records,
                bytes: bytes + tracked.bytes,
            });
        }
        if let Some(advance) = &advance {
            self.position = advance.position.clone();
        }
        advance
    }

    /// Everything up to here is delivered.
    #[must_use]
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// True when nothing tracked is missing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Chunks that are not done, or wait for an older one.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// True when this chunk is all that is missing.
    #[must_use]
    pub fn is_only(&self, chunk: ChunkId) -> bool {
        self.items.len() == 1 && self.first == chunk.0
    }

    /// How long the oldest chunk that is not done has been tracked.
    #[must_use]
    pub fn oldest_unacked(&self, now: Duration) -> Option<Duration> {
        self.items.front().map(|item| now.saturating_sub(item.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Cursor, StartFrom};
    use proptest::prelude::*;

    const NOW: Duration = Duration::ZERO;

    fn tracked(n: usize, marks: usize) -> Tracked {
        Tracked { after: Position::After(Cursor::new(n.to_string())), marks, records: 3, bytes: 10 }
    }

    fn tracker() -> AckTracker {
        AckTracker::new(Position::Start(StartFrom::Horizon))
    }

    #[test]
    fn a_late_front_holds_everything_back() {
        let mut acks = tracker();
        let a = acks.track(tracked(1, 2), NOW);
        let b = acks.track(tracked(2, 1), NOW);
        acks.ack(b, 1);
        acks.ack(a, 1);
        assert_eq!(acks.advance(), None);
        assert_eq!(acks.oldest_unacked(Duration::from_secs(3)), Some(Duration::from_secs(3)));
        acks.ack(a, 1);
        let advance = acks.advance().unwrap();
        assert_eq!((advance.chunk, advance.records, advance.bytes), (b, 6, 20));
        assert_eq!(acks.position(), &Position::After(Cursor::new("2")));
        assert!(acks.is_empty());
    }

    #[test]
    fn end_comes_only_when_everything_before_is_acked() {
        let mut acks = tracker();
        let a = acks.track(tracked(1, 1), NOW);
        let end = acks.track(Tracked { after: Position::End, marks: 1, records: 0, bytes: 0 }, NOW);
        acks.ack(end, 1);
        assert_eq!(acks.advance(), None);
        assert!(!acks.is_only(end));
        acks.ack(a, 1);
        assert!(acks.advance().unwrap().position.is_end());
    }

    #[test]
    fn a_chunk_without_marks_waits_for_its_turn() {
        let mut acks = tracker();
        let a = acks.track(tracked(1, 1), NOW);
        acks.track(tracked(2, 0), NOW);
        assert_eq!(acks.advance(), None);
        acks.ack(a, 1);
        assert_eq!(acks.advance().unwrap().position, Position::After(Cursor::new("2")));
    }

    proptest! {
        /// I1 and I4: whatever the order of the acks, the position is that of the longest complete prefix and never goes back.
        #[test]
        fn the_position_is_the_longest_complete_prefix(
            sizes in prop::collection::vec(0_usize..4, 1..40),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..200),
        ) {
            let mut acks = tracker();
            let ids: Vec<ChunkId> =
                sizes.iter().enumerate().map(|(n, marks)| acks.track(tracked(n, *marks), NOW)).collect();
            let mut missing = sizes.clone();
            let (mut passed, mut freed) = (0, 0);
            for pick in order {
                let n = pick.index(sizes.len());
                if missing[n] > 0 {
                    missing[n] -= 1;
                    acks.ack(ids[n], 1);
                }
                let advance = acks.advance();
                let prefix = missing.iter().take_while(|m| **m == 0).count();
                prop_assert!(prefix >= passed);
                if let Some(advance) = advance {
                    prop_assert_eq!(&advance.position, &Position::After(Cursor::new((prefix - 1).to_string())));
                    freed += advance.bytes;
                } else {
                    prop_assert_eq!(prefix, passed);
                }
                passed = prefix;
                prop_assert_eq!(freed, 10 * prefix as u64);
            }
        }
    }
}
