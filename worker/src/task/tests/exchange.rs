//! Partitions and those who send to them: whole runs side by side, and each half against one that is played by hand.

use arrow::array::BinaryViewArray;
use model::Ops;
use proto::Wire;
use tokio::sync::mpsc::Receiver;

use super::*;
use crate::exchange::{Acked, Arrival, Door, Ends, Entry, Open, Part, Reason, Rows, Said, stream};

const ME: &str = "me";
const EPOCH_OF_PARTITIONS: u64 = 100;

fn epoch(revision: u64) -> Epoch {
    Epoch { generation: 0, revision }
}

fn split(name: &str) -> SplitId {
    SplitId::new(Creation(1), name)
}

/// A process with `n` partitions, none of which runs yet.
fn hall(bench: Bench, n: u64) -> (Bench, Arc<Door>) {
    let door = Door::new(16 << 20);
    let peers = Arc::new(Peers::new(ME.to_owned(), Arc::clone(&door), Wire::tcp()));
    let owner = |n| Owner {
        epoch: epoch(EPOCH_OF_PARTITIONS + n),
        process: ME.to_owned(),
        address: String::new(),
        worker: String::new(),
    };
    (Bench { owners: Some(((0..n).map(owner).collect(), peers)), ..bench }, door)
}

/// The run of partition `n`, with a sink of its own.
async fn write(bench: &Bench, door: &Arc<Door>, n: u32) -> (Live, Arc<FakeSink>) {
    let sink: Arc<FakeSink> = Arc::default();
    let of = Bench {
        revision: EPOCH_OF_PARTITIONS + u64::from(n),
        common: bench.common.clone(),
        gate: bench.gate,
        sink: Arc::clone(&sink),
        graveyard: bench.graveyard.clone(),
        fence: Arc::clone(&bench.fence),
        owners: bench.owners.clone(),
        budget: Arc::clone(&bench.budget),
        ..Bench::new(vec![])
    };
    let shown = Shown::new(Position::End, Arc::new(Notify::new()));
    let tenure = of.tenure(TaskId::writes(of.spec().id, n), &shown, of.shared().1);
    let (tell, control) = Control::new();
    let live = Live { shown, tell, task: tokio::spawn(run_partition(tenure, Arc::clone(door), control)) };
    // It is at the door once it has been looked at.
    sleep(Duration::from_millis(1)).await;
    (live, sink)
}

/// The runs of the first `n` partitions.
async fn write_all(bench: &Bench, door: &Arc<Door>, n: u32) -> Vec<(Live, Arc<FakeSink>)> {
    let mut partitions = Vec::new();
    for n in 0..n {
        partitions.push(write(bench, door, n).await);
    }
    partitions
}

fn rows(numbers: std::ops::Range<usize>, key: &str) -> Rows {
    let column = |texts: Vec<String>| -> arrow::array::ArrayRef {
        Arc::new(BinaryViewArray::from_iter_values(texts.iter().map(String::as_bytes)))
    };
    let data = column(numbers.clone().map(|n| n.to_string()).collect());
    let keys = column(numbers.clone().map(|_| key.to_owned()).collect());
    Rows {
        sizes: numbers.clone().map(|_| 10).collect(),
        raw: vec![],
        batch: Batch {
            rows: RecordBatch::try_from_iter_with_nullable([("data", data, true), ("k", keys, true)])
                .unwrap(),
            ops: Ops::Inserts,
            cursors: numbers.map(|n| Cursor::new(n.to_string())).collect(),
        },
    }
}

/// A sender to partition 0, played by hand.
struct Sender {
    ends: Ends,
    next: u64,
    split: SplitId,
    epoch: u64,
}

impl Sender {
    fn open(bench: &Bench, door: &Door, name: &str, revision: u64, next: u64) -> Self {
        Self::open_to(bench, door, (name, revision, next), EPOCH_OF_PARTITIONS)
    }

