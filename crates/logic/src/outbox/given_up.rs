//! P21: rows that nobody wants any more, because a newer run of their split sends them again.

use super::{Outbox, RequestId};
use crate::{ack::ChunkId, mutant};

impl Outbox {
    /// P21: rows of these chunks are not wanted any more. What is not under way is dropped; what is keeps its keys busy until
    /// its request is resolved, and what may still land afterwards holds newer rows back (P12), but it is not sent again.
    pub fn give_up(&mut self, unwanted: impl Fn(ChunkId) -> bool) {
        self.pending.retain(|pending| !unwanted(pending.row.chunk));
        self.pending_bytes = self.pending.iter().map(|pending| u64::from(pending.row.bytes)).sum();
        for pending in self.in_flight.values_mut().flat_map(|request| &mut request.rows) {
            pending.given_up |= unwanted(pending.row.chunk);
        }
        if mutant::on("p21_old_rows_written") {
            self.keys_in_flight.clear();
            self.holds.clear();
        }
        // A half that was looked for may be gone: the bad row, if it is still here, is looked for anew.
        self.halves = self.halves.anew();
        self.pending.iter_mut().for_each(|pending| pending.half = 0);
        self.stalled = false;
    }

    /// A row of a request that is under way was given up since it was sent.
    #[must_use]
    pub fn is_given_up(&self, id: RequestId, index: usize) -> bool {
        self.in_flight.get(&id).and_then(|request| request.rows.get(index)).is_some_and(|row| row.given_up)
    }
}
