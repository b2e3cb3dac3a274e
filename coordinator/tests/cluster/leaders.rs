//! Leaders come and go; data does not notice.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use model::{Cursor, Position};
use proto::v1::{self, coordinator_message as down, worker_message as up};
use shardwright_coordinator::{Config, ErrorKind, Server};
use store::{EmbeddedStore, Keyspace, MetadataStore, Write};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    fake_source::{self, open},
    fake_store::FakeStore,
    fake_worker::{FakeWorker, Manner::Obedient},
    setup::{Coordinator, create, timing, until, until_stored, view},
};

fn memory() -> Arc<dyn MetadataStore> {
    Arc::new(EmbeddedStore::in_memory())
}

fn hello(running: &FakeWorker, process: &str) -> v1::Hello {
    let running = running
        .list()
        .unwrap()
        .run
        .into_iter()
        .map(|run| v1::Running { task: run.task, epoch: run.epoch })
        .collect();
    v1::Hello {
        worker: "w1".to_owned(),
        process: process.to_owned(),
        instance: "i1".to_owned(),
        capacity: 1,
        heartbeat: 1,
        running,
        ..v1::Hello::default()
    }
}

#[tokio::test]
async fn a_follower_redirects_to_the_leader() {
    let store = memory();
    let first = Coordinator::start(&store).await;
    first.leader().await;
    let second = Coordinator::start(&store).await;
    until("the second knows the leader", || second.server.handle().leader_address() == Some(first.url()))
        .await;
    assert_eq!(
        second.server.handle().leader(Duration::from_secs(5)).await.err().map(|error| error.kind),
        Some(ErrorKind::NotLeader)
    );
    let worker = FakeWorker::attach(&second.url(), "w1", "p1", "i1", Obedient).await;
    until("it is redirected", || {
        worker.heard(|heard| {
            let there = |message: &down::Message| {
                matches!(message, down::Message::Redirect(redirect) if redirect.leader == first.url())
            };
            heard.over && heard.messages.iter().any(|(_, message)| there(message))
        })
    })
    .await;
}

#[tokio::test]
async fn an_orderly_stop_hands_the_office_over_at_once_and_the_same_epochs_run_on() {
    let store = memory();
    let first = Coordinator::start(&store).await;
    let leader = first.leader().await;
    create(&leader, "handover", vec![open("s0", &[]), open("s1", &[])]).await;
    let worker = FakeWorker::attach(&first.url(), "w1", "p1", "i1", Obedient).await;
    let before = worker.runs_exactly(&["s0", "s1"]).await;
    let second = Coordinator::start(&store).await;
    until("the second knows the leader", || second.server.handle().leader_address() == Some(first.url()))
        .await;
    let begin = Instant::now();
    first.cancel.cancel();
    let next = second.leader().await;
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(next.revision() > leader.revision());
    until("the old session is over", || worker.heard(|heard| heard.over)).await;
    let back = FakeWorker::attach_running(&second.url(), hello(&worker, "p1"), Obedient).await;
    assert_eq!(back.runs_exactly(&["s0", "s1"]).await, before, "same epochs");
    assert!(back.list().unwrap().stop.is_empty());
    back.progress(&back.run_of("s0").unwrap(), 1, &Position::After(Cursor::new("7"))).await;
    back.committed("s0", 1).await;
    assert_eq!(leader.pause_sink("out").await.unwrap_err().kind, ErrorKind::NotLeader);
}

#[tokio::test]
async fn a_leader_whose_key_is_gone_resigns_and_says_nothing_to_workers() {
    let store = memory();
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    create(&leader, "deposed", vec![open("s0", &[])]).await;
    let worker = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Obedient).await;
    worker.runs_exactly(&["s0"]).await;
    let key = Keyspace::new(&Config::default().cluster).leader();
    store.commit(&[], vec![Write::Delete(key)]).await.unwrap();
    until("its session ends", || worker.heard(|heard| heard.over)).await;
    worker.heard(|heard| {
        let silent = |message: &down::Message| {
            !matches!(message, down::Message::Redirect(_) | down::Message::Refused(_))
        };
        assert!(heard.messages.iter().all(|(_, message)| silent(message)));
    });
    assert!(coordinator.leader().await.revision() > leader.revision());
}

