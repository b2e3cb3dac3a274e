//! Whole runs, from a scripted source to a scripted sink, on a paused clock.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use arrow::{array::AsArray as _, record_batch::RecordBatch};
use async_trait::async_trait;
use bytes::Bytes;
use connector::{
    BatchLimits, Capability, Delivery, Error, ErrorKind, Gap, Listing, Ordering, Polled, Rejected, Sink,
    SinkCommon, SinkWriter, Source, SplitReader, Takeover,
};
use model::{
    Batch, Column, Creation, Cursor, Distribution, Encode, Epoch, Format, FormatClause, Include, IncludeKind,
    ObjectId, OnError, Options, Position, RawRecord, SinkSpec, SourceSpec, Split, SplitId, SqlType, Start,
    StartFrom, TaskId, Timestamp,
};
use tokio::{
    sync::{Notify, Semaphore, watch},
    task::JoinHandle,
    time::{Instant, advance, sleep},
};

mod bad;
mod exchange;
mod together;

use super::*;
use crate::{
    budget::Budget,
    exchange::{Owner, Peers},
    fence::Fence,
    metrics::Metrics,
};

const ATTEMPT: Duration = Duration::from_secs(5);
const BREATH: Duration = Duration::from_secs(6);

/// What the source brings next.
enum Step {
    Records(Vec<RawRecord>),
    Fail(ErrorKind),
    End,
}

#[derive(Default)]
struct FakeSource {
    steps: Mutex<VecDeque<Step>>,
    opened: Mutex<Vec<Position>>,
    reads: Mutex<usize>,
    gap: Mutex<Option<Gap>>,
    horizon: Mutex<Option<Timestamp>>,
}

struct FakeReader(Arc<FakeSource>);

struct SharedSource(Arc<FakeSource>);

#[async_trait]
impl Source for SharedSource {
    async fn start(&self) -> connector::Result<Start> {
        Ok(Start::all(StartFrom::Horizon))
    }
    async fn discover(&self) -> connector::Result<Listing> {
        Ok(Listing { creation: Creation(1), splits: Vec::<Split>::new(), now: None, retention: None })
    }
    async fn is_gone(&self, _: &SplitId) -> connector::Result<bool> {
        Ok(false)
    }
    async fn open(&self, _: &SplitId, from: &Position) -> connector::Result<Box<dyn SplitReader>> {
        self.0.opened.lock().unwrap().push(from.clone());
        Ok(Box::new(FakeReader(Arc::clone(&self.0))))
    }
    fn share(&self, _: &SplitId, _: u32) {}
}

#[async_trait]
impl SplitReader for FakeReader {
    async fn next(&mut self) -> connector::Result<Polled> {
        let step = self.0.steps.lock().unwrap().pop_front();
        match step {
            Some(Step::Records(records)) => {
                *self.0.reads.lock().unwrap() += 1;
                Ok(Polled::Records { records, lag: Some(Duration::from_secs(1)) })
            }
            Some(Step::Fail(kind)) => Err(Error::new(kind, "the source says no")),
            Some(Step::End) => Ok(Polled::End),
            None => {
                sleep(Duration::from_secs(1)).await;
                Ok(Polled::Idle { lag: Duration::ZERO })
            }
        }
    }
    fn horizon(&self) -> Option<Timestamp> {
        *self.0.horizon.lock().unwrap()
    }
    fn gap(&mut self) -> Option<Gap> {
        self.0.gap.lock().unwrap().take()
    }
}

