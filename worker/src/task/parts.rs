//! The intake of a run that writes a partition: parts of many splits, each from the one run of it that counts (P16–P21).
//!
//! It takes in at once whatever the streams bring, before the gate too; what that can be is bounded by their windows. A part is
//! acked when all its rows are durable, in any order between parts. The outbox is one for all splits and their epochs.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use futures::{
    StreamExt as _,
    stream::{BoxStream, SelectAll, iter},
};
use logic::{ack::ChunkId, mutant};
use model::{Epoch, Position, SplitId};
use opentelemetry::KeyValue;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    chunk::{Chunk, Failure},
    intake::{Intake, Pile},
    job::Tenure,
    keys::KeyHasher,
};
use crate::exchange::{Acked, Arrival, Door, Entry, Open, Part, Place, Reason, Said};
use crate::trace;

/// Names a stream that was accepted.
type StreamId = u64;

/// Something that comes to a partition.
pub(super) enum Came {
    Arrival(Arrival),
    Part(StreamId, SplitId, Part),
    /// The sender, or the connection, is gone.
    Closed(StreamId, SplitId),
    /// What a stream may have under way has changed.
    Window(u64),
}

/// A stream that stands.
struct Stream {
    id: StreamId,
    said: mpsc::Sender<Said>,
    _place: Place,
}

/// The newest run of a split that was seen (P18).
struct Feeder {
    epoch: Epoch,
    /// Number of the part that must come next (P19).
    next: u64,
    /// Every part before this one is durable, and these (P20).
    below: u64,
    above: BTreeSet<u64>,
    /// One at most: a stream that is opened again takes the place of the old one.
    stream: Option<Stream>,
    /// Why its run must end.
    failed: Option<Failure>,
}

/// A part whose rows are not all durable.
struct Taken {
    split: SplitId,
    epoch: Epoch,
    number: u64,
    rows: usize,
    left: usize,
    bytes: u64,
    at: Duration,
}

/// The parts that come to one partition.
pub(super) struct Parts {
    tenure: Arc<Tenure>,
    partition: u32,
    door: Arc<Door>,
    /// `None` once nothing more is taken in.
    arrivals: Option<(Entry, mpsc::Receiver<Arrival>)>,
    windows: watch::Receiver<u64>,
    streams: SelectAll<BoxStream<'static, Came>>,
    feeders: BTreeMap<SplitId, Feeder>,
    taken: BTreeMap<ChunkId, Taken>,
    durable: Vec<ChunkId>,
    hasher: Option<KeyHasher>,
    chunks: u64,
    opened: StreamId,
}

impl Parts {
    pub(super) fn new(tenure: &Arc<Tenure>, door: &Arc<Door>) -> Self {
        let mut windows = door.pool.window();
        windows.mark_unchanged();
        Self {
            tenure: Arc::clone(tenure),
            partition: tenure.task.partition().unwrap_or_default(),
            door: Arc::clone(door),
            arrivals: Some(door.enter(&tenure.task, tenure.epoch)),
            windows,
            streams: SelectAll::new(),
            feeders: BTreeMap::new(),
            taken: BTreeMap::new(),
            durable: Vec::new(),
            hasher: None,
            chunks: 0,
            opened: 0,
        }
    }

    fn labels(&self) -> [KeyValue; 2] {
        let sink = KeyValue::new("sink", self.tenure.sink.spec.name.clone());
        [sink, KeyValue::new("partition", i64::from(self.partition))]
    }

    /// A run of a split wants to send: its stream stands, or it is told why not.
    fn open(&mut self, arrival: Arrival, pile: &mut Pile) {
        let Arrival { open, parts, said } = arrival;
        if let Some((reason, error)) = self.refusal(&open) {
            let reason_label = KeyValue::new("reason", reason.as_str());
            let [sink, partition] = self.labels();
            self.tenure.commons.metrics.exchange_refused.add(1, &[sink, partition, reason_label]);
            tracing::debug!(task = %self.tenure.task, split = %open.split, ?reason, error, "a stream is refused");
            said.try_send(Said::Refused(reason, error)).ok();
            return;
        }
        let known = self.feeders.get(&open.split).is_some_and(|feeder| feeder.epoch == open.split_epoch);
        if !known {
            // P21: what an older run sent, and nobody is writing, comes again.
            self.give_up(&open.split, pile);
            let new = Feeder {
                epoch: open.split_epoch,
                next: open.next,
                below: open.next,
                above: BTreeSet::new(),
                stream: None,
                failed: None,
            };
            self.feeders.insert(open.split.clone(), new);
        }
        self.opened += 1;
        let id = self.opened;
        let place = self.door.pool.place();
        let Some(feeder) = self.feeders.get_mut(&open.split) else { return };
        feeder.next = open.next;
        let window = *self.windows.borrow();
        let mut first = vec![Said::Accepted(window)];
        // P20: acks may have died with the connection.
        if known && !mutant::on("p20_acks_not_repeated") {
            first.push(Said::Acked(feeder.acked(&open.split, self.partition, feeder.above.iter().copied())));
        }
        if let Some(Failure { error, kind }) = feeder.failed.clone() {
            first.push(Said::Failed { error, kind: kind.to_owned() });
        }
        if first.into_iter().all(|first| said.try_send(first).is_ok()) {
            feeder.stream = Some(Stream { id, said, _place: place });
        }
        let (split, over) = (open.split.clone(), open.split);
        let parts = ReceiverStream::new(parts).map(move |part| Came::Part(id, split.clone(), part));
        self.streams.push(Box::pin(parts.chain(iter([Came::Closed(id, over)]))));
    }

