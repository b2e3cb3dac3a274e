//! The protocol's rules, each with the trace that made it necessary, as far as the leader's decisions can keep them.

mod world;

use std::{collections::BTreeMap, time::Duration};

use model::{Assignment, Epoch, Position, Predecessor, Release, TaskId};
use shardwright_logic::{
    Timing,
    assign::cost::Sample,
    checkpoint::{Moved, Verdict},
    gate::{Failure, Heard, Process, Released, RunEnd, gate},
    plan::{Action, RunReport, StopReason, list},
};
use world::{SECOND, World, id, task};

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn epoch(revision: u64) -> Epoch {
    Epoch { generation: 1, revision }
}

fn process(worker: &str, instance: &str, joined: u64, heard: u64) -> Process {
    Process {
        worker: worker.into(),
        instance: instance.into(),
        capacity: 1,
        zone: String::new(),
        joined_at: seconds(joined),
        heard_at: seconds(heard),
        draining: false,
    }
}

fn before(process: &str, instance: &str, revision: u64, release: Release) -> Predecessor {
    let (worker, process, instance) = ("w0".into(), process.into(), instance.into());
    Predecessor { of: None, worker, process, instance, epoch: epoch(revision), release }
}

fn heard() -> Heard {
    let mut heard = Heard { elected_at: seconds(100), ..Heard::default() };
    heard.processes.insert("p1".into(), process("w0", "i1", 101, 120));
    heard
}

fn wait(heard: &Heard, old: Predecessor, now: u64) -> u64 {
    gate(&task(100, "a"), &[old], heard, &Timing::default(), seconds(now)).as_secs()
}

#[test]
fn p10_of_silence_counts_from_what_was_heard_last() {
    // fence_after 5 s + last breath 6 s
    assert_eq!(wait(&heard(), before("p1", "i1", 7, Release::No), 120), 11);
    assert_eq!(wait(&heard(), before("p1", "i1", 7, Release::No), 126), 5);
    assert_eq!(wait(&heard(), before("p1", "i1", 7, Release::No), 140), 0);
}

#[test]
fn p10_what_this_term_did_not_hear_counts_from_the_election() {
    assert_eq!(wait(&heard(), before("p9", "i9", 7, Release::No), 100), 11);
    assert_eq!(wait(&heard(), before("p9", "i9", 7, Release::Stopped), 100), 6);
    assert_eq!(wait(&heard(), before("p9", "i9", 7, Release::Drained), 100), 0);
}

#[test]
fn p10_stopped_and_drained_count_from_when_the_leader_heard_of_it() {
    let mut heard = heard();
    let key = (task(100, "a"), epoch(7));
    heard.releases.insert(key.clone(), Released { drained: false, at: seconds(130), failure: None });
    assert_eq!(wait(&heard, before("p1", "i1", 7, Release::No), 130), 6);
    heard.releases.insert(key, Released { drained: true, at: seconds(130), failure: None });
    assert_eq!(wait(&heard, before("p1", "i1", 7, Release::No), 130), 0);
}

#[test]
fn p10_a_later_process_of_the_instance_proves_the_end_of_the_earlier() {
    let mut heard = heard();
    heard.processes.insert("p2".into(), process("w0", "i1", 122, 122));
    assert_eq!(wait(&heard, before("p1", "i1", 7, Release::No), 122), 6);
    // The proof is of this term, so a predecessor that was written down as stopped because of it counts from the join too.
    assert_eq!(wait(&heard, before("p1", "i1", 7, Release::Stopped), 122), 6);
    // Not the other way round: the earlier one proves nothing about the later.
    assert_eq!(wait(&heard, before("p2", "i1", 8, Release::No), 122), 11);
}

