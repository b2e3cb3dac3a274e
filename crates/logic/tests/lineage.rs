//! Listings and what they change: starts, closings, tombstones, a stream made anew, holes in the key space.

mod world;

use model::{
    Checkpoint, Creation, Cursor, Epoch, HashRange, Position, Split, SplitId, SplitState, Start, StartFrom,
    TaskId, Timestamp,
};
use shardwright_logic::{
    lineage::{
        First, Remembered, Standing, Table, bury, holes, losses, merge, owed_since, standing, unlisted,
    },
    plan::{Action, Desired, Observed, Stored, plan},
};
use world::{CREATION, World, id, sink, split_id, task};

const HALF: u128 = u128::MAX / 2;

fn split(name: &str, parents: &[&str], (first, last): (u128, u128), closed: bool) -> Split {
    Split {
        id: split_id(name),
        parents: parents.iter().map(|p| split_id(p)).collect(),
        range: Some(HashRange { first, last }),
        closed,
    }
}

fn first(start: &Start) -> First<'_> {
    First { creation: CREATION, start, due: false }
}

/// Merges a listing of the source's own stream and applies it.
fn list(table: &mut Table, remembered: &mut Remembered, listing: &[Split], at: i64) -> Vec<SplitId> {
    let start =
        Start { default: StartFrom::At(Timestamp(5)), splits: [("b".to_owned(), StartFrom::Horizon)].into() };
    let merged = merge(table, (CREATION, listing), first(&start), remembered, Timestamp(at));
    table.extend(merged.put);
    merged.ask
}

fn two_halves() -> Vec<Split> {
    vec![split("a", &[], (0, HALF), false), split("b", &[], (HALF + 1, u128::MAX), false)]
}

/// A child whose records age out before it is read: what counts is when it was there for sure, not when it was listed.
#[test]
fn a_sink_is_owed_a_split_from_when_it_was_there() {
    let mut world = World::new(1, 1, 1);
    let task = task(100, "s001");
    let owed = |world: &World| owed_since(&world.desired, &world.observed, &task).map(|at| at.0);
    let table = world.observed.splits.get_mut(&id(1)).unwrap();
    *table = Table::new();
    let listing = [split("s000", &[], (0, u128::MAX), true), split("s001", &["s000"], (0, u128::MAX), false)];
    list(table, &mut Remembered::default(), &listing[..1], 2_000);
    list(table, &mut Remembered::default(), &listing[1..], 9_000);
    world.desired.sinks.get_mut(&id(100)).unwrap().created_at = Timestamp(1_000);
    assert_eq!(owed(&world), Some(2_000), "its parent was closed");
    let parent = world.observed.splits.get_mut(&id(1)).unwrap().get_mut(&split_id("s000")).unwrap();
    parent.closed_at = None;
    assert_eq!(owed(&world), Some(9_000));
    let end = |position, caught_up_at| Checkpoint {
        position,
        epoch: Epoch::default(),
        serial: 1,
        caught_up_at,
        records: 1,
        run_records: 1,
        at: Timestamp(3_000),
        gap: None,
    };
    let stored = |value| Stored { value, revision: 1 };
    let parent = TaskId::reads(id(100), split_id("s000"));
    world.observed.checkpoints.insert(parent, stored(end(Position::End, None)));
    assert_eq!(owed(&world), Some(3_000), "its parent was delivered");
    world.desired.sinks.get_mut(&id(100)).unwrap().created_at = Timestamp(10_000);
    assert_eq!(owed(&world), Some(10_000), "the sink is younger");
    let after = Position::After(Cursor::new("7"));
    for (position, caught_up_at, at) in [
        (Position::Start(StartFrom::Horizon), None, Some(3_000)),
        (Position::Start(StartFrom::Horizon), Some(Timestamp(5_000)), Some(5_000)),
        (after.clone(), Some(Timestamp(5_000)), Some(5_000)),
        (after, None, None),
    ] {
        world.observed.checkpoints.insert(task.clone(), stored(end(position, caught_up_at)));
        assert_eq!(owed(&world), at);
    }
}