#[tokio::test]
async fn a_deposed_leader_that_does_not_know_it_writes_nothing_and_says_nothing() {
    let fake = Arc::new(FakeStore::new());
    fake.deaf.store(true, Ordering::SeqCst);
    let store: Arc<dyn MetadataStore> = fake.clone();
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    create(&leader, "unaware", vec![open("s0", &[])]).await;
    let worker = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Obedient).await;
    worker.runs_exactly(&["s0"]).await;
    let key = Keyspace::new(&Config::default().cluster).leader();
    let other = br#"{"address":"http://127.0.0.1:1"}"#.as_slice();
    store.commit(&[], vec![Write::Delete(key.clone())]).await.unwrap();
    store.commit(&[], vec![Write::Put(key, other.into())]).await.unwrap();
    worker.progress(&worker.run_of("s0").unwrap(), 1, &Position::After(Cursor::new("7"))).await;
    until("its session ends", || worker.heard(|heard| heard.over)).await;
    assert!(view(&store).await.checkpoints.is_empty());
    assert!(worker.list().unwrap().stop.is_empty());
    worker.heard(|heard| {
        let told = |message: &down::Message| matches!(message, down::Message::Committed(_));
        assert!(!heard.messages.iter().any(|(_, message)| told(message)));
    });
}

#[tokio::test]
async fn a_process_that_a_new_leader_has_not_heard_may_still_be_alive() {
    let store = memory();
    let first = Coordinator::start(&store).await;
    let leader = first.leader().await;
    create(&leader, "unheard", vec![open("s0", &[])]).await;
    let worker = FakeWorker::attach(&first.url(), "w1", "p1", "i1", Obedient).await;
    let before = worker.runs_exactly(&["s0"]).await;
    first.cancel.cancel();
    let second = Coordinator::start(&store).await;
    second.leader().await;
    let begin = Instant::now();
    let other = FakeWorker::attach(&second.url(), "w2", "p2", "i2", Obedient).await;
    let after = other.runs_exactly(&["s0"]).await;
    // Counts from the election: not given up before the session timeout, and gated by the rest (P10).
    assert!(begin.elapsed() > timing().session_timeout / 2, "{:?}", begin.elapsed());
    assert!(after[0].1 > before[0].1);
    let gate = other.run_of("s0").unwrap().gate.unwrap();
    assert!(gate.seconds > 0 || gate.nanos > 0, "{gate:?}");
}

#[tokio::test]
async fn runs_that_nothing_names_are_told_to_stop() {
    let store = memory();
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    create(&leader, "strays", vec![open("s0", &[])]).await;
    let worker = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Obedient).await;
    worker.runs_exactly(&["s0"]).await;
    let mut stray = hello(&worker, "p1");
    stray.running[0].epoch = Some(v1::Epoch { generation: 1, revision: 1 });
    let back = FakeWorker::attach_running(&coordinator.url(), stray, Obedient).await;
    back.runs_exactly(&["s0"]).await;
    until("the stray is named once, and no more when it is over", || {
        let named = back.heard(|heard| {
            heard.messages.iter().any(|(_, message)| {
                matches!(message, down::Message::SetTasks(list) if list.stop.iter().any(|stop| {
                    stop.epoch.is_some_and(|epoch| epoch.revision == 1)
                }))
            })
        });
        named && back.list().is_some_and(|list| list.stop.is_empty())
    })
    .await;
}

/// A backup of the store is older than the runs: their epochs must not be taken for newer ones.
#[tokio::test]
async fn a_store_that_went_back_begins_a_new_generation() {
    let store = memory();
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    create(&leader, "restored", vec![open("s0", &[])]).await;
    let worker = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Obedient).await;
    let before = worker.runs_exactly(&["s0"]).await;
    let mut ahead = hello(&worker, "p1");
    ahead.running[0].epoch = Some(v1::Epoch { generation: 1, revision: 1_000_000 });
    let _ahead = FakeWorker::attach_running(&coordinator.url(), ahead, Obedient).await;
    until("the term ends", || {
        let told = leader.watch_events(0).0;
        told.iter().any(|event| event.kind == "store_restored" && event.message.contains("1.1000000"))
    })
    .await;
    let next = coordinator.leader().await;
    assert!(next.revision() > leader.revision());
    assert_eq!(view(&store).await.generation(), 2);
    let mut told = hello(&worker, "p1");
    told.running[0].epoch = Some(v1::Epoch { generation: 1, revision: 1_000_000 });
    let back = FakeWorker::attach_running(&coordinator.url(), told, Obedient).await;
    let after = back.runs_exactly(&["s0"]).await;
    assert!(after[0].1 > before[0].1 && after[0].1.generation == 2, "{after:?}");
    assert_eq!(coordinator.leader().await.revision(), next.revision(), "once");
}

