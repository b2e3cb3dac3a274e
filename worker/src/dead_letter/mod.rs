//! Dead letters: records that could not be decoded, or rows that the destination refused, made durable in another sink *before*
//! they count as done (I1). The writer of a run pushes them and acks their chunks when this says so.
//!
//! The target is any sink of the registry (`sql::sink_dead_letters`). A dead target is waited for, however long, and that is
//! never an attempt. Letters that it *refuses* are bisected; one that is refused alone is tried a few times, then cut shorter
//! and marked, and if the target takes no form of it the run ends before its record: nothing is dropped. Letters are at least
//! once and claim no order, so an attempt of unknown outcome is simply made again.

mod desks;
mod letter;

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use connector::{Error, ErrorKind, OptionError, SinkWriter};
use futures::future::BoxFuture;
use logic::ack::ChunkId;
use model::SplitId;
use sql::DeadLetterSink;
use tokio::time::Instant;

use crate::task::{BuiltSink, Failure, Letter, Part, Retry, Tenure, Trouble, labels, pause_after_refusal};
pub(crate) use desks::Desks;
use letter::Envelope;

/// The target of dead letters as this process has it.
pub(crate) fn build(
    made: Result<Option<DeadLetterSink>, OptionError>,
) -> Result<Option<Arc<BuiltSink>>, OptionError> {
    let built = |made| {
        let DeadLetterSink { spec, sink, common } = made;
        Arc::new(BuiltSink { spec, sink, common, letters: None })
    };
    Ok(made?.map(built))
}

type Writer = Option<Box<dyn SinkWriter>>;

/// What came of some letters.
#[derive(Debug, Default)]
pub(crate) struct Buried {
    /// The chunks of those that are durable, one entry per letter.
    pub(crate) chunks: Vec<ChunkId>,
    /// The target will not take one of the others.
    pub(crate) failure: Option<Failure>,
}

/// The dead letters of one run on their way.
pub(crate) struct DeadLetters {
    tenure: Arc<Tenure>,
    target: Arc<BuiltSink>,
    queue: VecDeque<Envelope>,
    writer: Writer,
    busy: Option<BoxFuture<'static, (Writer, Buried)>>,
}

impl DeadLetters {
    pub(crate) fn new(tenure: &Arc<Tenure>, target: &Arc<BuiltSink>) -> Self {
        Self {
            tenure: Arc::clone(tenure),
            target: Arc::clone(target),
            queue: VecDeque::new(),
            writer: None,
            busy: None,
        }
    }

    /// Another letter of a chunk. Bounded by the memory that the chunk holds.
    pub(crate) fn push(&mut self, chunk: ChunkId, split: SplitId, letter: Letter) {
        self.queue.push_back(Envelope::new(chunk, split, letter));
    }

    /// True when nothing is on its way.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.busy.is_none()
    }

    /// What comes of the next letters. Never resolves without letters. Cancel safe.
    pub(crate) async fn buried(&mut self) -> Buried {
        if self.busy.is_none() {
            if self.queue.is_empty() {
                return std::future::pending().await;
            }
            let burial = Burial {
                tenure: Arc::clone(&self.tenure),
                target: Arc::clone(&self.target),
                writer: self.writer.take(),
                retry: Retry::default(),
                letters: self.next(),
                buried: Buried::default(),
            };
            self.busy = Some(Box::pin(burial.run()));
        }
        let Some(busy) = &mut self.busy else { return std::future::pending().await };
        let (writer, buried) = busy.await;
        self.busy = None;
        self.writer = writer;
        buried
    }

    /// As many as the target takes at once.
    fn next(&mut self) -> Vec<Envelope> {
        let limits = self.target.common.limits;
        let (mut letters, mut bytes) = (Vec::new(), 0_usize);
        while let Some(letter) = self.queue.front() {
            bytes = bytes.saturating_add(letter.size());
            if !letters.is_empty() && (letters.len() >= limits.rows || bytes > limits.bytes) {
                break;
            }
            letters.extend(self.queue.pop_front());
        }
        letters
    }
}

/// Letters that are written until each is durable, or one of them cannot be.
struct Burial {
    tenure: Arc<Tenure>,
    target: Arc<BuiltSink>,
    writer: Writer,
    retry: Retry,
    letters: Vec<Envelope>,
    buried: Buried,
}

impl Burial {
    async fn run(mut self) -> (Writer, Buried) {
        let mut parts: Vec<Vec<usize>> = vec![(0..self.letters.len()).collect()];
        while let Some(part) = parts.pop() {
            if let Err(failure) = self.part(part, &mut parts).await {
                self.buried.failure = Some(failure);
                break;
            }
        }
        self.tenure.shown.trouble(Part::DeadLetter, None);
        (self.writer, self.buried)
    }