#[test]
fn p10_another_instance_under_the_same_name_proves_nothing() {
    let mut heard = heard();
    heard.processes.insert("p2".into(), process("w0", "i2", 127, 127));
    assert_eq!(wait(&heard, before("p1", "i1", 7, Release::No), 127), 4);
    let mut nameless = self::heard();
    nameless.processes.insert("p3".into(), process("w0", "", 127, 127));
    assert_eq!(wait(&nameless, before("p9", "", 7, Release::No), 127), 0, "100 + 11 has passed");
    assert_eq!(
        wait(&nameless, before("p9", "", 7, Release::No), 105),
        6,
        "an unnamed instance proves nothing"
    );
}

#[test]
fn p10_the_gate_is_that_of_the_last_of_all_predecessors() {
    let chain = [before("p1", "i1", 7, Release::No), before("p9", "i9", 8, Release::Stopped)];
    let wait = gate(&task(100, "a"), &chain, &heard(), &Timing::default(), seconds(101));
    assert_eq!(wait, seconds(120 + 11 - 101));
}

#[test]
fn a_run_of_an_unheard_process_is_given_up_a_session_after_the_election() {
    let run = Assignment {
        partitions: None,
        worker: "w5".into(),
        process: "p5".into(),
        instance: "i5".into(),
        spec_revision: 1,
        lane: 0,
        start: Position::End,
        predecessors: vec![],
    };
    let ask = |now| heard().run_end(&task(100, "a"), (epoch(3), &run), &Timing::default(), seconds(now));
    assert_eq!(ask(102), RunEnd::Silent(seconds(4)));
    assert_eq!(ask(106), RunEnd::Over(Release::No));
}

/// P9: A → B → C remembered only B.
#[test]
fn p9_the_third_owner_still_waits_for_the_first() {
    let mut world = World::new(1, 1, 3);
    world.ticks(2);
    let t = task(100, "s000");
    let first = world.owner(&t).unwrap().to_owned();
    let first_epoch = world.observed.assignments[&t].0;
    world.workers.get_mut(&first).unwrap().cut_off = true;
    world.ticks(6);
    let second = world.owner(&t).unwrap().to_owned();
    assert_ne!(first, second);
    world.workers.get_mut(&second).unwrap().draining = true;
    world.ticks(2);
    let (_, run) = &world.observed.assignments[&t];
    assert!(run.worker != first && run.worker != second);
    assert!(run.predecessors.iter().any(|old| old.epoch == first_epoch), "{:?}", run.predecessors);
    world.ticks(30); // the world asserts that nobody writes too early
    assert!(world.observed.checkpoints.contains_key(&t));
}

/// P6: a new process of a worker never runs an epoch of the old one.
#[test]
fn p6_a_restarted_worker_gets_a_new_epoch_at_once() {
    let mut world = World::new(1, 1, 1);
    world.ticks(2);
    let t = task(100, "s000");
    let old = world.observed.assignments[&t].0;
    world.kill("w0");
    world.start_worker("w0", true);
    world.ticks(1);
    let (new, run) = &world.observed.assignments[&t];
    assert!(*new > old);
    assert_eq!(run.predecessors.len(), 1);
    assert_eq!(run.predecessors[0].release, Release::Stopped, "the instance proves that it is over");
}

/// P7: stop by omission got stuck.
#[test]
fn p7_a_predecessor_that_lives_is_asked_to_stop_by_name() {
    let mut world = World::new(1, 1, 2);
    world.ticks(2);
    let t = task(100, "s000");
    let old = world.observed.assignments[&t].clone();
    let owner = old.1.worker.clone();
    world.workers.get_mut(&owner).unwrap().cut_off = true;
    world.ticks(7);
    assert_ne!(world.owner(&t), Some(owner.as_str()));
    let orders = list(&world.desired, &world.observed, &old.1.process, &world.timing, world.now);
    assert_eq!(orders.run, vec![]);
    assert_eq!(orders.stop.len(), 1);
    assert_eq!((orders.stop[0].epoch, orders.stop[0].deadline), (old.0, Duration::ZERO));
    // It comes back, answers, and the gate no longer counts its heartbeats.
    world.workers.get_mut(&owner).unwrap().cut_off = false;
    world.ticks(2);
    let orders = list(&world.desired, &world.observed, &old.1.process, &world.timing, world.now);
    assert_eq!(orders.stop, vec![]);
}

