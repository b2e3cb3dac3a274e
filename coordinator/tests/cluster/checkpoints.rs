//! Positions become durable, once, in order, and only by the current run.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use model::{Cursor, Position};
use proto::v1::worker_message as up;
use store::MetadataStore;

use crate::{
    fake_source::open,
    fake_store::{FakeStore, Fate},
    fake_worker::{FakeWorker, Manner::Obedient, Manner::Stubborn, progress, task},
    setup::{Coordinator, create, until, until_stored, view},
};

fn after(cursor: &str) -> Position {
    Position::After(Cursor::new(cursor))
}

#[tokio::test]
async fn a_position_becomes_durable_and_the_worker_is_told() {
    let store: Arc<dyn MetadataStore> = Arc::new(FakeStore::new());
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    create(&leader, "durable", vec![open("s0", &[])]).await;
    let worker = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Obedient).await;
    worker.runs_exactly(&["s0"]).await;
    let run = worker.run_of("s0").unwrap();
    worker.progress(&run, 1, &after("7")).await;
    worker.committed("s0", 1).await;
    let stored = view(&store).await;
    let checkpoint = &stored.checkpoints[&task(&run)].value;
    assert_eq!((&checkpoint.position, checkpoint.serial, checkpoint.records), (&after("7"), 1, 10));
    assert_eq!(checkpoint.epoch, run.epoch.unwrap().into());
    assert_eq!(stored.lanes.len(), 1);
    worker.progress(&run, 2, &after("9")).await;
    worker.committed("s0", 2).await;
    assert_eq!(view(&store).await.checkpoints[&task(&run)].value.records, 20);
    // Said again, it is answered again: the first answer may be lost.
    let committed = |worker: &FakeWorker| {
        worker.heard(|heard| {
            let told = |message: &proto::v1::coordinator_message::Message| {
                matches!(message, proto::v1::coordinator_message::Message::Committed(_))
            };
            heard.messages.iter().filter(|(_, message)| told(message)).count()
        })
    };
    let before = committed(&worker);
    worker.progress(&run, 2, &after("9")).await;
    until("it is said again", || committed(&worker) > before).await;
}

#[tokio::test]
async fn a_run_that_is_not_the_current_one_moves_nothing_and_is_stopped() {
    let store: Arc<dyn MetadataStore> = Arc::new(FakeStore::new());
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    create(&leader, "fenced", vec![open("s0", &[])]).await;
    let first = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Stubborn).await;
    first.runs_exactly(&["s0"]).await;
    let old = first.run_of("s0").unwrap();
    first.progress(&old, 1, &after("7")).await;
    first.committed("s0", 1).await;
    let second = FakeWorker::attach(&coordinator.url(), "w2", "p2", "i2", Obedient).await;
    until("the second has its list", || second.list().is_some()).await;
    first.fall_silent();
    second.runs_exactly(&["s0"]).await;
    // It wakes up and goes on as if nothing had happened (S11).
    first.progress(&old, 2, &after("8")).await;
    until("it is told to stop", || {
        first.list().is_some_and(|list| list.stop.iter().any(|stop| stop.epoch == old.epoch))
    })
    .await;
    let new = second.run_of("s0").unwrap();
    second.progress(&new, 1, &after("9")).await;
    second.committed("s0", 1).await;
    let stored = view(&store).await;
    assert_eq!(stored.checkpoints[&task(&old)].value.position, after("9"));
}

#[tokio::test]
async fn a_position_of_a_run_that_nobody_knows_is_answered_with_a_stop() {
    let store: Arc<dyn MetadataStore> = Arc::new(FakeStore::new());
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    create(&leader, "nobody", vec![open("s0", &[])]).await;
    let worker = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Stubborn).await;
    worker.runs_exactly(&["s0"]).await;
    let mut unknown = worker.run_of("s0").unwrap();
    unknown.epoch = Some(proto::v1::Epoch { generation: 1, revision: 1 });
    worker.progress(&unknown, 9, &after("9")).await;
    until("it is told to stop at once", || {
        let list = worker.list().unwrap();
        let dropped = |stop: &proto::v1::StopTask| {
            stop.epoch == unknown.epoch && stop.deadline == Some(prost_types::Duration::default())
        };
        list.run.len() == 1 && list.stop.iter().any(dropped)
    })
    .await;
    assert!(view(&store).await.checkpoints.is_empty());
}

