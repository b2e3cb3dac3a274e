//! The worker's side of the ownership protocol, over a real connection: P1, P2, P4, P6, P7, P8 and P11 from outside.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use std::{sync::Arc, time::Duration};

use model::{Cursor, Epoch, Position, SourceSpec, TaskId};
use proto::v1;
use shardwright_worker::{Config, Error, Worker};
use support::{
    connectors::{self, Ledger},
    coordinator::{Coordinator, list, run, stop},
    until,
};
use tokio_util::sync::CancellationToken;

/// One worker with one task, under one coordinator.
struct Scene {
    coordinator: Coordinator,
    worker: Worker,
    cancel: CancellationToken,
    ledger: Arc<Ledger>,
    name: String,
    source: SourceSpec,
    task: TaskId,
    _dir: tempfile::TempDir,
}

fn epoch(revision: u64) -> Epoch {
    Epoch { generation: 0, revision }
}

impl Scene {
    async fn new(name: &str) -> Self {
        Self::with(name, u64::MAX, |_| {}).await
    }

    async fn with(name: &str, last: u64, set: impl FnOnce(&mut Config)) -> Self {
        let coordinator = Coordinator::start(10).await;
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config {
            name: Some(name.to_owned()),
            data_dir: dir.path().to_owned(),
            coordinators: vec![coordinator.url()],
            drain_deadline: Duration::from_secs(2),
            write_attempt_timeout: Duration::from_millis(400),
            late_write_margin: Duration::from_millis(100),
            ..Config::default()
        };
        set(&mut config);
        let cancel = CancellationToken::new();
        let worker = Worker::start(config, connectors::registry(), cancel.clone()).unwrap();
        Self {
            coordinator,
            worker,
            cancel,
            ledger: connectors::ledger(name),
            name: name.to_owned(),
            source: connectors::source(name, last),
            task: connectors::task("s-0"),
            _dir: dir,
        }
    }

    fn list(&self) -> v1::SetTasks {
        list(&self.source, &connectors::sink(&self.name))
    }

    fn run_list(&self, revision: u64) -> v1::SetTasks {
        v1::SetTasks { run: vec![run(&self.task, epoch(revision), &self.source)], ..self.list() }
    }

    fn stop_list(&self, revision: u64, deadline: Duration) -> v1::SetTasks {
        v1::SetTasks { stop: vec![stop(&self.task, epoch(revision), deadline)], ..self.list() }
    }

    /// Starts the run and waits until it has delivered something.
    async fn running(&self, revision: u64) {
        self.coordinator.list(self.run_list(revision));
        until("first delivery", || (!self.ledger.of(epoch(revision)).is_empty()).then_some(())).await;
    }

    async fn released(&self, revision: u64) -> v1::Released {
        until("released", || self.coordinator.released(epoch(revision)).pop()).await
    }
}

fn final_position(released: &v1::Released) -> Position {
    let progress = released.final_progress.clone().unwrap();
    Position::try_from(progress.position.unwrap()).unwrap()
}

#[tokio::test]
async fn a_listed_run_delivers_reports_and_progresses() {
    let scene = Scene::with("delivers", 20, |_| {}).await;
    scene.running(100).await;
    let end = |p: &v1::TaskProgress| {
        Position::try_from(p.position.clone().unwrap()).unwrap().is_end().then(|| p.clone())
    };
    let last = until("end", || scene.coordinator.with(|s| s.progress.iter().find_map(end))).await;
    assert_eq!((last.records, last.epoch), (21, Some(epoch(100).into())));
    assert_eq!(scene.ledger.of(epoch(100)), (0..=20).collect::<Vec<u64>>());
    let serials: Vec<u64> = scene.coordinator.with(|s| s.progress.iter().map(|p| p.serial).collect());
    assert!(serials.windows(2).all(|w| w[0] < w[1]), "{serials:?}");
    scene.coordinator.with(|s| {
        assert_eq!(s.hellos.len(), 1);
        assert_eq!(s.hellos[0].process, scene.worker.process());
        assert_eq!(s.ended.len(), 1, "the end of a split is said once, and at once");
    });
    until("report", || {
        scene.coordinator.with(|s| s.reports.iter().any(|r| r.records_delivered == 21).then_some(()))
    })
    .await;
    assert_eq!(scene.ledger.shares.lock().unwrap().first(), Some(&1));
}