/// P15, and I2 across a change of leader.
#[test]
fn p15_a_child_waits_and_the_plan_says_for_whom() {
    let mut world = World::new(1, 1, 1);
    world.ticks(1);
    world.split_at(0);
    world.discover();
    world.plan();
    let child = task(100, "s001");
    assert_eq!(world.last_plan.waiting[&child], "split s001 waits for parent s000 of sink out0");
    world.change_leader();
    world.tick(SECOND);
    assert!(!world.observed.assignments.contains_key(&child));
}

#[test]
fn a_merged_child_waits_for_both_parents() {
    let mut world = World::new(2, 1, 1);
    world.shards.get_mut("s001").unwrap().records = 400;
    world.ticks(1);
    world.merge_at(0);
    world.discover();
    world.ticks(8);
    let child = task(100, "s002");
    assert_eq!(world.last_plan.waiting[&child], "split s002 waits for parent s001 of sink out0");
    world.settle();
}

#[test]
fn a_pause_drains_and_a_resume_starts_a_new_epoch() {
    let mut world = World::new(1, 1, 1);
    world.ticks(2);
    let t = task(100, "s000");
    let old = world.observed.assignments[&t].0;
    world.desired.sinks.get_mut(&id(100)).unwrap().paused = true;
    world.plan();
    let reason = world.last_plan.actions.iter().find_map(|action| match action {
        Action::Stop(stop) => Some(stop.reason),
        _ => None,
    });
    assert_eq!(reason, Some(StopReason::Pause));
    world.ticks(3);
    assert!(world.observed.assignments.is_empty());
    assert_eq!(world.last_plan.waiting[&t], "sink out0 is paused");
    let sink = world.desired.sinks.get_mut(&id(100)).unwrap();
    (sink.paused, sink.revision) = (false, 2);
    world.ticks(1);
    assert!(world.observed.assignments[&t].0 > old);
    assert!(world.observed.assignments[&t].1.predecessors.is_empty(), "it was drained");
}

#[test]
fn a_changed_spec_reaches_every_run_through_a_drain_and_nobody_moves() {
    let mut world = World::new(6, 1, 3);
    world.ticks(3);
    let homes: Vec<String> = world.observed.assignments.values().map(|(_, run)| run.worker.clone()).collect();
    world.desired.sources.get_mut(&id(1)).unwrap().revision += 1;
    world.ticks(4);
    let now: Vec<String> = world.observed.assignments.values().map(|(_, run)| run.worker.clone()).collect();
    assert_eq!(homes, now);
    assert!(world.observed.assignments.values().all(|(_, run)| run.spec_revision == 3));
}

#[test]
fn a_dropped_sink_leaves_no_key_and_a_dropped_source_neither() {
    let mut world = World::new(3, 2, 2);
    world.ticks(3);
    world.desired.sinks.get_mut(&id(100)).unwrap().dropping = true;
    world.ticks(3);
    assert!(!world.desired.sinks.contains_key(&id(100)));
    let mine = |sink| {
        world.observed.assignments.keys().chain(world.observed.checkpoints.keys()).any(|t| t.sink == id(sink))
    };
    assert!(!mine(100) && mine(101));
    world.kill("w0");
    world.desired.sinks.get_mut(&id(101)).unwrap().dropping = true;
    world.desired.sources.get_mut(&id(1)).unwrap().dropping = true;
    world.ticks(10);
    assert!(world.desired.sinks.is_empty() && world.desired.sources.is_empty());
    assert!(world.observed.assignments.is_empty() && world.observed.checkpoints.is_empty());
    assert!(world.observed.splits.is_empty());
}

