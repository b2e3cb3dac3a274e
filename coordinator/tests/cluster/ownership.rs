//! Who runs what: joins, assignments, moves, ends, drops.

use std::{sync::Arc, time::Duration};

use connector::Listing;
use model::{Creation, Cursor, ObjectKind, Position, SinkSpec, StartFrom, Timestamp};
use proto::v1::{coordinator_message as down, worker_message as up};
use shardwright_coordinator::{ErrorKind, Leader, ResetTo};
use store::{EmbeddedStore, MetadataStore};
use tokio::time::Instant;

use crate::{
    fake_source::{self, CREATION, open, ranged},
    fake_worker::{FakeWorker, Manner::Obedient, Manner::Stubborn, progress},
    setup::{Coordinator, create, sink, source, timing, until, until_stored, view},
};

fn memory() -> Arc<dyn MetadataStore> {
    Arc::new(EmbeddedStore::in_memory())
}

#[tokio::test]
async fn an_assignment_reaches_the_worker_and_comes_before_the_answer() {
    let store = memory();
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    let (_, sink) = create(&leader, "reaches", vec![open("s0", &[]), open("s1", &[])]).await;
    let worker = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Obedient).await;
    let runs = worker.runs_exactly(&["s0", "s1"]).await;
    let stored = view(&store).await;
    for (split, epoch) in &runs {
        let task = model::TaskId::reads(sink.id, fake_source::split(split));
        let assignment = &stored.assignments[&task];
        assert_eq!((assignment.value.worker.as_str(), assignment.value.process.as_str()), ("w1", "p1"));
        assert_eq!(assignment.mod_revision, epoch.revision);
    }
    // The first listing starts where the source's start was pinned.
    let start = worker.run_of("s0").unwrap().start.unwrap();
    assert_eq!(Position::try_from(start).unwrap(), Position::Start(StartFrom::At(Timestamp(5_000))));
    // Nothing was answered before the first list was in the stream (P3).
    worker.heard(|heard| {
        let kinds: Vec<&str> = heard
            .messages
            .iter()
            .map(|(_, message)| match message {
                down::Message::Welcome(_) => "welcome",
                down::Message::SetTasks(_) => "list",
                down::Message::Answer(_) => "answer",
                _ => "other",
            })
            .collect();
        assert_eq!(&kinds[..2], ["welcome", "list"], "{kinds:?}");
        assert!(heard.messages.iter().all(|(revision, _)| *revision == leader.revision()));
    });
}

#[tokio::test]
async fn a_second_process_under_a_live_name_is_refused() {
    let store = memory();
    let coordinator = Coordinator::start(&store).await;
    coordinator.leader().await;
    let first = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Obedient).await;
    until("the first has its list", || first.list().is_some()).await;
    let second = FakeWorker::attach(&coordinator.url(), "w1", "p2", "i2", Obedient).await;
    until("the second is refused", || {
        second.heard(|heard| {
            heard.messages.iter().any(|(_, message)| match message {
                down::Message::Refused(refused) => refused.retry && refused.reason.contains("`w1` is alive"),
                _ => false,
            })
        })
    })
    .await;
    assert!(!first.heard(|heard| heard.over));
    assert_eq!(view(&store).await.workers["w1"].value.process, "p1");
}

/// P1: it answered the welcome, died, and its answer came after the next process of its instance had joined.
#[tokio::test]
async fn a_late_answer_of_a_dead_process_does_not_displace_the_next_one() {
    let store = memory();
    let coordinator = Coordinator::start(&store).await;
    coordinator.leader().await;
    let dead = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Obedient).await;
    dead.fall_silent();
    let next = FakeWorker::attach(&coordinator.url(), "w1", "p2", "i1", Obedient).await;
    until("the next has its list", || next.list().is_some()).await;
    let late = proto::v1::Heartbeat { number: 2, ..Default::default() };
    dead.say(up::Message::Heartbeat(late)).await;
    until("the session of the dead one is over", || dead.heard(|heard| heard.over)).await;
    assert!(dead.list().is_none() && !next.heard(|heard| heard.over));
    assert_eq!(view(&store).await.workers["w1"].value.process, "p2");
}