/// Its last report may be before it; a new epoch, as after `RESUME`, goes on before the row.
#[tokio::test]
async fn a_run_that_ends_at_a_bad_row_tells_of_it_and_the_next_tries_again() {
    let scene = Scene::new("refused").await;
    *scene.ledger.refused.lock().unwrap() = Some(3);
    scene.running(100).await;
    let released = scene.released(100).await;
    assert_eq!((released.drained, released.error_kind.as_str()), (true, "rejected"));
    assert!(
        released.error.ends_with("record 3 of split `s-0` was refused: not this one"),
        "{}",
        released.error
    );
    assert_eq!(final_position(&released), Position::After(Cursor::new("2")));
    let told = scene.coordinator.with(|s| s.reports.iter().flat_map(|r| r.bad.clone()).collect::<Vec<_>>());
    let told: Vec<_> = told.into_iter().chain(released.bad).collect();
    assert_eq!(told.len(), 1, "once, in a report or with the end: {told:?}");
    assert_eq!(
        (told[0].cursor.as_str(), told[0].policy.as_str(), &told[0].sample[..]),
        ("3", "fail", &b"data=3"[..])
    );
    *scene.ledger.refused.lock().unwrap() = None;
    scene.running(101).await;
    until("the row", || scene.ledger.of(epoch(101)).contains(&3).then_some(())).await;
}

/// P7, P8: an orderly stop answers `drained` with the final position; the next epoch goes on from there.
#[tokio::test]
async fn a_stopped_run_drains_and_its_epoch_never_runs_again() {
    let scene = Scene::new("drains").await;
    scene.running(100).await;
    scene.coordinator.list(scene.stop_list(100, Duration::from_secs(5)));
    let released = scene.released(100).await;
    assert!(released.drained && released.error.is_empty());
    let Position::After(cursor) = final_position(&released) else { panic!("no final position") };
    let delivered = scene.ledger.of(epoch(100));
    assert!(delivered.last().unwrap() >= &cursor.as_str().parse().unwrap());
    // Asked to run it again, it says again that it is over.
    scene.coordinator.list(scene.run_list(100));
    until("said again", || (scene.coordinator.released(epoch(100)).len() >= 2).then_some(())).await;
    assert_eq!(scene.ledger.of(epoch(100)), delivered, "the epoch ran again");
    scene.running(101).await;
}

#[tokio::test]
async fn an_epoch_that_never_ran_here_is_answered_and_never_starts() {
    let scene = Scene::new("never-ran").await;
    scene.coordinator.list(scene.stop_list(100, Duration::from_secs(1)));
    assert!(scene.released(100).await.drained);
    scene.coordinator.list(scene.run_list(100));
    until("said again", || (scene.coordinator.released(epoch(100)).len() >= 2).then_some(())).await;
    scene.running(101).await;
    assert!(scene.ledger.of(epoch(100)).is_empty());
}

#[tokio::test]
async fn a_run_that_cannot_drain_in_time_is_dropped_and_answered_as_stopped() {
    let scene = Scene::with("late", u64::MAX, |c| c.write_attempt_timeout = Duration::from_secs(30)).await;
    scene.running(100).await;
    *scene.ledger.stuck.lock().unwrap() = true;
    let before = scene.ledger.count();
    tokio::time::sleep(Duration::from_millis(50)).await;
    scene.coordinator.list(scene.stop_list(100, Duration::from_millis(200)));
    assert!(!scene.released(100).await.drained);
    *scene.ledger.stuck.lock().unwrap() = false;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(scene.ledger.count() <= before + 1, "a dropped delivery went on");
}

#[tokio::test]
async fn a_fenced_epoch_is_dropped_at_once_and_an_unlisted_one_too() {
    let scene = Scene::new("fenced").await;
    scene.running(100).await;
    scene.coordinator.list(scene.stop_list(100, Duration::ZERO));
    assert!(!scene.released(100).await.drained);
    scene.running(101).await;
    scene.coordinator.list(scene.list());
    assert!(!scene.released(101).await.drained, "what is not listed must not run");
}

