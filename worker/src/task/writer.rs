//! The writing half of a run: gate, requests, deliveries, acks (I1, I10; P8, P10, P12). Alike for all sinks.
//!
//! ```text
//!            gate open                 End acked, then told to stop;
//!  gated ───────────────▶ writing ───────────────────────────────────▶ settling ─▶ ended
//!    │                                 told to stop; failed                        drained, or
//!    └──────────── told to stop: nothing was written ──────────────────────────▶   out of time
//! ```
//!
//! One future at a time owns the `SinkWriter` (a write or a flush); up to `in_flight` deliveries are polled beside it, so a
//! full sink is driven while `write` waits. What a request's answer means is decided in `verdict`.

use std::{future::pending, sync::Arc, time::Duration};

use connector::{Delivery, Rejected, Result, SinkWriter};
use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use logic::{
    ack::{AckTracker, ChunkId, Tracked},
    batch::Limits,
    mutant,
    outbox::{Outbox, Outcome, RequestId, Row},
    pace::Bucket,
};
use model::Position;
use tokio::{
    sync::mpsc::Receiver,
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    chunk::{Chunk, Failure, Feed, Held},
    job::{Control, Ending, Job},
    refusal::Refusals,
    retry::Retry,
};
use crate::dead_letter::{Buried, DeadLetters};

/// Chunks that the writer takes in before it stops taking.
const CHUNKS_MAX: usize = 256;

/// What came of a request.
pub(super) enum Verdict {
    Answered(Vec<Rejected>),
    Error(connector::Error),
    TimedOut,
}

/// What the future that owned the `SinkWriter` did.
enum Done {
    Written(RequestId, Instant, Result<Delivery>),
    WriteTimedOut(RequestId),
    Flushed(Result<()>),
}

type Busy = BoxFuture<'static, (Box<dyn SinkWriter>, Done)>;
type InFlight = FuturesUnordered<BoxFuture<'static, (RequestId, Verdict)>>;

/// Something that happened.
enum Event {
    Stop(Instant),
    Resolved(RequestId, Verdict),
    Idle(Box<dyn SinkWriter>, Done),
    Buried(Buried),
    Fed(Option<Feed>),
    Tick,
}

/// Writes for one run.
pub(crate) struct Writer {
    pub(super) job: Arc<Job>,
    pub(super) outbox: Outbox,
    pub(super) acks: AckTracker,
    pub(super) held: Held,
    pub(super) retry: Retry,
    pub(super) retry_at: Option<Instant>,
    pub(super) refusals: Refusals,
    /// Nothing new is begun any more.
    pub(super) settling: bool,
    /// For records that could not be decoded, and for rows that the sink refused.
    pub(super) source_letters: Option<DeadLetters>,
    pub(super) sink_letters: Option<DeadLetters>,
    idle: Option<Box<dyn SinkWriter>>,
    busy: Option<Busy>,
    /// Something was written since the last flush.
    dirty: bool,
    deliveries: InFlight,
    chunks: usize,
    pace: Option<Bucket>,
    end: Option<ChunkId>,
    /// Due once everything before it is delivered.
    failing: Option<Failure>,
    broken: Option<Failure>,
    pub(super) origin: Instant,
    feeding: bool,
}

