use std::{ops::Range, time::Duration};

use bytes::Bytes;
use connector::{ErrorKind, Rejected, Result, SinkCommon, SinkWriter, suite::sink as suite};
use integration_tests::ledger::Found;
use model::{Creation, Epoch, ObjectId, SplitId};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::*;
use crate::net::Net;

const WORKER: Place = Place::Worker(1);
const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(3600);

/// A ledger, one worker, and a network that follows tokio's paused clock.
struct Bench {
    net: Net,
    /// Ends with the bench.
    _steps: JoinSet<()>,
    server: Server,
    piecemeal: bool,
}

fn bench(seed: u64) -> Bench {
    let net = Net::new(seed);
    let (stepped, start) = (net.clone(), Instant::now());
    let mut steps = JoinSet::new();
    steps.spawn(async move {
        loop {
            stepped.run_until(start.elapsed());
            sleep(Duration::from_millis(4)).await;
        }
    });
    let server = Server::new(net.clone());
    server.poison(Some(Bytes::from_static(b"poison")));
    Bench { net, _steps: steps, server, piecemeal: false }
}

#[async_trait]
impl suite::Destination for Bench {
    fn kind(&self) -> SinkKind {
        let mut registry = Registry::new();
        register(&mut registry, &self.server, WORKER);
        registry.sink(NAME).unwrap().clone()
    }

    fn options(&self) -> Options {
        let piecemeal = if self.piecemeal { "true" } else { "false" };
        [("name", "a"), ("piecemeal", piecemeal)].into_iter().collect()
    }

    async fn read(&self) -> Option<Vec<Bytes>> {
        let taken = |kept: &Kept| {
            kept.arrivals().iter().filter(|row| row.taken).map(|row| row.value.clone()).collect()
        };
        Some(self.server.look("a", taken))
    }

    async fn set_outage(&self, on: bool) -> bool {
        if on {
            self.server.refuse(LONG);
        } else {
            self.server.heal();
        }
        true
    }

    fn poison(&self) -> Option<String> {
        Some("poison".to_owned())
    }
}

impl Bench {
    async fn writer(&self, revision: u64) -> Box<dyn SinkWriter> {
        use suite::Destination as _;
        let (kind, spec) = (self.kind(), suite::spec(NAME, self.options()));
        let (_, own) = SinkCommon::read(&spec.options, kind.limits).unwrap();
        let split = SplitId::new(Creation(1), "shardId-000000000003");
        let task = TaskId::reads(ObjectId::from_parts(1, 1), split);
        let run = Run { epoch: Epoch { generation: 1, revision }, sink_instance: 0 };
        (kind.build)(&spec, &own).unwrap().open(&task, &run).await.unwrap()
    }

    /// The numbers of key `k` that are there.
    fn numbers(&self) -> Vec<u64> {
        let n = |row: &Arrival| row.record.as_ref().map(|record| record.n);
        self.server.look("a", |kept| kept.arrivals().iter().filter_map(n).collect())
    }

    fn audit(&self, sent: u64) -> Report {
        let sent = [("k".to_owned(), sent)].into_iter().collect();
        self.server.look("a", |kept| audit(&sent, &Records::new(), kept))
    }

    fn story(&self) -> String {
        self.net.trace().lines().iter().map(|line| format!("{line}\n")).collect()
    }
}

async fn attempt(writer: &mut dyn SinkWriter, numbers: Range<i64>) -> Result<Vec<Rejected>> {
    writer.write(suite::rows("k", numbers, "v")).await?.await
}

async fn deliver(writer: &mut dyn SinkWriter, numbers: Range<i64>) {
    let rejected = attempt(writer, numbers).await.unwrap();
    assert!(rejected.is_empty(), "{rejected:?}");
}

#[tokio::test(start_paused = true)]
async fn it_keeps_the_promises_of_a_sink() {
    suite::all(|| async { bench(1) }).await;
    suite::all(|| async { Bench { piecemeal: true, ..bench(2) } }).await;
}

