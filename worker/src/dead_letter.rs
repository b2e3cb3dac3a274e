//! Dead letters: records that could not be decoded, or rows that the destination refused, made durable in another sink *before*
//! they count as done (I1). The writer of a run pushes them and acks their chunks when this says so.
//!
//! The target is any sink of the registry, built from `dead_letter.connector` and `dead_letter.*`. A dead target is waited for.
//! Letters are at least once and claim no order, so an attempt of unknown outcome is simply made again.

use std::{
    collections::VecDeque,
    sync::{Arc, LazyLock, atomic::Ordering::Relaxed},
    time::Duration,
};

use arrow::{
    array::{ArrayRef, BinaryViewArray, StringArray, TimestampMicrosecondArray},
    datatypes::Schema,
    record_batch::RecordBatch,
};
use connector::{Error, ErrorKind, KeyRule, OptionError, Registry, SinkWriter};
use futures::future::BoxFuture;
use logic::ack::ChunkId;
use model::{Batch, Column, Cursor, Encode, Format, FormatClause, OnError, Ops, Options, SinkSpec, SqlType};
use tokio::time::Instant;

use crate::task::{BuiltSink, Job, Letter, Part, Retry, Trouble, labels};

/// The columns of a dead letter.
static COLUMNS: LazyLock<Vec<Column>> = LazyLock::new(|| {
    let column = |name: &str, kind| Column { name: name.to_owned(), kind };
    vec![
        column("source", SqlType::Varchar),
        column("shard", SqlType::Varchar),
        column("seq", SqlType::Varchar),
        column("arrival", SqlType::Timestamptz),
        column("partition_key", SqlType::Varchar),
        column("data", SqlType::Bytea),
        column("error", SqlType::Varchar),
    ]
});

/// Builds the target of the dead letters of `owner`.
pub(crate) fn build(
    registry: &Registry,
    owner: SinkSpec,
    connector: &str,
    options: Options,
) -> Result<Arc<BuiltSink>, OptionError> {
    let kind = registry.sink(connector)?;
    let json = kind.formats.contains(&(Format::Plain, Encode::Json));
    let keyed = matches!(kind.key, KeyRule::Required(_));
    let format = FormatClause {
        format: Format::Plain,
        encode: Encode::Json,
        options: Options::default(),
        key_encode: None,
    };
    let spec = SinkSpec {
        name: format!("{}_dead_letter", owner.name),
        query: None,
        columns: COLUMNS.clone(),
        connector: connector.to_owned(),
        options,
        primary_key: if keyed { vec!["shard".to_owned(), "seq".to_owned()] } else { Vec::new() },
        format: json.then_some(format),
        on_error: OnError::Fail,
        paused: false,
        ..owner
    };
    let (sink, common) = registry.build_sink(&spec)?;
    Ok(Arc::new(BuiltSink { spec, sink, common, letters: None }))
}

type Writer = Option<Box<dyn SinkWriter>>;

/// The dead letters of one run on their way.
pub(crate) struct DeadLetters {
    job: Arc<Job>,
    target: Arc<BuiltSink>,
    queue: VecDeque<(ChunkId, Letter)>,
    writer: Writer,
    busy: Option<BoxFuture<'static, (Writer, Vec<ChunkId>)>>,
}

impl DeadLetters {
    pub(crate) fn new(job: &Arc<Job>, target: &Arc<BuiltSink>) -> Self {
        Self {
            job: Arc::clone(job),
            target: Arc::clone(target),
            queue: VecDeque::new(),
            writer: None,
            busy: None,
        }
    }

    /// Another letter of a chunk. Bounded by the memory that the chunk holds.
    pub(crate) fn push(&mut self, chunk: ChunkId, letter: Letter) {
        self.queue.push_back((chunk, letter));
    }

    /// True when nothing is on its way.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.busy.is_none()
    }

    /// The chunks of the next letters that are durable, one entry per letter. Never resolves without letters. Cancel safe.
    pub(crate) async fn durable(&mut self) -> Vec<ChunkId> {
        if self.busy.is_none() {
            if self.queue.is_empty() {
                return std::future::pending().await;
            }
            let count = self.queue.len().min(self.target.common.limits.rows.max(1));
            let letters: Vec<(ChunkId, Letter)> = self.queue.drain(..count).collect();
            let attempt = Attempt { job: Arc::clone(&self.job), target: Arc::clone(&self.target) };
            self.busy = Some(Box::pin(attempt.deliver(self.writer.take(), letters)));
        }
        let Some(busy) = &mut self.busy else { return std::future::pending().await };
        let (writer, chunks) = busy.await;
        self.busy = None;
        self.writer = writer;
        chunks
    }
}