    /// P16, P18, P19: why a stream cannot stand.
    fn refusal(&self, open: &Open) -> Option<(Reason, String)> {
        let own = self.tenure.epoch;
        if open.partition_epoch != own && !mutant::on("p16_not_named") {
            let error = format!("it runs at epoch {own}, not at {}", open.partition_epoch);
            return Some((Reason::NotHere, error));
        }
        let expected = match self.feeders.get(&open.split) {
            Some(newest) if open.split_epoch < newest.epoch && !mutant::on("p18_older_epoch_accepted") => {
                let error = format!("epoch {} of split `{}` sends to it", newest.epoch, open.split);
                return Some((Reason::Older, error));
            }
            Some(feeder) if open.split_epoch == feeder.epoch => feeder.next,
            _ => 0,
        };
        if open.next != expected && !mutant::on("p19_part_lost_unnoticed") {
            let error = format!("the next part must be {expected}, not {}", open.next);
            return Some((Reason::Gap, error));
        }
        None
    }

    /// What was taken in from the runs of a split so far is not wanted any more.
    fn give_up(&mut self, split: &SplitId, pile: &mut Pile) {
        let of = |(id, taken): (&ChunkId, &Taken)| (taken.split == *split).then_some(*id);
        let ids: BTreeSet<ChunkId> = self.taken.iter().filter_map(of).collect();
        if ids.is_empty() {
            return;
        }
        pile.outbox.give_up(|chunk| ids.contains(&chunk));
        for id in ids.into_iter().filter(|_| !mutant::on("p20_ack_without_epoch")) {
            self.forget(id, pile);
        }
    }

    fn forget(&mut self, id: ChunkId, pile: &mut Pile) -> Option<Taken> {
        pile.held.remove(id);
        let taken = self.taken.remove(&id)?;
        let bytes = i64::try_from(taken.bytes).unwrap_or(i64::MAX);
        self.tenure.commons.metrics.exchange_unacked.add(-bytes, &self.labels());
        Some(taken)
    }

    fn part(&mut self, id: StreamId, split: SplitId, part: Part, pile: &mut Pile) -> Option<Failure> {
        let feeder = self.feeders.get_mut(&split)?;
        // A stream that was replaced may still bring something.
        let older = mutant::on("p18_older_epoch_accepted");
        let stream = feeder.stream.as_ref().filter(|stream| stream.id == id || older)?;
        if stream.id == id && part.number != feeder.next && !mutant::on("p19_part_lost_unnoticed") {
            let error = format!("the next part must be {}, not {}", feeder.next, part.number);
            stream.said.try_send(Said::Refused(Reason::Gap, error)).ok();
            feeder.stream = None;
            return None;
        }
        if stream.id == id {
            feeder.next = part.number + 1;
        }
        if feeder.failed.is_some() {
            return None;
        }
        let epoch = feeder.epoch;
        let (rows, number, bytes) = (part.rows.len(), part.number, part.bytes);
        let keys = match self.tenure.sink.keys_of(&part.rows.batch.rows, &mut self.hasher) {
            Ok(keys) => keys,
            Err(failure) => return Some(failure),
        };
        let chunk = Chunk {
            sizes: part.rows.sizes,
            batch: Some(part.rows.batch),
            raw: part.rows.raw,
            keys,
            span: trace::taken_in(&self.tenure, &part.traceparent, rows),
            ..Chunk::empty(Position::End)
        };
        let totals = &self.tenure.shown.totals;
        totals.read.fetch_add(rows as u64, Relaxed);
        totals.read_bytes.fetch_add(bytes, Relaxed);
        let metrics = &self.tenure.commons.metrics;
        metrics.exchange_parts.add(1, &self.labels());
        metrics.exchange_unacked.add(i64::try_from(bytes).unwrap_or(i64::MAX), &self.labels());
        let chunk_id = ChunkId(self.chunks);
        self.chunks += 1;
        pile.put(chunk_id, &split, chunk);
        let taken = Taken { split, epoch, number, rows, left: rows, bytes, at: pile.now() };
        self.taken.insert(chunk_id, taken);
        if mutant::on("ack_on_receipt") {
            self.durable.push(chunk_id);
        }
        None
    }

