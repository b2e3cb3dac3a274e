//! The stream of one run to one partition: what waits to be sent, what is sent and not acked, and whether the stream stands
//! (P16, P17, P19, P20). It keeps no part that was sent, only what its ack completes.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use connector::ErrorKind;
use daemon::trace::Span;
use logic::{ack::ChunkId, backoff::Backoff, mutant};
use tokio::time::Instant;

use super::{chunk::Failure, job::Job};
use crate::{
    budget::Portion,
    exchange::{Acked, Line, Open, Owner, PARTS_MAX, Part, Peers, Reason, Rows, Said},
    trace,
};

/// The first and the longest pause before a stream is opened again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Rows of a chunk that wait to be sent.
pub(super) struct Parcel {
    pub(super) chunk: ChunkId,
    pub(super) rows: Rows,
    /// Whether its acks complete the chunk.
    pub(super) counts: bool,
    /// The memory of the chunk, free again when all its parcels have left.
    pub(super) portion: Arc<Option<Portion>>,
    /// Their batch, if it is traced.
    pub(super) span: Option<Span>,
}

/// A part that was sent: what its ack completes.
struct Sent {
    chunk: ChunkId,
    marks: usize,
    bytes: u64,
    acked: bool,
    /// It is over when this is dropped.
    _span: Option<Span>,
}

enum State {
    /// Nothing asks for a stream.
    Idle,
    Waiting(Instant),
    Opening(Line),
    Open(Line),
}

/// What an outlet heard.
pub(super) enum Heard {
    /// Rows of these chunks are durable.
    Acked(Vec<(ChunkId, usize)>),
    Nothing,
    Failed(Failure),
}

/// One partition as a run of a split sees it.
pub(super) struct Outlet {
    partition: u32,
    owner: Owner,
    queue: VecDeque<Parcel>,
    /// Number of the next part (P19).
    next: u64,
    /// From the oldest that is not acked on.
    sent: VecDeque<Sent>,
    unacked: u64,
    window: u64,
    state: State,
    backoff: Backoff,
    /// Why the stream does not stand.
    why: String,
    /// The partition was not there when it was asked last.
    away: bool,
}

impl Outlet {
    pub(super) fn new(partition: u32, owner: Owner) -> Self {
        Self {
            partition,
            owner,
            queue: VecDeque::new(),
            next: 0,
            sent: VecDeque::new(),
            unacked: 0,
            window: 0,
            state: State::Idle,
            backoff: Backoff::new(PAUSES.0, PAUSES.1),
            why: String::new(),
            away: false,
        }
    }

    pub(super) fn push(&mut self, parcel: Parcel) {
        self.queue.push_back(parcel);
    }

    /// Nothing more is sent: what waits is read again.
    pub(super) fn clear(&mut self) {
        self.queue.clear();
    }

    /// Everything was sent.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Everything sent is acked.
    pub(super) fn is_acked(&self) -> bool {
        self.sent.is_empty()
    }

    /// Nobody is there who could ack what was sent.
    pub(super) fn is_in_vain(&self) -> bool {
        self.away && !self.sent.is_empty()
    }

    /// Opens the stream if something asks for one, and sends as much as the window allows.
    pub(super) fn tend(&mut self, job: &Job, peers: &Peers) {
        if let State::Waiting(until) = self.state
            && until <= Instant::now()
        {
            self.state = State::Idle;
        }
        if matches!(self.state, State::Idle) && !(self.queue.is_empty() && self.sent.is_empty()) {
            self.open(job, peers);
        }
        while self.send() {}
    }

