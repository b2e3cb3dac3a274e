//! Members of the readings of one split, over a tape that counts its reads, on a paused clock.

use std::{
    collections::VecDeque,
    future::pending,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use async_trait::async_trait;
use bytes::Bytes;
use connector::{Error, ErrorKind, Listing, Polled, SplitReader};
use futures::{FutureExt as _, future::join_all};
use model::{
    Column, Creation, Encode, Format, FormatClause, ObjectId, OnError, Options, RawRecord, SqlType, Start,
    StartFrom,
};
use tokio::{
    sync::Semaphore,
    task::JoinHandle,
    time::{sleep, sleep_until, timeout},
};

use super::*;
use crate::{budget::Budget, metrics::Metrics};

/// Between two reads of a split, whoever asks.
const PACE: Duration = Duration::from_millis(200);

/// A split in memory.
struct Tape {
    records: Mutex<Vec<RawRecord>>,
    ended: Mutex<bool>,
    /// What goes wrong next.
    errors: Mutex<VecDeque<ErrorKind>>,
    gap: Mutex<Option<Gap>>,
    /// Records of one answer, at most.
    answer: usize,
    took: Duration,
    slot: Mutex<Instant>,
    reads: AtomicUsize,
    /// Readers that are open.
    open: AtomicUsize,
    opened: Mutex<Vec<Position>>,
}

impl Tape {
    fn new(answer: usize) -> Arc<Self> {
        Arc::new(Self {
            records: Mutex::default(),
            ended: Mutex::new(false),
            errors: Mutex::default(),
            gap: Mutex::new(None),
            answer,
            took: Duration::from_millis(10),
            slot: Mutex::new(Instant::now()),
            reads: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            opened: Mutex::default(),
        })
    }

    fn add(&self, cursors: impl IntoIterator<Item = String>) {
        let record = |cursor: String| RawRecord {
            payload: Bytes::from(cursor.clone()),
            cursor: Cursor::new(cursor),
            key: Bytes::from_static(b"k"),
            arrived_at: Timestamp(0),
        };
        self.records.lock().unwrap().extend(cursors.into_iter().map(record));
    }

    fn after(&self, position: &Position) -> usize {
        let Position::After(cursor) = position else { return 0 };
        1 + self.records.lock().unwrap().iter().position(|r| r.cursor == *cursor).expect("no such record")
    }
}

struct Head {
    tape: Arc<Tape>,
    next: usize,
}

impl Drop for Head {
    fn drop(&mut self) {
        self.tape.open.fetch_sub(1, SeqCst);
    }
}

#[async_trait]
impl SplitReader for Head {
    async fn ready(&mut self) {
        let slot = *self.tape.slot.lock().unwrap();
        sleep_until(slot).await;
    }
    async fn next(&mut self) -> connector::Result<Polled> {
        loop {
            let now = Instant::now();
            let slot = {
                let mut slot = self.tape.slot.lock().unwrap();
                if *slot <= now {
                    *slot = now + PACE;
                    break;
                }
                *slot
            };
            sleep_until(slot).await;
        }
        self.tape.reads.fetch_add(1, SeqCst);
        sleep(self.tape.took).await;
        if let Some(kind) = self.tape.errors.lock().unwrap().pop_front() {
            return Err(Error::new(kind, "the tape says no"));
        }
        let records = self.tape.records.lock().unwrap();
        let end = records.len().min(self.next + self.tape.answer);
        let lag = if end == records.len() { Duration::ZERO } else { Duration::from_secs(1) };
        let answer = records[self.next..end].to_vec();
        self.next = end;
        Ok(match answer.is_empty() {
            false => Polled::Records { records: answer, lag: Some(lag) },
            true if *self.tape.ended.lock().unwrap() => Polled::End,
            true => Polled::Idle { lag },
        })
    }
    fn gap(&mut self) -> Option<Gap> {
        self.tape.gap.lock().unwrap().take()
    }
}

struct TapeSource(Arc<Tape>);

#[async_trait]
impl Source for TapeSource {
    async fn start(&self) -> connector::Result<Start> {
        Ok(Start::all(StartFrom::Horizon))
    }
    async fn discover(&self) -> connector::Result<Listing> {
        Ok(Listing { creation: Creation(1), splits: vec![], now: None, retention: None })
    }
    async fn is_gone(&self, _: &SplitId) -> connector::Result<bool> {
        Ok(false)
    }
    async fn open(&self, _: &SplitId, from: &Position) -> connector::Result<Box<dyn SplitReader>> {
        self.0.opened.lock().unwrap().push(from.clone());
        self.0.open.fetch_add(1, SeqCst);
        Ok(Box::new(Head { tape: Arc::clone(&self.0), next: self.0.after(from) }))
    }
    fn share(&self, _: &SplitId, _: u32) {}
}

/// A service that takes questions and never answers.
struct Mute;

#[async_trait]
impl Source for Mute {
    async fn start(&self) -> connector::Result<Start> {
        Ok(Start::all(StartFrom::Horizon))
    }
    async fn discover(&self) -> connector::Result<Listing> {
        Ok(Listing { creation: Creation(1), splits: vec![], now: None, retention: None })
    }
    async fn is_gone(&self, _: &SplitId) -> connector::Result<bool> {
        Ok(false)
    }
    async fn open(&self, _: &SplitId, _: &Position) -> connector::Result<Box<dyn SplitReader>> {
        Ok(Box::new(Asks(false)))
    }
    fn share(&self, _: &SplitId, _: u32) {}
}

struct Asks(bool);

#[async_trait]
impl SplitReader for Asks {
    async fn ready(&mut self) {
        if self.0 {
            pending().await
        }
    }
    async fn next(&mut self) -> connector::Result<Polled> {
        self.0 = true;
        pending().await
    }
}

/// A source and its readings.
struct Desk {
    tape: Arc<Tape>,
    source: Arc<dyn Source>,
    readings: Readings,
    commons: Arc<Commons>,
}

impl Desk {
    fn new(tape: Arc<Tape>) -> Self {
        Self::with_budget(tape, 256 << 20)
    }

    fn with_budget(tape: Arc<Tape>, bytes: u64) -> Self {
        let budget = Budget::new(bytes);
        let commons = Commons {
            metrics: Metrics::new(&budget),
            budget,
            reads: Semaphore::new(4),
            write_attempt_timeout: Duration::from_secs(5),
            last_breath: Duration::from_secs(6),
            settle_deadline: Duration::from_secs(10),
        };
        let source: Arc<dyn Source> = Arc::new(TapeSource(Arc::clone(&tape)));
        Self { tape, source, readings: Readings::default(), commons: Arc::new(commons) }
    }

    fn member(&self, at: Position) -> Member {
        self.wanting(at, Wants::All)
    }

    fn wanting(&self, at: Position, wants: Wants) -> Member {
        let key = (SplitId::new(Creation(1), "s-0"), None);
        self.readings.member(&self.source, key, (at, wants), &self.commons)
    }

    fn reads(&self) -> usize {
        self.tape.reads.load(SeqCst)
    }

    fn open(&self) -> usize {
        self.tape.open.load(SeqCst)
    }
}

fn horizon() -> Position {
    Position::Start(StartFrom::Horizon)
}

fn after(cursor: &str) -> Position {
    Position::After(Cursor::new(cursor))
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

fn cursors(news: &News) -> Vec<String> {
    match &news.what {
        What::Records(piece) => piece.records.iter().map(|record| record.cursor.to_string()).collect(),
        _ => vec![],
    }
}

/// Takes records until so many are there, with what the member holds of them.
async fn take(member: &mut Member, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let news = timeout(Duration::from_secs(600), member.next()).await.expect("records come");
        seen.extend(cursors(&news));
    }
    seen
}

/// A run that takes for ever, as fast as it can.
fn eager(mut member: Member) -> (Arc<Mutex<Vec<String>>>, JoinHandle<()>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&seen);
    let task = tokio::spawn(async move {
        loop {
            let news = member.next().await;
            keep.lock().unwrap().extend(cursors(&news));
            if matches!(news.what, What::End | What::Failed(_)) {
                return;
            }
        }
    });
    (seen, task)
}