#[tokio::test]
async fn a_checkpoint_never_goes_back() {
    let store: Arc<dyn MetadataStore> = Arc::new(FakeStore::new());
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    create(&leader, "forward", vec![open("s0", &[]), open("s1", &[])]).await;
    let worker = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Obedient).await;
    worker.runs_exactly(&["s0", "s1"]).await;
    let (run, other) = (worker.run_of("s0").unwrap(), worker.run_of("s1").unwrap());
    worker.progress(&run, 5, &after("50")).await;
    worker.committed("s0", 5).await;
    worker.progress(&run, 4, &after("40")).await;
    worker.progress(&other, 1, &after("1")).await;
    worker.committed("s1", 1).await;
    assert_eq!(view(&store).await.checkpoints[&task(&run)].value.position, after("50"));
}

#[tokio::test]
async fn a_release_counts_after_its_last_position_is_durable() {
    let store: Arc<dyn MetadataStore> = Arc::new(FakeStore::new());
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    create(&leader, "release", vec![open("s0", &[])]).await;
    let first = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Stubborn).await;
    first.runs_exactly(&["s0"]).await;
    let run = first.run_of("s0").unwrap();
    let second = FakeWorker::attach(&coordinator.url(), "w2", "p2", "i2", Obedient).await;
    until("the second has its list", || second.list().is_some()).await;
    leader.drain_worker("w1", false).await.unwrap();
    until("the first is asked to stop", || first.list().is_some_and(|list| list.stop.len() == 1)).await;
    let released = proto::v1::Released {
        task: run.task.clone(),
        epoch: run.epoch,
        drained: true,
        final_progress: Some(progress(&run, 3, &after("33"))),
        ..proto::v1::Released::default()
    };
    first.say(up::Message::Released(released)).await;
    second.runs_exactly(&["s0"]).await;
    let start = second.run_of("s0").unwrap().start.unwrap();
    assert_eq!(Position::try_from(start).unwrap(), after("33"));
}

async fn lost_answer(stream: &str, fate: Fate, last: u64) {
    let fake = Arc::new(FakeStore::new());
    let store: Arc<dyn MetadataStore> = fake.clone();
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    create(&leader, stream, vec![open("s0", &[])]).await;
    let worker = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Obedient).await;
    worker.runs_exactly(&["s0"]).await;
    let run = worker.run_of("s0").unwrap();
    fake.lose_answer("/lane/", fate);
    worker.progress(&run, 1, &after("7")).await;
    worker.committed("s0", 1).await;
    assert_eq!(fake.lost.load(Ordering::SeqCst), 1);
    worker.progress(&run, 2, &after("8")).await;
    worker.committed("s0", 2).await;
    let stored = view(&store).await;
    assert_eq!(stored.checkpoints[&task(&run)].value.position, after("8"));
    // One transaction per position landed, whatever was heard of it (P14); one that vanished has used its number up.
    assert_eq!(stored.lanes.values().map(|lane| lane.value.serial).collect::<Vec<_>>(), [last]);
    assert_eq!(coordinator.leader().await.revision(), leader.revision(), "the term went on");
}

#[tokio::test]
async fn a_checkpoint_that_landed_unheard_is_not_written_twice() {
    lost_answer("landed", Fate::Landed, 2).await;
}

#[tokio::test]
async fn a_checkpoint_that_vanished_is_written_again() {
    lost_answer("vanished", Fate::Vanished, 3).await;
}

/// P14: a transaction whose answer was lost lands after its lane was read, and so keeps out the next one, whose answer is lost too.
#[tokio::test]
async fn the_late_landing_of_one_checkpoint_is_not_taken_for_that_of_the_next() {
    let fake = Arc::new(FakeStore::new());
    let store: Arc<dyn MetadataStore> = fake.clone();
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    create(&leader, "overtaken", vec![open("s0", &[])]).await;
    let worker = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Obedient).await;
    worker.runs_exactly(&["s0"]).await;
    let run = worker.run_of("s0").unwrap();
    fake.lose_answer("/lane/", Fate::LateThenAway);
    fake.lose_answer("/lane/", Fate::Overtaken);
    worker.progress(&run, 1, &after("7")).await;
    until("the first answer is lost", || fake.lost.load(Ordering::SeqCst) == 1).await;
    worker.progress(&run, 2, &after("8")).await;
    // The position must have arrived when the lane is read.
    worker.is_heard().await;
    fake.away.store(false, Ordering::SeqCst);
    worker.committed("s0", 2).await;
    assert_eq!(fake.lost.load(Ordering::SeqCst), 2);
    assert_eq!(view(&store).await.checkpoints[&task(&run)].value.position, after("8"));
}