#[test]
fn a_failed_run_is_tried_again_later_and_later() {
    let mut world = World::new(1, 1, 1);
    world.ticks(1);
    let t = task(100, "s000");
    let fail = |world: &mut World, count, needs_human| {
        let old = world.observed.assignments[&t].0;
        let failure = Failure { needs_human, message: "disk is full".into(), count };
        let released = Released { drained: true, at: world.now, failure: Some(failure) };
        world.observed.heard.releases.insert((t.clone(), old), released);
        world.workers.get_mut("w0").unwrap().runs.clear();
        old
    };
    for (count, wait) in [(1_u32, 1_u32), (2, 2), (3, 4), (6, 30), (60, 30)] {
        let old = fail(&mut world, count, false);
        world.tick(SECOND / 2);
        assert!(world.last_plan.waiting[&t].starts_with("failed: disk is full; next try in"));
        for _ in 0..wait {
            assert_eq!(world.observed.assignments[&t].0, old);
            world.tick(SECOND);
        }
        assert!(world.observed.assignments[&t].0 > old);
    }
    let old = fail(&mut world, 1, true);
    world.ticks(50);
    assert_eq!(world.observed.assignments[&t].0, old);
    world.desired.sinks.get_mut(&id(100)).unwrap().revision += 1; // RESUME
    world.tick(SECOND);
    assert!(world.observed.assignments[&t].0 > old);
}

#[test]
fn without_a_worker_the_plan_says_so() {
    let mut world = World::new(1, 1, 0);
    world.ticks(1);
    assert_eq!(world.last_plan.waiting[&task(100, "s000")], "no live worker");
    world.start_worker("w0", true);
    world.workers.get_mut("w0").unwrap().draining = true;
    world.ticks(1);
    assert_eq!(world.last_plan.waiting[&task(100, "s000")], "every live worker is draining");
}

#[test]
fn a_drain_empties_a_worker_and_takes_nothing_from_the_others() {
    let mut world = World::new(9, 1, 3);
    world.ticks(40);
    let kept: Vec<_> = world
        .observed
        .assignments
        .iter()
        .filter(|(_, (_, run))| run.worker != "w1")
        .map(|(t, (e, _))| (t.clone(), *e))
        .collect();
    world.workers.get_mut("w1").unwrap().draining = true;
    world.ticks(4);
    assert_eq!(world.owners().get("w1"), None);
    assert!(kept.iter().all(|(t, e)| world.observed.assignments[t].0 == *e));
    world.is_even();
}

#[test]
fn the_balancer_waits_for_a_lost_worker_and_then_gives_its_tasks_back() {
    let mut world = World::new(9, 1, 3);
    world.ticks(40);
    let home: Vec<_> =
        world.observed.assignments.keys().filter(|t| world.owner(t) == Some("w2")).cloned().collect();
    world.kill("w2");
    world.ticks(10);
    assert_eq!(world.owners().values().sum::<usize>(), 9, "its tasks ran elsewhere at once");
    world.start_worker("w2", false);
    world.ticks(200);
    world.is_even();
    let back = home.iter().filter(|t| world.owner(t) == Some("w2")).count();
    assert_eq!(back, home.len(), "the old home is preferred");
    assert_eq!(world.moves, 3, "no more moves than needed");
}

#[test]
fn a_new_worker_gets_its_share_at_once_a_few_tasks_at_a_time() {
    let mut world = World::new(24, 1, 1);
    world.ticks(40);
    world.start_worker("w1", true);
    world.ticks(1);
    assert_eq!(world.moves, 4, "no more are on their way at a time");
    world.ticks(20);
    world.is_even();
    assert_eq!(world.moves, 12);
    world.ticks(100);
    assert_eq!(world.moves, 12);
}

