//! Checkpoints in groups: never back (I4), never by a run that was replaced (I3), never past a transaction's size.

mod world;

use model::{Assignment, Cursor, Epoch, Position, TaskId, Timestamp};
use proptest::prelude::*;
use shardwright_logic::{
    checkpoint::{LANE_TASKS_MAX, Moved, Pending, Verdict},
    invariant::{World as Look, check},
    plan::{Desired, Observed},
};
use world::{World, id, task};

fn epoch(revision: u64) -> Epoch {
    Epoch { generation: 1, revision }
}

fn moved(task: &TaskId, revision: u64, serial: u64, end: bool) -> Moved {
    let position =
        if end { Position::End } else { Position::After(Cursor::new(format!("{revision}-{serial}"))) };
    Moved {
        task: task.clone(),
        epoch: epoch(revision),
        serial,
        position,
        records: serial * 10,
        caught_up_at: None,
        gap: None,
    }
}

fn assign(observed: &mut Observed, task: &TaskId, revision: u64, lane: u32) {
    let run = Assignment {
        partitions: None,
        worker: "w0".into(),
        process: "p0".into(),
        instance: "i0".into(),
        spec_revision: 1,
        lane,
        start: Position::Start(model::StartFrom::Horizon),
        predecessors: vec![],
    };
    observed.assignments.insert(task.clone(), (epoch(revision), run));
}

/// Writes everything that waits.
fn write(pending: &mut Pending, observed: &mut Observed, revision: u64) {
    for group in pending.groups(observed, Timestamp(0), |_| true) {
        for (task, checkpoint) in group.writes {
            pending.committed(&task, &checkpoint);
            observed.checkpointed(task, checkpoint, revision);
        }
    }
}

/// S8: what was gone before it could be read stays with the task's position.
#[test]
fn a_gap_stays_in_the_checkpoint_with_the_moment_it_was_found() {
    let (mut pending, mut observed) = (Pending::default(), Observed::default());
    let task = task(100, "s000");
    let gap = |text: &str| Some(text.to_owned());
    let mut found = Vec::new();
    for (revision, serial, gap) in
        [(1, 1, None), (1, 2, gap("a")), (1, 3, gap("a")), (2, 1, None), (2, 2, gap("a")), (2, 3, gap("b"))]
    {
        assign(&mut observed, &task, revision, 0);
        pending.offer(&observed, Moved { gap, ..moved(&task, revision, serial, false) });
        let at = Timestamp(i64::try_from(10 * revision + serial).unwrap());
        for group in pending.groups(&observed, at, |_| true) {
            for (task, checkpoint) in group.writes {
                pending.committed(&task, &checkpoint);
                found.push(checkpoint.gap.clone().map(|gap| (gap.message, gap.at.0)));
                observed.checkpointed(task, checkpoint, revision);
            }
        }
    }
    let since = |text: &str, at| Some((text.to_owned(), at));
    assert_eq!(found, [None, since("a", 12), since("a", 12), since("a", 12), since("a", 12), since("b", 23)]);
}

proptest! {
    /// Progress arrives late, twice and out of order, from old runs and new ones, while the task is reassigned and checkpoints
    /// are written: what stands in the store only moves forward, and only by the run that owned the task.
    #[test]
    fn checkpoints_only_move_forward(
        steps in prop::collection::vec((0_u8..8, 1_u64..6, 1_u64..12, prop::bool::weighted(0.1)), 1..120),
    ) {
        let t = task(100, "a");
        let (mut observed, mut pending, mut owner) = (Observed::default(), Pending::default(), 1);
        assign(&mut observed, &t, owner, 0);
        for (n, (what, age, serial, end)) in (1_000..).zip(steps) {
            let before = observed.clone();
            match what {
                0 => {
                    owner += 1;
                    assign(&mut observed, &t, owner, u32::try_from(owner % 3).unwrap());
                }
                1 | 2 => write(&mut pending, &mut observed, n),
                _ => {
                    let by = (owner + 1).saturating_sub(age);
                    let verdict = pending.offer(&observed, moved(&t, by, serial, end));
                    prop_assert_eq!(verdict == Verdict::Fenced, by != owner);
                }
            }
            let desired = Desired { sinks: [(id(100), world::sink(0))].into(), ..Desired::default() };
            let look = |observed| Look { desired: &desired, observed };
            prop_assert_eq!(check(look(&observed), Some(look(&before))), vec![]);
            if let Some(stored) = before.checkpoints.get(&t).filter(|stored| stored.value.position.is_end()) {
                prop_assert_eq!(&observed.checkpoints[&t], stored, "an end is final");
            }
            prop_assert_eq!(pending.is_empty(), pending.lanes().next().is_none());
        }
    }
}

