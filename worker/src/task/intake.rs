//! What a writer writes: the rows of one split, in its order ([`super::prefix`]), or those of many that come to a partition
//! ([`super::parts`]). The writer itself is the same.

use std::{future::Future, sync::Arc, time::Duration};

use logic::{
    ack::ChunkId,
    outbox::{Outbox, Row},
};
use model::SplitId;
use tokio::time::Instant;

use super::{
    chunk::{Chunk, Failure},
    held::{Held, Kept},
    job::{BuiltSource, Tenure},
};
use crate::dead_letter::Desks;

/// Where rows come from, and who is told that they are durable.
pub(super) trait Intake: Send {
    /// Something that comes.
    type Came: Send;
    /// Whether it takes in before the gate (P10).
    const EARLY: bool;

    /// What comes next; `None`: nothing more will. Cancel safe.
    fn next(&mut self) -> impl Future<Output = Option<Self::Came>> + Send;
    /// Takes it in; `None`: nothing more is taken in. A failure means that the run must end.
    fn take(&mut self, came: Option<Self::Came>, pile: &mut Pile) -> Option<Failure>;
    /// So many rows, or letters, of a chunk are durable.
    fn acked(&mut self, chunk: ChunkId, marks: usize);
    /// A row of a chunk was refused, and that is fatal: for the run, or for the one that it came from.
    fn refused(&mut self, chunk: ChunkId, failure: Failure, pile: &mut Pile) -> Option<Failure>;
    /// Tells who waits for it what is durable. A failure means that the run must end now.
    fn advance(&mut self, pile: &mut Pile) -> Option<Failure>;
    /// How long the oldest chunk has been waiting, and what the intake itself waits for.
    fn state(&self, now: Duration) -> (Option<Duration>, &'static str);
}

/// What a writer has in hand: rows that wait or are under way, the chunks that they are in, and records on their way to the dead
/// letters.
pub(super) struct Pile {
    pub(super) outbox: Outbox,
    pub(super) held: Held,
    pub(super) letters: Desks,
    pub(super) origin: Instant,
}

impl Pile {
    pub(super) fn new(tenure: &Arc<Tenure>, source: Option<&BuiltSource>) -> Self {
        Self {
            outbox: Outbox::new(tenure.sink.order(), tenure.commons.last_breath),
            held: Held::default(),
            letters: Desks::new(tenure, source.and_then(|source| source.letters.as_ref())),
            origin: Instant::now(),
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Another chunk.
    pub(super) fn put(&mut self, id: ChunkId, split: &SplitId, mut chunk: Chunk) {
        let now = self.now();
        for index in 0..chunk.rows() {
            let bytes = chunk.sizes.get(index).copied().unwrap_or(0);
            let key = chunk.keys.get(index).copied().unwrap_or(0);
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            self.outbox.push(Row { chunk: id, index, bytes, key }, now);
        }
        self.letters.of_source(id, split, std::mem::take(&mut chunk.letters));
        self.letters.of_sink(id, split, std::mem::take(&mut chunk.sink_letters));
        self.held.push(id, Kept { split: split.clone(), chunk });
    }
}