#[tokio::test]
async fn a_restart_of_the_same_instance_takes_the_tasks_over_with_new_epochs() {
    let store = memory();
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    create(&leader, "restart", vec![open("s0", &[])]).await;
    let first = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Obedient).await;
    let before = first.runs_exactly(&["s0"]).await;
    let begin = Instant::now();
    let second = FakeWorker::attach(&coordinator.url(), "w1", "p2", "i1", Obedient).await;
    let after = second.runs_exactly(&["s0"]).await;
    assert!(begin.elapsed() < timing().session_timeout, "waited for the old process");
    assert!(after[0].1 > before[0].1);
    until("the old session is over", || first.heard(|heard| heard.over)).await;
    // Stopped when it joined: the last breath is still to pass (P10).
    let gate = second.run_of("s0").unwrap().gate.unwrap();
    let gate = Duration::new(gate.seconds.unsigned_abs(), gate.nanos.unsigned_abs());
    assert!(gate > Duration::ZERO && gate <= timing().last_breath(), "{gate:?}");
}

#[tokio::test]
async fn the_tasks_of_a_silent_worker_go_to_another_behind_a_gate() {
    let store = memory();
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    create(&leader, "silent", vec![open("s0", &[])]).await;
    let first = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Obedient).await;
    let before = first.runs_exactly(&["s0"]).await;
    let second = FakeWorker::attach(&coordinator.url(), "w2", "p2", "i2", Obedient).await;
    until("the second has its list", || second.list().is_some()).await;
    first.fall_silent();
    let after = second.runs_exactly(&["s0"]).await;
    assert!(after[0].1 > before[0].1);
    let gate = second.run_of("s0").unwrap().gate.unwrap();
    let gate = Duration::new(gate.seconds.unsigned_abs(), gate.nanos.unsigned_abs());
    // Last heard + fence_after + last breath, seen from session_timeout after it was last heard (and a little later).
    let longest = timing().fence_after + timing().last_breath() - timing().session_timeout;
    assert!(gate <= longest, "{gate:?} > {longest:?}");
}

#[tokio::test]
async fn the_tasks_of_a_silent_worker_have_no_gate_if_the_sink_wants_a_fast_takeover() {
    let store = memory();
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    let splits = vec![open("s0", &[])];
    fake_source::stream("fast", |known| known.splits = splits.clone());
    let listing = Listing { creation: Creation(CREATION.0), splits, now: None, retention: None };
    let clicks = leader.create_source(source("clicks", "fast"), Some(&listing)).await.unwrap();
    let fast = SinkSpec { options: [("takeover", "fast")].into_iter().collect(), ..sink("out", &clicks) };
    leader.create_sink(fast, &clicks).await.unwrap();
    let first = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Obedient).await;
    let before = first.runs_exactly(&["s0"]).await;
    let second = FakeWorker::attach(&coordinator.url(), "w2", "p2", "i2", Obedient).await;
    until("the second has its list", || second.list().is_some()).await;
    first.fall_silent();
    let after = second.runs_exactly(&["s0"]).await;
    assert!(after[0].1 > before[0].1);
    let gate = second.run_of("s0").unwrap().gate.unwrap();
    assert_eq!((gate.seconds, gate.nanos), (0, 0));
}

#[tokio::test]
async fn a_drained_worker_hands_everything_over_in_order() {
    let store = memory();
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    create(&leader, "drain", vec![open("s0", &[]), open("s1", &[])]).await;
    let first = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Obedient).await;
    first.runs_exactly(&["s0", "s1"]).await;
    let second = FakeWorker::attach(&coordinator.url(), "w2", "p2", "i2", Obedient).await;
    until("the second has its list", || second.list().is_some()).await;
    leader.drain_worker("w1", false).await.unwrap();
    second.runs_exactly(&["s0", "s1"]).await;
    first.runs_exactly(&[]).await;
    assert_eq!(leader.drain_progress("w1").unwrap().tasks_left, 0);
    // Drained: no gate (P10).
    let gate = second.run_of("s0").unwrap().gate.unwrap();
    assert_eq!((gate.seconds, gate.nanos), (0, 0));
    let status = leader.workers();
    assert_eq!(status.iter().find(|worker| worker.name == "w1").unwrap().state, "drained");
    assert_eq!(leader.drain_worker("w9", false).await.unwrap_err().kind, ErrorKind::Missing);
}

#[tokio::test]
async fn a_worker_that_stops_in_order_is_emptied() {
    let store = memory();
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    create(&leader, "leaving", vec![open("s0", &[])]).await;
    let first = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Obedient).await;
    first.runs_exactly(&["s0"]).await;
    let second = FakeWorker::attach(&coordinator.url(), "w2", "p2", "i2", Obedient).await;
    until("the second has its list", || second.list().is_some()).await;
    first.say(up::Message::Drain(proto::v1::Drain {})).await;
    second.runs_exactly(&["s0"]).await;
}