    fn open_to(bench: &Bench, door: &Door, who: (&str, u64, u64), partition_epoch: u64) -> Self {
        let (name, revision, next) = who;
        let (arrival, ends) = stream(Open {
            sink: bench.spec().id,
            partition: 0,
            partition_epoch: epoch(partition_epoch),
            split: split(name),
            split_epoch: epoch(revision),
            next,
        });
        door.arrive(arrival);
        Self { ends, next, split: split(name), epoch: revision }
    }

    fn send(&mut self, numbers: std::ops::Range<usize>, key: &str) {
        let rows = rows(numbers, key);
        self.ends
            .parts
            .try_send(Part { number: self.next, bytes: rows.bytes(), rows, traceparent: String::new() })
            .unwrap();
        self.next += 1;
    }

    async fn heard(&mut self) -> Said {
        tokio::time::timeout(Duration::from_secs(30), self.ends.said.recv()).await.unwrap().unwrap()
    }

    async fn accepted(&mut self) {
        assert!(matches!(self.heard().await, Said::Accepted(_)));
    }

    async fn refused(&mut self) -> (Reason, String) {
        match self.heard().await {
            Said::Refused(reason, error) => (reason, error),
            other => panic!("not refused: {other:?}"),
        }
    }

    fn ack(&self, below: u64, parts: &[u64]) -> Said {
        let (split, split_epoch) = (self.split.clone(), epoch(self.epoch));
        // What is below need not be named.
        let parts = parts.iter().copied().filter(|part| *part >= below).collect();
        Said::Acked(Acked { split, split_epoch, partition: 0, below, parts })
    }
}

#[tokio::test(start_paused = true)]
async fn rows_reach_the_partition_of_their_key_in_order_and_the_end_follows_their_acks() {
    let keys = ["a", "b", "c", "d", "e", "f", "g"];
    let steps = vec![records(0..70, &keys), records(70..140, &keys), Step::End];
    let (bench, door) = hall(Bench::new(steps), 4);
    let partitions = write_all(&bench, &door, 4).await;
    let live = bench.run();
    live.until("end", |l| l.position().is_end()).await;
    let landed: Vec<Vec<usize>> = partitions
        .iter()
        .map(|(_, sink)| sink.landed().iter().map(|n| n.parse().unwrap()).collect())
        .collect();
    assert_eq!(landed.iter().map(Vec::len).sum::<usize>(), 140, "each row once");
    assert!(landed.iter().filter(|rows| !rows.is_empty()).count() > 1, "{landed:?}");
    for key in 0..keys.len() {
        let of: Vec<Vec<usize>> = landed
            .iter()
            .map(|rows| rows.iter().copied().filter(|n| n % keys.len() == key).collect())
            .filter(|rows: &Vec<usize>| !rows.is_empty())
            .collect();
        assert_eq!(
            of,
            [(0..20).map(|n| n * keys.len() + key).collect::<Vec<_>>()],
            "one partition, in order"
        );
    }
    assert_eq!(live.shown.reached().records, 140);
    let written: u64 = partitions.iter().map(|(p, _)| p.shown.report(Instant::now()).records_delivered).sum();
    assert_eq!(written, 140);
    assert_eq!(bench.budget.used(), 0, "nothing of it is the readers' memory any more");
    assert!(live.stop(Duration::from_secs(1)).await.drained);
    for (partition, _) in partitions {
        let ending = partition.stop(Duration::from_secs(1)).await;
        assert!(ending.drained && ending.failure.is_none());
    }
}

/// P17: a reader without a partition to open to waits, it does not fail.
#[tokio::test(start_paused = true)]
async fn a_partition_that_is_not_there_yet_is_waited_for_with_words() {
    let (bench, door) = hall(Bench::new(vec![records(0..3, &["a"]), Step::End]), 1);
    let live = bench.run();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(live.shown.report(Instant::now()).waits_for, "partition 0: it does not run here");
    let (_partition, sink) = write(&bench, &door, 0).await;
    live.until("end", |l| l.position().is_end()).await;
    assert_eq!(sink.landed(), numbers(0..3));
}

