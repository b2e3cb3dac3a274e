//! What every sink must do, whatever is behind it. An implementation brings a [`Destination`] that the suite may read and
//! break; each function is one promise and panics if it is broken. What a sink claims beyond "at least once" chooses the
//! rest of the tests.
//!
//! The rows have a key `k`, a number `n` that counts up within the key, and a text `v`; they leave as
//! `{"k":…,"n":…,"v":…}`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use arrow::{
    array::{ArrayRef, Int64Array, StringArray},
    datatypes::Schema,
    record_batch::RecordBatch,
};
use async_trait::async_trait;
use bytes::Bytes;
use model::{
    Batch, Column, Creation, Cursor, Encode, Epoch, Format, FormatClause, ObjectId, OnError, Ops, Options,
    SinkSpec, SplitId, SqlType, TaskId, Timestamp,
};

use crate::{Error, ErrorKind, Rejected, Result, Run, Sink, SinkCommon, SinkKind, SinkWriter};

/// One promise may take so long.
const DEADLINE: Duration = Duration::from_secs(60);

/// A destination made for one test: reachable and empty.
#[async_trait]
pub trait Destination: Send + Sync {
    /// What the suite builds its sinks from.
    fn kind(&self) -> SinkKind;
    /// The options that lead to it.
    fn options(&self) -> Options;
    /// Every message in it, in its order; `None` if it cannot be read.
    async fn read(&self) -> Option<Vec<Bytes>>;
    /// Begins or ends an outage. False if it cannot be broken.
    async fn set_outage(&self, on: bool) -> bool;
    /// A text `v` that it refuses, having seen it.
    fn poison(&self) -> Option<String> {
        None
    }
    /// Options with a wrong password, if it authenticates.
    fn wrong_password(&self) -> Option<Options> {
        None
    }
}

/// Runs every test that the sink's claims ask for, each on a fresh destination.
pub async fn all<D: Destination, F: Future<Output = D>>(fresh: impl Fn() -> F) {
    accepted_is_not_delivered_before_it_is_readable(&fresh().await).await;
    flush_leaves_no_delivery_waiting(&fresh().await).await;
    empty_batch_is_accepted(&fresh().await).await;
    largest_allowed_batch_fits(&fresh().await).await;
    one_bad_row_does_not_spoil_the_batch(&fresh().await).await;
    outage_is_unavailable_and_heals(&fresh().await).await;
    wrong_password_is_denied(&fresh().await).await;
    unknown_option_is_refused(&fresh().await);
    config_never_prints_a_secret(&fresh().await).await;
    rows_of_a_key_keep_their_order_under_retry(&fresh().await).await;
    same_batch_twice_is_there_once(&fresh().await).await;
    older_epoch_is_refused(&fresh().await).await;
}

/// When a delivery has resolved, its rows can be read.
pub async fn accepted_is_not_delivered_before_it_is_readable(destination: &impl Destination) {
    within(async {
        sink(destination).validate().await.expect("a fresh destination is reachable");
        let mut writer = writer(destination, 1).await;
        for (n, size) in [(1, 10), (2, 2000)] {
            let rejected = deliver(&mut *writer, rows("a", n..n + 1, &"x".repeat(size))).await;
            assert!(rejected.expect("it is reachable").is_empty());
            if let Some(seen) = numbers(destination).await {
                assert_eq!(seen["a"], (1..=n).collect::<Vec<_>>());
            }
        }
    })
    .await;
}

/// After `flush`, deliveries resolve without a further write.
pub async fn flush_leaves_no_delivery_waiting(destination: &impl Destination) {
    within(async {
        let mut writer = writer(destination, 1).await;
        let mut deliveries = Vec::new();
        for key in ["a", "b", "c"] {
            deliveries.push(writer.write(rows(key, 1..3, "v")).await.expect("it is reachable"));
        }
        writer.flush().await.expect("it is reachable");
        for delivery in futures::future::join_all(deliveries).await {
            assert!(delivery.expect("it is reachable").is_empty());
        }
        if let Some(seen) = numbers(destination).await {
            assert!(["a", "b", "c"].iter().all(|key| seen[*key] == [1, 2]), "{seen:?}");
        }
    })
    .await;
}