#[tokio::test]
async fn the_end_of_a_parent_starts_the_child() {
    let store = memory();
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    let (_, sink) = create(&leader, "reshard", vec![ranged("s0", &[], 0, u128::MAX)]).await;
    let worker = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Obedient).await;
    worker.runs_exactly(&["s0"]).await;
    let half = u128::MAX / 2;
    fake_source::stream("reshard", |stream| {
        stream.splits[0].closed = true;
        stream.splits.push(ranged("s1", &["s0"], 0, half));
        stream.splits.push(ranged("s2", &["s0"], half + 1, u128::MAX));
    });
    until_stored(&store, "the children are listed", |view| view.splits.len() == 3).await;
    let pending = leader.describe_split("clicks", "s1").unwrap();
    assert_eq!(pending[0].state, "pending");
    assert!(pending[0].waits_for.contains("s0"), "{}", pending[0].waits_for);
    worker.progress(&worker.run_of("s0").unwrap(), 1, &Position::End).await;
    worker.runs_exactly(&["s1", "s2"]).await;
    let start = worker.run_of("s1").unwrap().start.unwrap();
    assert_eq!(Position::try_from(start).unwrap(), Position::Start(StartFrom::Horizon));
    let parent = model::TaskId::reads(sink.id, fake_source::split("s0"));
    assert!(view(&store).await.checkpoints[&parent].value.position.is_end());
}

#[tokio::test]
async fn a_reader_that_saw_the_end_has_the_source_listed_at_once() {
    let store = memory();
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    let (source, _) = create(&leader, "hint", vec![ranged("s0", &[], 0, u128::MAX)]).await;
    let worker = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Obedient).await;
    worker.runs_exactly(&["s0"]).await;
    fake_source::stream("hint", |stream| {
        stream.splits[0].closed = true;
        stream.splits.push(ranged("s1", &["s0"], 0, u128::MAX));
    });
    let ended = proto::v1::SplitEnded { source_id: source.id.to_string(), split: "s0".to_owned() };
    worker.say(up::Message::SplitEnded(ended)).await;
    until_stored(&store, "the child is listed", |view| view.splits.len() == 2).await;
}

#[tokio::test]
async fn a_split_that_went_unread_is_a_data_loss() {
    let store = memory();
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    create(&leader, "trimmed", vec![open("s0", &[]), open("s1", &[]), open("s2", &[])]).await;
    let worker = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Obedient).await;
    worker.runs_exactly(&["s0", "s1", "s2"]).await;
    worker.progress(&worker.run_of("s0").unwrap(), 1, &Position::After(Cursor::new("7"))).await;
    worker.committed("s0", 1).await;
    // s1 is read to its end after it was closed, though its `End` never comes.
    fake_source::stream("trimmed", |stream| stream.splits[1].closed = true);
    until_stored(&store, "s1 is closed", |view| view.splits.values().any(|split| split.value.closed)).await;
    let caught_up_at_ms = Some(i64::MAX);
    let last = progress(&worker.run_of("s1").unwrap(), 1, &Position::After(Cursor::new("8")));
    let tasks = vec![proto::v1::TaskProgress { caught_up_at_ms, ..last }];
    worker.say(up::Message::Progress(proto::v1::Progress { tasks })).await;
    worker.committed("s1", 1).await;
    fake_source::stream("trimmed", |stream| {
        stream.gone = stream.splits.drain(..).map(|split| split.id).collect();
    });
    let losses = || {
        let mut events = leader.watch_events(0).0;
        events.retain(|event| event.kind == "data_loss");
        events
    };
    until("all three are gone, and the losses told", || {
        let gone = leader.watch_events(0).0.iter().filter(|event| event.kind == "split_gone").count();
        gone == 3 && losses().len() >= 2
    })
    .await;
    let told: Vec<(String, String)> =
        losses().into_iter().map(|event| (event.labels["split"].clone(), event.message)).collect();
    assert_eq!(told.iter().map(|(split, _)| split.as_str()).collect::<Vec<_>>(), ["s0", "s2"]);
    assert!(told[0].1.contains("everything after 7 may be lost"), "{told:?}");
    let state = |split| leader.describe_split("clicks", split).unwrap()[0].state.clone();
    assert_eq!((state("s0"), state("s1"), state("s2")), ("gap".into(), "drained".into(), "gap".into()));
}