/// A partition whose sink cannot be opened hears nobody.
#[tokio::test(start_paused = true)]
async fn a_partition_that_does_not_answer_is_waited_for_with_words() {
    let (bench, door) = hall(Bench::new(vec![records(0..3, &["a"])]), 1);
    let mut partition = Played::new(&bench, &door, 0);
    let live = bench.run();
    sleep(Duration::from_secs(5)).await;
    let waits = || live.shown.report(Instant::now()).waits_for;
    assert_eq!(waits(), "partition 0, which does not take streams yet");
    let _stream = partition.accepted(1 << 20).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(waits(), "");
}

/// P10: what comes before the gate is taken in, neither written nor acked.
#[tokio::test(start_paused = true)]
async fn a_partition_takes_in_before_its_gate_and_writes_after_it() {
    let (mut bench, door) = hall(Bench::new(vec![records(0..3, &["a"]), Step::End]), 1);
    bench.gate = Duration::from_secs(11);
    let (partition, sink) = write(&bench, &door, 0).await;
    bench.gate = Duration::ZERO;
    let live = bench.run();
    sleep(Duration::from_secs(10)).await;
    assert_eq!((sink.requests().len(), live.position()), (0, Position::Start(StartFrom::Horizon)));
    assert_eq!(partition.shown.totals.read.load(std::sync::atomic::Ordering::Relaxed), 3);
    live.until("end", |l| l.position().is_end()).await;
    assert_eq!(sink.landed(), numbers(0..3));
}

/// P16: a stream opens only between two epochs that name each other.
#[tokio::test(start_paused = true)]
async fn a_stream_to_another_epoch_of_the_partition_is_refused() {
    let (bench, door) = hall(Bench::new(vec![]), 1);
    let (_partition, _) = write(&bench, &door, 0).await;
    for other in [EPOCH_OF_PARTITIONS - 1, EPOCH_OF_PARTITIONS + 1] {
        let mut sender = Sender::open_to(&bench, &door, ("s", 200, 0), other);
        assert_eq!(sender.refused().await.0, Reason::NotHere);
    }
    Sender::open(&bench, &door, "s", 200, 0).accepted().await;
}

/// P18 and P21: an older epoch of a split is refused for good, and what it had sent and nobody wrote is dropped.
#[tokio::test(start_paused = true)]
async fn a_newer_run_of_a_split_takes_the_place_of_the_older() {
    let (mut bench, door) = hall(Bench::new(vec![]), 1);
    bench.gate = Duration::from_secs(10);
    let (_partition, sink) = write(&bench, &door, 0).await;
    let mut old = Sender::open(&bench, &door, "s", 205, 0);
    let mut other = Sender::open(&bench, &door, "t", 203, 0);
    old.accepted().await;
    other.accepted().await;
    old.send(0..3, "a");
    other.send(50..52, "b");
    sleep(Duration::from_millis(10)).await;
    let mut new = Sender::open(&bench, &door, "s", 206, 0);
    new.accepted().await;
    old.send(3..5, "a");
    new.send(0..2, "a");
    assert_eq!(Sender::open(&bench, &door, "s", 205, 2).refused().await.0, Reason::Older);
    assert_eq!(Sender::open(&bench, &door, "s", 204, 0).refused().await.0, Reason::Older);
    assert_eq!(new.heard().await, new.ack(1, &[0]));
    assert_eq!(other.heard().await, other.ack(1, &[0]), "another split keeps what it sent");
    assert_eq!(sink.landed(), ["50", "51", "0", "1"]);
    assert_eq!(old.ends.said.recv().await, None, "an old run hears of nothing");
}

/// P19: parts have numbers without gaps; a run that was not seen before starts at 0.
#[tokio::test(start_paused = true)]
async fn a_part_that_is_missing_ends_the_run_of_its_sender() {
    let (bench, door) = hall(Bench::new(vec![]), 1);
    let (_partition, sink) = write(&bench, &door, 0).await;
    assert_eq!(Sender::open(&bench, &door, "s", 200, 1).refused().await.0, Reason::Gap);
    let mut sender = Sender::open(&bench, &door, "s", 200, 0);
    sender.accepted().await;
    sender.send(0..1, "a");
    assert_eq!(sender.heard().await, sender.ack(1, &[0]));
    sender.next = 2;
    sender.send(2..3, "a");
    assert_eq!(sender.refused().await.0, Reason::Gap);
    for wrong in [0, 2] {
        assert_eq!(Sender::open(&bench, &door, "s", 200, wrong).refused().await.0, Reason::Gap);
    }
    assert_eq!(sink.landed(), ["0"]);
}

