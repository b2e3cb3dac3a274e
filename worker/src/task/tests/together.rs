//! Runs of several sinks that read one split together.

use super::*;

/// So many runs of one source, each with its own sink. They read the script of the first, which begins when all are there: the
/// script goes on for a second reader where the first one was.
async fn together(benches: &[Bench]) -> Vec<Live> {
    let shared = benches[0].shared();
    let steps = std::mem::take(&mut *benches[0].source.steps.lock().unwrap());
    let lives = benches.iter().map(|bench| bench.run_among(shared.clone())).collect();
    sleep(Duration::from_millis(10)).await;
    *benches[0].source.steps.lock().unwrap() = steps;
    lives
}

fn ten(steps: impl Fn() -> Vec<Step>) -> Vec<Bench> {
    (0..10).map(|_| Bench::new(steps())).collect()
}

fn reads(benches: &[Bench]) -> usize {
    *benches[0].source.reads.lock().unwrap()
}

#[tokio::test(start_paused = true)]
async fn ten_sinks_get_everything_from_the_reads_of_one() {
    let steps = || vec![records(0..7, &["a"]), records(7..5000, &["a", "b", "c"]), Step::End];
    let benches = ten(steps);
    for (live, bench) in together(&benches).await.into_iter().zip(&benches) {
        live.until("end", |l| l.position().is_end()).await;
        let mut landed: Vec<usize> = bench.sink.landed().iter().map(|row| row.parse().unwrap()).collect();
        landed.sort_unstable();
        assert_eq!(landed, (0..5000).collect::<Vec<_>>());
        let report = live.shown.report(Instant::now());
        assert_eq!((report.records_read, report.records_delivered), (5000, 5000), "each counts its own");
        assert!(live.stop(Duration::from_secs(1)).await.drained);
    }
    assert_eq!((reads(&benches), benches[0].source.opened.lock().unwrap().len()), (2, 1));
    assert_eq!(benches[0].budget.used(), 0);
}

/// Each sink has its own `SELECT … WHERE` over rows that were made once.
#[tokio::test(start_paused = true)]
async fn each_sink_selects_for_itself() {
    let mut benches = ten(|| vec![records(0..100, &["a"]), Step::End]);
    for (n, bench) in benches.iter_mut().enumerate() {
        bench.query = Some(format!("SELECT data, k FROM clicks WHERE CONVERT_FROM(data, 'utf8') = '{n}'"));
    }
    for (n, (live, bench)) in together(&benches).await.into_iter().zip(&benches).enumerate() {
        live.until("end", |l| l.position().is_end()).await;
        assert_eq!(bench.sink.landed(), [n.to_string()]);
    }
    assert_eq!(reads(&benches), 1);
}

/// `on_error` of a sink, and its destination, are its own matter.
#[tokio::test(start_paused = true)]
async fn a_sink_that_fails_leaves_and_the_others_go_on() {
    let benches = ten(|| (0..10).map(|n| records(n * 10..n * 10 + 10, &["a"])).chain([Step::End]).collect());
    *benches[0].sink.always.lock().unwrap() = Some(Answer::Refuse("33"));
    *benches[1].sink.always.lock().unwrap() = Some(Answer::Fail(ErrorKind::Fenced));
    let mut lives = together(&benches).await.into_iter();
    let mut failed = Vec::new();
    for live in lives.by_ref().take(2) {
        failed.push(live.task.await.unwrap().failure.unwrap().kind);
    }
    assert_eq!(failed, ["rejected", "fenced"]);
    for (live, bench) in lives.zip(&benches[2..]) {
        live.until("end", |l| l.position().is_end()).await;
        assert_eq!(bench.sink.landed(), numbers(0..100));
    }
    assert_eq!(reads(&benches), 10);
}

/// A malformed record ends every run whose source says `fail`, each at the same place, as if it were alone.
#[tokio::test(start_paused = true)]
async fn a_malformed_record_is_every_sinks_own_matter() {
    let bad = || {
        let record = |n, text| record(n, "a", text);
        let rows =
            vec![record(0, r#"{"data": "MA=="}"#), record(1, "not json"), record(2, r#"{"data": "Mg=="}"#)];
        vec![Step::Records(rows), Step::End]
    };
    for policy in [OnError::Fail, OnError::Skip] {
        let mut benches = ten(bad);
        for bench in &mut benches {
            bench.source_spec.format.encode = Encode::Json;
            bench.source_spec.on_error = policy;
        }
        for (live, bench) in together(&benches).await.into_iter().zip(&benches) {
            if policy == OnError::Skip {
                live.until("end", |l| l.position().is_end()).await;
                assert_eq!(live.shown.report(Instant::now()).records_skipped, 1);
                continue;
            }
            let shown = Arc::clone(&live.shown);
            assert!(live.task.await.unwrap().failure.unwrap().error.contains("record 1"));
            assert_eq!((shown.reached().position, bench.sink.landed().len()), (after(0), 1));
        }
    }
}

/// I8: records that ten sinks have cost memory once; one dead destination stops neither the others nor their memory.
#[tokio::test(start_paused = true)]
async fn a_dead_destination_does_not_slow_the_others() {
    let big = "x".repeat(100_000);
    let steps = || (0..200).map(|n| Step::Records(vec![record(n, "a", &big)])).collect();
    let benches = ten(steps);
    *benches[0].sink.always.lock().unwrap() = Some(Answer::Fail(ErrorKind::Unavailable));
    let lives = together(&benches).await;
    for live in &lives[1..] {
        live.until("all", |l| l.position() == after(199)).await;
    }
    let used = benches[0].budget.used();
    assert!(used <= 4 << 20, "{used} bytes are held by the one that stands still");
    for live in lives {
        live.stop(Duration::ZERO).await;
    }
    assert_eq!(benches[0].budget.used(), 0, "nothing leaks");
}

/// P2: who is fenced reads no more; nothing of its reading is left.
#[tokio::test(start_paused = true)]
async fn a_run_that_is_cut_off_in_mid_read_takes_nothing_from_the_others() {
    let benches = ten(|| vec![records(0..50, &["a"])]);
    let mut lives = together(&benches).await;
    lives[1].until("first", |l| l.position() == after(49)).await;
    for n in 0..9 {
        lives[0].task.abort();
        let gone = lives.remove(0);
        assert!(gone.task.await.unwrap_err().is_cancelled());
        let from = 50 + n * 10;
        benches[0].source.steps.lock().unwrap().push_back(records(from..from + 10, &["a"]));
        lives[0].until("more", |l| l.position() == after(from + 9)).await;
    }
    assert_eq!(benches[9].sink.landed(), numbers(0..140));
    assert_eq!(benches[0].source.opened.lock().unwrap().len(), 1);
    lives.remove(0).stop(Duration::from_secs(1)).await;
    assert_eq!(benches[0].budget.used(), 0);
}