#[test]
fn the_first_listing_starts_where_the_source_says_and_later_splits_at_their_horizon() {
    let (mut table, mut remembered) = (Table::new(), Remembered::default());
    list(&mut table, &mut remembered, &two_halves(), 1);
    assert_eq!(table[&split_id("a")].start, StartFrom::At(Timestamp(5)));
    assert_eq!(table[&split_id("b")].start, StartFrom::Horizon, "the source names it");
    let mut later = two_halves();
    later[0].closed = true;
    later.push(split("c", &["a"], (0, HALF), false));
    list(&mut table, &mut remembered, &later, 2);
    assert_eq!(table[&split_id("c")].start, StartFrom::Horizon);
    assert!(table[&split_id("a")].closed && !table[&split_id("b")].closed);
}

/// S9: the leader that began the first listing died before all of it was written.
#[test]
fn a_first_listing_of_which_a_part_was_written_is_completed_from_its_start() {
    let start = Start::all(StartFrom::At(Timestamp(5)));
    let mut table = Table::new();
    list(&mut table, &mut Remembered::default(), &two_halves()[..1], 1);
    let due = First { due: true, ..first(&start) };
    let merged = merge(&table, (CREATION, &two_halves()), due, &mut Remembered::default(), Timestamp(2));
    assert_eq!(merged.discovered, [split_id("b")]);
    assert_eq!(merged.put[0].1.start, StartFrom::At(Timestamp(5)));
    let other = First { creation: Creation(1), ..due };
    let merged = merge(&table, (CREATION, &two_halves()), other, &mut Remembered::default(), Timestamp(2));
    assert_eq!(merged.put[0].1.start, StartFrom::Horizon, "another stream than the source was made on");
}

/// I2: records are written in parts.
#[test]
fn parents_are_written_before_their_children_however_they_are_listed() {
    let whole = (0, u128::MAX);
    let listing = [
        split("d", &["c", "b"], whole, false),
        split("c", &["a"], whole, true),
        split("e", &["e"], whole, true),
        split("b", &["a"], whole, true),
        split("a", &["elder"], whole, true),
    ];
    let start = Start::all(StartFrom::Horizon);
    let merged =
        merge(&Table::new(), (CREATION, &listing), first(&start), &mut Remembered::default(), Timestamp(1));
    let order: Vec<&str> = merged.put.iter().map(|(id, _)| id.name()).collect();
    let place = |name| order.iter().position(|other| *other == name).unwrap();
    assert!(place("a") < place("c") && place("a") < place("b"), "{order:?}");
    assert!(place("c") < place("d") && place("b") < place("d"), "{order:?}");
}

#[test]
fn the_same_listing_changes_nothing() {
    let (mut table, mut remembered) = (Table::new(), Remembered::default());
    list(&mut table, &mut remembered, &two_halves(), 1);
    let start = Start::all(StartFrom::Horizon);
    let merged = merge(&table, (CREATION, &two_halves()), first(&start), &mut remembered, Timestamp(2));
    assert_eq!(merged, Default::default());
}

#[test]
fn a_split_is_asked_about_only_when_two_listings_in_a_row_lack_it() {
    let (mut table, mut remembered) = (Table::new(), Remembered::default());
    list(&mut table, &mut remembered, &two_halves(), 1);
    let without_a = &two_halves()[1..];
    assert_eq!(list(&mut table, &mut remembered, without_a, 2), vec![]);
    assert_eq!(list(&mut table, &mut remembered, &two_halves(), 3), vec![], "it was merely late");
    assert_eq!(list(&mut table, &mut remembered, without_a, 4), vec![]);
    assert_eq!(list(&mut table, &mut remembered, without_a, 5), vec![split_id("a")]);
    assert_eq!(table[&split_id("a")].state, SplitState::Listed, "only the service's word buries it");
}

#[test]
fn a_tombstone_is_not_raised_by_a_late_listing() {
    let (mut table, mut remembered) = (Table::new(), Remembered::default());
    list(&mut table, &mut remembered, &two_halves(), 1);
    let tombstones = bury(&table, &[split_id("a")], Timestamp(6));
    table.extend(tombstones);
    list(&mut table, &mut remembered, &two_halves(), 7);
    assert_eq!(table[&split_id("a")].state, SplitState::Gone { at: Timestamp(6) });
    assert_eq!(bury(&table, &[split_id("a")], Timestamp(8)), vec![], "nobody dies twice");
}