impl Writer {
    pub(crate) fn new(job: &Arc<Job>, sink: Box<dyn SinkWriter>, start: Position) -> Self {
        let source_target = job.source.letters.as_ref().or(job.sink.letters.as_ref());
        let rate = job.sink.common.rate_limit.map(|rows| rows as f64);
        Self {
            job: Arc::clone(job),
            outbox: Outbox::new(job.sink.order(), job.commons.last_breath),
            acks: AckTracker::new(start),
            held: Held::default(),
            retry: Retry::default(),
            retry_at: None,
            refusals: Refusals::default(),
            settling: false,
            source_letters: source_target.map(|target| DeadLetters::new(job, target)),
            sink_letters: job.sink.letters.as_ref().map(|target| DeadLetters::new(job, target)),
            idle: Some(sink),
            busy: None,
            dirty: false,
            deliveries: FuturesUnordered::new(),
            chunks: 0,
            pace: rate.map(|rate| Bucket::new(rate, rate, Duration::ZERO)),
            end: None,
            failing: None,
            broken: None,
            origin: Instant::now(),
            feeding: true,
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Runs until told to stop or until it must fail.
    pub(crate) async fn run(mut self, mut feed: Receiver<Feed>, mut control: Control) -> Ending {
        self.job.shown.waits_for("the gate: a request of an earlier owner may still land");
        let gate = if mutant::on("first_write_does_not_wait") { self.origin } else { self.job.gate };
        tokio::select! { biased;
            _ = control.stopping() => return Ending::drained(),
            () = sleep_until(gate) => {}
        }
        self.job.shown.gate_opened();
        let (deadline, failure) = loop {
            self.start();
            self.show();
            match self.next(&mut feed, &mut control).await {
                Event::Stop(deadline) => break (deadline, None),
                event => {
                    if let Some(failure) = self.take(event) {
                        break (Instant::now() + self.job.commons.settle_deadline, Some(failure));
                    }
                }
            }
            if let Some(failure) = self.advance() {
                break (Instant::now() + self.job.commons.settle_deadline, Some(failure));
            }
        };
        drop(feed);
        self.settle(deadline, failure).await
    }

    async fn next(&mut self, feed: &mut Receiver<Feed>, control: &mut Control) -> Event {
        let wake = self.wake_at();
        tokio::select! { biased;
            deadline = control.stopping() => Event::Stop(deadline),
            Some((id, verdict)) = self.deliveries.next() => Event::Resolved(id, verdict),
            (sink, done) = owned(&mut self.busy) => Event::Idle(sink, done),
            letters = buried(&mut self.source_letters) => Event::Buried(letters),
            letters = buried(&mut self.sink_letters) => Event::Buried(letters),
            fed = feed.recv(), if self.feeding && self.chunks < CHUNKS_MAX => Event::Fed(fed),
            () = sleep_until(wake) => Event::Tick,
        }
    }

    fn wake_at(&self) -> Instant {
        let now = self.now();
        let paced =
            self.pace.clone().map(|mut pace| now + pace.wait(1.0, now).min(Duration::from_secs(3600)));
        let held = self.outbox.wake_at(now);
        let quiet = self.end.map(|_| self.outbox.quiet_at()).filter(|at| *at > now);
        let times = [held, quiet, paced.filter(|at| *at > now)].into_iter().flatten();
        let retry = self.retry_at.filter(|at| self.busy.is_none() || *at > Instant::now());
        let doubt = self.refusals.due().filter(|at| *at > Instant::now());
        let times = times.map(|at| self.origin + at).chain(retry).chain(doubt);
        times.min().unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))
    }

    /// A failure means that the run must end.
    fn take(&mut self, event: Event) -> Option<Failure> {
        match event {
            Event::Resolved(id, verdict) => return self.resolve(id, verdict),
            Event::Idle(sink, done) => {
                self.idle = Some(sink);
                return self.done(done);
            }
            Event::Buried(Buried { chunks, failure }) => {
                chunks.into_iter().for_each(|chunk| self.acks.ack(chunk, 1));
                return failure;
            }
            Event::Fed(Some(Feed::Chunk(chunk))) => {
                self.track(*chunk, 0);
            }
            Event::Fed(Some(Feed::End)) => {
                self.outbox.close();
                if !mutant::on("end_not_checkpointed") {
                    self.end = Some(self.track(Chunk::empty(Position::End), 1));
                }
            }
            Event::Fed(Some(Feed::Failed(failure))) => {
                self.outbox.close();
                self.failing = Some(failure);
            }
            Event::Fed(None) => self.feeding = false,
            Event::Tick | Event::Stop(_) => {}
        }
        None
    }