    fn window(&mut self, window: u64) {
        for feeder in self.feeders.values_mut() {
            feeder.say(Said::Window(window));
        }
    }

    /// Of one part all rows are durable: its split, if that is still the run that sent it, and its number.
    fn over(&mut self, id: ChunkId, pile: &mut Pile) -> Option<(SplitId, u64)> {
        if mutant::on("ack_on_receipt") {
            let taken = self.taken.get(&id)?;
            let said = (taken.split.clone(), taken.number);
            if taken.left == 0 {
                self.forget(id, pile);
            }
            return Some(said);
        }
        let Taken { split, epoch, number, rows, .. } = self.forget(id, pile)?;
        self.tenure.shown.totals.delivered.fetch_add(rows as u64, Relaxed);
        let current = self.feeders.get(&split).is_some_and(|feeder| feeder.epoch == epoch);
        (current || mutant::on("p20_ack_without_epoch")).then_some((split, number))
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        let bytes: u64 = self.taken.values().map(|taken| taken.bytes).sum();
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.tenure.commons.metrics.exchange_unacked.add(-bytes, &self.labels());
    }
}

impl Feeder {
    /// P20: an ack carries all that says whose it is.
    fn acked(&self, split: &SplitId, partition: u32, parts: impl Iterator<Item = u64>) -> Acked {
        let parts = parts.filter(|number| *number >= self.below).collect();
        Acked { split: split.clone(), split_epoch: self.epoch, partition, below: self.below, parts }
    }

    fn durable(&mut self, number: u64) {
        self.above.insert(number);
        while self.above.remove(&self.below) {
            self.below += 1;
        }
    }

    /// A sender that does not listen loses its stream; opened again, it hears everything once more.
    fn say(&mut self, said: Said) {
        if self.stream.as_ref().is_some_and(|stream| stream.said.try_send(said).is_err()) {
            self.stream = None;
        }
    }
}

impl Intake for Parts {
    type Came = Came;
    const EARLY: bool = true;

    async fn next(&mut self) -> Option<Came> {
        let Some((_, arrivals)) = &mut self.arrivals else { return pending().await };
        tokio::select! { biased;
            arrival = arrivals.recv() => arrival.map(Came::Arrival),
            Ok(()) = self.windows.changed() => Some(Came::Window(*self.windows.borrow())),
            Some(came) = self.streams.next() => Some(came),
        }
    }

    fn take(&mut self, came: Option<Came>, pile: &mut Pile) -> Option<Failure> {
        match came {
            Some(Came::Arrival(arrival)) => self.open(arrival, pile),
            Some(Came::Part(id, split, part)) => return self.part(id, split, part, pile),
            Some(Came::Closed(id, split)) => {
                if let Some(feeder) = self.feeders.get_mut(&split)
                    && feeder.stream.as_ref().is_some_and(|stream| stream.id == id)
                {
                    feeder.stream = None;
                }
            }
            Some(Came::Window(window)) => self.window(window),
            None => {
                // Acks are still told; parts are not taken any more.
                self.arrivals = None;
                self.streams.clear();
            }
        }
        None
    }

    fn acked(&mut self, chunk: ChunkId, marks: usize) {
        let Some(taken) = self.taken.get_mut(&chunk) else { return };
        taken.left = taken.left.saturating_sub(marks);
        if taken.left == 0 {
            self.durable.push(chunk);
        }
    }

    /// The run of the split ends, before the chunk of this row; those of other splits go on.
    fn refused(&mut self, chunk: ChunkId, failure: Failure, pile: &mut Pile) -> Option<Failure> {
        let (split, epoch) = self.taken.get(&chunk).map(|taken| (taken.split.clone(), taken.epoch))?;
        self.give_up(&split, pile);
        if let Some(feeder) = self.feeders.get_mut(&split).filter(|feeder| feeder.epoch == epoch) {
            let (error, kind) = (failure.error.clone(), failure.kind.to_owned());
            feeder.failed = Some(failure);
            feeder.say(Said::Failed { error, kind });
        }
        None
    }

    fn advance(&mut self, pile: &mut Pile) -> Option<Failure> {
        let mut by_split: BTreeMap<SplitId, Vec<u64>> = BTreeMap::new();
        for id in std::mem::take(&mut self.durable) {
            if let Some((split, number)) = self.over(id, pile) {
                by_split.entry(split).or_default().push(number);
            }
        }
        for (split, numbers) in by_split {
            let Some(feeder) = self.feeders.get_mut(&split) else { continue };
            numbers.iter().for_each(|number| feeder.durable(*number));
            let acked = feeder.acked(&split, self.partition, numbers.into_iter());
            feeder.say(Said::Acked(acked));
        }
        None
    }

    fn state(&self, now: Duration) -> (Option<Duration>, &'static str) {
        (self.taken.first_key_value().map(|(_, taken)| now.saturating_sub(taken.at)), "")
    }
}