/// P6: a newer epoch of a running task replaces it; the two never run together.
#[tokio::test]
async fn a_newer_epoch_replaces_the_older() {
    let scene = Scene::new("replaces").await;
    scene.running(100).await;
    scene.running(101).await;
    assert!(!scene.released(100).await.drained);
    let rows = scene.ledger.rows.lock().unwrap().clone();
    let switch = rows.iter().position(|(e, _)| *e == epoch(101)).unwrap();
    assert!(rows[switch..].iter().all(|(e, _)| *e == epoch(101)));
}

/// P2: unanswered for `fence_after`, all runs end for good; the epoch stays over after the leader is back.
#[tokio::test]
async fn an_unanswered_worker_ends_its_runs_for_good() {
    let scene = Scene::new("self-fence").await;
    scene.running(100).await;
    scene.coordinator.with(|s| s.answers = false);
    let mut last = (scene.ledger.count(), tokio::time::Instant::now());
    until("deliveries stop", || {
        let count = scene.ledger.count();
        if count != last.0 {
            last = (count, tokio::time::Instant::now());
        }
        (last.1.elapsed() > Duration::from_millis(300)).then_some(())
    })
    .await;
    scene.coordinator.with(|s| s.answers = true);
    let released = scene.released(100).await;
    assert!(!released.drained, "it stopped; a request of it may still land");
    assert_eq!(scene.ledger.count(), last.0, "it went on after it was answered again");
    let hello = scene.coordinator.with(|s| s.hellos.last().unwrap().clone());
    assert!(hello.running.is_empty() && hello.process == scene.worker.process());
    scene.running(101).await;
}

/// Data goes on through a change of leader; what was not confirmed is said again to the new one.
#[tokio::test]
async fn runs_go_on_through_a_change_of_leader_and_progress_is_sent_again() {
    let standby = Coordinator::start(20).await;
    let url = standby.url();
    let scene = Scene::with("change", u64::MAX, |c| c.coordinators.push(url)).await;
    standby.with(|s| s.redirect = Some(scene.coordinator.url()));
    scene.coordinator.with(|s| s.commits = false);
    scene.running(100).await;
    until("progress", || scene.coordinator.with(|s| (s.progress.len() > 1).then_some(()))).await;
    standby.with(|s| s.redirect = None);
    standby.list(scene.run_list(100));
    scene.coordinator.crash();
    let hello =
        until("hello", || standby.with(|s| s.hellos.iter().find(|h| !h.running.is_empty()).cloned())).await;
    assert_eq!(hello.running[0].epoch, Some(epoch(100).into()));
    until("progress again", || standby.with(|s| (!s.progress.is_empty()).then_some(()))).await;
    let delivered = scene.ledger.of(epoch(100));
    assert!(delivered.windows(2).all(|w| w[0] + 1 == w[1]), "the run was started again: {delivered:?}");
    assert!(standby.released(epoch(100)).is_empty());
}

/// P4: a message of an older leader is ignored.
#[tokio::test]
async fn a_deposed_leader_is_ignored() {
    let scene = Scene::new("deposed").await;
    scene.running(100).await;
    scene.coordinator.with(|s| s.revision = 9);
    scene.coordinator.list(scene.stop_list(100, Duration::ZERO));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(scene.coordinator.released(epoch(100)).is_empty());
    let before = scene.ledger.count();
    until("goes on", || (scene.ledger.count() > before).then_some(())).await;
    scene.coordinator.with(|s| s.revision = 11);
    scene.coordinator.list(scene.stop_list(100, Duration::from_secs(1)));
    assert!(scene.released(100).await.drained);
}