#[tokio::test]
async fn a_leader_that_cannot_confirm_itself_answers_nobody_and_heals() {
    let fake = Arc::new(FakeStore::new());
    let store: Arc<dyn MetadataStore> = fake.clone();
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    create(&leader, "unconfirmed", vec![open("s0", &[])]).await;
    let worker = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Obedient).await;
    let before = worker.runs_exactly(&["s0"]).await;
    fake.away.store(true, Ordering::SeqCst);
    let begin = Instant::now();
    until("its sessions end", || worker.heard(|heard| heard.over)).await;
    // The last keep-alive was sent before the store went away (P3); the slack is for a busy machine.
    assert!(begin.elapsed() < timing().leader_lease + Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_eq!(coordinator.server.handle().leader_address(), None);
    fake.away.store(false, Ordering::SeqCst);
    let next = coordinator.leader().await;
    assert!(next.revision() > leader.revision());
    let back = FakeWorker::attach_running(&coordinator.url(), hello(&worker, "p1"), Obedient).await;
    assert_eq!(back.runs_exactly(&["s0"]).await, before, "same epochs");
}

#[tokio::test]
async fn a_leader_that_is_told_to_stop_while_its_store_is_away_stops() {
    let fake = Arc::new(FakeStore::new());
    let store: Arc<dyn MetadataStore> = fake.clone();
    let config = Config { listen: "127.0.0.1:0".parse().unwrap(), timing: timing(), ..Config::default() };
    let cancel = CancellationToken::new();
    let server = Server::start(config, fake_source::registry(), store, cancel.clone()).await.unwrap();
    server.handle().leader(Duration::from_secs(20)).await.unwrap();
    fake.away.store(true, Ordering::SeqCst);
    cancel.cancel();
    tokio::time::timeout(Duration::from_secs(20), server.join()).await.expect("it hangs").unwrap();
}

#[tokio::test]
async fn a_store_of_a_newer_release_stops_the_coordinator_with_a_clear_line() {
    let store = memory();
    let keys = Keyspace::new(&Config::default().cluster);
    let newer = keys.put::<store::SchemaKey>(&(), &store::Schema::first(99));
    store.commit(&[], vec![newer]).await.unwrap();
    let config = Config { listen: "127.0.0.1:0".parse().unwrap(), ..Config::default() };
    let server =
        Server::start(config, fake_source::registry(), store, CancellationToken::new()).await.unwrap();
    let error = tokio::time::timeout(Duration::from_secs(20), server.join()).await.unwrap().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Config);
    assert!(error.to_string().contains("newer release (layout 99"), "{error}");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = Config { listen: taken.local_addr().unwrap(), ..Config::default() };
    let started = Server::start(config, fake_source::registry(), memory(), CancellationToken::new()).await;
    let error = started.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Config);
    let text = error.to_string();
    assert!(text.contains(&taken.local_addr().unwrap().to_string()) && text.contains("in use"), "{text}");
}

#[tokio::test]
async fn a_worker_that_left_in_order_is_no_lost_one_for_the_next_leader() {
    let store = memory();
    let first = Coordinator::start(&store).await;
    first.leader().await;
    let leaves = FakeWorker::attach(&first.url(), "w1", "p1", "i1", Obedient).await;
    let crashes = FakeWorker::attach(&first.url(), "w2", "p2", "i2", Obedient).await;
    leaves.is_heard().await;
    crashes.is_heard().await;
    leaves.say(up::Message::Drain(v1::Drain::default())).await;
    until_stored(&store, "it is stored that it leaves", |view| view.workers["w1"].value.draining).await;
    drop((leaves, crashes));
    let second = Coordinator::start(&store).await;
    drop(first);
    let next = second.leader().await;
    let is = |name: &str| next.workers().into_iter().find(|worker| worker.name == name).unwrap().state;
    assert_eq!(is("w1"), "drained");
    until("the other one is given up", || is("w2") == "dead").await;
    assert_eq!(is("w1"), "drained");
}