/// A batch without rows is delivered at once.
pub async fn empty_batch_is_accepted(destination: &impl Destination) {
    within(async {
        let rejected = deliver(&mut *writer(destination, 1).await, rows("a", 0..0, "v")).await;
        assert!(rejected.expect("nothing to do cannot fail").is_empty());
    })
    .await;
}

/// As many rows, and about as many bytes, as the kind allows in one write.
pub async fn largest_allowed_batch_fits(destination: &impl Destination) {
    within(async {
        let limits = destination.kind().limits;
        let most = i64::try_from(limits.rows).expect("a limit of rows is small");
        let size = (limits.bytes / limits.rows).clamp(64, 512 << 10) - 60;
        let text = "x".repeat(size);
        // A busy machine may need a second attempt; a batch that is too large never gets through.
        retry(&mut *writer(destination, 1).await, || rows("a", 0..most, &text)).await;
        if let Some(seen) = numbers(destination).await {
            let different: BTreeSet<_> = seen["a"].iter().collect();
            assert_eq!(different.len(), limits.rows);
        }
    })
    .await;
}

/// A row that the destination refuses is named, and the others arrive.
pub async fn one_bad_row_does_not_spoil_the_batch(destination: &impl Destination) {
    let Some(poison) = destination.poison() else { return not_asked("no row that it refuses") };
    within(async {
        let mut writer = writer(destination, 1).await;
        let batch = batch([("a", 1, "v"), ("b", 2, poison.as_str()), ("c", 3, "v")].into_iter());
        match deliver(&mut *writer, batch).await {
            Ok(rejected) => {
                let named: Vec<_> = rejected.iter().map(|r| (r.row, r.error.kind())).collect();
                assert_eq!(named, [(1, ErrorKind::Rejected)]);
            }
            // It could not say which: the worker sends the rows one by one.
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Rejected, "{error:?}");
                for (key, n) in [("a", 1), ("c", 3)] {
                    let rejected = deliver(&mut *writer, rows(key, n..n + 1, "v")).await;
                    assert!(rejected.expect("a good row by itself is taken").is_empty());
                }
            }
        }
        if let Some(seen) = numbers(destination).await {
            assert_eq!(seen.keys().collect::<Vec<_>>(), ["a", "c"]);
        }
    })
    .await;
}

/// An outage is an error that waits, never one that blames the rows; afterwards the same writer goes on.
pub async fn outage_is_unavailable_and_heals(destination: &impl Destination) {
    within(async {
        let mut writer = writer(destination, 1).await;
        deliver(&mut *writer, rows("a", 1..2, "v")).await.expect("it is reachable");
        if !destination.set_outage(true).await {
            return not_asked("it cannot be broken");
        }
        let failed = match deliver(&mut *writer, rows("a", 2..3, "v")).await {
            Err(error) => error,
            Ok(mut rejected) => rejected.pop().expect("nothing is delivered in an outage").error,
        };
        assert!(
            !matches!(failed.kind(), ErrorKind::Rejected | ErrorKind::Bug | ErrorKind::Fenced),
            "an outage is waited out: {failed:?}"
        );
        destination.set_outage(false).await;
        retry(&mut *writer, || rows("a", 2..3, "v")).await;
        if let Some(seen) = numbers(destination).await {
            assert_eq!(seen["a"].last(), Some(&2));
        }
    })
    .await;
}

/// A wrong password is `Denied`, at validation or at the first write.
pub async fn wrong_password_is_denied(destination: &impl Destination) {
    let Some(options) = destination.wrong_password() else { return not_asked("it does not authenticate") };
    within(async {
        let spec = spec(destination.kind().name, options);
        let sink = build(destination, &spec).expect("the options are complete");
        let error = match sink.validate().await {
            Err(error) => error,
            Ok(()) => {
                let mut writer = sink.open(&task(), &run(1)).await.expect("opening asks nobody");
                deliver(&mut *writer, rows("a", 1..2, "v")).await.expect_err("the password is wrong")
            }
        };
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    })
    .await;
}