/// A store that was restored gives out small revisions again; its generation says that they are newer.
#[tokio::test]
async fn a_leader_of_a_later_generation_is_heard_whatever_its_revision() {
    let restored = Coordinator::start(3).await;
    restored.with(|s| s.generation = 5);
    let url = restored.url();
    let scene = Scene::with("restored", u64::MAX, |c| c.coordinators.push(url)).await;
    restored.with(|s| s.redirect = Some(scene.coordinator.url()));
    scene.running(100).await;
    restored.with(|s| s.redirect = None);
    let newer = Epoch { generation: 5, revision: 4 };
    let run = run(&scene.task, newer, &scene.source);
    restored.list(v1::SetTasks { run: vec![run], ..scene.list() });
    scene.coordinator.crash();
    let hello =
        until("hello", || restored.with(|s| s.hellos.iter().find(|h| h.newest_leader.is_some()).cloned()))
            .await;
    assert_eq!(hello.newest_leader, Some(v1::Leader { generation: 0, revision: 10 }));
    until("it delivers", || (!scene.ledger.of(newer).is_empty()).then_some(())).await;
    // What the leader of before says now is not heard any more.
    restored.with(|s| (s.generation, s.revision) = (4, 11));
    restored.list(v1::SetTasks { stop: vec![stop(&scene.task, newer, Duration::ZERO)], ..scene.list() });
    let before = scene.ledger.count();
    until("goes on", || (scene.ledger.count() > before + 20).then_some(())).await;
    assert!(restored.released(newer).is_empty());
}

#[tokio::test]
async fn a_worker_says_what_it_speaks_and_a_coordinator_that_it_cannot_follow_ends_it() {
    let newer = Coordinator::start(20).await;
    newer.with(|s| s.protocol = proto::Protocols::OURS.to() + 1);
    let url = newer.url();
    let scene = Scene::with("protocol", u64::MAX, |c| c.coordinators = vec![url]).await;
    let ended = tokio::time::timeout(Duration::from_secs(20), scene.worker.join()).await.unwrap();
    let error = ended.unwrap_err();
    assert!(matches!(error, Error::Config(_)), "{error}");
    assert!(error.to_string().contains("one minor version apart; upgrade this worker"), "{error}");
    let hello = newer.with(|s| s.hellos[0].clone());
    let ours = proto::Protocols::OURS;
    assert_eq!((hello.protocol_from, hello.protocol_to), (ours.from(), ours.to()));
}

/// P11: the first gate counts, from the receipt of its list.
#[tokio::test]
async fn the_first_gate_of_an_epoch_counts() {
    let scene = Scene::new("gate").await;
    let gated = |gate: Duration| {
        let mut list = scene.run_list(100);
        list.run[0].gate = Some(prost_types::Duration::try_from(gate).unwrap());
        list
    };
    scene.coordinator.list(gated(Duration::from_millis(400)));
    let start = tokio::time::Instant::now();
    until("list", || (!scene.ledger.shares.lock().unwrap().is_empty()).then_some(())).await;
    scene.coordinator.list(gated(Duration::from_secs(60)));
    until("delivery", || (scene.ledger.count() > 0).then_some(())).await;
    assert!(start.elapsed() >= Duration::from_millis(390), "{:?}", start.elapsed());
}

#[tokio::test]
async fn an_orderly_stop_hands_everything_over_and_leaves() {
    let scene = Scene::new("leaves").await;
    scene.running(100).await;
    scene.cancel.cancel();
    until("drain", || scene.coordinator.with(|s| (s.drains > 0).then_some(()))).await;
    scene.coordinator.list(scene.stop_list(100, Duration::from_secs(1)));
    let released = scene.released(100).await;
    assert!(released.drained && released.final_progress.is_some());
    scene.coordinator.list(scene.list());
    let started = tokio::time::Instant::now();
    scene.worker.join().await.unwrap();
    assert!(started.elapsed() < Duration::from_millis(500));
}

/// A destination that takes nothing does not keep a process from stopping: the drain has a deadline.
#[tokio::test]
async fn an_orderly_stop_whose_runs_cannot_drain_ends_by_its_deadline_and_says_stopped() {
    let scene = Scene::with("stuck-stop", u64::MAX, |c| {
        c.write_attempt_timeout = Duration::from_secs(30);
        c.drain_deadline = Duration::from_millis(500);
    })
    .await;
    scene.running(100).await;
    *scene.ledger.stuck.lock().unwrap() = true;
    scene.cancel.cancel();
    until("drain", || scene.coordinator.with(|s| (s.drains > 0).then_some(()))).await;
    // Nobody tells it what to stop.
    let released = scene.released(100).await;
    assert!(!released.drained, "something of it may still land");
    tokio::time::timeout(Duration::from_secs(30), scene.worker.join()).await.expect("it hangs").unwrap();
}

