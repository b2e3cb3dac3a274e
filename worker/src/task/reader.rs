//! The reading half of a run: reserve memory, read, decode, hand on (I8). It reads before the gate opens; only the writer
//! waits for that (P10).
//!
//! ```text
//! ready (pace) ─▶ reserve (budget) ─▶ a place among the reads ─▶ next ─▶ settle ─▶ decode ─▶ feed
//! ```

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use connector::{Error, ErrorKind, Gap, Polled, SplitReader};
use model::{Position, RawRecord, Timestamp};
use tokio::{sync::mpsc::Sender, time::Instant};

use super::{
    chunk::{Chunk, Failure, Feed},
    decode::Stage,
    job::Job,
    retry::Retry,
    shown::{Part, Trouble},
};
use crate::{
    budget::{Account, Reservation},
    metrics::labels,
};

/// What a split may hold between source and destination before it must wait, softly.
pub(crate) const SPLIT_BYTES: u64 = 4 << 20;
/// The least that is reserved for an answer.
const ANSWER_BYTES_MIN: u64 = 64 << 10;
/// How often a split that is at its present says so.
const CAUGHT_UP_EVERY: Duration = Duration::from_secs(60);
/// How far the service's clock and ours may be apart when one is compared with the other.
const CLOCKS_APART_MS: i64 = 300_000;

/// Reads one split until it ends, fails or is dropped.
pub(crate) struct Reader {
    job: Arc<Job>,
    account: Arc<Account>,
    stage: Stage,
    feed: Sender<Feed>,
    recent: u64,
    caught_up: Option<Instant>,
    /// The last moment at which everything in the split had been read, by this run or an earlier one.
    present_at: Option<Timestamp>,
    retry: Retry,
    labels: [opentelemetry::KeyValue; 2],
}

/// The feed is closed: nobody wants more.
struct Closed;

impl Reader {
    pub(crate) fn new(job: &Arc<Job>, stage: Stage, feed: Sender<Feed>) -> Self {
        let account = Account::new(Arc::clone(&job.commons.budget), SPLIT_BYTES);
        let labels = labels(&job.source.spec.name, &job.sink.spec.name);
        Self {
            job: Arc::clone(job),
            account,
            stage,
            feed,
            recent: 0,
            caught_up: None,
            present_at: job.caught_up_at.filter(|_| matches!(job.start, Position::After(_))),
            retry: Retry::default(),
            labels,
        }
    }

    /// Ends when the split does, when the run must fail, or when nobody wants more.
    pub(crate) async fn run(mut self) {
        let last = match self.read().await {
            Ok(()) => {
                self.job.shown.split_ended();
                Feed::End
            }
            Err(Some(failure)) => Feed::Failed(failure),
            Err(None) => return,
        };
        // A closed feed means that the writer is settling: it asks for no reason.
        self.feed.send(last).await.ok();
    }

    async fn read(&mut self) -> Result<(), Option<Failure>> {
        if self.stage.position().is_end() {
            return Ok(());
        }
        let mut reader = self.open().await.map_err(Some)?;
        let mut owed_since = self.owed_since();
        loop {
            reader.ready().await;
            let estimate = ANSWER_BYTES_MIN.max(2 * self.recent).min(2 * SPLIT_BYTES);
            let reservation = self.account.reserve(estimate).await;
            let polled = {
                let _place = self.job.commons.reads.acquire().await;
                reader.next().await
            };
            if let Some(gap) = reader.gap() {
                self.gap(gap);
            }
            if let Some(horizon) = reader.horizon().filter(|_| polled.is_ok()) {
                owed_since.take().into_iter().for_each(|since| self.aged_out(since, horizon));
            }
            match polled {
                Ok(Polled::Records { records, lag }) => {
                    self.worked();
                    let lag = lag.map(|lag| (lag, reader.now()));
                    self.records(records, lag, reservation).await?;
                }
                Ok(Polled::Idle { lag }) => {
                    drop(reservation);
                    self.worked();
                    self.recent /= 2;
                    if let Some(cursor) = reader.passed() {
                        self.stage.pass(cursor);
                    }
                    self.at_lag(Some((lag, reader.now()))).await.map_err(|Closed| None)?;
                }
                Ok(Polled::End) => return Ok(()),
                Err(error) => {
                    drop(reservation);
                    self.wait_after(&error).await.map_err(Some)?;
                }
            }
        }
    }

    /// The position was older than what the stream holds. That is no loss if the split was read to its end since: a quiet
    /// split's last record may age out while nothing new comes.
    fn gap(&self, gap: Gap) {
        let (split, message) = (&self.job.split, gap.message);
        let safe =
            gap.horizon.zip(self.present_at).filter(|(horizon, at)| at.0 >= horizon.0 + CLOCKS_APART_MS);
        if let Some((_, at)) = safe {
            tracing::info!(%split, "no record is lost, everything was read at {at}: {message}");
            return;
        }
        let since =
            self.present_at.map_or_else(String::new, |at| format!(" (until {at} nothing is missing)"));
        tracing::error!(%split, "records were gone before they could be read: {message}{since}");
        self.job.shown.gap(format!("{message}{since}"));
    }