/// Records come for so long, five at a time.
async fn flow(tape: &Tape, from: usize, times: usize) -> usize {
    for n in 0..times {
        tape.add(numbers(from + 5 * n..from + 5 * n + 5));
        sleep(Duration::from_millis(100)).await;
    }
    from + 5 * times
}

#[tokio::test(start_paused = true)]
async fn ten_sinks_read_and_decode_as_much_as_one() {
    let mut reads = Vec::new();
    for sinks in [1, 10] {
        let desk = Desk::new(Tape::new(100));
        desk.tape.add(numbers(0..5000));
        let run = |mut member: Member| async move {
            let (mut seen, spec) = (Vec::new(), spec(&["data"]));
            while seen.len() < 5000 {
                if let What::Records(piece) = member.next().await.what {
                    let rows = member.rows(&piece, &spec).await.unwrap();
                    seen.extend(rows.cursors.iter().map(Cursor::to_string));
                }
            }
            assert_eq!(seen, numbers(0..5000));
            member.board.decoders.decoded.load(SeqCst)
        };
        let decoded = join_all((0..sinks).map(|_| run(desk.member(horizon())))).await;
        assert_eq!(decoded.last(), Some(&5000), "decoded once");
        reads.push(desk.reads());
        assert_eq!(desk.tape.opened.lock().unwrap().len(), 1);
        assert_eq!((desk.open(), desk.commons.budget.used()), (0, 0));
    }
    assert!(reads[1] <= reads[0] + 1, "{reads:?}");
}