    /// When a stream that does not stand is opened again.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.state {
            State::Waiting(until) => Some(until),
            _ => None,
        }
    }

    fn open(&mut self, job: &Job, peers: &Peers) {
        let open = Open {
            sink: job.task.sink,
            partition: self.partition,
            partition_epoch: self.owner.epoch,
            split: job.split.clone(),
            split_epoch: job.epoch,
            next: self.next,
        };
        match peers.open(&self.owner, open) {
            Ok(line) => self.state = State::Opening(line),
            Err(error) => self.broke(error),
        }
    }

    /// P17: a partition that is not there yet is waited for.
    fn broke(&mut self, why: String) {
        let pause = self.backoff.failed(0.5 + rand::random::<f64>() / 2.0);
        self.state = State::Waiting(Instant::now() + pause);
        self.why = why;
    }

    /// Sends the next part; false if that is not possible now.
    fn send(&mut self) -> bool {
        let State::Open(line) = &self.state else { return false };
        let room = self.window.saturating_sub(self.unacked);
        let Some(parcel) = self.queue.front_mut().filter(|_| self.sent.len() < PARTS_MAX) else {
            return false;
        };
        let whole = parcel.rows.bytes() <= room;
        if !whole && (room * 2 < self.window || self.window == 0) {
            return false;
        }
        let rows = parcel.rows.cut(if whole { u64::MAX } else { room });
        let (bytes, marks) = (rows.bytes(), if parcel.counts { rows.len() } else { 0 });
        let (chunk, left) = (parcel.chunk, parcel.rows.len());
        let (counts, portion, batch) = (parcel.counts, Arc::clone(&parcel.portion), parcel.span.clone());
        let span = batch.as_ref().and_then(|batch| trace::handing_on(batch, self.partition, rows.len()));
        let traceparent = span.as_ref().map(Span::traceparent).unwrap_or_default();
        if left == 0 {
            self.queue.pop_front();
        }
        if let Err(unsent) = line.parts.try_send(Part { number: self.next, bytes, rows, traceparent }) {
            // The stream is over, which its other end will say: nothing was sent, no number used.
            let rows = unsent.into_inner().rows;
            self.queue.push_front(Parcel { chunk, rows, counts, portion, span: batch });
            return false;
        }
        self.next += 1;
        self.unacked += bytes;
        self.sent.push_back(Sent { chunk, marks, bytes, acked: false, _span: span });
        true
    }

    /// What the partition says, or that its stream is over.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Said>> {
        match &mut self.state {
            State::Opening(line) | State::Open(line) => line.said.poll_recv(cx),
            State::Idle | State::Waiting(_) => Poll::Pending,
        }
    }

    pub(super) fn hear(&mut self, said: Option<Said>, job: &Job) -> Heard {
        match said {
            Some(Said::Accepted(window)) => {
                self.state = match std::mem::replace(&mut self.state, State::Idle) {
                    State::Opening(line) => State::Open(line),
                    other => other,
                };
                self.backoff.worked();
                (self.window, self.why, self.away) = (window, String::new(), false);
                Heard::Nothing
            }
            Some(Said::Window(window)) => {
                self.window = window;
                Heard::Nothing
            }
            Some(Said::Acked(acked)) => Heard::Acked(self.acked(&acked, job)),
            Some(Said::Refused(reason, error)) => self.refused(reason, error),
            Some(Said::Failed { error, kind }) => Heard::Failed(Failure { error, kind: kind_of(&kind) }),
            None => {
                self.broke("its stream broke".to_owned());
                Heard::Nothing
            }
        }
    }

    fn refused(&mut self, reason: Reason, error: String) -> Heard {
        let (n, kind) = (self.partition, "unavailable");
        match reason {
            Reason::NotHere => {
                self.away = true;
                self.broke(error);
                Heard::Nothing
            }
            Reason::Gap => {
                let error = format!(
                    "parts to partition {n} were lost on their way ({error}): the split is read again from its checkpoint"
                );
                Heard::Failed(Failure { error, kind })
            }
            Reason::Older => {
                let error = format!("partition {n} refuses this run: {error}");
                Heard::Failed(Failure { error, kind: "fenced" })
            }
        }
    }

    /// P20: only what names this run of the split, and this partition.
    fn acked(&mut self, acked: &Acked, job: &Job) -> Vec<(ChunkId, usize)> {
        let ours =
            acked.split == job.split && acked.split_epoch == job.epoch && acked.partition == self.partition;
        if !ours && !mutant::on("p20_ack_without_epoch") {
            tracing::error!(task = %job.task, ?acked, "an ack of another run is ignored");
            return Vec::new();
        }
        let first = self.next - self.sent.len() as u64;
        let mut done = Vec::new();
        let mut ack = |sent: &mut Sent| {
            if !std::mem::replace(&mut sent.acked, true) {
                self.unacked = self.unacked.saturating_sub(sent.bytes);
                done.push((sent.chunk, sent.marks));
            }
        };
        let below = usize::try_from(acked.below.saturating_sub(first)).unwrap_or(usize::MAX);
        self.sent.iter_mut().take(below).for_each(&mut ack);
        for number in &acked.parts {
            let index = number.checked_sub(first).and_then(|index| usize::try_from(index).ok());
            if let Some(sent) = index.and_then(|index| self.sent.get_mut(index)) {
                ack(sent);
            }
        }
        while self.sent.front().is_some_and(|sent| sent.acked) {
            self.sent.pop_front();
        }
        done
    }

    /// What it waits for, in words.
    pub(super) fn waits(&self) -> Option<String> {
        if self.queue.is_empty() && self.sent.is_empty() {
            return None;
        }
        let n = self.partition;
        match &self.state {
            State::Open(_) if self.queue.is_empty() => None,
            State::Open(_) => {
                let unacked = self.unacked;
                Some(format!("partition {n}, which has not delivered the {unacked} bytes sent to it"))
            }
            State::Opening(_) if self.why.is_empty() => {
                Some(format!("partition {n}, which does not take streams yet"))
            }
            _ => Some(format!("partition {n}: {}", self.why)),
        }
    }
}

/// The name of a kind of error that came over the wire.
fn kind_of(kind: &str) -> &'static str {
    let kinds = [ErrorKind::Rejected, ErrorKind::Config, ErrorKind::Denied, ErrorKind::Unavailable];
    kinds.iter().map(|known| known.as_str()).find(|known| *known == kind).unwrap_or("bug")
}