    /// Of a split that is read from its start: since when what is in it is owed to the sink.
    fn owed_since(&self) -> Option<Timestamp> {
        self.job.caught_up_at.filter(|_| matches!(self.stage.position(), Position::Start(_)))
    }

    /// A start asks for no record that could be missed: the oldest may have aged out while nobody read, without a word.
    fn aged_out(&self, since: Timestamp, horizon: Timestamp) {
        if since.0 < horizon.0 + CLOCKS_APART_MS {
            let split = &self.job.split;
            let message = format!(
                "nothing of split `{split}` had been read: what came to it between {since} and {horizon} may have aged out"
            );
            tracing::error!(%split, "records were gone before they could be read: {message}");
            self.job.shown.gap(message);
        }
    }

    async fn open(&mut self) -> Result<Box<dyn SplitReader>, Failure> {
        loop {
            let (source, split) = (&self.job.source.source, &self.job.split);
            let opened = match source.registrar() {
                None => source.open(split, self.stage.position()).await,
                Some(registrar) => {
                    let name = registrar.name(&self.job.sink.spec);
                    registrar.open(&name, split, self.stage.position()).await
                }
            };
            match opened {
                Ok(reader) => {
                    self.worked();
                    return Ok(reader);
                }
                Err(error) => self.wait_after(&error).await?,
            }
        }
    }

    fn worked(&mut self) {
        if self.retry.worked() {
            self.job.shown.trouble(Part::Source, None);
        }
    }

    /// An outage is waited for; only a broken promise ends the run.
    async fn wait_after(&mut self, error: &Error) -> Result<(), Failure> {
        let kind = error.kind();
        if matches!(kind, ErrorKind::Bug | ErrorKind::Fenced | ErrorKind::Rejected) {
            return Err(Failure { error: error.to_string(), kind: kind.as_str() });
        }
        let pause = self.retry.failed(kind);
        let retry_at = Instant::now() + pause;
        tracing::debug!(task = %self.job.task, %error, ?pause, "the source makes the reader wait");
        let trouble = Trouble { error: error.to_string(), kind: kind.as_str(), retry_at };
        self.job.shown.trouble(Part::Source, Some(trouble));
        tokio::time::sleep(pause).await;
        Ok(())
    }

    async fn records(
        &mut self,
        records: Vec<RawRecord>,
        lag: Option<(Duration, Timestamp)>,
        mut reservation: Reservation,
    ) -> Result<(), Option<Failure>> {
        let bytes: u64 = records.iter().map(|record| record.size() as u64).sum();
        reservation.settle(bytes);
        self.recent = bytes;
        let count = records.len() as u64;
        self.job.shown.totals.read.fetch_add(count, Relaxed);
        self.job.shown.totals.read_bytes.fetch_add(bytes, Relaxed);
        self.job.commons.metrics.records_read.add(count, &self.labels);
        self.job.commons.metrics.bytes_read.add(bytes, &self.labels);
        for record in records {
            if let Err(failure) = self.stage.push(record) {
                self.cut(&mut reservation).await?;
                return Err(Some(failure));
            }
            if self.stage.is_full() {
                self.cut(&mut reservation).await?;
            }
        }
        self.cut(&mut reservation).await?;
        self.at_lag(lag).await.map_err(|Closed| None)
    }

    async fn cut(&mut self, reservation: &mut Reservation) -> Result<(), Option<Failure>> {
        let (chunk, failure) = self.stage.cut(reservation);
        if let Some(chunk) = chunk {
            self.send(chunk).await.map_err(|Closed| None)?;
        }
        failure.map_or(Ok(()), |failure| Err(Some(failure)))
    }

    async fn send(&mut self, chunk: Chunk) -> Result<(), Closed> {
        self.feed.send(Feed::Chunk(Box::new(chunk))).await.map_err(|_| Closed)
    }

    /// A quiet split has hardly a new position to store: the moment at which it was read to its end is kept instead.
    async fn at_lag(&mut self, lag: Option<(Duration, Timestamp)>) -> Result<(), Closed> {
        let Some((lag, now)) = lag else { return Ok(()) };
        self.job.shown.lag(lag);
        if !lag.is_zero() {
            return Ok(());
        }
        self.present_at = Some(now);
        if self.caught_up.is_some_and(|at| at.elapsed() < CAUGHT_UP_EVERY) {
            return Ok(());
        }
        self.caught_up = Some(Instant::now());
        let position: Position = self.stage.position().clone();
        self.send(Chunk { caught_up_at: Some(now), ..Chunk::empty(position) }).await
    }
}