#[test]
fn a_full_lane_goes_in_several_transactions_and_ends_go_first() {
    let (mut observed, mut pending) = (Observed::default(), Pending::default());
    let tasks: Vec<TaskId> = (0..200).map(|n| task(100, &format!("s{n:03}"))).collect();
    for (n, t) in tasks.iter().enumerate() {
        assign(&mut observed, t, 5, 0);
        pending.offer(&observed, moved(t, 5, 1, n == 199));
    }
    let groups = pending.groups(&observed, Timestamp(0), |_| true);
    assert_eq!((groups.len(), groups[0].writes.len()), (1, LANE_TASKS_MAX));
    assert!(groups[0].writes.iter().any(|(t, c)| *t == tasks[199] && c.position.is_end()));
    write(&mut pending, &mut observed, 9);
    assert_eq!(pending.len(), 200 - LANE_TASKS_MAX);
    write(&mut pending, &mut observed, 10);
    assert!(pending.is_empty());
    assert_eq!(observed.checkpoints.len(), 200);
}

#[test]
fn a_lane_that_may_not_go_yet_keeps_what_waits() {
    let (mut observed, mut pending) = (Observed::default(), Pending::default());
    let (a, b) = (task(100, "a"), task(100, "b"));
    assign(&mut observed, &a, 5, 0);
    assign(&mut observed, &b, 6, 1);
    for (t, epoch) in [(&a, 5), (&b, 6)] {
        pending.offer(&observed, moved(t, epoch, 1, false));
    }
    let groups = pending.groups(&observed, Timestamp(0), |(_, lane)| *lane == 1);
    assert_eq!(groups.iter().map(|group| &group.writes[0].0).collect::<Vec<_>>(), [&b]);
    assert_eq!(pending.len(), 2, "nothing is forgotten before it is durable");
    assert_eq!(pending.groups(&observed, Timestamp(0), |_| true).len(), 2);
}

#[test]
fn what_is_durable_is_said_again() {
    let (mut observed, mut pending) = (Observed::default(), Pending::default());
    let t = task(100, "a");
    assign(&mut observed, &t, 5, 0);
    assert_eq!(pending.offer(&observed, moved(&t, 5, 3, false)), Verdict::Taken);
    assert_eq!(pending.offer(&observed, moved(&t, 5, 2, false)), Verdict::Taken);
    assert_eq!(pending.get(&t).unwrap().serial, 3, "the newer one stays");
    write(&mut pending, &mut observed, 9);
    assert_eq!(pending.offer(&observed, moved(&t, 5, 3, false)), Verdict::Durable);
    assert_eq!(pending.offer(&observed, moved(&t, 4, 9, false)), Verdict::Fenced);
}

#[test]
fn a_position_of_a_run_that_was_replaced_while_it_waited_is_dropped() {
    let (mut observed, mut pending) = (Observed::default(), Pending::default());
    let t = task(100, "a");
    assign(&mut observed, &t, 5, 0);
    pending.offer(&observed, moved(&t, 5, 3, false));
    assign(&mut observed, &t, 6, 1);
    assert_eq!(pending.groups(&observed, Timestamp(0), |_| true), vec![]);
    assert!(pending.is_empty());
}