/// An option that the kind does not have is refused by name.
pub fn unknown_option_is_refused(destination: &impl Destination) {
    let mut options = destination.options();
    options.insert("no.such.option", "1");
    let error = build(destination, &spec(destination.kind().name, options)).err().expect("it is refused");
    assert!(error.contains("no.such.option"), "{error}");
}

/// No text that a sink makes of its options holds a secret among them (I9).
pub async fn config_never_prints_a_secret(destination: &impl Destination) {
    const SECRET: &str = "hunter2-is-secret";
    let kind = destination.kind();
    for secret in kind.options.iter().filter(|def| model::is_secret_option(def.name)) {
        let mut options = destination.options();
        options.insert(secret.name, SECRET);
        options.insert("no.such.option", "1");
        let error = build(destination, &spec(kind.name, options)).err().expect("it is refused");
        assert!(!error.contains(SECRET), "{error}");
        let mut options = destination.options();
        options.insert(secret.name, SECRET);
        let spec = spec(kind.name, options);
        assert!(!format!("{spec:?}").contains(SECRET));
        let Ok(sink) = build(destination, &spec) else { continue };
        if let Ok(Err(error)) = tokio::time::timeout(Duration::from_secs(5), sink.validate()).await {
            assert!(!format!("{error} {error:?}").contains(SECRET), "{error:?}");
        }
    }
}

/// If it claims `ordered`: rows of a key, written one request after the other, are read in that order, whatever fails
/// between (I10).
pub async fn rows_of_a_key_keep_their_order_under_retry(destination: &impl Destination) {
    if !sink(destination).capability().ordered {
        return not_asked("not `ordered`");
    }
    within(async {
        let mut writer = writer(destination, 1).await;
        for n in 0..12 {
            let broken = n % 4 == 3 && destination.set_outage(true).await;
            if broken {
                assert!(!is_delivered(deliver(&mut *writer, rows("a", n * 5..n * 5 + 5, "v")).await));
                destination.set_outage(false).await;
            }
            retry(&mut *writer, || rows("a", n * 5..n * 5 + 5, "v")).await;
        }
        let Some(seen) = numbers(destination).await else { return };
        let seen = &seen["a"];
        let mut next = 0;
        for n in seen {
            assert!(*n <= next, "{n} came before {next}: {seen:?}");
            next = next.max(n + 1);
        }
        assert_eq!((next, seen.last()), (60, Some(&59)), "{seen:?}");
    })
    .await;
}

/// If it claims `idempotent`: the same batch twice is there once.
pub async fn same_batch_twice_is_there_once(destination: &impl Destination) {
    if !sink(destination).capability().idempotent {
        return not_asked("not `idempotent`");
    }
    within(async {
        let mut writer = writer(destination, 1).await;
        for _ in 0..2 {
            deliver(&mut *writer, rows("a", 0..5, "v")).await.expect("it is reachable");
        }
        if let Some(seen) = numbers(destination).await {
            assert_eq!(seen["a"], [0, 1, 2, 3, 4]);
        }
    })
    .await;
}

/// If it claims `fenced`: once a newer epoch has written, an older one cannot.
pub async fn older_epoch_is_refused(destination: &impl Destination) {
    if !sink(destination).capability().fenced {
        return not_asked("not `fenced`");
    }
    within(async {
        let (mut old, mut new) = (writer(destination, 1).await, writer(destination, 2).await);
        deliver(&mut *new, rows("a", 0..1, "v")).await.expect("it is reachable");
        let error = deliver(&mut *old, rows("a", 1..2, "v")).await.expect_err("it is older");
        assert_eq!(error.kind(), ErrorKind::Fenced, "{error:?}");
    })
    .await;
}

