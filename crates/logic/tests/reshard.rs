//! Random histories of resharding, crashes, partitions and changes of leader: the plans must never break a promise and always
//! come to rest (I2, I3, I4, I5, I6, I11).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod world;

use proptest::prelude::*;
use shardwright_logic::gate::gate;
use std::time::Duration;
use world::{World, id};

/// What may happen to a cluster.
#[derive(Clone, Debug)]
enum Event {
    Pass(u64),
    Split(usize),
    Merge(usize),
    Trim,
    Discover,
    Kill(u8),
    Restart(u8, bool),
    CutOff(u8),
    Heal(u8),
    Drain(u8),
    Pause,
    Resume,
    Alter,
    /// Rows go to this many partitions by key, or stay with their splits.
    Distribute(u32),
    ChangeLeader,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (100_u64..4000).prop_map(Event::Pass),
        3 => any::<usize>().prop_map(Event::Split),
        3 => any::<usize>().prop_map(Event::Merge),
        1 => Just(Event::Trim),
        4 => Just(Event::Discover),
        2 => (0_u8..3).prop_map(Event::Kill),
        2 => (0_u8..3, any::<bool>()).prop_map(|(w, same)| Event::Restart(w, same)),
        2 => (0_u8..3).prop_map(Event::CutOff),
        2 => (0_u8..3).prop_map(Event::Heal),
        1 => (0_u8..3).prop_map(Event::Drain),
        1 => Just(Event::Pause),
        1 => Just(Event::Resume),
        1 => Just(Event::Alter),
        1 => (0_u32..4).prop_map(Event::Distribute),
        1 => Just(Event::ChangeLeader),
    ]
}

fn happen(world: &mut World, event: &Event) {
    let name = |w: u8| format!("w{w}");
    match event {
        Event::Pass(ms) => world.tick(Duration::from_millis(*ms)),
        Event::Split(at) => world.split_at(*at),
        Event::Merge(at) => world.merge_at(*at),
        Event::Trim => world.trim_oldest(),
        Event::Discover => world.discover(),
        Event::Kill(w) => world.kill(&name(*w)),
        Event::Restart(w, same) => {
            if !world.workers[&name(*w)].alive {
                world.start_worker(&name(*w), *same);
            }
        }
        Event::CutOff(w) => world.workers.get_mut(&name(*w)).unwrap().cut_off = true,
        Event::Heal(w) => world.workers.get_mut(&name(*w)).unwrap().cut_off = false,
        Event::Drain(w) => world.workers.get_mut(&name(*w)).unwrap().draining = true,
        Event::Pause => world.desired.sinks.get_mut(&id(100)).unwrap().paused = true,
        Event::Resume => {
            let sink = world.desired.sinks.get_mut(&id(100)).unwrap();
            (sink.paused, sink.revision) = (false, sink.revision + 1);
        }
        Event::Distribute(partitions) => {
            let sink = world.desired.sinks.get_mut(&id(100)).unwrap();
            (sink.partitions, sink.revision) = (*partitions, sink.revision + 1);
        }
        Event::Alter => world.desired.sources.get_mut(&id(1)).unwrap().revision += 1,
        Event::ChangeLeader => world.change_leader(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_history_breaks_a_promise_and_every_one_settles(
        shards in 1_u64..5,
        sinks in 1_u64..3,
        partitions in 0_u32..3,
        events in prop::collection::vec(event(), 1..60),
    ) {
        let mut world = World::new(shards, sinks, 3);
        world.desired.sinks.get_mut(&id(100)).unwrap().partitions = partitions;
        for event in &events {
            happen(&mut world, event);
        }
        world.settle();
    }
}

/// A sink goes back from partitions to splits while the worker of a partition is cut off for so many seconds.
fn p22_heard_after(silent: u32) {
    let mut world = World::new(1, 1, 3);
    happen(&mut world, &Event::Distribute(4));
    world.ticks(15);
    let reader = world.owner(&world::task(100, "s000")).map(str::to_owned);
    let mut partitions = (0..4).map(|n| model::TaskId::writes(id(100), n));
    let partition = partitions.find(|task| world.owner(task) != reader.as_deref()).unwrap();
    let owner = world.owner(&partition).unwrap().to_owned();
    let run = (partition.clone(), world.observed.assignments[&partition].0);
    world.workers.get_mut(&owner).unwrap().cut_off = true;
    world.ticks(5);
    happen(&mut world, &Event::Distribute(0));
    world.ticks(silent - 5);
    let inherits = |world: &World| {
        let runs = world.observed.assignments.values();
        runs.flat_map(|(_, run)| &run.predecessors).any(|old| old.of == Some(partition.work.clone()))
    };
    assert!(inherits(&world), "the split inherits the run that nobody told the end of");
    world.workers.get_mut(&owner).unwrap().cut_off = false;
    world.ticks(2);
    for _ in 0..20 {
        let heard = world.observed.heard.releases.contains_key(&run);
        assert!(heard || !inherits(&world), "what {owner} told of {partition} is forgotten");
        world.tick(Duration::from_secs(1));
    }
    assert!(!world.observed.assignments.contains_key(&partition));
    for (task, (_, run)) in &world.observed.assignments {
        let left = gate(task, &run.predecessors, &world.observed.heard, &world.timing, world.now);
        assert_eq!(left, Duration::ZERO, "{task} waits for {:?}", run.predecessors);
    }
    happen(&mut world, &Event::Pause);
    world.ticks(2);
    let left: Vec<_> = world.observed.assignments.keys().collect();
    assert!(left.is_empty(), "a paused sink keeps {left:?}");
}

#[test]
fn p22_what_is_told_of_a_partition_is_kept_for_the_splits_that_inherited_it() {
    p22_heard_after(9);
}

#[test]
fn p22_what_is_told_of_a_partition_whose_key_is_gone_is_heard_for_the_splits_that_inherited_it() {
    p22_heard_after(25);
}

#[test]
fn a_child_starts_with_the_plan_after_its_parents_end() {
    let mut world = World::new(1, 1, 1);
    world.ticks(10);
    world.split_at(0);
    world.discover();
    world.ticks(3);
    let child = world::task(100, "s001");
    assert!(world.observed.assignments.contains_key(&child), "{:?}", world.last_plan.waiting);
}

#[test]
fn two_generations_of_reshard_while_everything_is_stopped() {
    let mut world = World::new(2, 1, 2);
    world.ticks(5);
    world.kill("w0");
    world.kill("w1");
    world.split_at(0);
    world.split_at(0);
    world.merge_at(0);
    world.merge_at(1);
    world.ticks(30);
    world.discover();
    world.ticks(1);
    let waits = world.last_plan.waiting.values().any(|why| why.contains("waits for parent"));
    assert!(waits, "{:?}", world.last_plan.waiting);
    world.settle();
}

#[test]
fn a_parent_trimmed_before_it_was_read_does_not_hold_its_children_for_ever() {
    let mut world = World::new(1, 1, 1);
    world.kill("w0");
    world.split_at(0);
    world.discover();
    world.trim_oldest();
    world.settle();
    let losses = shardwright_logic::lineage::losses(
        &world.desired,
        &world.observed,
        id(1),
        &[world::split_id("s000")],
    );
    assert_eq!(losses.len(), 1, "the sink had not passed it");
}