/// Each in turn is stopped in order and started again, well within the grace: a task goes away once and comes back once.
#[test]
fn a_rolling_restart_moves_the_tasks_of_the_restarted_worker_only() {
    let mut world = World::new(12, 2, 4);
    world.ticks(40);
    let owners = |world: &World| -> BTreeMap<TaskId, String> {
        world.observed.assignments.iter().map(|(t, (_, run))| (t.clone(), run.worker.clone())).collect()
    };
    let before = owners(&world);
    for name in ["w0", "w1", "w2", "w3"] {
        let at_start = owners(&world);
        let epochs = world.observed.assignments.clone();
        let assigned = world.assigned;
        world.workers.get_mut(name).unwrap().draining = true;
        world.ticks(4);
        world.kill(name);
        world.ticks(3);
        let away = world.assigned - assigned;
        assert_eq!(away, 6, "its tasks went, and no others");
        world.start_worker(name, true);
        world.ticks(12);
        assert_eq!(world.assigned - assigned, 12, "they came back, each once");
        assert_eq!(owners(&world), at_start, "after {name}");
        for (task, (epoch, run)) in &epochs {
            let now = world.observed.assignments[task].0;
            assert_eq!(now == *epoch, run.worker != name, "{task} of {} while {name} restarts", run.worker);
        }
    }
    assert_eq!(owners(&world), before);
    world.ticks(200);
    assert_eq!(owners(&world), before);
}

#[test]
fn a_lane_never_holds_more_than_a_transaction_can_carry() {
    let mut world = World::new(300, 1, 1);
    world.ticks(3);
    let mut lanes = std::collections::BTreeMap::new();
    for (_, run) in world.observed.assignments.values() {
        *lanes.entry(run.lane).or_insert(0) += 1;
    }
    assert_eq!(lanes, [(0, 126), (1, 126), (2, 48)].into());
}

/// S11: a worker that was paused beyond its session reports a position; the checkpoint does not move.
#[test]
fn p14_the_progress_of_a_replaced_epoch_is_fenced() {
    let mut world = World::new(1, 1, 2);
    world.ticks(3);
    let t = task(100, "s000");
    let old = world.observed.assignments[&t].0;
    let owner = world.owner(&t).unwrap().to_owned();
    world.kill(&owner);
    world.ticks(8);
    let moved = |epoch, serial| Moved {
        task: t.clone(),
        epoch,
        serial,
        position: Position::End,
        records: 9,
        caught_up_at: None,
        gap: None,
    };
    assert_eq!(world.pending.offer(&world.observed, moved(old, 99)), Verdict::Fenced);
    let new = world.observed.assignments[&t].0;
    assert_eq!(world.pending.offer(&world.observed, moved(new, 1)), Verdict::Taken);
}

#[test]
fn totals_go_on_across_runs_and_leaders() {
    let mut world = World::new(1, 1, 1);
    world.shards.get_mut("s000").unwrap().records = 1000;
    world.ticks(4);
    let t = task(100, "s000");
    let records = |world: &World| world.observed.checkpoints[&t].value.records;
    let first = records(&world);
    world.change_leader();
    world.ticks(1);
    assert_eq!(records(&world), first + 5, "a new leader counts only what is new");
}

#[test]
fn hot_splits_are_exchanged_for_quiet_ones() {
    let mut world = World::new(4, 1, 2);
    world.ticks(10);
    let of = |world: &World, worker: &str| -> Vec<_> {
        let tasks = world.observed.assignments.keys();
        tasks.filter(|t| world.owner(t) == Some(worker)).cloned().collect()
    };
    let (hot, quiet) = (of(&world, "w0"), of(&world, "w1"));
    for _ in 0..60 {
        let mut heard = Vec::new();
        for (t, (epoch, _)) in &world.observed.assignments {
            let bytes_per_second = if hot.contains(t) { 3e6 } else { 1e3 };
            let sample = Sample { bytes_per_second, ..Sample::default() };
            heard.push((t.clone(), RunReport { epoch: *epoch, failed: None, sample }));
        }
        for (t, report) in heard {
            world.observed.reported(t, report, world.now);
        }
        world.ticks(1);
    }
    for worker in ["w0", "w1"] {
        let now = of(&world, worker);
        let count = |of: &[model::TaskId]| now.iter().filter(|t| of.contains(t)).count();
        assert_eq!((count(&hot), count(&quiet)), (1, 1), "{worker} has {now:?}");
    }
    assert_eq!(world.moves, 2);
}