/// P20: acks that died with their connection are said again when the stream is opened again.
#[tokio::test(start_paused = true)]
async fn a_stream_that_is_opened_again_hears_all_acks_once_more() {
    let (bench, door) = hall(Bench::new(vec![]), 1);
    let (_partition, sink) = write(&bench, &door, 0).await;
    *sink.always.lock().unwrap() = Some(Answer::TakeAfter(Duration::from_secs(1)));
    let mut sender = Sender::open(&bench, &door, "s", 200, 0);
    sender.accepted().await;
    sender.send(0..3, "a");
    sender.send(3..5, "b");
    sleep(Duration::from_millis(10)).await;
    let epoch = sender.epoch;
    drop(sender);
    sleep(Duration::from_secs(5)).await;
    let mut again = Sender::open(&bench, &door, "s", epoch, 2);
    again.accepted().await;
    assert_eq!(again.heard().await, again.ack(2, &[]));
    again.send(5..6, "a");
    assert_eq!(again.heard().await, again.ack(3, &[2]));
    assert_eq!(sink.landed().len(), 6);
}

/// P12 over splits: a child's row of a key waits for what may still land of its parent's.
#[tokio::test(start_paused = true)]
async fn an_ambiguous_attempt_of_one_split_holds_back_the_rows_of_another() {
    let (bench, door) = hall(Bench::new(vec![]), 1);
    let (_partition, sink) = write(&bench, &door, 0).await;
    sink.answers.lock().unwrap().push_back(Answer::Ambiguous);
    let began = Instant::now();
    let mut parent = Sender::open(&bench, &door, "parent", 200, 0);
    parent.accepted().await;
    parent.send(1..2, "a");
    assert_eq!(parent.heard().await, parent.ack(1, &[0]), "the row itself may be sent again at once");
    let mut child = Sender::open(&bench, &door, "child", 201, 0);
    child.accepted().await;
    child.send(2..3, "a");
    child.send(9..10, "z");
    assert_eq!(child.heard().await, child.ack(0, &[1]), "another key does not wait");
    assert_eq!(child.heard().await, child.ack(2, &[0]));
    assert!(began.elapsed() >= BREATH, "{:?}", began.elapsed());
    assert_eq!(sink.landed(), ["1", "9", "2"]);
}

/// P21: a row that is under way keeps its key busy for the newer run of its split.
#[tokio::test(start_paused = true)]
async fn a_row_under_way_of_an_older_run_keeps_its_key_busy() {
    let (bench, door) = hall(Bench::new(vec![]), 1);
    let (_partition, sink) = write(&bench, &door, 0).await;
    sink.answers.lock().unwrap().push_back(Answer::TakeAfter(Duration::from_secs(3)));
    let mut old = Sender::open(&bench, &door, "s", 200, 0);
    old.accepted().await;
    old.send(1..2, "a");
    sleep(Duration::from_millis(10)).await;
    let mut new = Sender::open(&bench, &door, "s", 201, 0);
    new.accepted().await;
    new.send(1..3, "a");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(sink.requests(), [["1"]], "one request of a key at a time");
    assert_eq!(new.heard().await, new.ack(1, &[0]));
    assert_eq!(sink.landed(), ["1", "1", "2"]);
}