#[tokio::test]
async fn an_orderly_stop_without_a_leader_still_ends() {
    let scene = Scene::new("alone").await;
    scene.running(100).await;
    scene.coordinator.crash();
    scene.cancel.cancel();
    let joined = tokio::time::timeout(Duration::from_secs(6), scene.worker.join()).await;
    joined.expect("it hangs").unwrap();
}

#[tokio::test]
async fn a_refusal_for_good_ends_the_worker_with_its_reason() {
    let strict = Coordinator::start(20).await;
    let refuse = v1::Refused { reason: "a worker of that name is alive".to_owned(), retry: false };
    strict.with(|s| s.refuse = Some(refuse));
    let url = strict.url();
    let scene = Scene::with("refused", u64::MAX, |c| c.coordinators = vec![url]).await;
    let error = scene.worker.join().await.unwrap_err();
    assert!(matches!(&error, Error::Refused { reason, .. } if reason.contains("is alive")), "{error}");
}

/// P1, P2: another process took its name while it was silent, and the leader that refuses it may know nothing of that.
#[tokio::test]
async fn a_worker_that_spoke_for_its_name_and_is_refused_stops() {
    let scene = Scene::new("superseded").await;
    let refuse = v1::Refused { reason: "a worker of that name is alive".to_owned(), retry: true };
    scene.running(100).await;
    scene.coordinator.refuse(refuse);
    let ended = tokio::time::timeout(Duration::from_secs(20), scene.worker.join()).await.unwrap();
    let error = ended.unwrap_err();
    assert!(matches!(&error, Error::Refused { reason, .. } if reason.contains("is alive")), "{error}");
}

/// P10: the gates of other workers count on it.
#[tokio::test]
async fn a_worker_whose_requests_may_land_later_than_the_gates_assume_does_not_run() {
    let strict = Coordinator::start(20).await;
    strict.with(|s| s.last_breath = Some(Duration::from_millis(499)));
    let url = strict.url();
    let scene = Scene::with("breath", u64::MAX, |c| c.coordinators = vec![url]).await;
    let ended = tokio::time::timeout(Duration::from_secs(20), scene.worker.join()).await.unwrap();
    let error = ended.unwrap_err();
    assert!(matches!(error, Error::Config(_)), "{error}");
    assert!(
        error.to_string().contains("`worker.write_attempt_timeout` + `worker.late_write_margin`"),
        "{error}"
    );
}

#[tokio::test]
async fn a_bad_object_fails_its_run_and_says_why() {
    let scene = Scene::new("bad-object").await;
    let mut list = scene.run_list(100);
    let mut sink = connectors::sink(&scene.name);
    sink.connector = "nope".to_owned();
    list.sinks = vec![serde_json::to_vec(&sink).unwrap()];
    scene.coordinator.list(list);
    let released = scene.released(100).await;
    assert!(released.drained);
    assert_eq!(released.error_kind, "config");
    assert!(released.error.contains("unsupported sink type nope"), "{}", released.error);
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_with_their_name() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { data_dir: dir.path().to_owned(), ..Config::default() };
    let start = |config: Config| {
        Worker::start(config, connectors::registry(), CancellationToken::new()).unwrap_err().to_string()
    };
    assert!(start(Config { coordinators: vec![], ..config.clone() }).contains("`coordinators` is empty"));
    assert!(start(Config { capacity: 0, ..config.clone() }).contains("`worker.capacity` must be at least 1"));
    assert!(start(Config { memory_budget: 10, ..config.clone() }).contains("`worker.memory_budget` must be"));
    assert!(
        start(Config { name: Some(" ".to_owned()), ..config.clone() }).contains("`worker.name` is empty")
    );
    let error = start(Config { coordinators: vec!["http://a b".to_owned()], ..config.clone() });
    assert!(error.contains("`http://a b` is not a URL"), "{error}");
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(start(Config { data_dir: file, ..config }).contains("cannot be made"));
}
