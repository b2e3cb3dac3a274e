//! The writing half of a run: gate, requests, deliveries, acks (I1, I10; P8, P10, P12). Alike for all sinks, and for runs that
//! write what they read as for those that write a partition: where rows come from and who waits for their acks is the `Intake`.
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

use std::{
    collections::HashMap,
    future::{Future, pending},
    sync::Arc,
    time::Duration,
};

use connector::{Delivery, Rejected, Result, SinkWriter};
use daemon::trace::{FutureExt as _, Span};
use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use logic::{
    batch::Limits,
    mutant,
    outbox::{Outcome, RequestId, Row},
    pace::Bucket,
};
use opentelemetry::KeyValue;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{
    chunk::Failure,
    intake::{Intake, Pile},
    job::{BuiltSource, Control, Ending, Tenure},
    refusal::Refusals,
    retry::Retry,
};
use crate::{dead_letter::Buried, trace};

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

/// A request that was begun and not answered.
pub(super) struct UnderWay {
    pub(super) began: Instant,
    pub(super) span: Option<Span>,
}

type Busy = BoxFuture<'static, (Box<dyn SinkWriter>, Done)>;
type InFlight = FuturesUnordered<BoxFuture<'static, (RequestId, Verdict)>>;

/// Something that happened.
enum Event<C> {
    Stop(Instant),
    Gate,
    Resolved(RequestId, Verdict),
    Idle(Box<dyn SinkWriter>, Done),
    Buried(Buried),
    Came(Option<C>),
    Tick,
}

/// Writes for one run.
pub(crate) struct Writer<I> {
    pub(super) tenure: Arc<Tenure>,
    pub(super) pile: Pile,
    pub(super) intake: I,
    pub(super) retry: Retry,
    pub(super) retry_at: Option<Instant>,
    pub(super) refusals: Refusals,
    /// Nothing new is begun any more.
    pub(super) settling: bool,
    /// A request of an earlier owner may still land (P10).
    gated: bool,
    idle: Option<Box<dyn SinkWriter>>,
    busy: Option<Busy>,
    /// Something was written since the last flush.
    dirty: bool,
    deliveries: InFlight,
    pub(super) under_way: HashMap<RequestId, UnderWay>,
    /// Of its metrics.
    pub(super) label: [KeyValue; 1],
    pace: Option<Bucket>,
    broken: Option<Failure>,
}