/// `on_error = 'fail'`: the run of the split ends, the partition goes on with others, and with the next run of that one.
#[tokio::test(start_paused = true)]
async fn a_refused_row_ends_the_run_that_it_came_from_and_no_other() {
    let (bench, door) = hall(Bench::new(vec![records(0..5, &["a"]), Step::End]), 1);
    let (partition, sink) = write(&bench, &door, 0).await;
    *sink.always.lock().unwrap() = Some(Answer::Refuse("3"));
    let mut other = Sender::open(&bench, &door, "t", 300, 0);
    other.accepted().await;
    let live = bench.run();
    let ending = tokio::time::timeout(Duration::from_secs(60), live.task).await.unwrap().unwrap();
    let failure = ending.failure.unwrap();
    assert_eq!(failure.kind, "rejected");
    assert!(failure.error.starts_with("record 3 of split `s-0` was refused"), "{}", failure.error);
    assert_eq!(live.shown.reached().position, Position::Start(StartFrom::Horizon));
    other.send(50..52, "a");
    assert_eq!(other.heard().await, other.ack(1, &[0]));
    let bad = partition.shown.report(Instant::now()).bad;
    assert!(bad[0].error.starts_with("split `s-0`: "), "{}", bad[0].error);
    assert!(!partition.task.is_finished());
}