#[tokio::test(start_paused = true)]
async fn a_sink_from_earliest_catches_up_and_joins_without_gap_or_repeat() {
    let desk = Desk::new(Tape::new(50));
    desk.tape.add(numbers(0..2000));
    let (live, _a) = eager(desk.member(after("1999")));
    let (late, _b) = eager(desk.member(horizon()));
    sleep(Duration::from_millis(50)).await;
    assert_eq!(desk.open(), 2, "it has its own reader until it has caught up");
    let end = flow(&desk.tape, 2000, 600).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(desk.open(), 1, "then one is enough");
    assert_eq!(*live.lock().unwrap(), numbers(2000..end));
    assert_eq!(*late.lock().unwrap(), numbers(0..end));
    let before = desk.reads();
    sleep(Duration::from_secs(20)).await;
    assert!(desk.reads() - before <= 101, "two readers of a quiet split become one");
}

#[tokio::test(start_paused = true)]
async fn runs_that_start_at_different_places_of_an_answer_end_up_together() {
    let desk = Desk::new(Tape::new(1000));
    desk.tape.add(numbers(0..100));
    let runs: Vec<_> = (0..10).map(|n| eager(desk.member(after(&(n * 7).to_string())))).collect();
    let end = flow(&desk.tape, 100, 100).await;
    sleep(Duration::from_secs(2)).await;
    for (n, (seen, _)) in runs.iter().enumerate() {
        assert_eq!(*seen.lock().unwrap(), numbers(n * 7 + 1..end));
    }
    assert_eq!(desk.open(), 1);
    // One needs 60 at most in 12 seconds.
    assert!(desk.reads() <= 62, "{} reads", desk.reads());
}