#[tokio::test]
async fn a_checkpoint_that_is_late_cannot_land_after_its_successor() {
    let fake = Arc::new(FakeStore::new());
    let store: Arc<dyn MetadataStore> = fake.clone();
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    create(&leader, "late", vec![open("s0", &[])]).await;
    let worker = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Obedient).await;
    worker.runs_exactly(&["s0"]).await;
    let run = worker.run_of("s0").unwrap();
    worker.progress(&run, 1, &after("7")).await;
    worker.committed("s0", 1).await;
    fake.lose_answer("/lane/", Fate::Late);
    worker.progress(&run, 2, &after("8")).await;
    worker.committed("s0", 2).await;
    worker.progress(&run, 3, &after("9")).await;
    worker.committed("s0", 3).await;
    assert!(matches!(fake.land_late().await, store::Commit::Lost(_)));
    assert_eq!(view(&store).await.checkpoints[&task(&run)].value.position, after("9"));
}

#[tokio::test]
async fn an_assignment_of_unknown_outcome_ends_the_term_and_the_next_one_knows() {
    let fake = Arc::new(FakeStore::new());
    let store: Arc<dyn MetadataStore> = fake.clone();
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    fake.lose_answer("/assignment/", Fate::Landed);
    create(&leader, "unknown", vec![open("s0", &[])]).await;
    let worker = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Obedient).await;
    until("the session ends with the term", || worker.heard(|heard| heard.over)).await;
    let next = coordinator.leader().await;
    assert!(next.revision() > leader.revision());
    let back = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Obedient).await;
    let runs = back.runs_exactly(&["s0"]).await;
    until_stored(&store, "the assignment is the one that landed", |view| {
        view.assignments.values().all(|assignment| assignment.mod_revision == runs[0].1.revision)
    })
    .await;
}

/// The option of a sink, also where the coordinator alone would take its time.
#[tokio::test]
async fn a_sink_may_have_its_positions_stored_more_often_than_the_coordinator_would() {
    let store: Arc<dyn MetadataStore> = Arc::new(FakeStore::new());
    let coordinator = Coordinator::start_with(&store, Duration::from_secs(600)).await;
    let leader = coordinator.leader().await;
    let (_, sink) = create(&leader, "often", vec![open("s0", &[])]).await;
    let worker = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Obedient).await;
    worker.runs_exactly(&["s0"]).await;
    // The first position needs no interval; without the option the second one waits for the coordinator's.
    let run = worker.run_of("s0").unwrap();
    worker.progress(&run, 1, &after("a")).await;
    worker.committed("s0", 1).await;
    worker.progress(&run, 2, &after("b")).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(view(&store).await.checkpoints[&task(&run)].value.serial, 1);
    leader
        .update_sink(&sink.name, |sink| {
            sink.options.insert("checkpoint_interval", "100ms");
            Ok(())
        })
        .await
        .unwrap();
    let before = worker.run_of("s0").unwrap().epoch;
    until("it runs anew", || worker.run_of("s0").is_some_and(|run| run.epoch != before)).await;
    let run = worker.run_of("s0").unwrap();
    for serial in 3..=5 {
        worker.progress(&run, serial, &after(&serial.to_string())).await;
        worker.committed("s0", serial).await;
    }
}

#[tokio::test]
async fn many_tasks_are_spread_evenly_and_their_positions_travel_together() {
    let store: Arc<dyn MetadataStore> = Arc::new(FakeStore::new());
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    let mut workers = Vec::new();
    for n in 0..4 {
        let (name, process, instance) = (format!("w{n}"), format!("p{n}"), format!("i{n}"));
        workers.push(FakeWorker::attach(&coordinator.url(), &name, &process, &instance, Obedient).await);
    }
    until("all have joined", || workers.iter().all(|worker| worker.list().is_some())).await;
    let splits = (0..600).map(|n| open(&format!("s{n:03}"), &[])).collect();
    create(&leader, "many", splits).await;
    until("everything runs", || workers.iter().map(|worker| worker.runs().len()).sum::<usize>() == 600).await;
    for worker in &workers {
        assert_eq!(worker.runs().len(), 150, "{}", worker.name);
        let tasks = worker.list().unwrap().run.iter().map(|run| progress(run, 1, &after("7"))).collect();
        worker.say(up::Message::Progress(proto::v1::Progress { tasks })).await;
    }
    until_stored(&store, "everything is durable", |view| view.checkpoints.len() == 600).await;
    let stored = view(&store).await;
    // 150 tasks are two lanes of at most 126; a position for each took one transaction per lane.
    assert_eq!(stored.lanes.len(), 8);
    assert!(stored.lanes.values().all(|lane| lane.value.serial == 1), "{:?}", stored.lanes);
}