struct Attempt {
    job: Arc<Job>,
    target: Arc<BuiltSink>,
}

impl Attempt {
    /// Tries until every letter is durable.
    async fn deliver(self, mut writer: Writer, letters: Vec<(ChunkId, Letter)>) -> (Writer, Vec<ChunkId>) {
        let mut retry = Retry::default();
        let mut left: Vec<&Letter> = letters.iter().map(|(_, letter)| letter).collect();
        while !left.is_empty() {
            match self.attempt(&mut writer, &left).await {
                Ok(refused) if refused.is_empty() => left.clear(),
                Ok(refused) => {
                    let (_, error) = &refused[0];
                    self.wait_after(&mut retry, error).await;
                    left = refused.iter().filter_map(|(row, _)| left.get(*row).copied()).collect();
                }
                Err(error) => {
                    writer = None;
                    self.wait_after(&mut retry, &error).await;
                }
            }
        }
        if retry.worked() {
            self.job.shown.trouble(Part::DeadLetter, None);
        }
        let count = letters.len() as u64;
        self.job.shown.totals.dead_lettered.fetch_add(count, Relaxed);
        let labels = labels(&self.job.source.spec.name, &self.job.sink.spec.name);
        self.job.commons.metrics.dead_letter_records.add(count, &labels);
        (writer, letters.into_iter().map(|(chunk, _)| chunk).collect())
    }

    async fn attempt(
        &self,
        writer: &mut Writer,
        letters: &[&Letter],
    ) -> connector::Result<Vec<(usize, Error)>> {
        let limit = self.job.commons.write_attempt_timeout;
        let too_late =
            |_| Error::new(ErrorKind::Unavailable, "the dead letter target did not answer in time");
        let fence = &self.job.fence;
        let open = match writer {
            Some(open) => open,
            None => {
                let (task, run) = (&self.job.task, self.job.run());
                let opening = fence.guard(self.target.sink.open(task, &run));
                writer.insert(tokio::time::timeout(limit, opening).await.map_err(too_late)??)
            }
        };
        let batch = self.batch(letters)?;
        let delivery =
            tokio::time::timeout(limit, fence.guard(open.write(batch))).await.map_err(too_late)??;
        let durable = Box::pin(async { futures::try_join!(open.flush(), delivery) });
        let ((), refused) = tokio::time::timeout(limit, fence.guard(durable)).await.map_err(too_late)??;
        Ok(refused.into_iter().map(|r| (r.row, r.error)).collect())
    }

    async fn wait_after(&self, retry: &mut Retry, error: &Error) {
        let pause = retry.failed(error.kind()).max(Duration::from_millis(50));
        let error_text = format!("dead letters: {error}");
        tracing::warn!(task = %self.job.task, %error, ?pause, "dead letters wait for their target");
        let retry_at = Instant::now() + pause;
        let trouble = Trouble { error: error_text, kind: error.kind().as_str(), retry_at };
        self.job.shown.trouble(Part::DeadLetter, Some(trouble));
        tokio::time::sleep(pause).await;
    }

    fn batch(&self, letters: &[&Letter]) -> connector::Result<Batch> {
        let split = &self.job.task.split;
        let texts = |text: &dyn Fn(&Letter) -> String| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(letters.iter().map(|letter| text(letter))))
        };
        let arrival = letters.iter().map(|l| l.record.arrived_at.0.saturating_mul(1000));
        let data = letters.iter().map(|l| l.record.payload.as_ref());
        let columns: Vec<ArrayRef> = vec![
            texts(&|_| self.job.source.spec.name.clone()),
            texts(&|_| split.name().to_owned()),
            texts(&|l| l.record.cursor.as_str().to_owned()),
            Arc::new(TimestampMicrosecondArray::from_iter_values(arrival).with_timezone("UTC")),
            texts(&|l| String::from_utf8_lossy(&l.record.key).into_owned()),
            Arc::new(BinaryViewArray::from_iter_values(data)),
            texts(&|l| l.error.clone()),
        ];
        let schema = Schema::new(COLUMNS.iter().map(Column::arrow).collect::<Vec<_>>());
        let rows = RecordBatch::try_new(Arc::new(schema), columns)
            .map_err(|e| Error::new(ErrorKind::Bug, "dead letters do not fit their columns").because(e))?;
        let cursors: Vec<Cursor> = letters.iter().map(|l| l.record.cursor.clone()).collect();
        Ok(Batch { split: split.clone(), rows, ops: Ops::Inserts, cursors })
    }
}