/// S13: a stream that was deleted and created again.
#[test]
fn a_stream_made_anew_buries_the_splits_of_the_old_one() {
    let (mut table, mut remembered) = (Table::new(), Remembered::default());
    list(&mut table, &mut remembered, &two_halves(), 1);
    let anew = Creation(78);
    let new = Split { id: SplitId::new(anew, "a"), ..split("a", &[], (0, u128::MAX), false) };
    let start = Start::all(StartFrom::At(Timestamp(5)));
    let merged = merge(&table, (anew, &[new]), first(&start), &mut remembered, Timestamp(9));
    assert_eq!(merged.buried, vec![split_id("a"), split_id("b")]);
    table.extend(merged.put);
    assert_eq!(table[&split_id("b")].state, SplitState::Gone { at: Timestamp(9) });
    let (_, record) = table.get_key_value(&SplitId::new(anew, "a")).unwrap();
    assert_eq!(
        (&record.state, &record.start),
        (&SplitState::Listed, &StartFrom::Horizon),
        "all of it is new"
    );
    assert_eq!(holes(&table, anew), vec![]);
}

#[test]
fn what_went_before_a_sink_was_made_is_no_loss_to_it() {
    let mut table = Table::new();
    list(&mut table, &mut Remembered::default(), &two_halves(), 1);
    let tombstones = bury(&table, &[split_id("a")], Timestamp(100));
    table.extend(tombstones);
    let mut observed = Observed::default();
    observed.splits.insert(id(1), table.clone());
    let (old, mut new) = (sink(0), sink(1));
    new.created_at = Timestamp(200);
    let stands = |sink| standing(&table, &observed, (id(100), sink), &split_id("a"));
    assert_eq!(stands(&old), Some(Standing::Gone { lost: true }));
    assert_eq!(stands(&new), Some(Standing::Gone { lost: false }));
    assert_eq!(standing(&table, &observed, (id(100), &old), &split_id("zz")), None);
}

/// Its last position is no `End`, but it had everything when nothing could come any more.
#[test]
fn a_gone_split_that_a_sink_had_read_to_its_close_is_no_loss() {
    let mut world = World::new(1, 2, 1);
    world.split_at(0);
    world.discover();
    let parent = split_id("s000");
    let closed_at = world.observed.splits[&id(1)][&parent].closed_at.expect("a listing showed it closed");
    for (sink, at) in [(100, closed_at.0), (101, closed_at.0 - 1)] {
        let task = TaskId::reads(id(sink), parent.clone());
        let checkpoint = Checkpoint {
            position: Position::After(Cursor::new("7")),
            epoch: Epoch::default(),
            serial: 1,
            caught_up_at: Some(Timestamp(at)),
            records: 1,
            run_records: 1,
            at: Timestamp(at),
            gap: None,
        };
        world.observed.checkpoints.insert(task, Stored { value: checkpoint, revision: 1 });
    }
    let found = losses(&world.desired, &world.observed, id(1), std::slice::from_ref(&parent));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].sink, &found[0].delivered), (id(101), &Some(Position::After(Cursor::new("7")))));
    let table = world.observed.splits.get_mut(&id(1)).unwrap();
    let tombstones = bury(table, std::slice::from_ref(&parent), Timestamp(closed_at.0 + 100));
    table.extend(tombstones);
    let stands = |n: u64| {
        let sink = &world.desired.sinks[&id(n)];
        standing(&world.observed.splits[&id(1)], &world.observed, (id(n), sink), &parent)
    };
    assert_eq!(stands(100), Some(Standing::Gone { lost: false }));
    assert_eq!(stands(101), Some(Standing::Gone { lost: true }));
}

#[test]
fn each_sink_that_had_not_passed_a_gone_split_is_told_once() {
    let mut world = World::new(1, 2, 1);
    world.split_at(0);
    world.discover();
    world.ticks(20);
    let gone = [split_id("s000"), split_id("s001")];
    let found = losses(&world.desired, &world.observed, id(1), &gone);
    let found: Vec<_> = found.into_iter().map(|loss| (loss.sink, loss.split)).collect();
    assert_eq!(found, vec![(id(100), split_id("s001")), (id(101), split_id("s001"))]);
}

