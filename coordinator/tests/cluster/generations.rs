//! Stores that were restored while workers lived on, and peers of other releases.

use std::{sync::Arc, time::Duration};

use model::{Cursor, Epoch, Position};
use proto::v1::{self, coordinator_message as down};
use shardwright_coordinator::Config;
use store::{Backup, EmbeddedStore, MetadataStore, RestoreInto};

use crate::{
    fake_source::open,
    fake_worker::{FakeWorker, Manner::Obedient, task},
    setup::{Coordinator, create, until, until_stored, view},
};

fn memory() -> Arc<dyn MetadataStore> {
    Arc::new(EmbeddedStore::in_memory())
}

fn after(cursor: &str) -> Position {
    Position::After(Cursor::new(cursor))
}

/// The hello of process `p1`, with what a worker has under way.
fn hello(running: &FakeWorker) -> v1::Hello {
    let runs = running.list().unwrap_or_default().run.into_iter();
    v1::Hello {
        worker: "w1".to_owned(),
        process: "p1".to_owned(),
        instance: "i1".to_owned(),
        capacity: 1,
        heartbeat: 1,
        running: runs.map(|run| v1::Running { task: run.task, epoch: run.epoch }).collect(),
        ..v1::Hello::default()
    }
}

fn start(run: &v1::RunTask) -> Position {
    Position::try_from(run.start.clone().unwrap()).unwrap()
}

/// Runs a task up to position 7, takes a backup there, and goes on to 9.
async fn lived(store: &Arc<dyn MetadataStore>, stream: &str) -> (FakeWorker, Backup, u64) {
    let coordinator = Coordinator::start(store).await;
    let leader = coordinator.leader().await;
    create(&leader, stream, vec![open("s0", &[])]).await;
    let worker = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Obedient).await;
    worker.runs_exactly(&["s0"]).await;
    let run = worker.run_of("s0").unwrap();
    worker.progress(&run, 1, &after("7")).await;
    worker.committed("s0", 1).await;
    let backup = Backup::take(store.as_ref(), &Config::default().cluster, "test", "2026-01-01T00:00:00Z")
        .await
        .unwrap();
    worker.progress(&run, 2, &after("9")).await;
    worker.committed("s0", 2).await;
    let revision = leader.revision();
    coordinator.cancel.cancel();
    until("its session ends", || worker.heard(|heard| heard.over)).await;
    until_stored(store, "it has resigned", |view| view.leader.is_none()).await;
    (worker, backup, revision)
}

#[tokio::test]
async fn a_restored_cluster_goes_on_from_its_checkpoints_under_epochs_that_are_newer_than_all_before() {
    let (worker, backup, revision) = lived(&memory(), "restored").await;
    let old: Epoch = worker.runs()[0].1;
    // As long as the old cluster lived, much longer than the new one.
    let ahead = v1::Leader { generation: 1, revision: revision + 1_000_000 };
    let fresh = memory();
    let into = RestoreInto { cluster: Config::default().cluster, replace: false, rename: false };
    let restored = backup.restore(&fresh, &into).await.unwrap();
    let coordinator = Coordinator::start(&fresh).await;
    let leader = coordinator.leader().await;
    assert!(leader.revision() < ahead.revision);
    let told = v1::Hello { newest_leader: Some(ahead), ..hello(&worker) };
    let back = FakeWorker::attach_running(&coordinator.url(), told, Obedient).await;
    let (_, epoch) = back.runs_exactly(&["s0"]).await[0].clone();
    assert!(epoch > old && epoch.generation == restored.generation, "{epoch} after {old}");
    let run = back.run_of("s0").unwrap();
    assert_eq!(start(&run), after("7"), "what came after the backup is read again");
    let gate = run.gate.unwrap();
    assert!(gate.seconds > 0 || gate.nanos > 0, "runs that the backup does not know may write still");
    back.heard(|heard| {
        let stops = heard.messages.iter().any(|(_, message)| {
            matches!(message, down::Message::SetTasks(list) if list.stop.iter().any(|stop| {
                stop.epoch.map(Epoch::from) == Some(old)
            }))
        });
        assert!(stops, "the run that lived through it is fenced");
    });
    assert_eq!(coordinator.leader().await.revision(), leader.revision(), "the generation was raised already");
    back.progress(&run, 1, &after("8")).await;
    back.committed("s0", 1).await;
    let moved = view(&fresh).await.checkpoints[&task(&run)].value.clone();
    assert_eq!((moved.position, moved.epoch), (after("8"), epoch));
    until_stored(&fresh, "the generation is settled", |view| !view.schema.as_ref().unwrap().value.begins)
        .await;
    assert_eq!(back.runs()[0].1, epoch, "and nothing starts again for it");
}

