//! Rows that the destination refuses, and dead letters that their target refuses.

use arrow::datatypes::{Int64Type, TimestampMicrosecondType};

use super::*;

const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Records of distinct keys, payload is the number.
fn distinct(count: usize) -> Step {
    Step::Records((0..count).map(|n| record(n, &format!("k{n}"), &n.to_string())).collect())
}

#[tokio::test(start_paused = true)]
async fn one_bad_row_in_a_refused_batch_costs_log_n_calls_and_its_own() {
    let mut bench = Bench::new(vec![distinct(512), Step::End]);
    bench.common = common(OnError::Skip);
    bench.common.limits.rows = 512;
    *bench.sink.always.lock().unwrap() = Some(Answer::Poison("300"));
    let live = bench.run();
    live.until("end", |l| l.position().is_end()).await;
    let requests = bench.sink.requests();
    let alone = requests.iter().filter(|rows| **rows == ["300"]).count();
    assert_eq!(alone, REFUSALS_MAX as usize, "alone it is tried a few times");
    // The refused batch, log₂(512) halves, the rest that was free to go together.
    assert!(requests.len() - alone <= 1 + 9 + 1, "{:?}", requests.iter().map(Vec::len).collect::<Vec<_>>());
    assert_eq!(bench.sink.landed().len(), 511, "and nothing is sent twice");
}

#[tokio::test(start_paused = true)]
async fn a_row_is_refused_a_few_times_before_on_error_decides() {
    let mut bench = Bench::new(vec![records(0..5, &KEYS), Step::End]);
    bench.common = common(OnError::Skip);
    *bench.sink.always.lock().unwrap() = Some(Answer::Refuse("2"));
    let live = bench.run();
    live.until("end", |l| l.position().is_end()).await;
    assert_eq!(bench.sink.requests(), [numbers(0..5), vec!["2".to_owned()], vec!["2".to_owned()]]);
    let report = live.shown.report(Instant::now());
    assert_eq!((report.records_skipped, report.bad.len()), (1, 1));
    assert_eq!(String::from_utf8_lossy(&report.bad[0].sample), "data=2, k=c", "the row shows what it is");
    assert!(live.stop(Duration::from_secs(1)).await.drained);
}