#[test]
fn children_of_a_gone_parent_wait_for_the_grandparent() {
    let mut table = Table::new();
    let family = [
        split("a", &[], (0, u128::MAX), true),
        split("b", &["a"], (0, u128::MAX), true),
        split("c", &["b"], (0, u128::MAX), false),
    ];
    list(&mut table, &mut Remembered::default(), &family, 1);
    let tombstones = bury(&table, &[split_id("b")], Timestamp(2));
    table.extend(tombstones);
    let observed = Observed::default();
    let stands = standing(&table, &observed, (id(100), &sink(0)), &split_id("c"));
    assert_eq!(stands, Some(Standing::WaitsFor(vec![split_id("a")])));
}

#[test]
fn a_parent_that_was_never_listed_holds_nobody_back() {
    let mut table = Table::new();
    list(&mut table, &mut Remembered::default(), &[split("c", &["gone"], (0, u128::MAX), false)], 1);
    let stands = standing(&table, &Observed::default(), (id(100), &sink(0)), &split_id("c"));
    assert_eq!(stands, Some(Standing::Ready));
}

#[test]
fn tombstones_go_when_no_sink_can_ask_for_them() {
    let mut world = World::new(1, 1, 1);
    world.split_at(0);
    world.discover();
    world.ticks(20);
    world.trim_oldest();
    world.discover();
    world.discover();
    world.discover();
    let parent = split_id("s000");
    assert!(matches!(world.observed.splits[&id(1)][&parent].state, SplitState::Gone { .. }));
    world.ticks(2);
    assert!(world.observed.splits[&id(1)].contains_key(&parent), "too young to go");
    world.tick(std::time::Duration::from_secs(25 * 3600));
    assert!(!world.observed.splits[&id(1)].contains_key(&parent));
    assert!(!world.observed.checkpoints.contains_key(&task(100, "s000")), "its checkpoint goes with it");
    world.ticks(40);
    assert!(world.observed.assignments.len() == 2, "its children run on");
}

#[test]
fn a_tombstone_stays_while_something_before_it_is_unfinished() {
    let mut table = Table::new();
    let family = [split("a", &[], (0, u128::MAX), true), split("b", &["a"], (0, u128::MAX), true)];
    list(&mut table, &mut Remembered::default(), &family, 1);
    let tombstones = bury(&table, &[split_id("b")], Timestamp(2));
    table.extend(tombstones);
    let mut observed = Observed { wall: Timestamp(i64::MAX / 2), ..Observed::default() };
    observed.splits.insert(id(1), table);
    let mut desired = Desired::default();
    desired.sources.insert(
        id(1),
        shardwright_logic::plan::DesiredSource { name: "s".into(), revision: 1, dropping: false },
    );
    desired.sinks.insert(id(100), sink(0));
    let actions = plan(&desired, &observed, &Default::default(), Default::default()).actions;
    assert_eq!(actions, vec![]);
    desired.sinks.clear();
    let actions = plan(&desired, &observed, &Default::default(), Default::default()).actions;
    assert_eq!(actions, vec![Action::DeleteSplit { source: id(1), split: split_id("b") }]);
}

#[test]
fn a_closed_parent_without_known_children_is_unlisted_but_no_hole() {
    let mut table = Table::new();
    let mut listing = two_halves();
    listing[0].closed = true;
    list(&mut table, &mut Remembered::default(), &listing, 1);
    assert_eq!(unlisted(&table, CREATION), vec![HashRange { first: 0, last: HALF }]);
    assert_eq!(holes(&table, CREATION), vec![]);
}

#[test]
fn a_missing_child_is_a_hole() {
    let mut table = Table::new();
    let listing = [
        split("a", &[], (0, u128::MAX), true),
        split("b", &["a"], (10, HALF), false),
        split("c", &["a"], (HALF + 2, u128::MAX - 1), false),
    ];
    list(&mut table, &mut Remembered::default(), &listing, 1);
    let expected = vec![
        HashRange { first: 0, last: 9 },
        HashRange { first: HALF + 1, last: HALF + 1 },
        HashRange { first: u128::MAX, last: u128::MAX },
    ];
    assert_eq!(holes(&table, CREATION), expected);
    assert_eq!(unlisted(&table, CREATION), expected);
    assert_eq!(holes(&table, Creation(1)), vec![], "of no split nothing can be said");
}