#[tokio::test]
async fn a_dropped_sink_leaves_no_key_behind() {
    let store = memory();
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    let (source, sink) = create(&leader, "dropped", vec![open("s0", &[]), open("s1", &[])]).await;
    let worker = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Obedient).await;
    worker.runs_exactly(&["s0", "s1"]).await;
    worker.progress(&worker.run_of("s0").unwrap(), 1, &Position::After(Cursor::new("7"))).await;
    worker.committed("s0", 1).await;
    let refused = leader.drop_object(ObjectKind::Source, "clicks", false).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::InUse);
    assert!(refused.to_string().contains("\"out\""), "{refused}");
    leader.drop_object(ObjectKind::Sink, "out", false).await.unwrap();
    assert!(leader.sink("out").is_none(), "the name is free at once");
    until_stored(&store, "nothing of the sink is left (I7)", |view| {
        view.assignments.is_empty() && view.checkpoints.is_empty() && !view.objects.contains_key(&sink.id)
    })
    .await;
    worker.runs_exactly(&[]).await;
    leader.drop_object(ObjectKind::Source, "clicks", false).await.unwrap();
    until_stored(&store, "nothing of the source is left (I7)", |view| {
        view.splits.is_empty() && !view.objects.contains_key(&source.id) && view.names.is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_sink_is_dropped_also_when_its_worker_is_dead() {
    let store = memory();
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    create(&leader, "orphan", vec![open("s0", &[])]).await;
    let worker = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Stubborn).await;
    worker.runs_exactly(&["s0"]).await;
    drop(worker);
    leader.drop_object(ObjectKind::Source, "clicks", true).await.unwrap();
    until_stored(&store, "nothing is left (I7)", |view| {
        view.assignments.is_empty()
            && view.objects.is_empty()
            && view.splits.is_empty()
            && view.names.is_empty()
    })
    .await;
}

#[tokio::test]
async fn names_are_unique_and_what_is_missing_is_said() {
    let store = memory();
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    let (known, _) = create(&leader, "names", vec![open("s0", &[])]).await;
    let twice = leader.create_source(source("clicks", "names"), None).await.unwrap_err();
    assert_eq!(
        (twice.kind, twice.to_string()),
        (ErrorKind::Exists, "source \"clicks\" already exists".to_owned())
    );
    assert_eq!(leader.create_sink(sink("out", &known), &known).await.unwrap_err().kind, ErrorKind::Exists);
    let mut nowhere = sink("other", &known);
    nowhere.source = model::ObjectId::from_parts(1, 1);
    assert_eq!(leader.create_sink(nowhere, &known).await.unwrap_err().kind, ErrorKind::Missing);
    // Its source had other columns when it was bound: bound anew, it fits.
    let mut stale = known.as_ref().clone();
    stale.columns.push(model::Column { name: "more".to_owned(), kind: model::SqlType::Integer });
    let refused = leader.create_sink(sink("other", &known), &stale).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Unavailable);
    leader.create_sink(sink("other", &known), &known).await.unwrap();
    assert_eq!(leader.pause_sink("none").await.unwrap_err().kind, ErrorKind::Missing);
}

#[tokio::test]
async fn a_paused_sink_stands_still_and_may_be_reset() {
    let store = memory();
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    create(&leader, "paused", vec![open("s0", &[])]).await;
    let worker = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Obedient).await;
    worker.runs_exactly(&["s0"]).await;
    worker.progress(&worker.run_of("s0").unwrap(), 1, &Position::After(Cursor::new("7"))).await;
    worker.committed("s0", 1).await;
    let running = leader.reset_position("out", None, ResetTo::Horizon).await.unwrap_err();
    assert_eq!(running.kind, ErrorKind::State);
    leader.pause_sink("out").await.unwrap();
    worker.runs_exactly(&[]).await;
    assert_eq!(leader.reset_position("out", None, ResetTo::Horizon).await.unwrap(), 1);
    let none = leader.reset_position("out", Some("s9"), ResetTo::Horizon).await.unwrap_err();
    assert_eq!(none.kind, ErrorKind::Missing);
    leader.resume_sink("out").await.unwrap();
    worker.runs_exactly(&["s0"]).await;
    let run = worker.run_of("s0").unwrap();
    assert_eq!(Position::try_from(run.start.clone().unwrap()).unwrap(), Position::Start(StartFrom::Horizon));
    assert_eq!(leader.sink("out").unwrap().instance, 1);
    worker.progress(&run, 1, &Position::After(Cursor::new("3"))).await;
    until_stored(&store, "the new run moves the checkpoint", |view| {
        view.checkpoints.values().any(|stored| stored.value.position == Position::After(Cursor::new("3")))
    })
    .await;
}