#[tokio::test(start_paused = true)]
async fn refused_rows_go_to_the_dead_letters_of_their_partition_with_their_split() {
    let (mut bench, door) = hall(Bench::new(vec![records(0..5, &["a", "b"]), Step::End]), 2);
    bench.common = common(OnError::DeadLetter);
    bench.graveyard = Some(Arc::default());
    let partitions = write_all(&bench, &door, 2).await;
    for (_, sink) in &partitions {
        *sink.always.lock().unwrap() = Some(Answer::Refuse("3"));
    }
    let live = bench.run();
    live.until("end", |l| l.position().is_end()).await;
    let graves = bench.graveyard.as_ref().unwrap().batches.lock().unwrap().clone();
    assert_eq!(graves.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
    assert_eq!(graves[0].column_by_name("data").unwrap().as_binary_view().value(0), b"3");
    let text = arrow::util::pretty::pretty_format_batches(&graves).unwrap().to_string();
    assert!(text.contains("s-0"), "{text}");
    assert_eq!(live.shown.reached().records, 5);
}

/// Partition 0, played by hand.
struct Played {
    _entry: Entry,
    arrivals: Receiver<Arrival>,
}

impl Played {
    fn new(bench: &Bench, door: &Arc<Door>, n: u32) -> Self {
        let revision = EPOCH_OF_PARTITIONS + u64::from(n);
        let (entry, arrivals) = door.enter(&TaskId::writes(bench.spec().id, n), epoch(revision));
        Self { _entry: entry, arrivals }
    }

    async fn arrival(&mut self) -> Arrival {
        tokio::time::timeout(Duration::from_secs(30), self.arrivals.recv()).await.unwrap().unwrap()
    }

    async fn accepted(&mut self, window: u64) -> Arrival {
        let arrival = self.arrival().await;
        arrival.said.try_send(Said::Accepted(window)).unwrap();
        arrival
    }
}

fn ack(arrival: &Arrival, below: u64) {
    let Open { split, split_epoch, partition, .. } = arrival.open.clone();
    let acked = Acked { split, split_epoch, partition, below, parts: vec![] };
    arrival.said.try_send(Said::Acked(acked)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_chunk_is_complete_when_every_partition_has_acked_its_rows() {
    let (bench, door) = hall(Bench::new(vec![records(0..20, &["a", "b", "c", "d"]), Step::End]), 2);
    let (mut first, mut second) = (Played::new(&bench, &door, 0), Played::new(&bench, &door, 1));
    let live = bench.run();
    let (mut a, mut b) = (first.accepted(1 << 20).await, second.accepted(1 << 20).await);
    let (x, y) = (a.parts.recv().await.unwrap(), b.parts.recv().await.unwrap());
    assert_eq!((x.rows.len() + y.rows.len(), x.number, y.number), (20, 0, 0));
    ack(&a, 1);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(live.position(), Position::Start(StartFrom::Horizon), "the other one has not");
    // P20: an ack that names another run completes nothing.
    let other =
        Acked { split: b.open.split.clone(), split_epoch: epoch(6), partition: 1, below: 1, parts: vec![] };
    b.said.try_send(Said::Acked(other)).unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(live.position(), Position::Start(StartFrom::Horizon));
    ack(&b, 1);
    live.until("end", |l| l.position().is_end()).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_broke_is_opened_again_at_the_next_part_and_its_acks_complete_what_was_sent() {
    let (bench, door) = hall(Bench::new(vec![records(0..3, &["a"]), Step::End]), 1);
    let mut partition = Played::new(&bench, &door, 0);
    let live = bench.run();
    let mut arrival = partition.accepted(1 << 20).await;
    assert_eq!((arrival.open.next, arrival.parts.recv().await.unwrap().number), (0, 0));
    drop(arrival);
    let arrival = partition.accepted(1 << 20).await;
    assert_eq!(arrival.open.next, 1);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(live.position(), Position::Start(StartFrom::Horizon));
    ack(&arrival, 1);
    live.until("end", |l| l.position().is_end()).await;
}

#[tokio::test(start_paused = true)]
async fn lost_parts_end_the_run_and_it_is_tried_again_soon() {
    for (reason, kind) in [(Reason::Gap, "unavailable"), (Reason::Older, "fenced")] {
        let (bench, door) = hall(Bench::new(vec![records(0..3, &["a"]), Step::End]), 1);
        let mut partition = Played::new(&bench, &door, 0);
        let live = bench.run();
        let mut arrival = partition.accepted(1 << 20).await;
        arrival.parts.recv().await.unwrap();
        drop(arrival);
        let arrival = partition.arrival().await;
        arrival.said.try_send(Said::Refused(reason, "no".to_owned())).unwrap();
        let ending = tokio::time::timeout(Duration::from_secs(60), live.task).await.unwrap().unwrap();
        assert_eq!(ending.failure.unwrap().kind, kind);
        assert!(!ending.drained, "what was sent is not acked");
    }
}

/// One partition of four is dead: the others go on until the memory of this split is used up, and no further.
#[tokio::test(start_paused = true)]
async fn a_dead_partition_stops_its_readers_only_when_the_window_and_the_memory_are_used_up() {
    let keys: Vec<String> = (0..64).map(|n| format!("key-{n}")).collect();
    let wide = "x".repeat(1000);
    let step = |n: usize| {
        let record = |i: usize| record(n * 64 + i, &keys[i], &format!("{}-{wide}", n * 64 + i));
        Step::Records((0..64).map(record).collect())
    };
    let mut bench = Bench::new((0..2000).map(step).collect());
    bench.budget = Budget::new(4 << 20);
    let (bench, door) = hall(bench, 4);
    let partitions = write_all(&bench, &door, 3).await;
    let mut dead = Played::new(&bench, &door, 3);
    let live = bench.run();
    let mut stream = dead.accepted(256 << 10).await;
    let (mut parts, mut bytes) = (0, 0);
    sleep(Duration::from_secs(60)).await;
    while let Ok(part) = stream.parts.try_recv() {
        parts += 1;
        bytes += part.bytes;
    }
    assert!(bytes > 128 << 10 && bytes <= 256 << 10, "{parts} parts of {bytes} bytes");
    let landed: usize = partitions.iter().map(|(_, sink)| sink.landed().len()).sum();
    let sent = usize::try_from(bytes / 1064).unwrap();
    assert!(landed > 2 * sent, "the others stopped with it: {landed} rows against {sent}");
    assert!(landed < 64_000, "nothing stops the reader");
    assert!(bench.budget.used() <= 4 << 20);
    let waits = live.shown.report(Instant::now()).waits_for;
    assert!(waits.starts_with("partition 3, which has not delivered the "), "{waits}");
    // The others are not stopped by it for anybody else: a second split that sends them rows goes on.
    let first: usize = partitions[0].1.landed()[0].split_once('-').unwrap().0.parse().unwrap();
    let alive = &keys[first % 64];
    let second = Bench {
        split: split("s-1"),
        revision: 8,
        owners: bench.owners.clone(),
        budget: Arc::clone(&bench.budget),
        ..Bench::new(vec![Step::Records((0..8).map(|n| record(n, alive, "y")).collect()), Step::End])
    };
    let second = second.run();
    second.until("the second split", |l| l.position().is_end()).await;
    // It comes back to life.
    let total = stream.open.next + parts;
    ack(&stream, total);
    let before = landed;
    sleep(Duration::from_secs(5)).await;
    assert!(partitions.iter().map(|(_, sink)| sink.landed().len()).sum::<usize>() > before);
}

#[tokio::test(start_paused = true)]
async fn a_window_is_kept_and_a_single_larger_row_goes_alone() {
    let large = "x".repeat(5000);
    let steps =
        vec![Step::Records((0..6).map(|n| record(n, "a", &format!("{n}{large}"))).collect()), Step::End];
    let (bench, door) = hall(Bench::new(steps), 1);
    let mut partition = Played::new(&bench, &door, 0);
    let live = bench.run();
    let mut stream = partition.accepted(1000).await;
    for number in 0..2 {
        assert_eq!(stream.parts.recv().await.unwrap().rows.len(), 1);
        sleep(Duration::from_secs(1)).await;
        assert!(stream.parts.try_recv().is_err(), "nothing else goes while it is not acked");
        ack(&stream, number + 1);
    }
    stream.said.try_send(Said::Window(11_000)).unwrap();
    for _ in 0..2 {
        assert_eq!(stream.parts.recv().await.unwrap().rows.len(), 1);
    }
    sleep(Duration::from_secs(1)).await;
    assert!(stream.parts.try_recv().is_err(), "a third would be more than the window");
    ack(&stream, 4);
    assert_eq!(stream.parts.recv().await.unwrap().rows.len(), 2, "as many as fit");
    ack(&stream, 5);
    live.until("end", |l| l.position().is_end()).await;
}

/// `drained` of a split waits for acks alone; what was not sent is read again.
#[tokio::test(start_paused = true)]
async fn a_stopped_split_waits_for_the_acks_of_what_it_sent() {
    for acked in [true, false] {
        let (bench, door) = hall(Bench::new(vec![records(0..3, &["a"])]), 1);
        let mut partition = Played::new(&bench, &door, 0);
        let live = bench.run();
        let mut stream = partition.accepted(1 << 20).await;
        stream.parts.recv().await.unwrap();
        let shown = Arc::clone(&live.shown);
        let stopped = tokio::spawn(live.stop(Duration::from_secs(5)));
        sleep(Duration::from_secs(1)).await;
        assert!(!stopped.is_finished());
        if acked {
            ack(&stream, 1);
        }
        assert_eq!(stopped.await.unwrap().drained, acked);
        assert_eq!(shown.reached().position == after(2), acked);
    }
}

/// A worker that stops in order hands over partitions and splits at once: neither waits for the other.
#[tokio::test(start_paused = true)]
async fn a_stopped_split_does_not_wait_for_a_partition_that_has_gone() {
    let (bench, door) = hall(Bench::new(vec![records(0..3, &["a"])]), 1);
    let mut partition = Played::new(&bench, &door, 0);
    let live = bench.run();
    let mut stream = partition.accepted(1 << 20).await;
    stream.parts.recv().await.unwrap();
    drop((partition, stream));
    let began = Instant::now();
    let ending = live.stop(Duration::from_secs(10)).await;
    assert!(!ending.drained && began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

/// P8: a partition's `drained` waits for the last breath of what may still land, as every writer's.
#[tokio::test(start_paused = true)]
async fn a_stopped_partition_tells_the_acks_of_what_was_under_way_and_takes_nothing_more() {
    let (bench, door) = hall(Bench::new(vec![]), 1);
    let (partition, sink) = write(&bench, &door, 0).await;
    *sink.always.lock().unwrap() = Some(Answer::TakeAfter(Duration::from_secs(2)));
    let mut sender = Sender::open(&bench, &door, "s", 200, 0);
    sender.accepted().await;
    sender.send(0..2, "a");
    sleep(Duration::from_millis(10)).await;
    let stopped = tokio::spawn(partition.stop(Duration::from_secs(10)));
    sleep(Duration::from_millis(10)).await;
    assert_eq!(Sender::open(&bench, &door, "t", 201, 0).refused().await.0, Reason::NotHere);
    assert_eq!(sender.heard().await, sender.ack(1, &[0]));
    assert!(stopped.await.unwrap().drained);
    assert_eq!(sink.landed(), ["0", "1"]);
}
