//! The reading half of a run: it takes what is read of its split, alone or together with other runs ([`crate::reading`]), makes
//! chunks of it and hands them on (I8). It reads before the gate opens; only the writer waits for that (P10).
//!
//! ```text
//! member of a reading ─▶ rows (decoded once for all) ─▶ stage (SELECT … WHERE, on_error) ─▶ feed
//! ```

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use connector::Gap;
use model::{Position, Timestamp};
use tokio::{sync::mpsc::Sender, time::Instant};

use super::{
    chunk::{Chunk, Failure, Feed},
    decode::Stage,
    job::Job,
    shown::{Part, Trouble},
};
use crate::{
    metrics::labels,
    reading::{Member, News, Piece, What},
    trace,
};

/// How often a split that is at its present says so.
const CAUGHT_UP_EVERY: Duration = Duration::from_secs(60);
/// How far the service's clock and ours may be apart when one is compared with the other.
const CLOCKS_APART_MS: i64 = 300_000;

/// Reads one split until it ends, fails or is dropped.
pub(crate) struct Reader {
    job: Arc<Job>,
    stage: Stage,
    feed: Sender<Feed>,
    caught_up: Option<Instant>,
    /// The last moment at which everything in the split had been read, by this run or an earlier one.
    present_at: Option<Timestamp>,
    troubled: bool,
    labels: [opentelemetry::KeyValue; 2],
}

/// The feed is closed: nobody wants more.
struct Closed;

impl Reader {
    pub(crate) fn new(job: &Arc<Job>, stage: Stage, feed: Sender<Feed>) -> Self {
        let labels = labels(&job.source.spec.name, &job.sink.spec.name);
        Self {
            job: Arc::clone(job),
            stage,
            feed,
            caught_up: None,
            present_at: job.caught_up_at.filter(|_| matches!(job.start, Position::After(_))),
            troubled: false,
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
        let mut member = self.member();
        let mut owed_since = self.owed_since();
        loop {
            let News { what, gap, horizon, lag } = member.next().await;
            if let Some(gap) = gap {
                self.gap(gap);
            }
            if let Some(horizon) = horizon {
                owed_since.take().into_iter().for_each(|since| self.aged_out(since, horizon));
            }
            match what {
                What::Records(piece) => {
                    self.worked();
                    self.records(&member, piece).await?;
                }
                What::Idle { passed } => {
                    self.worked();
                    passed.into_iter().for_each(|cursor| self.stage.pass(cursor));
                }
                What::Trouble(trouble) => self.trouble(trouble),
                What::End => return Ok(()),
                What::Failed(failure) => return Err(Some(failure)),
            }
            self.at_lag(lag).await.map_err(|Closed| None)?;
        }
    }

    /// Its place among those who read the split.
    fn member(&self) -> Member {
        let source = &self.job.source;
        let registration = source.source.registrar().map(|registrar| registrar.name(&self.job.sink.spec));
        source.readings.member(
            &source.source,
            (self.job.split.clone(), registration),
            (self.stage.position().clone(), self.stage.wants()),
            &self.job.commons,
        )
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

    fn worked(&mut self) {
        if std::mem::take(&mut self.troubled) {
            self.job.shown.trouble(Part::Source, None);
        }
    }

    fn trouble(&mut self, trouble: Trouble) {
        tracing::debug!(task = %self.job.task, error = trouble.error, "the source makes the reader wait");
        self.troubled = true;
        self.job.shown.trouble(Part::Source, Some(trouble));
    }

    async fn records(&mut self, member: &Member, piece: Arc<Piece>) -> Result<(), Option<Failure>> {
        let count = piece.records.len() as u64;
        self.job.shown.totals.read.fetch_add(count, Relaxed);
        self.job.shown.totals.read_bytes.fetch_add(piece.bytes, Relaxed);
        self.job.commons.metrics.records_read.add(count, &self.labels);
        self.job.commons.metrics.bytes_read.add(piece.bytes, &self.labels);
        let portion = member.portion(&piece);
        let span = trace::begin(&self.job, &piece);
        let decoding = trace::decoding(span.as_ref());
        let rows = member.rows(&piece, &self.job.source.spec).await;
        let rows = rows.map_err(|error| Failure { error: error.to_string(), kind: "bug" })?;
        let (chunk, failure) = self.stage.take(&piece, &rows, portion);
        drop((piece, rows, decoding));
        if let Some(mut chunk) = chunk {
            chunk.span = span;
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