/// The store was set back by its own means: a worker that has heard a later leader is the proof.
#[tokio::test]
async fn a_leader_that_the_store_has_not_come_to_begins_a_new_generation_with_no_runs() {
    let store = memory();
    let (worker, _, revision) = lived(&store, "set-back").await;
    let before = worker.runs()[0].1;
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    let ahead = v1::Leader { generation: 1, revision: leader.revision() + revision };
    let told = v1::Hello { newest_leader: Some(ahead), ..hello(&worker) };
    let _refused = FakeWorker::attach_running(&coordinator.url(), told.clone(), Obedient).await;
    until("the term ends", || leader.watch_events(0).0.iter().any(|event| event.kind == "store_restored"))
        .await;
    let next = coordinator.leader().await;
    assert_eq!(view(&store).await.generation(), 2);
    let back = FakeWorker::attach_running(&coordinator.url(), told, Obedient).await;
    let after_it = back.runs_exactly(&["s0"]).await[0].1;
    assert!(after_it > before && after_it.generation == 2, "{after_it} after {before}");
    let run = back.run_of("s0").unwrap();
    assert_eq!(start(&run), after("9"), "at the checkpoint, not where the assignment of before began");
    assert_eq!(coordinator.leader().await.revision(), next.revision(), "once");
}

#[tokio::test]
async fn a_worker_of_a_neighbouring_release_is_welcome() {
    let coordinator = Coordinator::start(&memory()).await;
    coordinator.leader().await;
    for (name, from, to, agreed) in [("before", 0, 0, 1), ("same", 1, 2, 2), ("after", 2, 3, 2)] {
        let hello = v1::Hello {
            worker: name.to_owned(),
            process: name.to_owned(),
            protocol_from: from,
            protocol_to: to,
            ..v1::Hello::default()
        };
        let worker = FakeWorker::attach_running(&coordinator.url(), hello, Obedient).await;
        let welcome = |message: &down::Message| matches!(message, down::Message::Welcome(welcome) if welcome.protocol == agreed);
        until(&format!("{name} is welcome"), || {
            worker.heard(|heard| heard.messages.iter().any(|(_, message)| welcome(message)))
        })
        .await;
    }
}

#[tokio::test]
async fn a_worker_that_is_two_releases_ahead_is_refused_and_told_why() {
    let coordinator = Coordinator::start(&memory()).await;
    coordinator.leader().await;
    let hello = v1::Hello {
        worker: "w1".to_owned(),
        process: "p1".to_owned(),
        version: "0.3.0".to_owned(),
        protocol_from: 3,
        protocol_to: 4,
        ..v1::Hello::default()
    };
    let worker = FakeWorker::attach_running(&coordinator.url(), hello, Obedient).await;
    let refusal = |message: &down::Message| match message {
        down::Message::Refused(refused) => Some(refused.clone()),
        _ => None,
    };
    let refused = || worker.heard(|heard| heard.messages.iter().find_map(|(_, message)| refusal(message)));
    until("it is refused", || refused().is_some()).await;
    let v1::Refused { reason, retry } = refused().unwrap();
    assert!(!retry && reason.contains("worker `w1` (release 0.3.0) speaks protocol 3 to 4"), "{reason}");
    assert!(reason.contains("upgrade the coordinator"), "{reason}");
    tokio::time::timeout(Duration::from_secs(20), async {
        while !worker.heard(|heard| heard.over) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("its stream ends");
}

#[tokio::test]
async fn a_tool_is_told_what_the_coordinator_speaks_or_why_not() {
    use v1::versions_client::VersionsClient;
    let coordinator = Coordinator::start(&memory()).await;
    let mut versions = VersionsClient::connect(coordinator.url()).await.unwrap();
    let ours = proto::Protocols::OURS;
    let reply = versions.agree(ours.ask()).await.unwrap().into_inner();
    assert_eq!((reply.protocol, reply.protocol_from, reply.protocol_to), (ours.to(), ours.from(), ours.to()));
    let newer = v1::AgreeRequest { protocol_from: 3, protocol_to: 4 };
    let refused = versions.agree(newer).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    assert!(refused.message().contains("the caller speaks protocol 3 to 4"), "{refused}");
}