#[tokio::test]
async fn a_changed_sink_gives_its_tasks_new_epochs() {
    let store = memory();
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    create(&leader, "changed", vec![open("s0", &[])]).await;
    let worker = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Obedient).await;
    let before = worker.runs_exactly(&["s0"]).await;
    leader
        .update_sink("out", |sink| {
            sink.options.insert("in_flight", "2");
            Ok(())
        })
        .await
        .unwrap();
    until("there is a new epoch", || worker.runs().first().is_some_and(|run| run.1 > before[0].1)).await;
    let list = worker.list().unwrap();
    let spec: model::SinkSpec = serde_json::from_slice(&list.sinks[0]).unwrap();
    assert_eq!((spec.revision, spec.options.get("in_flight")), (2, Some("2")));
}

#[tokio::test]
async fn an_unreachable_source_is_shown_and_heals() {
    let store = memory();
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    create(&leader, "away", vec![open("s0", &[])]).await;
    fake_source::stream("away", |stream| stream.fails = Some("nobody answers".to_owned()));
    until("the error is shown", || leader.status().sources[0].error.contains("nobody answers")).await;
    fake_source::stream("away", |stream| stream.fails = None);
    until("it heals", || leader.status().sources[0].error.is_empty()).await;
    assert_eq!(leader.status().sources[0].splits_open, 1);
}

#[tokio::test]
async fn what_a_run_found_gone_is_told_once_and_shown_whoever_leads() {
    let store = memory();
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    create(&leader, "trimmed-inside", vec![open("s0", &[])]).await;
    let worker = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Obedient).await;
    worker.runs_exactly(&["s0"]).await;
    let run = worker.run_of("s0").unwrap();
    for (serial, at) in [(1, "9"), (2, "10")] {
        let gap = "records before 9 were trimmed".to_owned();
        let last = progress(&run, serial, &Position::After(Cursor::new(at)));
        let tasks = vec![proto::v1::TaskProgress { gap, ..last }];
        worker.say(up::Message::Progress(proto::v1::Progress { tasks })).await;
        worker.committed("s0", serial).await;
    }
    // What follows without a word of it takes nothing away.
    worker.progress(&run, 3, &Position::After(Cursor::new("11"))).await;
    worker.committed("s0", 3).await;
    let losses = |leader: &Leader| {
        let mut events = leader.watch_events(0).0;
        events.retain(|event| event.kind == "data_loss");
        events
    };
    let told = losses(&leader);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].message.contains("records before 9 were trimmed"), "{told:?}");
    let shown = |leader: &Leader| leader.describe_split("clicks", "s0").unwrap().remove(0);
    assert_eq!(shown(&leader).state, "gap");
    drop((worker, coordinator));
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    let split = shown(&leader);
    assert!(split.gap.starts_with("records before 9 were trimmed (found at "), "{}", split.gap);
    assert_eq!(losses(&leader).len(), 0, "it was told");
}

#[tokio::test]
async fn what_a_run_found_bad_is_kept() {
    let store = memory();
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    create(&leader, "gap", vec![open("s0", &[])]).await;
    let worker = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Obedient).await;
    worker.runs_exactly(&["s0"]).await;
    let run = worker.run_of("s0").unwrap();
    let bad =
        proto::v1::BadRecord { cursor: "7".to_owned(), error: "no JSON".to_owned(), ..Default::default() };
    let mut report = proto::v1::Report {
        task: run.task.clone(),
        epoch: run.epoch,
        bad: vec![bad],
        error: "slow down".to_owned(),
        ..Default::default()
    };
    report.set_state(proto::v1::RunState::Retrying);
    let heartbeat = proto::v1::Heartbeat { number: 9_000, reports: vec![report], ..Default::default() };
    worker.say(up::Message::Heartbeat(heartbeat)).await;
    until("the bad record is kept", || !leader.bad_rows().is_empty()).await;
    let rows = leader.bad_rows();
    assert_eq!(
        (rows[0].sink.as_str(), rows[0].split.as_str(), rows[0].record.error.as_str()),
        ("out", "s0", "no JSON")
    );
    let shown = leader.describe_split("clicks", "s0").unwrap();
    assert_eq!((shown[0].state.as_str(), shown[0].error.as_str()), ("retrying", "slow down"));
    assert_eq!(leader.status().sinks[0].state, "retrying");
}