/// The place inside an aggregate is a position like any other.
#[tokio::test(start_paused = true)]
async fn a_run_joins_inside_an_aggregate() {
    let desk = Desk::new(Tape::new(100));
    let all = ["5", "6:0", "6:1", "6", "7"].map(str::to_owned);
    desk.tape.add(all.clone());
    let mut first = desk.member(horizon());
    let mut slow = desk.member(horizon());
    assert_eq!(take(&mut first, 5).await, all);
    for (at, rest) in [("5", 1), ("6:0", 2), ("6:1", 3), ("6", 4)] {
        let mut member = desk.member(after(at));
        assert_eq!(take(&mut member, 5 - rest).await, all[rest..], "after {at}");
    }
    assert_eq!((take(&mut slow, 5).await, desk.reads()), (all.to_vec(), 1));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_never_answers_keeps_neither_places_nor_memory_from_others() {
    let desk = Desk::new(Tape::new(10));
    desk.tape.add(numbers(0..100));
    let (mute, readings): (Arc<dyn Source>, _) = (Arc::new(Mute), Readings::default());
    let silent = |n: usize| {
        let key = (SplitId::new(Creation(1), &format!("silent-{n}")), None);
        eager(readings.member(&mute, key, (horizon(), Wants::All), &desk.commons))
    };
    let silent: Vec<_> = (0..40).map(silent).collect();
    sleep(Duration::from_millis(1)).await;
    assert_eq!(desk.commons.reads.available_permits(), 0);
    let mut healthy = desk.member(horizon());
    let seen = timeout(Duration::from_secs(20), take(&mut healthy, 100)).await;
    assert_eq!(seen.expect("its turn comes"), numbers(0..100));
    drop(healthy);
    assert_eq!((desk.commons.reads.available_permits(), desk.commons.budget.used()), (4, 0));
    assert!(silent.iter().all(|(_, task)| !task.is_finished()));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_dropped_in_the_middle_of_its_read_loses_nothing_for_the_others() {
    let desk = Desk::new(Tape::new(10));
    desk.tape.add(numbers(0..100));
    let (mut reads, mut waits) = (desk.member(horizon()), desk.member(horizon()));
    assert!(timeout(Duration::from_millis(5), reads.next()).await.is_err(), "the answer takes ten");
    let mut waiting = Box::pin(take(&mut waits, 100));
    assert!(waiting.as_mut().now_or_never().is_none());
    {
        let mut reading = Box::pin(reads.next());
        assert!(reading.as_mut().now_or_never().is_none(), "it waits behind the other's read");
    }
    drop(reads);
    assert_eq!(waiting.await, numbers(0..100));
    assert_eq!(desk.open(), 1);
    drop(waits);
    assert_eq!((desk.open(), desk.commons.budget.used()), (0, 0), "with the last one the reader is closed");
}

/// Whoever's turn it is may be dropped at any moment: the next one takes over, and what was brought is there.
#[tokio::test(start_paused = true)]
async fn the_reading_goes_on_when_the_one_who_reads_is_dropped() {
    let desk = Desk::new(Tape::new(10));
    desk.tape.add(numbers(0..1000));
    let (seen, _task) = eager(desk.member(horizon()));
    for n in 0..60 {
        let mut member = desk.member(horizon());
        timeout(Duration::from_millis(37 * (n % 11)), take(&mut member, 1000)).await.ok();
    }
    let (all, _other) = eager(desk.member(horizon()));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(*seen.lock().unwrap(), numbers(0..1000));
    assert_eq!(*all.lock().unwrap(), numbers(0..1000));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_takes_nothing_is_left_behind_and_comes_back() {
    let desk = Desk::new(Tape::new(50));
    let mut slow = desk.member(horizon());
    let (quick, _task) = eager(desk.member(horizon()));
    desk.tape.add(numbers(0..10));
    assert_eq!(take(&mut slow, 10).await.len(), 10);
    let end = flow(&desk.tape, 10, 300).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(quick.lock().unwrap().len(), end, "nobody waits for it");
    assert!(desk.commons.budget.used() <= 64 << 10, "and nothing is kept for it");
    let before = desk.reads();
    let (rest, _slow) = eager(slow);
    let end = flow(&desk.tape, end, 300).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(*rest.lock().unwrap(), numbers(10..end));
    assert_eq!(*quick.lock().unwrap(), numbers(0..end));
    assert_eq!(desk.open(), 1, "it came back");
    assert!(desk.reads() - before < 200, "{} reads in 32 seconds", desk.reads() - before);
}

/// I8: what waits for a member that is full is bounded; the others go on.
#[tokio::test(start_paused = true)]
async fn a_full_member_holds_no_more_than_its_limit_and_the_window_no_more_than_that() {
    let desk = Desk::new(Tape::new(20));
    let big = "x".repeat(50_000);
    desk.tape.add((0..1000).map(|n| format!("{n}-{big}")));
    let (mut full, mut quick) = (desk.member(horizon()), desk.member(horizon()));
    let held = tokio::spawn(async move {
        let mut held = Vec::new();
        for _ in 0..1000 {
            if let What::Records(piece) = full.next().await.what {
                held.push(full.portion(&piece));
            }
        }
    });
    let mut most = 0;
    let mut seen = 0;
    while seen < 1000 {
        if let What::Records(piece) = quick.next().await.what {
            seen += piece.records.len();
            most = most.max(desk.commons.budget.used());
        }
    }
    // Twice the limit, an answer of 2 MB (a record holds its bytes twice here), and the estimate of the next.
    assert!(most < 2 * SPLIT_BYTES + (2 << 20) + 2 * SPLIT_BYTES, "{most} bytes");
    held.abort();
}

/// A read that waits for memory does not keep what others have not taken.
#[tokio::test(start_paused = true)]
async fn when_memory_is_short_nothing_is_kept_for_those_who_are_behind() {
    let desk = Desk::with_budget(Tape::new(1), 300 << 10);
    let size = 30 << 10;
    desk.tape.add((0..4).map(|n| format!("{n}{}", "x".repeat(size / 2))));
    let (mut behind, mut quick) = (desk.member(horizon()), desk.member(horizon()));
    let first = take(&mut quick, 1).await;
    let _others = desk.commons.budget.reserve((300 - 30 - 60) << 10).await;
    assert_eq!(take(&mut quick, 3).await.len(), 3);
    assert_eq!(take(&mut behind, 1).await, first, "it reads by itself");
    assert_eq!(desk.tape.opened.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_end_is_seen_by_all_and_so_is_a_broken_promise() {
    for failing in [false, true] {
        let desk = Desk::new(Tape::new(10));
        desk.tape.add(numbers(0..25));
        let mut members: Vec<_> = (0..3).map(|_| desk.member(horizon())).collect();
        for member in &mut members {
            assert_eq!(take(member, 25).await, numbers(0..25));
        }
        if failing {
            desk.tape.errors.lock().unwrap().push_back(ErrorKind::Bug);
        }
        *desk.tape.ended.lock().unwrap() = true;
        for member in &mut members {
            match member.next().await.what {
                What::End => assert!(!failing),
                What::Failed(failure) => assert!(failing && failure.kind == "bug"),
                _ => panic!("neither"),
            }
        }
        let reads = desk.reads();
        let mut later = desk.member(after("24"));
        assert!(matches!(later.next().await.what, What::End), "a new run reads for itself");
        assert_eq!(desk.reads(), reads + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_to_all_and_waited_for_once() {
    let desk = Desk::new(Tape::new(10));
    desk.tape.add(numbers(0..10));
    *desk.tape.errors.lock().unwrap() = vec![ErrorKind::Unavailable, ErrorKind::Throttled].into();
    let told = |mut member: Member| async move {
        let mut troubles = 0;
        loop {
            match member.next().await.what {
                What::Trouble(_) => troubles += 1,
                What::Records(piece) => return (troubles, piece.records.len()),
                _ => panic!("neither"),
            }
        }
    };
    let all = join_all((0..3).map(|_| told(desk.member(horizon())))).await;
    assert_eq!(all, [(2, 10); 3]);
    assert_eq!(desk.reads(), 3);
}

/// Each is told of a gap as if it had read alone: who is before it is, also who comes to that place later; who is past it is not.
#[tokio::test(start_paused = true)]
async fn a_gap_is_told_to_everyone_who_stands_before_it() {
    let desk = Desk::new(Tape::new(10));
    desk.tape.add(numbers(0..1));
    let mut stays = desk.member(horizon());
    take(&mut stays, 1).await;
    let gap = Gap { message: "0 is gone".to_owned(), horizon: None };
    *desk.tape.gap.lock().unwrap() = Some(gap.clone());
    desk.tape.errors.lock().unwrap().push_back(ErrorKind::Unavailable);
    let mut early = desk.member(after("0"));
    let news = early.next().await;
    assert!(matches!(news.what, What::Trouble(_)) && news.gap == Some(gap.clone()));
    let mut later = desk.member(after("0"));
    desk.tape.add(numbers(1..5));
    let news = later.next().await;
    assert!(
        matches!(news.what, What::Records(_)) && news.gap == Some(gap.clone()),
        "told with what comes first"
    );
    let mut past = desk.member(after("2"));
    let news = past.next().await;
    assert_eq!((cursors(&news), news.gap), (numbers(3..5), None));
    assert_eq!(stays.next().await.gap, Some(gap));
    assert_eq!(desk.open(), 1);
}

fn spec(columns: &[&str]) -> SourceSpec {
    let kind = if columns == ["data"] { SqlType::Bytea } else { SqlType::Integer };
    SourceSpec {
        id: ObjectId::from_parts(1, 1),
        name: "clicks".to_owned(),
        connector: "tape".to_owned(),
        options: Options::default(),
        columns: columns.iter().map(|name| Column { name: (*name).to_owned(), kind: kind.clone() }).collect(),
        include: vec![],
        primary_key: vec![],
        format: FormatClause {
            format: Format::Plain,
            encode: if columns == ["data"] { Encode::Bytes } else { Encode::Json },
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

fn wants(names: &[&str]) -> Wants {
    Wants::Some(names.iter().map(|name| (*name).to_owned()).collect())
}

#[tokio::test(start_paused = true)]
async fn the_columns_of_all_are_decoded_once_and_what_does_not_fit_is_counted_by_its_own() {
    let spec = spec(&["a", "b", "c"]);
    for (b, nulls, decoded) in [("2", [0, 0], 1), ("\"no number\"", [0, 1], 3)] {
        let desk = Desk::new(Tape::new(10));
        desk.tape.add([format!(r#"{{"a": 1, "b": {b}, "c": 3}}"#)]);
        let mut members = [desk.wanting(horizon(), wants(&["a"])), desk.wanting(horizon(), wants(&["b"]))];
        for (member, nulls) in members.iter_mut().zip(nulls) {
            let What::Records(piece) = member.next().await.what else { panic!("no records") };
            let rows = member.rows(&piece, &spec).await.unwrap();
            let Wants::Some(names) = &member.wants else { panic!("all") };
            assert!(rows.rows.column_by_name(&names[0]).is_some());
            assert!(rows.rows.column_by_name("c").is_none(), "nobody wants it");
            assert_eq!((rows.rows.num_rows(), rows.nulls), (1, nulls));
        }
        assert_eq!(members[0].board.decoders.decoded.load(SeqCst), decoded);
    }
}

#[test]
fn wants_are_joined_without_more_than_is_needed() {
    let union = |all: &[Wants]| Wants::union(all.iter());
    assert_eq!(union(&[wants(&["b", "a"]), wants(&["b"])]), wants(&["b", "a"]), "as it was: no new decoder");
    assert_eq!(union(&[wants(&["b"]), wants(&["a"])]), wants(&["a", "b"]));
    assert_eq!(union(&[wants(&["b"]), Wants::All]), Wants::All);
    assert_eq!(union(&[wants(&[]), wants(&[])]), wants(&[]));
}

/// Small steps of chance: whatever members do, each sees every record once and in order.
#[tokio::test(start_paused = true)]
async fn whatever_happens_nobody_misses_or_repeats_a_record() {
    for seed in 0..60_u64 {
        let mut chance = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let mut pick = move |below: u64| {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (chance >> 33) % below
        };
        let desk = Desk::new(Tape::new(1 + usize::try_from(pick(40)).unwrap()));
        desk.tape.add(numbers(0..400));
        let mut runs: Vec<(Member, Vec<String>)> = Vec::new();
        let start = |n: u64| if n == 0 { horizon() } else { after(&(n - 1).to_string()) };
        let mut total = 400;
        for _ in 0..300 {
            match pick(10) {
                0 if runs.len() < 6 => {
                    let at = pick(400);
                    runs.push((desk.member(start(at)), numbers(usize::try_from(at).unwrap()..2000)));
                }
                1 if runs.len() > 4 => drop(runs.swap_remove(usize::try_from(pick(5)).unwrap())),
                2 => {
                    desk.tape.add(numbers(total..total + 3));
                    total += 3;
                }
                3 => sleep(Duration::from_millis(pick(3000))).await,
                _ if runs.is_empty() => {}
                _ => {
                    let one = usize::try_from(pick(runs.len() as u64)).unwrap();
                    let patience = Duration::from_millis(pick(400));
                    let (member, expected) = &mut runs[one];
                    let Ok(news) = timeout(patience, member.next()).await else { continue };
                    let seen = cursors(&news);
                    assert_eq!(seen, expected[..seen.len()], "seed {seed}");
                    expected.drain(..seen.len());
                }
            }
        }
        drop(runs);
        assert_eq!((desk.open(), desk.commons.budget.used()), (0, 0), "seed {seed}");
    }
}