#[test]
fn totals_count_each_record_of_each_run_once() {
    let (mut observed, mut pending) = (Observed::default(), Pending::default());
    let t = task(100, "a");
    assign(&mut observed, &t, 5, 0);
    for serial in [1, 2, 4] {
        pending.offer(&observed, moved(&t, 5, serial, false));
        write(&mut pending, &mut observed, 10 + serial);
    }
    assign(&mut observed, &t, 6, 0);
    pending.offer(&observed, moved(&t, 6, 3, false));
    write(&mut pending, &mut observed, 20);
    let checkpoint = &observed.checkpoints[&t].value;
    assert_eq!((checkpoint.records, checkpoint.run_records), (40 + 30, 30));
}

/// Breaks the world by hand, one promise at a time.
mod broken {
    use super::*;

    fn running() -> World {
        let mut world = World::new(1, 1, 1);
        world.ticks(3);
        world.split_at(0);
        world.discover();
        world
    }

    fn found(world: &World, earlier: Option<&Observed>) -> Vec<&'static str> {
        let look = |observed| Look { desired: &world.desired, observed };
        check(look(&world.observed), earlier.map(look)).into_iter().map(|v| v.id).collect()
    }

    #[test]
    fn a_child_that_runs_before_its_parent_ended_is_seen() {
        let mut world = running();
        assert_eq!(found(&world, None), Vec::<&str>::new());
        assign(&mut world.observed, &task(100, "s001"), 500, 0);
        assert_eq!(found(&world, None), ["I2"]);
    }

    #[test]
    fn a_child_that_delivered_before_its_parent_ended_is_seen() {
        let mut world = running();
        let earlier = world.observed.clone();
        let mut checkpoint = world.observed.checkpoints[&task(100, "s000")].value.clone();
        checkpoint.epoch = epoch(500);
        world.observed.checkpointed(task(100, "s001"), checkpoint, 501);
        assert_eq!(found(&world, Some(&earlier)), ["I2"]);
    }

    #[test]
    fn a_checkpoint_that_went_back_or_was_moved_by_an_old_run_is_seen() {
        let mut world = running();
        let (t, earlier) = (task(100, "s000"), world.observed.clone());
        let before = world.observed.checkpoints[&t].value.clone();
        let mut back = before.clone();
        back.serial -= 1;
        world.observed.checkpointed(t.clone(), back, 501);
        assert_eq!(found(&world, Some(&earlier)), ["I4"]);
        let mut again = before.clone();
        again.at.0 += 1;
        world.observed.checkpointed(t.clone(), again.clone(), 501);
        assert_eq!(found(&world, Some(&earlier)), [""; 0], "the same move, written twice");
        again.position = Position::After(Cursor::new("elsewhere"));
        world.observed.checkpointed(t.clone(), again, 501);
        assert_eq!(found(&world, Some(&earlier)), ["I4"], "one serial is one position");
        let mut zombie = before.clone();
        (zombie.epoch.revision, zombie.serial) = (before.epoch.revision - 1, 99);
        world.observed.checkpointed(t.clone(), zombie, 502);
        assert_eq!(found(&world, Some(&earlier)), ["I4", "I3"]);
        world.desired.sinks.get_mut(&id(100)).unwrap().instance += 1;
        let look = |desired, observed| Look { desired, observed };
        let old = Desired { sinks: [(id(100), world::sink(0))].into(), ..world.desired.clone() };
        let after_reset = check(look(&world.desired, &world.observed), Some(look(&old, &earlier)));
        assert_eq!(after_reset, vec![], "an operator may reset it");
    }

    #[test]
    fn keys_of_a_sink_that_is_gone_are_seen() {
        let mut world = running();
        world.desired.sinks.clear();
        world.desired.sources.clear();
        assert_eq!(found(&world, None), ["I7", "I7", "I7"]);
    }

    #[test]
    fn an_epoch_that_went_back_is_seen() {
        let mut world = running();
        let earlier = world.observed.clone();
        assign(&mut world.observed, &task(100, "s000"), 1, 0);
        assert_eq!(found(&world, Some(&earlier)), ["I3"]);
    }
}