    fn track(&mut self, mut chunk: Chunk, extra: usize) -> ChunkId {
        let now = self.now();
        let (letters, sink_letters) =
            (std::mem::take(&mut chunk.letters), std::mem::take(&mut chunk.sink_letters));
        let tracked = Tracked {
            after: chunk.after.clone(),
            marks: chunk.rows() + letters.len() + sink_letters.len() + extra,
            records: chunk.records,
            bytes: 0,
        };
        let id = self.acks.track(tracked, now);
        for index in 0..chunk.rows() {
            let bytes = chunk.sizes.get(index).copied().unwrap_or(0);
            let key = chunk.keys.get(index).copied().unwrap_or(0);
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            self.outbox.push(Row { chunk: id, index, bytes, key }, now);
        }
        for (desk, letters) in [(&mut self.source_letters, letters), (&mut self.sink_letters, sink_letters)] {
            if let Some(desk) = desk {
                letters.into_iter().for_each(|letter| desk.push(id, letter));
            }
        }
        self.held.push(id, chunk);
        self.chunks += 1;
        id
    }

    /// Moves the prefix; `End` only when nothing can land any more. A failure that waited for what came before it is due now.
    fn advance(&mut self) -> Option<Failure> {
        self.pass();
        if let Some(end) = self.end
            && self.acks.is_only(end)
            && self.outbox.in_flight() == 0
            && self.now() >= self.outbox.quiet_at()
        {
            self.acks.ack(end, 1);
            self.pass();
        }
        if self.failing.is_some() && self.acks.is_empty() {
            return self.failing.take();
        }
        self.broken.take()
    }

    fn pass(&mut self) {
        if let Some(advance) = self.acks.advance() {
            self.chunks = self.acks.len();
            let caught_up_at = self.held.free(advance.chunk);
            self.job.shown.reach(advance.position, advance.records, caught_up_at);
        }
    }

    /// Starts the next write, or a flush when there is nothing to write and something waits for one.
    fn start(&mut self) {
        if self.idle.is_none() {
            return;
        }
        if let Some((id, rows)) = self.ask_again() {
            return self.write(id, &rows);
        }
        let request =
            if self.may_write() { self.outbox.next_request(&self.limits(), self.now()) } else { None };
        match request {
            Some(request) => self.write(request.id, &request.rows),
            None if self.dirty && self.outbox.in_flight() > 0 && self.retry_at.is_none() => self.flush(),
            None => {}
        }
    }

    fn may_write(&mut self) -> bool {
        let now = self.now();
        self.retry_at = self.retry_at.filter(|at| *at > Instant::now());
        self.retry_at.is_none()
            && self.outbox.in_flight() < self.job.sink.common.in_flight
            && self.pace.as_mut().is_none_or(|pace| pace.wait(1.0, now).is_zero())
    }

    fn limits(&self) -> Limits {
        let limits = self.job.sink.common.limits;
        // A request is never more than a second's worth, or the limit would only hold on average.
        let second = self
            .job
            .sink
            .common
            .rate_limit
            .map_or(usize::MAX, |rows| usize::try_from(rows).unwrap_or(usize::MAX));
        Limits { rows: limits.rows.min(second.max(1)), bytes: limits.bytes as u64, linger: limits.linger }
    }

    fn write(&mut self, id: RequestId, rows: &[Row]) {
        let (Some(mut sink), Some(batch)) = (self.idle.take(), self.held.assemble(rows)) else {
            self.outbox.resolve(id, &Outcome::NotSent);
            self.broken = Some(Failure { error: "rows of a request are not held".to_owned(), kind: "bug" });
            return;
        };
        let now = self.now();
        if let Some(pace) = &mut self.pace {
            pace.take(rows.len() as f64, now);
        }
        self.job.commons.metrics.sink_inflight.add(1, &[]);
        self.dirty = true;
        if mutant::on("checkpoint_before_delivery") {
            rows.iter().for_each(|row| self.acks.ack(row.chunk, 1));
        }
        let fence = Arc::clone(&self.job.fence);
        let give_up = Instant::now() + self.job.commons.write_attempt_timeout;
        self.busy = Some(Box::pin(async move {
            let done = match timeout_at(give_up, fence.guard(sink.write(batch))).await {
                Ok(written) => Done::Written(id, give_up, written),
                Err(_) => Done::WriteTimedOut(id),
            };
            (sink, done)
        }));
    }