impl<I: Intake> Writer<I> {
    /// `source`: where records go that could not be decoded, if the intake has any.
    pub(super) fn new(
        tenure: &Arc<Tenure>,
        source: Option<&BuiltSource>,
        sink: Box<dyn SinkWriter>,
        intake: I,
    ) -> Self {
        let rate = tenure.sink.common.rate_limit.map(|rows| rows as f64);
        Self {
            tenure: Arc::clone(tenure),
            pile: Pile::new(tenure, source),
            intake,
            retry: Retry::default(),
            retry_at: None,
            refusals: Refusals::default(),
            settling: false,
            gated: true,
            idle: Some(sink),
            busy: None,
            dirty: false,
            deliveries: FuturesUnordered::new(),
            under_way: HashMap::new(),
            label: [KeyValue::new("sink", tenure.sink.spec.name.clone())],
            pace: rate.map(|rate| Bucket::new(rate, rate, Duration::ZERO)),
            broken: None,
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.pile.now()
    }

    /// Runs until told to stop or until it must fail.
    pub(crate) async fn run(mut self, mut control: Control) -> Ending {
        self.tenure.shown.waits_for("the gate: a request of an earlier owner may still land");
        let (deadline, failure) = loop {
            if !self.gated {
                self.start();
                self.show();
            }
            match self.next(&mut control).await {
                // Nothing was ever in flight.
                Event::Stop(_) if self.gated => return Ending::drained(),
                Event::Stop(deadline) => break (deadline, None),
                event => {
                    if let Some(failure) = self.take(event) {
                        break (Instant::now() + self.tenure.commons.settle_deadline, Some(failure));
                    }
                }
            }
            if let Some(failure) = self.advance() {
                break (Instant::now() + self.tenure.commons.settle_deadline, Some(failure));
            }
        };
        self.settle(deadline, failure).await
    }

    async fn next(&mut self, control: &mut Control) -> Event<I::Came> {
        let wake = self.wake_at();
        let gate = if mutant::on("first_write_does_not_wait") { self.pile.origin } else { self.tenure.gate };
        tokio::select! { biased;
            deadline = control.stopping() => Event::Stop(deadline),
            () = sleep_until(gate), if self.gated => Event::Gate,
            Some((id, verdict)) = self.deliveries.next() => Event::Resolved(id, verdict),
            (sink, done) = owned(&mut self.busy) => Event::Idle(sink, done),
            letters = self.pile.letters.buried() => Event::Buried(letters),
            came = self.intake.next(), if I::EARLY || !self.gated => Event::Came(came),
            () = sleep_until(wake) => Event::Tick,
        }
    }

    fn wake_at(&self) -> Instant {
        let now = self.now();
        let paced =
            self.pace.clone().map(|mut pace| now + pace.wait(1.0, now).min(Duration::from_secs(3600)));
        let held = self.pile.outbox.wake_at(now);
        let quiet = Some(self.pile.outbox.quiet_at()).filter(|at| *at > now);
        let times = [held, quiet, paced.filter(|at| *at > now)].into_iter().flatten();
        let retry = self.retry_at.filter(|at| self.busy.is_none() || *at > Instant::now());
        let doubt = self.refusals.due().filter(|at| *at > Instant::now());
        let times = times.map(|at| self.pile.origin + at).chain(retry).chain(doubt);
        times.min().unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))
    }

    /// A failure means that the run must end.
    fn take(&mut self, event: Event<I::Came>) -> Option<Failure> {
        match event {
            Event::Gate => {
                self.gated = false;
                self.tenure.shown.gate_opened();
            }
            Event::Resolved(id, verdict) => return self.resolve(id, verdict),
            Event::Idle(sink, done) => {
                self.idle = Some(sink);
                return self.done(done);
            }
            Event::Buried(Buried { chunks, failure }) => {
                chunks.into_iter().for_each(|chunk| self.intake.acked(chunk, 1));
                return failure;
            }
            Event::Came(came) => {
                let failure = self.intake.take(came, &mut self.pile);
                self.leave_given_up();
                return failure;
            }
            Event::Tick | Event::Stop(_) => {}
        }
        None
    }

    fn advance(&mut self) -> Option<Failure> {
        self.intake.advance(&mut self.pile).or_else(|| self.broken.take())
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
            if self.may_write() { self.pile.outbox.next_request(&self.limits(), self.now()) } else { None };
        match request {
            Some(request) => self.write(request.id, &request.rows),
            None if self.dirty && self.pile.outbox.in_flight() > 0 && self.retry_at.is_none() => self.flush(),
            None => {}
        }
    }

    fn may_write(&mut self) -> bool {
        let now = self.now();
        self.retry_at = self.retry_at.filter(|at| *at > Instant::now());
        self.retry_at.is_none()
            && self.pile.outbox.in_flight() < self.tenure.sink.common.in_flight
            && self.pace.as_mut().is_none_or(|pace| pace.wait(1.0, now).is_zero())
    }

    fn limits(&self) -> Limits {
        let limits = self.tenure.sink.common.limits;
        // A request is never more than a second's worth, or the limit would only hold on average.
        let rate = self.tenure.sink.common.rate_limit;
        let second = rate.map_or(usize::MAX, |rows| usize::try_from(rows).unwrap_or(usize::MAX));
        Limits { rows: limits.rows.min(second.max(1)), bytes: limits.bytes as u64, linger: limits.linger }
    }

    fn write(&mut self, id: RequestId, rows: &[Row]) {
        let (Some(mut sink), Some(batch)) = (self.idle.take(), self.pile.held.assemble(rows)) else {
            self.pile.outbox.resolve(id, &Outcome::NotSent);
            self.broken = Some(Failure { error: "rows of a request are not held".to_owned(), kind: "bug" });
            return;
        };
        let now = self.now();
        if let Some(pace) = &mut self.pace {
            pace.take(rows.len() as f64, now);
        }
        self.tenure.commons.metrics.sink_inflight.add(1, &self.label);
        self.dirty = true;
        if mutant::on("checkpoint_before_delivery") {
            rows.iter().for_each(|row| self.intake.acked(row.chunk, 1));
        }
        let fence = Arc::clone(&self.tenure.fence);
        let began = Instant::now();
        let give_up = began + self.tenure.commons.write_attempt_timeout;
        let spans = if daemon::trace::is_on() { self.pile.held.spans(rows) } else { Vec::new() };
        let span = trace::sending(&self.tenure, &spans, rows.len());
        let writing = async move {
            let done = match timeout_at(give_up, fence.guard(sink.write(batch))).await {
                Ok(written) => Done::Written(id, give_up, written),
                Err(_) => Done::WriteTimedOut(id),
            };
            (sink, done)
        };
        self.busy = Some(within(span.as_ref(), writing));
        self.under_way.insert(id, UnderWay { began, span });
    }

    fn flush(&mut self) {
        let Some(mut sink) = self.idle.take() else { return };
        self.dirty = false;
        let fence = Arc::clone(&self.tenure.fence);
        let give_up = Instant::now() + self.tenure.commons.write_attempt_timeout;
        self.busy = Some(Box::pin(async move {
            let flushed = timeout_at(give_up, fence.guard(sink.flush())).await;
            // What a flush that takes too long holds up are deliveries, and those have their own deadline.
            (sink, Done::Flushed(flushed.unwrap_or(Ok(()))))
        }));
    }

    fn done(&mut self, done: Done) -> Option<Failure> {
        match done {
            Done::Written(id, give_up, Ok(delivery)) => {
                let fence = Arc::clone(&self.tenure.fence);
                let span = self.under_way.get(&id).and_then(|request| request.span.clone());
                let answer = async move {
                    let verdict = match timeout_at(give_up, fence.guard(delivery)).await {
                        Ok(Ok(refused)) => Verdict::Answered(refused),
                        Ok(Err(error)) => Verdict::Error(error),
                        Err(_) => Verdict::TimedOut,
                    };
                    (id, verdict)
                };
                self.deliveries.push(within(span.as_ref(), answer));
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
        self.tenure.shown.draining();
        self.intake.take(None, &mut self.pile);
        let settled = timeout_at(deadline, self.quiet()).await.is_ok();
        Ending { drained: settled, failure }
    }

    async fn quiet(&mut self) {
        let mut flushed = false;
        self.give_up_doubts();
        while self.pile.outbox.in_flight() > 0 || self.busy.is_some() || !self.pile.letters.is_empty() {
            if self.busy.is_none() && self.dirty && !flushed {
                flushed = true;
                self.flush();
            }
            let event = tokio::select! { biased;
                Some((id, verdict)) = self.deliveries.next() => Event::Resolved(id, verdict),
                (sink, done) = owned(&mut self.busy) => Event::Idle(sink, done),
                letters = self.pile.letters.buried() => Event::Buried(letters),
            };
            // A row that would fail the run now stays unacked: the next run meets it again.
            self.take(event);
            self.advance();
        }
        if !mutant::on("drained_too_early") {
            sleep_until(self.pile.origin + self.pile.outbox.quiet_at()).await;
        }
        self.advance();
    }

    fn show(&self) {
        let now = self.now();
        let (oldest, intake_waits) = self.intake.state(now);
        let unacked = oldest.and_then(|age| Instant::now().checked_sub(age));
        let outbox = &self.pile.outbox;
        let waits = if !self.pile.letters.is_empty() && outbox.pending() == 0 {
            "its dead letters: they must be durable first"
        } else if self.tenure.sink.common.rate_limit == Some(0) {
            "sink_rate_limit: it is 0"
        } else if !intake_waits.is_empty() {
            intake_waits
        } else if outbox.pending() > 0 && outbox.in_flight() == 0 && outbox.quiet_at() > now {
            "the last breath of an attempt of unknown outcome"
        } else {
            ""
        };
        self.tenure.shown.writer(unacked, waits);
    }
}

impl<I> Drop for Writer<I> {
    fn drop(&mut self) {
        let open = self.pile.outbox.in_flight().saturating_sub(self.refusals.waiting());
        let open = i64::try_from(open).unwrap_or(0);
        self.tenure.commons.metrics.sink_inflight.add(-open, &self.label);
    }
}

/// What a connector does for a traced request, it does within its span.
fn within<T: Send + 'static>(
    span: Option<&Span>,
    work: impl Future<Output = T> + Send + 'static,
) -> BoxFuture<'static, T> {
    match span {
        Some(span) => Box::pin(work.with_context(span.context())),
        None => Box::pin(work),
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