/// I10: what landed behind it goes again once it has landed itself, and only of its key.
#[tokio::test(start_paused = true)]
async fn a_row_that_is_refused_once_is_delivered_and_order_holds() {
    for (keys, again) in [(&KEYS[..], vec![]), (&["a"][..], numbers(2..5)), (&["a", "b"][..], numbers(3..4))]
    {
        let bench = Bench::new(vec![records(0..5, keys), Step::End])
            .answers(vec![Answer::Row(1, ErrorKind::Rejected), Answer::TakeAfter(Duration::from_secs(1))]);
        let live = bench.run();
        live.until("end", |l| l.position().is_end()).await;
        let mut requests = vec![numbers(0..5), numbers(1..2)];
        requests.extend((!again.is_empty()).then_some(again));
        assert_eq!(bench.sink.requests(), requests);
        assert_eq!(live.shown.report(Instant::now()).bad.len(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_between_two_refusals_is_no_attempt() {
    for outage in
        [Answer::Fail(ErrorKind::Unavailable), Answer::Ambiguous, Answer::Fail(ErrorKind::Throttled)]
    {
        let refuse = Answer::Refuse("2");
        let answers =
            vec![refuse.clone(), outage.clone(), outage.clone(), outage.clone(), refuse, Answer::Take];
        let bench = Bench::new(vec![records(0..5, &KEYS), Step::End]).answers(answers);
        let live = bench.run();
        live.until("end", |l| l.position().is_end()).await;
        assert_eq!(live.shown.report(Instant::now()).bad.len(), 0, "two refusals and three outages are two");
        assert!(bench.sink.landed().contains(&"2".to_owned()));
        assert!(live.stop(Duration::from_secs(10)).await.drained);
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_stops_leaves_a_row_in_doubt_to_the_next_one() {
    let bench = Bench::new(vec![records(0..5, &KEYS)]);
    *bench.sink.always.lock().unwrap() = Some(Answer::Refuse("2"));
    let live = bench.run();
    live.until("refused", |_| !bench.sink.landed().is_empty()).await;
    let (shown, asked) = (Arc::clone(&live.shown), Instant::now());
    let ending = live.stop(Duration::from_secs(10)).await;
    assert!(ending.drained && ending.failure.is_none() && asked.elapsed() < Duration::from_millis(50));
    assert_eq!(shown.reached().position, Position::Start(StartFrom::Horizon), "its chunk does not count");
    assert_eq!(bench.sink.requests().len(), 1);
}

/// A run whose sink refuses the record of number 1, of `size` bytes, and whose dead letters are taken by `answer`.
fn buried(size: usize, answer: Option<Answer>) -> (Bench, Arc<FakeSink>) {
    let big: &'static str = "x".repeat(size).leak();
    let mut bad = record(1, "b", big);
    bad.cursor = Cursor::new("1:7");
    let mut bench =
        Bench::new(vec![Step::Records(vec![record(0, "a", "0"), bad, record(2, "c", "2")]), Step::End]);
    bench.common = common(OnError::DeadLetter);
    *bench.sink.always.lock().unwrap() = Some(Answer::Refuse(big));
    let graveyard = Arc::new(FakeSink::default());
    *graveyard.always.lock().unwrap() = answer;
    bench.graveyard = Some(Arc::clone(&graveyard));
    (bench, graveyard)
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_has_what_a_replay_needs() {
    let (bench, graveyard) = buried(10, None);
    let live = bench.run();
    live.until("end", |l| l.position().is_end()).await;
    let letters = graveyard.batches.lock().unwrap().remove(0);
    let text = |name: &str| letters.column_by_name(name).unwrap().as_string::<i32>().value(0).to_owned();
    let number = |name: &str| letters.column_by_name(name).unwrap().as_primitive::<Int64Type>().value(0);
    assert_eq!(["source", "shard", "seq", "partition_key"].map(text), ["clicks", "s-0", "1", "b"]);
    assert_eq!(text("error"), "the sink says no");
    assert_eq!((number("sub_seq"), number("data_bytes")), (7, 10));
    let arrival = letters.column_by_name("arrival").unwrap().as_primitive::<TimestampMicrosecondType>();
    assert_eq!(arrival.value(0), 1_700_000_000_000_000);
    assert_eq!(letters.column_by_name("data").unwrap().as_binary_view().value(0), b"xxxxxxxxxx");
    assert!(!letters.column_by_name("data_truncated").unwrap().as_boolean().value(0));
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_is_too_large_is_cut_and_marked_and_says_so() {
    let (bench, graveyard) = buried(900 << 10, Some(Answer::TooLarge(700 << 10)));
    let live = bench.run();
    live.until("end", |l| l.position().is_end()).await;
    let sent: Vec<usize> = graveyard.requests().iter().map(|rows| rows[0].len()).collect();
    assert_eq!(sent, [900 << 10, 900 << 10, 900 << 10, 512 << 10]);
    let letters = graveyard.batches.lock().unwrap().remove(0);
    assert!(letters.column_by_name("data_truncated").unwrap().as_boolean().value(0));
    let length = letters.column_by_name("data_bytes").unwrap().as_primitive::<Int64Type>().value(0);
    assert_eq!(length, 900 << 10, "the length of the record itself");
    let report = live.shown.report(Instant::now());
    assert_eq!(report.records_dead_lettered, 1);
    assert!(
        report.bad.iter().any(|bad| bad.error.contains("holds 524288 of 921600 bytes")),
        "{:?}",
        report.bad
    );
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_is_refused_in_every_form_stops_its_split_and_is_never_dropped() {
    let (bench, graveyard) = buried(20 << 10, Some(Answer::TooLarge(0)));
    let live = bench.run();
    let shown = Arc::clone(&live.shown);
    let ending = tokio::time::timeout(Duration::from_secs(60), live.task).await.unwrap().unwrap();
    let failure = ending.failure.unwrap();
    assert_eq!(failure.kind, "rejected", "a human is needed, and RESUME tries again");
    for part in
        ["dead letter of record 1:7 of split `s-0`", "refused by the dead-letter sink", "the sink says no"]
    {
        assert!(failure.error.contains(part), "{}", failure.error);
    }
    assert!(ending.drained);
    assert_eq!(shown.reached().position, Position::Start(StartFrom::Horizon), "its chunk does not count");
    assert_eq!(shown.report(Instant::now()).records_dead_lettered, 0);
    let sent: Vec<usize> = graveyard.requests().iter().map(|rows| rows[0].len()).collect();
    assert_eq!(sent, [20 << 10, 20 << 10, 20 << 10, 16 << 10, 1 << 10]);

    // RESUME: the next run meets it again.
    *graveyard.always.lock().unwrap() = None;
    let again = buried(20 << 10, None).0;
    std::mem::swap(&mut *bench.source.steps.lock().unwrap(), &mut *again.source.steps.lock().unwrap());
    let live = bench.run();
    live.until("end", |l| l.position().is_end()).await;
    assert_eq!(graveyard.landed().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_bad_dead_letter_does_not_hold_up_the_others_of_its_batch() {
    let mut bench = Bench::new(vec![distinct(16)]);
    bench.source_spec.format.encode = Encode::Json;
    bench.source_spec.on_error = OnError::DeadLetter;
    bench.common.limits.rows = 16;
    let graveyard = Arc::new(FakeSink::default());
    *graveyard.always.lock().unwrap() = Some(Answer::Poison("5"));
    bench.graveyard = Some(Arc::clone(&graveyard));
    let live = bench.run();
    let shown = Arc::clone(&live.shown);
    let ending = tokio::time::timeout(Duration::from_secs(60), live.task).await.unwrap().unwrap();
    assert!(ending.failure.unwrap().error.contains("record 5 "));
    assert_eq!(shown.reached().position, Position::Start(StartFrom::Horizon));
    let landed = graveyard.landed();
    assert!(landed.len() >= 10 && !landed.contains(&"5".to_owned()), "{landed:?}");
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_dead_letter_sink_is_waited_for_and_cuts_nothing() {
    for kind in [ErrorKind::Unavailable, ErrorKind::Throttled, ErrorKind::Denied, ErrorKind::Config] {
        let (bench, graveyard) = buried(900 << 10, Some(Answer::Fail(kind)));
        let live = bench.run();
        sleep(Duration::from_secs(600)).await;
        let report = live.shown.report(Instant::now());
        assert_eq!((report.error_kind.as_str(), report.records_dead_lettered), (kind.as_str(), 0));
        assert!(report.error.starts_with("dead letters: "), "{}", report.error);
        assert_eq!(live.position(), Position::Start(StartFrom::Horizon));
        *graveyard.always.lock().unwrap() = None;
        live.until("end", |l| l.position().is_end()).await;
        assert_eq!(graveyard.landed()[0].len(), 900 << 10);
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_that_becomes_null_is_told() {
    let rows = ["{\"n\": 1}", "{\"n\": \"one\"}", "{\"n\": \"two\"}"];
    let rows = rows.iter().enumerate().map(|(n, row)| record(n, "a", row)).collect();
    let mut bench = Bench::new(vec![Step::Records(rows), Step::End]);
    bench.source_spec.format.encode = Encode::Json;
    bench.source_spec.columns = vec![
        Column { name: "n".to_owned(), kind: SqlType::Integer },
        Column { name: "data".to_owned(), kind: SqlType::Bytea },
    ];
    bench.query =
        Some("SELECT convert_to(coalesce(n, 0)::varchar, 'utf8') AS data, k FROM clicks".to_owned());
    let live = bench.run();
    live.until("end", |l| l.position().is_end()).await;
    assert_eq!(bench.sink.landed(), ["1", "0", "0"]);
    let bad = live.shown.report(Instant::now()).bad;
    assert_eq!(bad.len(), 1, "one of a chunk: {bad:?}");
    assert_eq!((bad[0].cursor.as_str(), bad[0].policy.as_str()), ("1", "null"));
    assert_eq!(bad[0].sample, b"{\"n\": \"one\"}");
}