#[tokio::test(start_paused = true)]
async fn rows_carry_where_they_came_from() {
    let bench = bench(3);
    deliver(&mut *bench.writer(7).await, 0..3).await;
    let row = bench.server.look("a", |kept| kept.arrivals()[2].clone());
    assert_eq!(row.record, Some(Found { key: "k".to_owned(), n: 2 }));
    assert_eq!(
        (row.epoch.revision, row.worker, row.task.work.to_string().as_str()),
        (7, WORKER, "shardId-000000000003")
    );
    assert!(row.at > Duration::ZERO && row.at < SECOND);
    assert!(bench.story().contains("a: w1 1.7 …0003 3 rows: k 0–2\n"), "{}", bench.story());
    deliver(&mut *bench.writer(7).await, 1..5).await;
    bench.server.look("a", |kept| assert_eq!((kept.arrivals().len(), kept.records()), (7, 5)));
    bench.server.look("b", |kept| assert!(kept.arrivals().is_empty()));
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_is_not_ambiguous_and_stores_nothing() {
    let bench = bench(4);
    let mut writer = bench.writer(1).await;
    bench.server.refuse(SECOND);
    let error = attempt(&mut *writer, 0..3).await.unwrap_err();
    assert_eq!((error.kind(), error.ambiguous()), (ErrorKind::Unavailable, None));
    sleep(SECOND).await;
    assert!(bench.numbers().is_empty());
    bench.server.throttle(1.0, SECOND);
    let error = attempt(&mut *writer, 0..3).await.unwrap_err();
    assert_eq!((error.kind(), error.ambiguous()), (ErrorKind::Throttled, None));
    bench.server.heal();
    deliver(&mut *writer, 0..3).await;
    assert!(bench.audit(3).balances());
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_answer_is_ambiguous_and_its_rows_are_there() {
    let bench = bench(5);
    let mut writer = bench.writer(1).await;
    bench.server.forget(1.0, LONG);
    for n in 0..6 {
        let error = attempt(&mut *writer, n..n + 1).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Unavailable && error.ambiguous().is_some(), "{error:?}");
        assert_eq!(bench.numbers().len() as i64, n + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_request_lands_after_its_connection_broke_and_before_its_last_breath() {
    let bench = bench(6);
    let mut writer = bench.writer(1).await;
    bench.server.delay(1.0, LONG);
    let mut after = Vec::new();
    for n in 0..40 {
        let begun = bench.net.now();
        let error = attempt(&mut *writer, n..n + 1).await.unwrap_err();
        assert!(error.ambiguous().is_some(), "{error:?}");
        assert!(bench.net.now() - begun < SECOND, "the connection breaks at once");
        sleep(6 * SECOND).await;
        let landed = bench.server.look("a", |kept| kept.arrivals().get(after.len()).map(|row| row.at));
        after.extend(landed.map(|at| at - begun));
    }
    assert!((20..40).contains(&after.len()), "some never land: {after:?}");
    assert!(after.iter().all(|after| *after <= crate::net::LATE_MAX), "{after:?}");
    assert!(after.iter().any(|after| *after > 4 * SECOND), "{after:?}");
    assert!(after.iter().any(|after| *after < 2 * SECOND), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_late_request_finds_the_worst_moment_if_there_is_one() {
    // A newer row of its key, and a newer run of its task.
    for (revision, numbers) in [(1, 5..6), (2, 5..6)] {
        let mut caught = 0;
        for seed in 0..20 {
            let bench = bench(100 + seed);
            bench.server.delay(1.0, LONG);
            attempt(&mut *bench.writer(1).await, 4..5).await.unwrap_err();
            bench.server.heal();
            deliver(&mut *bench.writer(revision).await, numbers.clone()).await;
            sleep(Duration::from_millis(20)).await;
            caught += usize::from(bench.numbers() == [5, 4]);
        }
        assert!((5..20).contains(&caught), "{caught}");
    }
    // To send again what is late does no harm, so it is no moment.
    for seed in 0..20 {
        let bench = bench(200 + seed);
        bench.server.delay(1.0, LONG);
        attempt(&mut *bench.writer(1).await, 0..2).await.unwrap_err();
        bench.server.heal();
        deliver(&mut *bench.writer(1).await, 0..1).await;
        sleep(6 * SECOND).await;
        deliver(&mut *bench.writer(1).await, 1..2).await;
        let report = bench.audit(2);
        assert!(report.balances(), "{report:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hung_server_serves_later_what_is_not_too_old() {
    let bench = bench(7);
    let mut writer = bench.writer(1).await;
    bench.server.hang(10 * SECOND);
    let old = writer.write(suite::rows("k", 0..1, "v")).await.unwrap();
    sleep(6 * SECOND).await;
    let young = writer.write(suite::rows("k", 1..2, "v")).await.unwrap();
    sleep(5 * SECOND).await;
    assert_eq!(bench.numbers(), [1], "{}", bench.story());
    assert!(young.await.unwrap().is_empty());
    assert!(old.await.unwrap_err().ambiguous().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_torn_request_leaves_its_first_rows_and_is_ambiguous() {
    let bench = bench(8);
    let mut writer = bench.writer(1).await;
    bench.server.tear(1.0, LONG);
    let mut counts = Vec::new();
    for at in 0..10 {
        let before = bench.numbers().len();
        let error = attempt(&mut *writer, at * 10..at * 10 + 10).await.unwrap_err();
        assert!(error.ambiguous().is_some(), "{error:?}");
        counts.push(bench.numbers().len() - before);
        let came = bench.numbers()[before..].to_vec();
        assert_eq!(came, (at as u64 * 10..).take(came.len()).collect::<Vec<_>>());
    }
    assert!(counts.iter().all(|count| *count < 10) && counts.iter().any(|count| *count > 0), "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn rows_that_fail_are_named_and_hold_back_those_of_their_key_unless_piecemeal() {
    for piecemeal in [false, true] {
        let bench = Bench { piecemeal, ..bench(9) };
        let mut writer = bench.writer(1).await;
        bench.server.fail_rows(0.2, LONG);
        let mut gaps = false;
        for at in 0..10 {
            let before = bench.numbers().len();
            let failed = attempt(&mut *writer, at * 20..at * 20 + 20).await.unwrap();
            let stored = bench.numbers()[before..].to_vec();
            assert_eq!(stored.len() + failed.len(), 20);
            assert!(failed.iter().all(|r| r.error.is_transient() && r.error.ambiguous().is_none()));
            gaps |= stored != (at as u64 * 20..).take(stored.len()).collect::<Vec<_>>();
        }
        assert_eq!(gaps, piecemeal);
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_that_is_refused_for_good_counts_where_it_was_refused() {
    let bench = bench(10);
    bench.server.poison(Some(Bytes::from_static(br#""n":1,"#)));
    let mut writer = bench.writer(1).await;
    for _ in 0..2 {
        let failed = attempt(&mut *writer, 0..3).await.unwrap();
        assert_eq!(
            failed.iter().map(|r| (r.row, r.error.kind())).collect::<Vec<_>>(),
            [(1, ErrorKind::Rejected)]
        );
    }
    let report = bench.audit(3);
    assert_eq!((report.refused, report.verdict.lost), (1, 0), "{report}");
}

#[tokio::test(start_paused = true)]
async fn the_audit_sees_a_late_write_of_an_old_run_that_breaks_no_order() {
    let bench = bench(11);
    let (mut old, mut new) = (bench.writer(1).await, bench.writer(2).await);
    deliver(&mut *old, 0..2).await;
    deliver(&mut *new, 2..3).await;
    assert!(bench.audit(3).balances());
    // In order, and yet it came when it had no right to.
    deliver(&mut *old, 3..4).await;
    let report = bench.audit(4);
    assert!(report.verdict.balances() && report.overtaken == 1 && !report.balances(), "{report}");
    assert!(report.verdict.complaints[0].contains("w1 under 1.1 landed after a newer run"), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn the_audit_tells_needless_repeats_from_those_that_had_to_be() {
    let bench = bench(12);
    let mut writer = bench.writer(1).await;
    bench.server.forget(1.0, SECOND);
    attempt(&mut *writer, 0..2).await.unwrap_err();
    bench.server.heal();
    deliver(&mut *writer, 0..2).await;
    let report = bench.audit(2);
    assert!(report.balances() && report.verdict.duplicated == 2 && report.rewinds.is_empty(), "{report:?}");
    deliver(&mut *writer, 1..2).await;
    let report = bench.audit(2);
    assert_eq!(report.needless, 1);
    assert!(!report.balances());
}

#[tokio::test(start_paused = true)]
async fn a_rewind_is_measured_from_the_oldest_row_it_repeats() {
    let bench = bench(13);
    let mut old = bench.writer(1).await;
    for n in 0..10 {
        deliver(&mut *old, n..n + 1).await;
        sleep(SECOND).await;
    }
    let mut new = bench.writer(2).await;
    deliver(&mut *new, 6..12).await;
    deliver(&mut *new, 12..14).await;
    let report = bench.audit(14);
    assert!(report.balances(), "{report:?}");
    let [rewind] = &report.rewinds[..] else { panic!("{report:?}") };
    assert_eq!((rewind.rows, rewind.epoch.revision, rewind.worker), (4, 2, WORKER));
    assert!((2900..3100).contains(&rewind.reach.as_millis()), "{:?}", rewind.reach);
    assert_eq!(report.reach(), rewind.reach);
}

#[tokio::test(start_paused = true)]
async fn a_partition_makes_a_request_unknown_and_it_lands_in_time_or_never() {
    for (length, lands) in [(3 * SECOND, true), (8 * SECOND, false)] {
        let bench = bench(14);
        let mut writer = bench.writer(1).await;
        let link = |closed| crate::net::Link { closed, ..crate::net::Link::default() };
        bench.net.set_link(WORKER, Place::Ledger, link(true), 0.0);
        let told = writer.write(suite::rows("k", 0..1, "v")).await.unwrap();
        sleep(length).await;
        bench.net.set_link(WORKER, Place::Ledger, link(false), 0.0);
        let told = told.await;
        assert_eq!(told.is_ok(), lands, "{told:?}");
        assert_eq!(bench.numbers().len(), usize::from(lands));
        assert!(told.is_ok() || told.unwrap_err().ambiguous().is_some());
    }
}