    fn flush(&mut self) {
        let Some(mut sink) = self.idle.take() else { return };
        self.dirty = false;
        let fence = Arc::clone(&self.job.fence);
        let give_up = Instant::now() + self.job.commons.write_attempt_timeout;
        self.busy = Some(Box::pin(async move {
            let flushed = timeout_at(give_up, fence.guard(sink.flush())).await;
            // What a flush that takes too long holds up are deliveries, and those have their own deadline.
            (sink, Done::Flushed(flushed.unwrap_or(Ok(()))))
        }));
    }

    fn done(&mut self, done: Done) -> Option<Failure> {
        match done {
            Done::Written(id, give_up, Ok(delivery)) => {
                let fence = Arc::clone(&self.job.fence);
                self.deliveries.push(Box::pin(async move {
                    let verdict = match timeout_at(give_up, fence.guard(delivery)).await {
                        Ok(Ok(refused)) => Verdict::Answered(refused),
                        Ok(Err(error)) => Verdict::Error(error),
                        Err(_) => Verdict::TimedOut,
                    };
                    (id, verdict)
                }));
                None
            }
            Done::Written(id, _, Err(error)) => self.resolve(id, Verdict::Error(error)),
            Done::WriteTimedOut(id) => self.resolve(id, Verdict::TimedOut),
            Done::Flushed(Ok(())) => None,
            Done::Flushed(Err(error)) => {
                self.dirty = true;
                self.trouble(&error)
            }
        }
    }

    /// Finishes what is in flight and nothing else: what was not sent is read again by the next owner (P8).
    async fn settle(mut self, deadline: Instant, failure: Option<Failure>) -> Ending {
        self.job.shown.draining();
        let settled = timeout_at(deadline, self.quiet()).await.is_ok();
        Ending { drained: settled, failure }
    }

    async fn quiet(&mut self) {
        let mut flushed = false;
        self.give_up_doubts();
        while self.outbox.in_flight() > 0 || self.busy.is_some() || self.has_letters() {
            if self.busy.is_none() && self.dirty && !flushed {
                flushed = true;
                self.flush();
            }
            let event = tokio::select! { biased;
                Some((id, verdict)) = self.deliveries.next() => Event::Resolved(id, verdict),
                (sink, done) = owned(&mut self.busy) => Event::Idle(sink, done),
                letters = buried(&mut self.source_letters) => Event::Buried(letters),
                letters = buried(&mut self.sink_letters) => Event::Buried(letters),
            };
            // A row that would fail the run now stays unacked: the next run meets it again.
            self.take(event);
            self.advance();
        }
        if !mutant::on("drained_too_early") {
            sleep_until(self.origin + self.outbox.quiet_at()).await;
        }
        self.advance();
    }

    fn has_letters(&self) -> bool {
        [&self.source_letters, &self.sink_letters].into_iter().flatten().any(|desk| !desk.is_empty())
    }

    fn show(&self) {
        let now = self.now();
        let unacked = self.acks.oldest_unacked(now).and_then(|age| Instant::now().checked_sub(age));
        let waits = if self.has_letters() && self.outbox.pending() == 0 {
            "its dead letters: they must be durable first"
        } else if self.job.sink.common.rate_limit == Some(0) {
            "sink_rate_limit: it is 0"
        } else if self.end.is_some() && self.acks.position().is_end() {
            "nothing: the split has ended and everything is delivered"
        } else if self.outbox.pending() > 0 && self.outbox.in_flight() == 0 && self.outbox.quiet_at() > now {
            "the last breath of an attempt of unknown outcome"
        } else {
            ""
        };
        self.job.shown.writer(unacked, waits);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let open = self.outbox.in_flight().saturating_sub(self.refusals.waiting());
        let open = i64::try_from(open).unwrap_or(0);
        self.job.commons.metrics.sink_inflight.add(-open, &[]);
    }
}

/// The result of the future that owns the `SinkWriter`; never, if none does. Cancel safe.
async fn owned(busy: &mut Option<Busy>) -> (Box<dyn SinkWriter>, Done) {
    match busy {
        Some(future) => {
            let done = future.await;
            *busy = None;
            done
        }
        None => pending().await,
    }
}

async fn buried(desk: &mut Option<DeadLetters>) -> Buried {
    match desk {
        Some(desk) => desk.buried().await,
        None => pending().await,
    }
}