/// What the sink does with the next request; without one it takes everything at once.
#[derive(Clone)]
enum Answer {
    Take,
    TakeAfter(Duration),
    /// Nobody ever answers.
    Hang,
    /// Refused as a whole, by `write`.
    Fail(ErrorKind),
    /// The outcome is unknown.
    Ambiguous,
    /// One row is refused.
    Row(usize, ErrorKind),
    /// Every request that holds this value is refused as a whole.
    Poison(&'static str),
    /// This value is refused, alone.
    Refuse(&'static str),
    /// Every request with a value of more bytes is refused as a whole.
    TooLarge(usize),
}

#[derive(Default)]
struct FakeSink {
    answers: Mutex<VecDeque<Answer>>,
    always: Mutex<Option<Answer>>,
    requests: Mutex<Vec<(Instant, Vec<String>)>>,
    landed: Mutex<Vec<String>>,
    /// The requests that were taken, or some of their rows.
    batches: Mutex<Vec<RecordBatch>>,
    flushes: Mutex<usize>,
    flush_fails: Mutex<bool>,
    open: Mutex<usize>,
    open_max: Mutex<usize>,
}

impl FakeSink {
    fn requests(&self) -> Vec<Vec<String>> {
        self.requests.lock().unwrap().iter().map(|(_, rows)| rows.clone()).collect()
    }
    fn landed(&self) -> Vec<String> {
        self.landed.lock().unwrap().clone()
    }
}

struct SharedSink(Arc<FakeSink>);
struct FakeWriter(Arc<FakeSink>);

#[async_trait]
impl Sink for SharedSink {
    fn capability(&self) -> Capability {
        Capability { ordered: true, ..Capability::default() }
    }
    async fn validate(&self) -> connector::Result<()> {
        Ok(())
    }
    async fn open(&self, _: &TaskId, _: &connector::Run) -> connector::Result<Box<dyn SinkWriter>> {
        Ok(Box::new(FakeWriter(Arc::clone(&self.0))))
    }
}

fn values(batch: &Batch) -> Vec<String> {
    let index = batch.rows.schema().index_of("data").unwrap();
    let column = batch.rows.column(index).as_binary_view();
    column.iter().map(|v| String::from_utf8(v.unwrap().to_vec()).unwrap()).collect()
}

#[async_trait]
impl SinkWriter for FakeWriter {
    async fn write(&mut self, batch: Batch) -> connector::Result<Delivery> {
        let sink = Arc::clone(&self.0);
        let rows = values(&batch);
        sink.requests.lock().unwrap().push((Instant::now(), rows.clone()));
        let open = {
            let mut open = sink.open.lock().unwrap();
            *open += 1;
            *open
        };
        let mut max = sink.open_max.lock().unwrap();
        *max = (*max).max(open);
        drop(max);
        let scripted = sink.answers.lock().unwrap().pop_front();
        let answer = scripted.or_else(|| sink.always.lock().unwrap().clone()).unwrap_or(Answer::Take);
        let refuse = |kind| Error::new(kind, "the sink says no");
        if let Answer::Fail(kind) = answer {
            *sink.open.lock().unwrap() -= 1;
            return Err(refuse(kind));
        }
        Ok(Box::pin(async move {
            let mut refused = vec![];
            match answer {
                Answer::TakeAfter(wait) => sleep(wait).await,
                Answer::Hang => std::future::pending().await,
                Answer::Row(row, kind) => refused.push(Rejected { row, error: refuse(kind) }),
                Answer::Refuse(bad) => {
                    let bad = rows.iter().enumerate().filter(|(_, row)| *row == bad);
                    refused.extend(bad.map(|(row, _)| Rejected { row, error: refuse(ErrorKind::Rejected) }));
                }
                _ => {}
            }
            *sink.open.lock().unwrap() -= 1;
            match answer {
                Answer::Ambiguous => {
                    return Err(refuse(ErrorKind::Unavailable).ambiguous_since(std::time::Instant::now()));
                }
                Answer::Poison(bad) if rows.iter().any(|row| row == bad) => {
                    return Err(refuse(ErrorKind::Rejected));
                }
                Answer::TooLarge(most) if rows.iter().any(|row| row.len() > most) => {
                    return Err(refuse(ErrorKind::Rejected));
                }
                _ => {}
            }
            let bad: Vec<usize> = refused.iter().map(|r| r.row).collect();
            let taken = rows.into_iter().enumerate().filter(|(i, _)| !bad.contains(i)).map(|(_, row)| row);
            sink.landed.lock().unwrap().extend(taken);
            sink.batches.lock().unwrap().push(batch.rows);
            Ok(refused)
        }))
    }
    async fn flush(&mut self) -> connector::Result<()> {
        *self.0.flushes.lock().unwrap() += 1;
        if *self.0.flush_fails.lock().unwrap() {
            return Err(Error::new(ErrorKind::Unavailable, "the sink cannot flush"));
        }
        Ok(())
    }
}

fn record(n: usize, key: &str, payload: &str) -> RawRecord {
    RawRecord {
        cursor: Cursor::new(n.to_string()),
        key: Bytes::copy_from_slice(key.as_bytes()),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        arrived_at: Timestamp(1_700_000_000_000),
    }
}

/// Records whose payload is their number and whose key is the second of the pair.
fn records(numbers: std::ops::Range<usize>, keys: &[&str]) -> Step {
    Step::Records(numbers.clone().map(|n| record(n, keys[n % keys.len()], &n.to_string())).collect())
}

fn source_spec() -> SourceSpec {
    let column = |name: &str| Column { name: name.to_owned(), kind: SqlType::Bytea };
    SourceSpec {
        id: ObjectId::from_parts(1, 1),
        name: "clicks".to_owned(),
        connector: "fake".to_owned(),
        options: Options::default(),
        columns: vec![column("data")],
        include: vec![Include { kind: IncludeKind::Key, column: column("k") }],
        primary_key: vec![],
        format: FormatClause {
            format: Format::Plain,
            encode: Encode::Bytes,
            options: Options::default(),
            key_encode: None,
        },
        on_error: OnError::Skip,
        start: Start::all(StartFrom::Horizon),
        creation: Creation(1),
        created_at: Timestamp(0),
        revision: 1,
    }
}

fn sink_spec(source: &SourceSpec, primary_key: &[&str]) -> SinkSpec {
    SinkSpec {
        id: ObjectId::from_parts(2, 2),
        name: "out".to_owned(),
        source: source.id,
        source_name: source.name.clone(),
        query: None,
        columns: source.all_columns().cloned().collect(),
        connector: "fake".to_owned(),
        options: Options::default(),
        primary_key: primary_key.iter().map(|k| (*k).to_owned()).collect(),
        format: None,
        on_error: OnError::Fail,
        distribution: Distribution::Split,
        paused: false,
        created_at: Timestamp(0),
        revision: 1,
        instance: 0,
    }
}

fn common(on_error: OnError) -> SinkCommon {
    SinkCommon {
        ordering: Ordering::Key,
        takeover: Takeover::Ordered,
        on_error,
        dead_letter: None,
        checkpoint_interval: Duration::from_secs(1),
        limits: BatchLimits { rows: 5, bytes: 1 << 20, linger: Duration::ZERO },
        in_flight: 4,
        validate: true,
        rate_limit: None,
    }
}

/// A run in the making, with its fakes in hand.
struct Bench {
    source_spec: SourceSpec,
    primary_key: Vec<&'static str>,
    query: Option<String>,
    common: SinkCommon,
    gate: Duration,
    budget: Arc<Budget>,
    source: Arc<FakeSource>,
    sink: Arc<FakeSink>,
    graveyard: Option<Arc<FakeSink>>,
    fence: Arc<Fence>,
    start: Position,
    caught_up_at: Option<Timestamp>,
    revision: u64,
    split: SplitId,
    /// Who writes the partitions, for a sink that is distributed by `k`.
    owners: Option<(Vec<Owner>, Arc<Peers>)>,
}

/// A run under way.
struct Live {
    shown: Arc<Shown>,
    tell: watch::Sender<Option<Instant>>,
    task: JoinHandle<Ending>,
}

impl Bench {
    fn new(steps: Vec<Step>) -> Self {
        let source = Arc::new(FakeSource { steps: Mutex::new(steps.into()), ..FakeSource::default() });
        Self {
            source_spec: source_spec(),
            primary_key: vec!["k"],
            query: None,
            common: common(OnError::Fail),
            gate: Duration::ZERO,
            budget: Budget::new(64 << 20),
            source,
            sink: Arc::default(),
            graveyard: None,
            fence: Fence::new(),
            start: Position::Start(StartFrom::Horizon),
            caught_up_at: None,
            revision: 7,
            split: SplitId::new(Creation(1), "s-0"),
            owners: None,
        }
    }

    fn answers(self, answers: Vec<Answer>) -> Self {
        *self.sink.answers.lock().unwrap() = answers.into();
        self
    }

    fn letters(&self) -> Option<Arc<BuiltSink>> {
        let graveyard = Arc::clone(self.graveyard.as_ref()?);
        Some(Arc::new(BuiltSink {
            spec: self.spec(),
            sink: Arc::new(SharedSink(graveyard)),
            common: common(OnError::Fail),
            letters: None,
        }))
    }

    fn spec(&self) -> SinkSpec {
        let distribution = match &self.owners {
            Some((owners, _)) => Distribution::Key {
                partitions: u32::try_from(owners.len()).unwrap(),
                columns: vec!["k".to_owned()],
            },
            None => Distribution::Split,
        };
        let query = self.query.clone();
        SinkSpec { query, distribution, ..sink_spec(&self.source_spec, &self.primary_key) }
    }

    /// What the runs of one source and one worker share.
    fn shared(&self) -> (Arc<BuiltSource>, Arc<Commons>) {
        let source = BuiltSource {
            spec: self.source_spec.clone(),
            source: Arc::new(SharedSource(Arc::clone(&self.source))),
            letters: self.letters(),
            readings: crate::reading::Readings::default(),
        };
        let commons = Commons {
            metrics: Metrics::new(&self.budget),
            budget: Arc::clone(&self.budget),
            reads: Semaphore::new(4),
            write_attempt_timeout: ATTEMPT,
            last_breath: BREATH,
            settle_deadline: Duration::from_secs(10),
        };
        (Arc::new(source), Arc::new(commons))
    }

    fn tenure(&self, task: TaskId, shown: &Arc<Shown>, commons: Arc<Commons>) -> Arc<Tenure> {
        let sink = BuiltSink {
            spec: self.spec(),
            sink: Arc::new(SharedSink(Arc::clone(&self.sink))),
            common: self.common.clone(),
            letters: self.letters(),
        };
        Arc::new(Tenure {
            task,
            epoch: Epoch { generation: 0, revision: self.revision },
            gate: Instant::now() + self.gate,
            source_name: self.source_spec.name.clone(),
            sink: Arc::new(sink),
            fence: Arc::clone(&self.fence),
            shown: Arc::clone(shown),
            commons,
        })
    }

    fn run(&self) -> Live {
        self.run_among(self.shared())
    }

    fn run_among(&self, (source, commons): (Arc<BuiltSource>, Arc<Commons>)) -> Live {
        let (start, split) = (self.start.clone(), self.split.clone());
        let shown = Shown::new(start.clone(), Arc::new(Notify::new()));
        let task = TaskId::reads(self.spec().id, split.clone());
        let tenure = self.tenure(task, &shown, commons);
        let partitions = self
            .owners
            .as_ref()
            .map(|(owners, peers)| Partitions { owners: owners.clone(), peers: Arc::clone(peers) });
        let job = Job { split, start, caught_up_at: self.caught_up_at, source, tenure, partitions };
        let (tell, control) = Control::new();
        Live { shown, tell, task: tokio::spawn(run(Arc::new(job), control)) }
    }
}

impl Live {
    fn position(&self) -> Position {
        self.shown.reached().position
    }

    /// Lets the paused clock run until the condition holds; fails after a minute of it.
    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !condition(self) {
            assert!(Instant::now() < deadline, "{what}: still waiting at {}", self.position());
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn stop(self, within: Duration) -> Ending {
        self.tell.send_replace(Some(Instant::now() + within));
        self.task.await.unwrap()
    }
}

fn after(n: usize) -> Position {
    Position::After(Cursor::new(n.to_string()))
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_split_is_delivered_in_order_and_its_end_comes_last() {
    let mut bench = Bench::new(vec![records(0..7, &["a"]), records(7..12, &["a"]), Step::End]);
    bench.primary_key = vec![];
    let live = bench.run();
    live.until("end", |l| l.position().is_end()).await;
    assert_eq!(bench.sink.landed(), numbers(0..12));
    assert_eq!(live.shown.reached().records, 12);
    assert_eq!(*bench.sink.open_max.lock().unwrap(), 1, "as one key there is one request at a time");
    let ending = live.stop(Duration::from_secs(1)).await;
    assert!(ending.drained && ending.failure.is_none());
    assert_eq!(bench.budget.used(), 0);
}

/// P10: it reads and decodes at once, but neither writes nor acks anything before its gate, `End` included.
#[tokio::test(start_paused = true)]
async fn nothing_is_written_or_acked_before_the_gate() {
    for steps in [vec![records(0..3, &["a"]), Step::End], vec![Step::End]] {
        let mut bench = Bench::new(steps);
        bench.gate = Duration::from_secs(11);
        let live = bench.run();
        sleep(Duration::from_millis(10_900)).await;
        assert_eq!(bench.source.opened.lock().unwrap().len(), 1, "it reads before the gate");
        assert!(bench.sink.requests().is_empty());
        assert_eq!(live.position(), Position::Start(StartFrom::Horizon));
        sleep(Duration::from_millis(200)).await;
        assert!(live.position().is_end());
    }
}

#[tokio::test(start_paused = true)]
async fn a_gated_run_drains_at_once_because_nothing_was_written() {
    let mut bench = Bench::new(vec![records(0..3, &["a"])]);
    bench.gate = Duration::from_secs(11);
    let live = bench.run();
    sleep(Duration::from_millis(100)).await;
    let asked = Instant::now();
    assert!(live.stop(Duration::from_secs(10)).await.drained);
    assert!(asked.elapsed() < Duration::from_millis(10));
}

/// P12: newer values of an ambiguous key wait for the last breath of the attempt; other keys go on.
#[tokio::test(start_paused = true)]
async fn after_a_lost_answer_newer_rows_of_its_keys_wait() {
    let bench = Bench::new(vec![records(0..2, &["a", "b"]), records(2..4, &["a", "c"]), Step::End])
        .answers(vec![Answer::Ambiguous]);
    let (live, start) = (bench.run(), Instant::now());
    live.until("end", |l| l.position().is_end()).await;
    let requests = bench.sink.requests.lock().unwrap().clone();
    let sent = |value: &str| {
        let of = requests.iter().filter(|(_, rows)| rows.iter().any(|row| row == value));
        of.map(|(at, _)| *at - start).collect::<Vec<_>>()
    };
    assert!(sent("0").len() >= 2 && sent("0")[1] < Duration::from_secs(1), "the same row goes again at once");
    assert!(sent("2")[0] >= BREATH, "a newer row of its key waits: {:?}", sent("2"));
    assert!(sent("3")[0] < Duration::from_secs(1), "another key goes on");
}

#[tokio::test(start_paused = true)]
async fn end_counts_as_a_newer_value_of_every_key() {
    let bench = Bench::new(vec![records(0..1, &["a"]), Step::End]).answers(vec![Answer::Ambiguous]);
    let (live, start) = (bench.run(), Instant::now());
    live.until("row", |l| l.position() == after(0)).await;
    assert!(start.elapsed() < Duration::from_secs(1));
    live.until("end", |l| l.position().is_end()).await;
    assert!(start.elapsed() >= BREATH, "end was acked after {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_request_without_an_answer_is_given_up_and_sent_again() {
    let bench = Bench::new(vec![records(0..2, &["a", "b"]), Step::End]).answers(vec![Answer::Hang]);
    let (live, start) = (bench.run(), Instant::now());
    live.until("end", |l| l.position().is_end()).await;
    assert!(start.elapsed() >= ATTEMPT);
    assert_eq!(bench.sink.landed(), numbers(0..2));
}

/// P8: drained only when the last breath of every ambiguous attempt is over; before that it is merely stopped.
#[tokio::test(start_paused = true)]
async fn drained_waits_for_the_last_breath_and_stopped_does_not() {
    for (within, drained) in [(Duration::from_secs(10), true), (Duration::from_secs(3), false)] {
        let bench = Bench::new(vec![records(0..2, &["a", "b"])]).answers(vec![Answer::Ambiguous]);
        let live = bench.run();
        live.until("retry", |_| bench.sink.requests().len() >= 2).await;
        let ending = live.stop(within).await;
        assert_eq!(ending.drained, drained);
    }
}

#[tokio::test(start_paused = true)]
async fn draining_finishes_what_is_in_flight_and_sends_nothing_new() {
    let mut bench = Bench::new(vec![records(0..20, &["a"])])
        .answers(vec![Answer::TakeAfter(Duration::from_secs(2)), Answer::Take]);
    bench.primary_key = vec![];
    let live = bench.run();
    live.until("write", |_| !bench.sink.requests().is_empty()).await;
    let shown = Arc::clone(&live.shown);
    assert!(live.stop(Duration::from_secs(10)).await.drained);
    assert_eq!(bench.sink.landed(), numbers(0..5));
    assert_eq!(bench.sink.requests().len(), 1);
    // Twenty records are one chunk, and it is not complete: the next owner reads them again (I1).
    assert_eq!(shown.reached().position, Position::Start(StartFrom::Horizon));
}

/// An outage must never turn records into poison, however long it takes and whatever `on_error` says.
#[tokio::test(start_paused = true)]
async fn an_outage_is_waited_for_and_uses_up_no_attempts() {
    for kind in [ErrorKind::Unavailable, ErrorKind::Throttled, ErrorKind::Denied, ErrorKind::Config] {
        let mut bench = Bench::new(vec![records(0..5, &["a", "b"]), Step::End]);
        bench.common = common(OnError::Skip);
        *bench.sink.always.lock().unwrap() = Some(Answer::Fail(kind));
        let live = bench.run();
        sleep(Duration::from_secs(600)).await;
        let report = live.shown.report(Instant::now());
        assert_eq!(report.state, i32::from(proto::v1::RunState::Retrying));
        assert_eq!((report.error_kind.as_str(), report.records_skipped), (kind.as_str(), 0));
        assert!(report.next_retry.is_some());
        *bench.sink.always.lock().unwrap() = None;
        live.until("end", |l| l.position().is_end()).await;
        assert_eq!(live.shown.report(Instant::now()).error, "");
        assert_eq!(bench.sink.landed().len(), 5);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_row_is_skipped_and_counted_and_the_others_are_delivered() {
    let mut bench = Bench::new(vec![records(0..5, &["a", "b", "c", "d", "e"]), Step::End]);
    bench.common = common(OnError::Skip);
    *bench.sink.always.lock().unwrap() = Some(Answer::Poison("3"));
    let live = bench.run();
    live.until("end", |l| l.position().is_end()).await;
    let mut landed = bench.sink.landed();
    landed.sort();
    assert_eq!(landed, ["0", "1", "2", "4"]);
    let report = live.shown.report(Instant::now());
    assert_eq!((report.records_skipped, report.bad.len()), (1, 1));
    assert_eq!((report.bad[0].cursor.as_str(), report.bad[0].policy.as_str()), ("3", "skip"));
}

#[tokio::test(start_paused = true)]
async fn with_fail_the_run_ends_before_the_refused_row() {
    let bench = Bench::new(vec![records(0..1, &["a"]), records(1..2, &["a"]), records(2..3, &["a"])])
        .answers(vec![Answer::Take]);
    *bench.sink.always.lock().unwrap() = Some(Answer::Refuse("1"));
    let live = bench.run();
    let shown = Arc::clone(&live.shown);
    let ending = live.task.await.unwrap();
    let failure = ending.failure.unwrap();
    assert_eq!(failure.kind, "rejected");
    assert!(failure.error.contains("record 1 of split `s-0`"), "{}", failure.error);
    assert!(ending.drained);
    assert_eq!(shown.reached().position, after(0));
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_durable_before_its_record_counts_and_a_dead_target_is_waited_for() {
    let graveyard = Arc::new(FakeSink::default());
    *graveyard.always.lock().unwrap() = Some(Answer::Fail(ErrorKind::Unavailable));
    let mut bench = Bench::new(vec![records(0..3, &["a", "b", "c"]), Step::End]);
    *bench.sink.always.lock().unwrap() = Some(Answer::Refuse("1"));
    bench.common = common(OnError::DeadLetter);
    bench.graveyard = Some(Arc::clone(&graveyard));
    let live = bench.run();
    sleep(Duration::from_secs(120)).await;
    assert_eq!(live.position(), Position::Start(StartFrom::Horizon), "the record does not count yet");
    assert_eq!(bench.sink.landed(), ["0", "2"]);
    *graveyard.always.lock().unwrap() = None;
    live.until("end", |l| l.position().is_end()).await;
    assert_eq!(graveyard.landed(), ["1"]);
    assert_eq!(live.shown.report(Instant::now()).records_dead_lettered, 1);
}

/// A JSON source with one record that is no JSON.
fn malformed(on_error: OnError) -> Bench {
    let bad = Step::Records(vec![
        record(0, "a", r#"{"data": "MA=="}"#),
        record(1, "a", "not json"),
        record(2, "a", r#"{"data": "Mg=="}"#),
    ]);
    let mut bench = Bench::new(vec![bad, Step::End]);
    bench.source_spec.format.encode = Encode::Json;
    bench.source_spec.on_error = on_error;
    bench
}

#[tokio::test(start_paused = true)]
async fn a_malformed_record_is_skipped_dead_lettered_or_fatal() {
    let bench = malformed(OnError::Skip);
    let live = bench.run();
    live.until("end", |l| l.position().is_end()).await;
    assert_eq!(bench.sink.landed().len(), 2);
    let report = live.shown.report(Instant::now());
    assert_eq!((report.records_skipped, report.bad[0].sample.as_slice()), (1, &b"not json"[..]));

    let bench = malformed(OnError::Fail);
    let live = bench.run();
    let shown = Arc::clone(&live.shown);
    let ending = live.task.await.unwrap();
    assert!(ending.drained && ending.failure.unwrap().error.contains("record 1"));
    assert_eq!(shown.reached().position, after(0), "delivered up to it, and no further");

    let mut bench = malformed(OnError::DeadLetter);
    let graveyard = Arc::new(FakeSink::default());
    bench.graveyard = Some(Arc::clone(&graveyard));
    let live = bench.run();
    live.until("end", |l| l.position().is_end()).await;
    assert_eq!(graveyard.landed(), ["not json"]);
    assert_eq!(bench.sink.landed().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_row_whose_expression_fails_ends_the_run_before_it_or_is_skipped() {
    let steps = || {
        vec![
            Step::Records(["1", "2", "x", "4"].iter().enumerate().map(|(n, v)| record(n, "a", v)).collect()),
            Step::End,
        ]
    };
    let query = "SELECT data, CAST(CONVERT_FROM(data, 'utf8') AS INT) AS n, k FROM clicks WHERE CONVERT_FROM(data, 'utf8') <> '2'";
    let mut bench = Bench::new(steps());
    bench.query = Some(query.to_owned());
    let live = bench.run();
    let shown = Arc::clone(&live.shown);
    let failure = live.task.await.unwrap().failure.unwrap();
    assert_eq!(failure.kind, "rejected", "{}", failure.error);
    assert_eq!(shown.reached().position, after(1));
    assert_eq!(bench.sink.landed(), ["1"]);

    let mut bench = Bench::new(steps());
    bench.query = Some(query.to_owned());
    bench.common = common(OnError::Skip);
    let live = bench.run();
    live.until("end", |l| l.position().is_end()).await;
    assert_eq!(bench.sink.landed(), ["1", "4"]);
    assert_eq!(live.shown.reached().records, 4, "filtered and skipped records count as read");
}

/// I8: a destination that takes nothing stops the reading; memory is bounded by the soft limit and one answer.
#[tokio::test(start_paused = true)]
async fn a_slow_sink_stops_the_reading_before_memory_is_full() {
    let big = "x".repeat(1 << 20);
    let steps = (0..64).map(|n| Step::Records(vec![record(n, "a", &big)])).collect();
    let bench = Bench::new(steps);
    *bench.sink.always.lock().unwrap() = Some(Answer::Fail(ErrorKind::Unavailable));
    let live = bench.run();
    sleep(Duration::from_secs(30)).await;
    let (used, reads) = (bench.budget.used(), *bench.source.reads.lock().unwrap());
    assert!(used <= (4 << 20) + (2 << 20), "{used} bytes are held");
    assert!((3..=6).contains(&reads), "{reads} reads");
    *bench.sink.always.lock().unwrap() = None;
    live.until("all", |l| l.position() == after(63)).await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_source_is_shown_and_reading_goes_on_after_it() {
    let steps = vec![
        records(0..2, &["a"]),
        Step::Fail(ErrorKind::Unavailable),
        Step::Fail(ErrorKind::Config),
        records(2..4, &["a"]),
        Step::End,
    ];
    let bench = Bench::new(steps);
    let live = bench.run();
    live.until("trouble", |l| l.shown.report(Instant::now()).error_kind == "config").await;
    live.until("end", |l| l.position().is_end()).await;
    assert_eq!(bench.sink.landed(), numbers(0..4));
    assert_eq!(live.shown.report(Instant::now()).error, "");
}

#[tokio::test(start_paused = true)]
async fn a_broken_promise_ends_the_run_and_so_does_a_newer_epoch() {
    for kind in [ErrorKind::Bug, ErrorKind::Fenced] {
        let bench = Bench::new(vec![records(0..2, &["a"])]).answers(vec![Answer::Fail(kind)]);
        let ending = bench.run().task.await.unwrap();
        assert_eq!(ending.failure.unwrap().kind, kind.as_str());
    }
}

#[tokio::test(start_paused = true)]
async fn a_flush_that_fails_is_tried_again_with_pauses_and_stops_no_drain() {
    let bench = Bench::new(vec![records(0..1, &["a"])]).answers(vec![
        Answer::TakeAfter(Duration::from_millis(4900)),
        Answer::TakeAfter(Duration::from_secs(3)),
    ]);
    *bench.sink.flush_fails.lock().unwrap() = true;
    let live = bench.run();
    sleep(Duration::from_secs(4)).await;
    let flushes = *bench.sink.flushes.lock().unwrap();
    assert!((2..=12).contains(&flushes), "{flushes} flushes in four seconds");
    live.until("delivery", |l| l.position() == after(0)).await;
    bench.source.steps.lock().unwrap().push_back(records(1..2, &["a"]));
    live.until("second", |_| bench.sink.requests().len() == 2).await;
    assert!(live.stop(Duration::from_secs(10)).await.drained);
}

/// P2: past the deadline nothing is sent any more.
#[tokio::test(start_paused = true)]
async fn past_the_fence_no_request_is_started() {
    let bench = Bench::new(vec![records(0..1, &["a"]), Step::Fail(ErrorKind::Config), records(1..2, &["a"])]);
    assert!(bench.fence.extend(Instant::now() + Duration::from_secs(1)));
    let live = bench.run();
    live.until("first", |l| l.position() == after(0)).await;
    advance(Duration::from_secs(2)).await;
    let ending = live.task.await.unwrap();
    assert!(!ending.drained, "past the fence a run is never drained");
    assert_eq!(ending.failure.unwrap().kind, "fenced");
    assert_eq!(bench.sink.requests(), [numbers(0..1)]);
}

/// S8: a quiet split's last record ages out while nothing new comes.
#[tokio::test(start_paused = true)]
async fn an_old_position_is_a_gap_unless_everything_was_read_since() {
    const HORIZON: Timestamp = Timestamp(1_000_000_000);
    for (caught_up_at, told) in
        [(None, true), (Some(HORIZON), true), (Some(Timestamp(HORIZON.0 + 600_000)), false)]
    {
        let mut bench = Bench::new(vec![records(0..1, &["a"])]);
        (bench.start, bench.caught_up_at) = (Position::After(Cursor::new("5")), caught_up_at);
        *bench.source.gap.lock().unwrap() =
            Some(Gap { message: "5 is gone".to_owned(), horizon: Some(HORIZON) });
        let live = bench.run();
        live.until("delivery", |l| l.position() == after(0)).await;
        let gap = live.shown.reached().gap;
        assert_eq!(gap.is_some(), told, "{caught_up_at:?}: {gap:?}");
        assert!(gap.iter().all(|gap| gap.starts_with("5 is gone")), "{gap:?}");
    }
}

/// A child that waited for its parent longer than the retention: its start is there, and its first records are not.
#[tokio::test(start_paused = true)]
async fn a_start_that_has_aged_out_is_a_gap() {
    const HORIZON: Timestamp = Timestamp(1_000_000_000);
    for (owed_since, told) in
        [(None, false), (Some(HORIZON), true), (Some(Timestamp(HORIZON.0 + 600_000)), false)]
    {
        let mut bench = Bench::new(vec![records(0..1, &["a"])]);
        bench.caught_up_at = owed_since;
        *bench.source.horizon.lock().unwrap() = Some(HORIZON);
        let live = bench.run();
        live.until("delivery", |l| l.position() == after(0)).await;
        let gap = live.shown.reached().gap;
        assert_eq!(gap.is_some(), told, "{owed_since:?}: {gap:?}");
        assert!(gap.iter().all(|gap| gap.contains("may have aged out")), "{gap:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_quiet_split_says_once_a_minute_that_it_is_at_its_present() {
    let bench = Bench::new(vec![records(0..1, &["a"])]);
    let live = bench.run();
    live.until("present", |l| l.shown.reached().caught_up_at.is_some()).await;
    assert_eq!(live.position(), after(0));
    let first = live.shown.reached().caught_up_at;
    sleep(Duration::from_secs(30)).await;
    assert_eq!(live.shown.reached().caught_up_at, first);
}

#[tokio::test(start_paused = true)]
async fn the_rate_limit_is_kept() {
    let mut bench = Bench::new(vec![records(0..40, &["a"]), Step::End]);
    bench.common.rate_limit = Some(10);
    let (live, start) = (bench.run(), Instant::now());
    live.until("end", |l| l.position().is_end()).await;
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(5), "{took:?}");
}