/// The sink of the suite's rows with these options.
#[must_use]
pub fn spec(connector: &str, options: Options) -> SinkSpec {
    let column = |name: &str, kind| Column { name: name.to_owned(), kind };
    SinkSpec {
        id: ObjectId::from_parts(1, 1),
        name: "suite".to_owned(),
        source: ObjectId::from_parts(1, 2),
        source_name: "numbers".to_owned(),
        query: None,
        columns: vec![
            column("k", SqlType::Varchar),
            column("n", SqlType::Bigint),
            column("v", SqlType::Varchar),
        ],
        connector: connector.to_owned(),
        options,
        primary_key: vec!["k".to_owned()],
        format: Some(FormatClause {
            format: Format::Plain,
            encode: Encode::Json,
            options: Options::default(),
            key_encode: Some(Encode::Text),
        }),
        on_error: OnError::Fail,
        distribution: model::Distribution::Split,
        paused: false,
        created_at: Timestamp(0),
        revision: 1,
        instance: 0,
    }
}

/// Rows of one key with consecutive numbers.
#[must_use]
pub fn rows(key: &str, numbers: std::ops::Range<i64>, text: &str) -> Batch {
    batch(numbers.map(|n| (key, n, text)))
}

fn batch<'a>(rows: impl Iterator<Item = (&'a str, i64, &'a str)>) -> Batch {
    let rows: Vec<_> = rows.collect();
    let arrays: [ArrayRef; 3] = [
        Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.0))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.1))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.2))),
    ];
    let columns = spec("", Options::default()).columns;
    let schema = Arc::new(Schema::new(columns.iter().map(Column::arrow).collect::<Vec<_>>()));
    Batch {
        rows: RecordBatch::try_new(schema, arrays.to_vec())
            .expect("the arrays have the types of the columns"),
        ops: Ops::Inserts,
        cursors: rows.iter().map(|r| Cursor::new(r.1.to_string())).collect(),
    }
}

fn task() -> TaskId {
    TaskId::reads(ObjectId::from_parts(1, 1), SplitId::new(Creation(1), "split-0"))
}

fn run(revision: u64) -> Run {
    Run { epoch: Epoch { generation: 1, revision }, sink_instance: 0 }
}

fn build(destination: &impl Destination, spec: &SinkSpec) -> Result<Arc<dyn Sink>, String> {
    let kind = destination.kind();
    let (_, own) = SinkCommon::read(&spec.options, kind.limits).map_err(|e| e.to_string())?;
    (kind.build)(spec, &own).map_err(|e| e.to_string())
}

fn sink(destination: &impl Destination) -> Arc<dyn Sink> {
    let spec = spec(destination.kind().name, destination.options());
    build(destination, &spec).expect("the destination's own options are right")
}

async fn writer(destination: &impl Destination, revision: u64) -> Box<dyn SinkWriter> {
    sink(destination).open(&task(), &run(revision)).await.expect("a fresh destination takes writers")
}

/// One attempt.
async fn deliver(writer: &mut dyn SinkWriter, batch: Batch) -> Result<Vec<Rejected>, Error> {
    let delivery = writer.write(batch).await?;
    writer.flush().await?;
    delivery.await
}

fn is_delivered(outcome: Result<Vec<Rejected>, Error>) -> bool {
    outcome.is_ok_and(|rejected| rejected.is_empty())
}

/// As many attempts as it takes.
async fn retry(writer: &mut dyn SinkWriter, batch: impl Fn() -> Batch) {
    while !is_delivered(deliver(writer, batch()).await) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The numbers read, by key, in the destination's order.
async fn numbers(destination: &impl Destination) -> Option<BTreeMap<String, Vec<i64>>> {
    let mut seen: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for message in destination.read().await? {
        let row: serde_json::Value = serde_json::from_slice(&message).expect("a message is a JSON object");
        let (key, n) = (row["k"].as_str(), row["n"].as_i64());
        seen.entry(key.expect("k is a text").to_owned()).or_default().push(n.expect("n is a number"));
    }
    Some(seen)
}

/// Not a skipped test: there is nothing that it could show of this sink.
fn not_asked(why: &str) {
    let test = std::thread::current();
    println!("not asked: a promise of the sink suite in `{}`: {why}", test.name().unwrap_or("?"));
}

async fn within(test: impl Future<Output = ()>) {
    tokio::time::timeout(DEADLINE, test).await.expect("a promise is kept within a minute");
}
