//! What every source must do, whatever is behind it. An implementation brings a [`Stream`] that the suite may fill and cut; each
//! function is one promise and panics if it is broken.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use model::{Position, RawRecord, SplitId, StartFrom};

use crate::{Listing, Polled, Source, SplitReader};

/// One promise may take so long.
const DEADLINE: Duration = Duration::from_secs(60);

/// A stream made for one test: empty, with at least one open split.
#[async_trait]
pub trait Stream: Send + Sync {
    /// A source that reads it.
    fn source(&self) -> Arc<dyn Source>;
    /// Writes the payloads in order, all under `key`, so that they land in one split.
    async fn put(&self, key: &str, payloads: &[String]);
    /// Cuts a split in two; when this returns, the service lists the children.
    async fn cut(&self, split: &SplitId);
}

/// Runs every test of the suite, each on a fresh stream.
pub async fn all<S: Stream, F: Future<Output = S>>(fresh: impl Fn() -> F) {
    discover_lists_parents(&fresh().await).await;
    reader_resumes_after_the_cursor(&fresh().await).await;
    dropped_next_loses_nothing(&fresh().await).await;
    end_is_final(&fresh().await).await;
}

/// Children name their parents, the parent is listed as closed, and every split carries the stream's creation.
pub async fn discover_lists_parents(stream: &impl Stream) {
    within(async {
        let source = stream.source();
        let before = listing(&*source).await;
        let parent =
            before.splits.iter().find(|s| !s.closed).expect("a fresh stream has an open split").id.clone();
        stream.cut(&parent).await;
        let after = listing(&*source).await;
        assert_eq!(before.creation, after.creation);
        assert!(after.splits.iter().all(|s| s.id.creation() == after.creation));
        let children: Vec<_> = after.splits.iter().filter(|s| s.parents.contains(&parent)).collect();
        assert_eq!(children.len(), 2, "the two children of {parent} name it: {:?}", after.splits);
        assert!(children.iter().all(|s| !s.closed));
        let parent = after.splits.iter().find(|s| s.id == parent).expect("the parent is still listed");
        assert!(parent.closed);
    })
    .await;
}

/// A reader opened after the cursor of a record begins with the next record, wherever it is.
pub async fn reader_resumes_after_the_cursor(stream: &impl Stream) {
    within(async {
        let written = texts(12);
        stream.put("key", &written).await;
        let source = stream.source();
        let (split, whole) = find(&*source, written.len()).await;
        assert_eq!(payloads(&whole), written);
        for i in [0, 5, written.len() - 2] {
            let position = Position::After(whole[i].cursor.clone());
            let mut reader = source.open(&split, &position).await.expect("opens");
            let rest = read(&mut *reader, written.len() - i - 1).await;
            assert_eq!(payloads(&rest), written[i + 1..], "after record {i}");
        }
        // At the end of it nothing comes until something is written.
        let last = Position::After(whole[written.len() - 1].cursor.clone());
        let mut reader = source.open(&split, &last).await.expect("opens");
        let more = vec!["more".to_owned()];
        stream.put("key", &more).await;
        assert_eq!(payloads(&read(&mut *reader, 1).await), more);
    })
    .await;
}

/// `next` may be dropped at any await: what it would have brought comes later, in order, once.
pub async fn dropped_next_loses_nothing(stream: &impl Stream) {
    within(async {
        let written = texts(30);
        stream.put("key", &written[..10]).await;
        let source = stream.source();
        let (split, _) = find(&*source, 10).await;
        let from = Position::Start(StartFrom::Horizon);
        let mut reader = source.open(&split, &from).await.expect("opens");
        let mut got: Vec<RawRecord> = Vec::new();
        let mut patience = 0_u64;
        while got.len() < written.len() {
            if got.len() == 10 && patience < 1_000_000 {
                stream.put("key", &written[10..]).await;
                patience = 1_000_000;
            }
            patience += 1;
            // Every await of `next` is interrupted sooner or later: the first polls come to nothing at all.
            let micros = (patience % 40) * 250;
            match tokio::time::timeout(Duration::from_micros(micros), reader.next()).await {
                Ok(polled) => got.extend(records(polled.expect("reads"))),
                Err(_) => continue,
            }
        }
        assert_eq!(payloads(&got), written);
    })
    .await;
}

/// A closed split gives all it holds, then `End`, and then nothing but `End`, also to those who come later.
pub async fn end_is_final(stream: &impl Stream) {
    within(async {
        let written = texts(7);
        stream.put("key", &written).await;
        let source = stream.source();
        let (split, whole) = find(&*source, written.len()).await;
        stream.cut(&split).await;
        let last = whole.last().expect("records were written").cursor.clone();
        for (position, expected) in
            [(Position::Start(StartFrom::Horizon), &written[..]), (Position::After(last), &[])]
        {
            let mut reader = source.open(&split, &position).await.expect("opens");
            let mut got = Vec::new();
            loop {
                match reader.next().await.expect("reads") {
                    Polled::End => break,
                    polled => got.extend(records(polled)),
                }
            }
            assert_eq!(payloads(&got), expected, "from {position}");
            for _ in 0..3 {
                assert!(matches!(reader.next().await, Ok(Polled::End)));
            }
        }
    })
    .await;
}

async fn within(test: impl Future<Output = ()>) {
    tokio::time::timeout(DEADLINE, test).await.expect("within the deadline");
}

async fn listing(source: &dyn Source) -> Listing {
    source.discover().await.expect("lists")
}

fn texts(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("record {i}")).collect()
}

fn payloads(records: &[RawRecord]) -> Vec<String> {
    records.iter().map(|r| String::from_utf8_lossy(&r.payload).into_owned()).collect()
}

fn records(polled: Polled) -> Vec<RawRecord> {
    match polled {
        Polled::Records { records, .. } => {
            assert!(!records.is_empty(), "`Records` holds at least one");
            records
        }
        _ => Vec::new(),
    }
}

/// Reads exactly `n` records.
async fn read(reader: &mut dyn SplitReader, n: usize) -> Vec<RawRecord> {
    let mut got = Vec::new();
    while got.len() < n {
        got.extend(records(reader.next().await.expect("reads")));
    }
    assert_eq!(got.len(), n);
    got
}

/// The split that holds records, and its first `n`.
async fn find(source: &dyn Source, n: usize) -> (SplitId, Vec<RawRecord>) {
    for split in listing(source).await.splits {
        let from = Position::Start(StartFrom::Horizon);
        let mut reader = source.open(&split.id, &from).await.expect("opens");
        // A split whose first answers are empty holds none of them.
        for _ in 0..3 {
            let mut got = records(reader.next().await.expect("reads"));
            if got.is_empty() {
                continue;
            }
            if got.len() < n {
                got.extend(read(&mut *reader, n - got.len()).await);
            }
            return (split.id, got);
        }
    }
    panic!("no split holds what was written");
}
