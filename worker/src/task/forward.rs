//! The sending half of a run whose sink is distributed by key: each chunk is cut by partition and sent on, and the position moves
//! as the partitions say that its rows are durable (P16–P20).
//!
//! There is no gate: a partition has its own, and knows which run of a split is the newest. `End` and `drained` wait for acks
//! alone. A partition that is away is waited for; what is sent to the others meanwhile is bounded by the memory of this split.

use std::{
    collections::VecDeque,
    future::{pending, poll_fn},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use daemon::trace::Span;
use logic::{
    ack::{AckTracker, ChunkId, Tracked},
    mutant,
};
use model::{Distribution, Position, RawRecord, Timestamp};
use tokio::{
    sync::mpsc::Receiver,
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    chunk::{Chunk, Failure, Feed},
    job::{Control, Ending, Job, Partitions},
    outlet::{Heard, Outlet, Parcel},
};
use crate::{
    dead_letter::{Buried, Desks},
    exchange::{Partitioner, Rows, Said, split},
};

/// Chunks that are taken in before no more are; of those that were sent only positions are kept.
const CHUNKS_MAX: usize = 1024;

enum Event {
    Stop(Instant),
    Said(usize, Option<Said>),
    Buried(Buried),
    Fed(Option<Feed>),
    Tick,
}

/// Sends for one run.
pub(crate) struct Forwarder {
    job: Arc<Job>,
    feed: Option<Receiver<Feed>>,
    acks: AckTracker,
    /// Chunks that end at the present of the split.
    present: VecDeque<(ChunkId, Timestamp)>,
    /// Chunks that are traced.
    traced: VecDeque<(ChunkId, Span)>,
    letters: Desks,
    partitioner: Option<Partitioner>,
    outlets: Vec<Outlet>,
    end: Option<ChunkId>,
    /// Due once everything before it is delivered.
    failing: Option<Failure>,
    origin: Instant,
    /// Which outlet is listened to first.
    turn: usize,
}

impl Forwarder {
    pub(crate) fn new(job: &Arc<Job>, partitions: &Partitions, feed: Receiver<Feed>) -> Self {
        let outlets = (0..).zip(&partitions.owners).map(|(n, owner)| Outlet::new(n, owner.clone()));
        Self {
            feed: Some(feed),
            acks: AckTracker::new(job.start.clone()),
            present: VecDeque::new(),
            traced: VecDeque::new(),
            letters: Desks::new(&job.tenure, job.source.letters.as_ref()),
            partitioner: None,
            outlets: outlets.collect(),
            end: None,
            failing: None,
            origin: Instant::now(),
            turn: 0,
            job: Arc::clone(job),
        }
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Runs until told to stop or until it must fail.
    pub(crate) async fn run(mut self, mut control: Control) -> Ending {
        self.job.shown.gate_opened();
        let (deadline, failure) = loop {
            self.tend();
            match self.next(&mut control).await {
                Event::Stop(deadline) => break (deadline, None),
                event => {
                    // A partition that cannot go on with this run acks nothing more: there is nothing to wait for.
                    if let Some(failure) = self.take(event) {
                        let drained = self.is_quiet();
                        return Ending { drained, failure: Some(failure) };
                    }
                }
            }
            self.advance();
            if self.acks.is_empty()
                && let Some(failure) = self.failing.take()
            {
                break (Instant::now(), Some(failure));
            }
        };
        self.settle(deadline, failure).await
    }

    fn tend(&mut self) {
        if let Some(Partitions { peers, .. }) = &self.job.partitions {
            self.outlets.iter_mut().for_each(|outlet| outlet.tend(&self.job, peers));
        }
        self.show();
    }

    async fn next(&mut self, control: &mut Control) -> Event {
        let due = self.outlets.iter().filter_map(Outlet::due).min();
        let due = due.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        let Self { outlets, turn, feed, letters, acks, .. } = self;
        let said = poll_fn(|cx| {
            for step in 0..outlets.len() {
                let index = (*turn + step) % outlets.len();
                if let Poll::Ready(said) = outlets[index].poll(cx) {
                    *turn = index + 1;
                    return Poll::Ready((index, said));
                }
            }
            Poll::Pending
        });
        tokio::select! { biased;
            deadline = control.stopping() => Event::Stop(deadline),
            (index, said) = said => Event::Said(index, said),
            buried = letters.buried() => Event::Buried(buried),
            fed = fed(feed, acks.len() < CHUNKS_MAX) => Event::Fed(fed),
            () = sleep_until(due) => Event::Tick,
        }
    }

    /// A failure means that the run must end.
    fn take(&mut self, event: Event) -> Option<Failure> {
        match event {
            Event::Said(index, said) => match self.outlets[index].hear(said, &self.job) {
                Heard::Acked(done) => done.into_iter().for_each(|(chunk, marks)| self.acks.ack(chunk, marks)),
                Heard::Failed(failure) => return Some(failure),
                Heard::Nothing => {}
            },
            Event::Buried(Buried { chunks, failure }) => {
                chunks.into_iter().for_each(|chunk| self.acks.ack(chunk, 1));
                return failure;
            }
            Event::Fed(Some(Feed::Chunk(chunk))) => return self.track(*chunk, 0).err(),
            Event::Fed(Some(Feed::End)) if !mutant::on("end_not_checkpointed") => {
                let end = self.track(Chunk::empty(Position::End), 1);
                self.end = end.ok();
            }
            Event::Fed(Some(Feed::Failed(failure))) => self.failing = Some(failure),
            Event::Fed(None) => self.feed = None,
            Event::Fed(_) | Event::Tick | Event::Stop(_) => {}
        }
        None
    }

    fn track(&mut self, mut chunk: Chunk, extra: usize) -> Result<ChunkId, Failure> {
        let parcels = self.parcels(&mut chunk)?;
        let only_first = mutant::on("ack_before_all_partitions");
        let rows = if only_first { parcels.first().map_or(0, |(_, rows)| rows.len()) } else { chunk.rows() };
        let tracked = Tracked {
            after: chunk.after,
            marks: rows + chunk.letters.len() + chunk.sink_letters.len() + extra,
            records: chunk.records,
            bytes: 0,
        };
        let id = self.acks.track(tracked, self.now());
        self.present.extend(chunk.caught_up_at.map(|at| (id, at)));
        let span = chunk.span;
        self.traced.extend(span.clone().map(|span| (id, span)));
        self.letters.of_source(id, &self.job.split, chunk.letters);
        self.letters.of_sink(id, &self.job.split, chunk.sink_letters);
        let portion = Arc::new(chunk.portion);
        for (place, (n, rows)) in parcels.into_iter().enumerate() {
            let (counts, portion) = (place == 0 || !only_first, Arc::clone(&portion));
            if let Some(outlet) = self.outlets.get_mut(n as usize) {
                outlet.push(Parcel { chunk: id, rows, counts, portion, span: span.clone() });
            }
        }
        Ok(id)
    }

    /// The rows of a chunk by their partition.
    fn parcels(&mut self, chunk: &mut Chunk) -> Result<Vec<(u32, Rows)>, Failure> {
        let Some(batch) = chunk.batch.clone().filter(|batch| !batch.is_empty()) else {
            return Ok(Vec::new());
        };
        let config = |error: String| Failure { error: format!("distribution: {error}"), kind: "config" };
        let count = u32::try_from(self.outlets.len()).unwrap_or(u32::MAX);
        if self.partitioner.is_none() {
            let Distribution::Key { columns, .. } = &self.job.sink.spec.distribution else {
                return Err(config("the sink has none by key".to_owned()));
            };
            let made = Partitioner::new(&batch.rows.schema(), columns, count).map_err(config)?;
            self.partitioner = Some(made);
        }
        let Some(partitioner) = &self.partitioner else { return Ok(Vec::new()) };
        let partitions = partitioner.partitions(&batch.rows).map_err(config)?;
        let raw = std::mem::take(&mut chunk.raw);
        let raw = if self.job.sink.letters.is_some() { of_rows(raw, &batch.cursors) } else { Vec::new() };
        let rows = Rows { sizes: std::mem::take(&mut chunk.sizes), batch, raw };
        split(rows, &partitions, count).map_err(|error| Failure {
            error: format!("rows cannot be cut by partition: {error}"),
            kind: "bug",
        })
    }

    fn advance(&mut self) {
        self.pass();
        // The rows of a child pass the same partitions: once ours are durable, nothing else need be waited for.
        if let Some(end) = self.end.filter(|end| self.acks.is_only(*end)) {
            self.acks.ack(end, 1);
            self.pass();
        }
        if self.end.is_some()
            && mutant::on("child_overtakes_in_exchange")
            && self.outlets.iter().all(Outlet::is_empty)
        {
            self.job.shown.reach(Position::End, 0, None);
        }
    }

    fn pass(&mut self) {
        let Some(advance) = self.acks.advance() else { return };
        let mut caught_up_at = None;
        while let Some((id, at)) = self.present.front().filter(|(id, _)| *id <= advance.chunk) {
            _ = id;
            caught_up_at = Some(*at);
            self.present.pop_front();
        }
        let passed = self.traced.iter().take_while(|(id, _)| *id <= advance.chunk).count();
        self.job.shown.delivered(self.traced.drain(..passed).map(|(_, span)| span).collect());
        self.job.shown.reach(advance.position, advance.records, caught_up_at);
    }

    /// Waits for the acks of what was sent and for nothing else: what was not sent is read again by the next run.
    async fn settle(mut self, deadline: Instant, failure: Option<Failure>) -> Ending {
        self.job.shown.draining();
        self.feed = None;
        self.outlets.iter_mut().for_each(Outlet::clear);
        // Whoever will not ack, and why, is the next run's matter.
        timeout_at(deadline, self.quiet()).await.ok();
        Ending { drained: self.is_quiet(), failure }
    }

    async fn quiet(&mut self) {
        let (_tell, mut control) = Control::new();
        // A partition that is not there any more will ack nothing: often it is handed over at the same time.
        while !self.is_quiet() && !self.outlets.iter().any(Outlet::is_in_vain) {
            self.tend();
            let event = self.next(&mut control).await;
            if self.take(event).is_some() {
                return;
            }
            self.advance();
        }
    }

    fn is_quiet(&self) -> bool {
        self.letters.is_empty() && self.outlets.iter().all(Outlet::is_acked)
    }

    fn show(&self) {
        let now = self.now();
        let unacked = self.acks.oldest_unacked(now).and_then(|age| Instant::now().checked_sub(age));
        let waiting: Vec<String> = self.outlets.iter().filter_map(Outlet::waits).collect();
        let waits = match waiting.as_slice() {
            [] if !self.letters.is_empty() => "its dead letters: they must be durable first".to_owned(),
            [] if self.end.is_some() && self.acks.position().is_end() => {
                "nothing: the split has ended and everything is delivered".to_owned()
            }
            [] => String::new(),
            [one] => one.clone(),
            [first, others @ ..] => format!("{first} (and {} others)", others.len()),
        };
        self.job.shown.writer(unacked, &waits);
    }
}

/// The next of the feed, while it is wanted. Cancel safe.
async fn fed(feed: &mut Option<Receiver<Feed>>, wanted: bool) -> Option<Feed> {
    match feed {
        Some(feed) if wanted => feed.recv().await,
        _ => pending().await,
    }
}

/// The record of each row; both are in the order of the split.
fn of_rows(raw: Vec<RawRecord>, cursors: &[model::Cursor]) -> Vec<RawRecord> {
    if raw.len() == cursors.len() {
        return raw;
    }
    let mut raw = raw.into_iter();
    cursors.iter().filter_map(|cursor| raw.find(|record| record.cursor == *cursor)).collect()
}