    /// One request; what is left of it is put back to the others.
    async fn part(&mut self, mut part: Vec<usize>, parts: &mut Vec<Vec<usize>>) -> Result<(), Failure> {
        let refused = match self.attempt(&part).await {
            Ok(refused) => refused,
            Err(error) if error.kind() == ErrorKind::Rejected && part.len() > 1 => {
                let rest = part.split_off(part.len() / 2);
                parts.extend([rest, part]);
                return Ok(());
            }
            Err(error) if error.kind() == ErrorKind::Rejected => vec![(0, error)],
            Err(error) => {
                self.writer = None;
                parts.push(part);
                return self.wait_after(&error).await;
            }
        };
        if let Some((row, error)) = refused.iter().find(|(row, _)| *row >= part.len()) {
            let error = format!("the dead-letter sink refused row {row} of {}: {error}", part.len());
            return Err(Failure { error, kind: "bug" });
        }
        let is_refused = |at: usize| refused.iter().any(|(row, _)| *row == at);
        let durable: Vec<usize> = (0..part.len()).filter(|at| !is_refused(*at)).map(|at| part[at]).collect();
        self.durable(&durable);
        let (bad, later): (Vec<_>, Vec<_>) =
            refused.into_iter().partition(|(_, error)| error.kind() == ErrorKind::Rejected);
        let mut pause = Duration::ZERO;
        for (row, error) in bad {
            pause = pause.max(self.refused(part[row], &error)?);
            parts.push(vec![part[row]]);
        }
        if let Some((_, error)) = later.first() {
            self.wait_after(error).await?;
            parts.push(later.iter().map(|(row, _)| part[*row]).collect());
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }

    async fn attempt(&mut self, part: &[usize]) -> connector::Result<Vec<(usize, Error)>> {
        let limit = self.tenure.commons.write_attempt_timeout;
        let too_late =
            |_| Error::new(ErrorKind::Unavailable, "the dead letter target did not answer in time");
        let fence = &self.tenure.fence;
        let letters: Vec<&Envelope> = part.iter().filter_map(|at| self.letters.get(*at)).collect();
        let batch = letter::batch(&self.tenure.source_name, &letters)?;
        let open = match &mut self.writer {
            Some(open) => open,
            None => {
                let (task, run) = (&self.tenure.task, self.tenure.run());
                let opening = fence.guard(self.target.sink.open(task, &run));
                self.writer.insert(tokio::time::timeout(limit, opening).await.map_err(too_late)??)
            }
        };
        let delivery =
            tokio::time::timeout(limit, fence.guard(open.write(batch))).await.map_err(too_late)??;
        let durable = Box::pin(async { futures::try_join!(open.flush(), delivery) });
        let ((), refused) = tokio::time::timeout(limit, fence.guard(durable)).await.map_err(too_late)??;
        Ok(refused.into_iter().map(|r| (r.row, r.error)).collect())
    }

    /// These are where nobody loses them.
    fn durable(&mut self, letters: &[usize]) {
        if letters.is_empty() {
            return;
        }
        if self.retry.worked() {
            self.tenure.shown.trouble(Part::DeadLetter, None);
        }
        for letter in letters.iter().filter_map(|at| self.letters.get(*at)) {
            self.buried.chunks.push(letter.chunk);
            if let Some(cut) = letter.cut() {
                let record = &letter.letter.record;
                let error = format!(
                    "the dead letter holds {cut} of {} bytes, its target refused more of it: {}",
                    record.payload.len(),
                    letter.letter.error
                );
                tracing::warn!(task = %self.tenure.task, record = %record.cursor, error, "a dead letter was cut");
                self.tenure.shown.bad(&record.cursor, &error, &record.payload, "dead_letter");
            }
        }
        let count = letters.len() as u64;
        self.tenure.shown.totals.dead_lettered.fetch_add(count, Relaxed);
        let labels = labels(&self.tenure.source_name, &self.tenure.sink.spec.name);
        self.tenure.commons.metrics.dead_letter_records.add(count, &labels);
    }

    /// The target refused one letter alone: how long to wait until it is tried once more, perhaps shorter.
    fn refused(&mut self, at: usize, error: &Error) -> Result<Duration, Failure> {
        let Some(letter) = self.letters.get_mut(at) else { return Ok(Duration::ZERO) };
        match letter.refused() {
            Some(times) => Ok(pause_after_refusal(times)),
            None => {
                let (cursor, split) = (&letter.letter.record.cursor, &letter.split);
                let target = &self.target.spec.connector;
                let error = format!(
                    "the dead letter of record {cursor} of split `{split}` was refused by the dead-letter sink (`{target}`): \
                     {error}; the record itself: {}",
                    letter.letter.error
                );
                Err(Failure { error, kind: "rejected" })
            }
        }
    }

    /// An outage is waited for; only a newer epoch and a broken promise end the run.
    async fn wait_after(&mut self, error: &Error) -> Result<(), Failure> {
        let kind = error.kind();
        if matches!(kind, ErrorKind::Bug | ErrorKind::Fenced) {
            return Err(Failure { error: format!("dead letters: {error}"), kind: kind.as_str() });
        }
        let pause = self.retry.failed(kind).max(Duration::from_millis(50));
        tracing::warn!(task = %self.tenure.task, %error, ?pause, "dead letters wait for their target");
        let retry_at = Instant::now() + pause;
        let trouble = Trouble { error: format!("dead letters: {error}"), kind: kind.as_str(), retry_at };
        self.tenure.shown.trouble(Part::DeadLetter, Some(trouble));
        tokio::time::sleep(pause).await;
        Ok(())
    }
}
