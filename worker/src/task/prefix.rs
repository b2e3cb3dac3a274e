//! The intake of a run that writes what it reads: chunks in the order of their split. What is durable is its prefix (I1), and the
//! `End` comes when nothing can land any more (P10, P12).

use std::{future::pending, sync::Arc, time::Duration};

use logic::{
    ack::{AckTracker, ChunkId, Tracked},
    mutant,
};
use model::{Position, SplitId};
use tokio::sync::mpsc::Receiver;

use super::{
    chunk::{Chunk, Failure, Feed},
    intake::{Intake, Pile},
    job::Job,
    shown::Shown,
};

/// Chunks that the writer takes in before it stops taking.
const CHUNKS_MAX: usize = 256;

/// The chunks of one split.
pub(super) struct Prefix {
    split: SplitId,
    shown: Arc<Shown>,
    /// `None` once nothing more is taken in.
    feed: Option<Receiver<Feed>>,
    acks: AckTracker,
    end: Option<ChunkId>,
    /// Due once everything before it is delivered.
    failing: Option<Failure>,
}

impl Prefix {
    pub(super) fn new(job: &Job, start: Position, feed: Receiver<Feed>) -> Self {
        Self {
            split: job.split.clone(),
            shown: Arc::clone(&job.shown),
            feed: Some(feed),
            acks: AckTracker::new(start),
            end: None,
            failing: None,
        }
    }

    fn track(&mut self, chunk: Chunk, extra: usize, pile: &mut Pile) -> ChunkId {
        let tracked = Tracked {
            after: chunk.after.clone(),
            marks: chunk.rows() + chunk.letters.len() + chunk.sink_letters.len() + extra,
            records: chunk.records,
            bytes: 0,
        };
        let id = self.acks.track(tracked, pile.now());
        pile.put(id, &self.split, chunk);
        id
    }

    fn pass(&mut self, pile: &mut Pile) {
        if let Some(advance) = self.acks.advance() {
            let (caught_up_at, batches) = pile.held.free(advance.chunk);
            self.shown.delivered(batches);
            self.shown.reach(advance.position, advance.records, caught_up_at);
        }
    }
}

impl Intake for Prefix {
    type Came = Feed;
    const EARLY: bool = false;

    async fn next(&mut self) -> Option<Feed> {
        match &mut self.feed {
            Some(feed) if self.acks.len() < CHUNKS_MAX => feed.recv().await,
            _ => pending().await,
        }
    }

    fn take(&mut self, came: Option<Feed>, pile: &mut Pile) -> Option<Failure> {
        match came {
            Some(Feed::Chunk(chunk)) => {
                self.track(*chunk, 0, pile);
            }
            Some(Feed::End) => {
                pile.outbox.close();
                if !mutant::on("end_not_checkpointed") {
                    self.end = Some(self.track(Chunk::empty(Position::End), 1, pile));
                }
            }
            Some(Feed::Failed(failure)) => {
                pile.outbox.close();
                self.failing = Some(failure);
            }
            None => self.feed = None,
        }
        None
    }

    fn acked(&mut self, chunk: ChunkId, marks: usize) {
        self.acks.ack(chunk, marks);
    }

    fn refused(&mut self, _: ChunkId, failure: Failure, _: &mut Pile) -> Option<Failure> {
        Some(failure)
    }

    /// Moves the prefix; `End` only when nothing can land any more. A failure that waited for what came before it is due now.
    fn advance(&mut self, pile: &mut Pile) -> Option<Failure> {
        self.pass(pile);
        if let Some(end) = self.end
            && self.acks.is_only(end)
            && pile.outbox.in_flight() == 0
            && pile.now() >= pile.outbox.quiet_at()
        {
            self.acks.ack(end, 1);
            self.pass(pile);
        }
        if self.acks.is_empty() { self.failing.take() } else { None }
    }

    fn state(&self, now: Duration) -> (Option<Duration>, &'static str) {
        let ended = self.end.is_some() && self.acks.position().is_end();
        let waits = if ended { "nothing: the split has ended and everything is delivered" } else { "" };
        (self.acks.oldest_unacked(now), waits)
    }
}
