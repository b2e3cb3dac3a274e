//! Assignment as a pure question: even within capacity, stable, minimal, idempotent.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use model::{Creation, ObjectId, SplitId, TaskId};
use proptest::prelude::*;
use shardwright_logic::assign::{
    History, MOVE_COOLDOWN, MOVE_WINDOW, Rules, Seats, balance, exchange, place,
};

fn task(sink: u64, split: usize) -> TaskId {
    TaskId::reads(ObjectId::from_parts(sink, 0), SplitId::new(Creation(1), &format!("s{split:04}")))
}

fn seats(capacities: &[u32]) -> Seats {
    capacities.iter().enumerate().map(|(n, capacity)| (format!("w{n}"), *capacity)).collect()
}

fn homeless(sinks: u64, splits: usize) -> BTreeMap<TaskId, Option<String>> {
    (0..sinks).flat_map(|sink| (0..splits).map(move |split| (task(sink, split), None))).collect()
}

fn counts(seats: &Seats, running: &BTreeMap<TaskId, String>) -> BTreeMap<String, usize> {
    let mut counts: BTreeMap<String, usize> = seats.keys().map(|name| (name.clone(), 0)).collect();
    for worker in running.values() {
        *counts.entry(worker.clone()).or_default() += 1;
    }
    counts
}

/// Each worker has its share by capacity, rounded down or up.
fn assert_fair(seats: &Seats, running: &BTreeMap<TaskId, String>) -> Result<(), TestCaseError> {
    let total: u64 = seats.values().map(|c| u64::from(*c)).sum();
    for (worker, count) in counts(seats, running) {
        let share = running.len() as u64 * u64::from(seats[&worker]) / total;
        let count = count as u64;
        prop_assert!(count == share || count == share + 1, "{worker}: {count} of a share of {share}");
    }
    Ok(())
}

/// Carries moves out until there are none left, as the plan does over time.
fn rebalance(seats: &Seats, running: &mut BTreeMap<TaskId, String>) -> usize {
    let (mut moves, mut now) = (0, Duration::ZERO);
    let fixed = BTreeSet::new();
    let mut history = History::default();
    let mut idle = 0;
    while idle < 20 {
        let rules = Rules { history: &history, fixed: &fixed, now };
        let picked = balance(running, 0, seats, &rules);
        idle = if picked.is_empty() { idle + 1 } else { 0 };
        let mut waiting = BTreeMap::new();
        for task in picked {
            history.moved(task.clone(), None, now);
            moves += 1;
            let from = running.remove(&task);
            waiting.insert(task, from);
        }
        running.extend(place(&waiting, running, seats));
        now += MOVE_WINDOW;
    }
    moves
}

proptest! {
    #[test]
    fn a_first_placement_is_fair_and_needs_no_moves(
        capacities in prop::collection::vec(1_u32..5, 1..12), sinks in 1_u64..4, splits in 0_usize..80,
    ) {
        let seats = seats(&capacities);
        let mut running = place(&homeless(sinks, splits), &BTreeMap::new(), &seats);
        prop_assert_eq!(running.len(), usize::try_from(sinks).unwrap() * splits);
        assert_fair(&seats, &running)?;
        prop_assert_eq!(rebalance(&seats, &mut running), 0);
    }

    #[test]
    fn a_dead_worker_moves_only_its_own_tasks(workers in 2_usize..10, splits in 1_usize..80, dead in any::<usize>()) {
        let mut seats = seats(&vec![1; workers]);
        let before = place(&homeless(1, splits), &BTreeMap::new(), &seats);
        let dead = format!("w{}", dead % workers);
        seats.remove(&dead);
        let mut running = before.clone();
        running.retain(|_, worker| *worker != dead);
        let lost = before.iter().filter(|(_, w)| **w == dead).map(|(t, _)| (t.clone(), None)).collect();
        let placed = place(&lost, &running, &seats);
        running.extend(placed);
        for (task, worker) in &before {
            prop_assert!(*worker == dead || running[task] == *worker);
        }
        assert_fair(&seats, &running)?;
        prop_assert_eq!(rebalance(&seats, &mut running), 0, "placing was enough");
    }

    #[test]
    fn a_worker_that_comes_back_finds_its_tasks_again(workers in 2_usize..10, splits in 1_usize..80) {
        let seats = seats(&vec![1; workers]);
        let before = place(&homeless(1, splits), &BTreeMap::new(), &seats);
        let all = before.iter().map(|(task, worker)| (task.clone(), Some(worker.clone()))).collect();
        prop_assert_eq!(place(&all, &BTreeMap::new(), &seats), before);
    }

    #[test]
    fn any_disorder_becomes_fair_with_as_few_moves_as_possible(
        capacities in prop::collection::vec(1_u32..4, 1..8),
        owners in prop::collection::vec(any::<usize>(), 0..60),
    ) {
        let seats = seats(&capacities);
        let mut running: BTreeMap<TaskId, String> = owners
            .iter().enumerate().map(|(n, w)| (task(0, n), format!("w{}", w % capacities.len()))).collect();
        let before = running.clone();
        let total: u64 = seats.values().map(|c| u64::from(*c)).sum();
        // No fair world is nearer: whoever has more than its share rounded up must give, whoever has less than rounded
        // down must get.
        let share = |worker: &str| running.len() as u64 * u64::from(seats[worker]) / total;
        let (mut give, mut get) = (0, 0);
        for (worker, count) in counts(&seats, &before) {
            give += (count as u64).saturating_sub(share(&worker) + 1);
            get += share(&worker).saturating_sub(count as u64);
        }
        let floors: u64 = seats.keys().map(|w| share(w)).sum();
        let extras = running.len() as u64 - floors;
        let above = counts(&seats, &before).iter().filter(|(w, n)| **n as u64 > share(w)).count() as u64;
        let least = (give + above.saturating_sub(extras)).max(get);
        let moves = rebalance(&seats, &mut running);
        assert_fair(&seats, &running)?;
        prop_assert_eq!(moves as u64, least);
        prop_assert_eq!(rebalance(&seats, &mut running), 0);
    }
}

#[test]
fn the_tasks_of_a_split_go_to_one_worker_when_load_allows() {
    let seats = seats(&[1, 1, 1]);
    let placed = place(&homeless(2, 6), &BTreeMap::new(), &seats);
    for split in 0..6 {
        assert_eq!(placed[&task(0, split)], placed[&task(1, split)], "split {split}");
    }
}

#[test]
fn a_move_is_not_repeated_within_the_cooldown() {
    let seats = seats(&[1, 1]);
    let running: BTreeMap<TaskId, String> = (0..4).map(|n| (task(0, n), "w0".to_owned())).collect();
    let mut history = History::default();
    let fixed = BTreeSet::new();
    let mut picked = Vec::new();
    for n in 0..6_u32 {
        let now = MOVE_WINDOW * n;
        let moves = balance(&running, 0, &seats, &Rules { history: &history, fixed: &fixed, now });
        assert!(moves.len() <= 1);
        for task in moves {
            history.moved(task.clone(), None, now);
            picked.push(task);
        }
    }
    let distinct: BTreeSet<_> = picked.iter().collect();
    assert_eq!((picked.len(), distinct.len()), (4, 4), "each once, though none of them went");
    assert!(history.cools_down(&picked[3], MOVE_WINDOW * 6));
    assert!(!history.cools_down(&picked[3], MOVE_COOLDOWN + MOVE_WINDOW * 6));
}

#[test]
fn a_large_cluster_moves_a_tenth_of_its_tasks_a_minute() {
    let history = History::default();
    assert_eq!(history.allowance(2000, Duration::ZERO), 33);
    assert_eq!(history.allowance(5, Duration::ZERO), 1);
}

#[test]
fn a_worker_without_capacity_gets_nothing() {
    let placed = place(&homeless(1, 3), &BTreeMap::new(), &seats(&[0, 1]));
    assert!(placed.values().all(|worker| worker == "w1"));
    assert!(place(&homeless(1, 3), &BTreeMap::new(), &seats(&[0])).is_empty());
}

/// Exchanges until there is none left: the load of each worker at the end, and how many exchanges it took.
fn even_loads(owners: &[usize], megabytes: &[f64], workers: usize) -> (Vec<f64>, usize) {
    let seats = seats(&vec![1; workers]);
    let tasks: Vec<TaskId> = (0..owners.len()).map(|n| task(0, n)).collect();
    let bytes = tasks.iter().zip(megabytes).map(|(task, mb)| (task, mb * 1e6)).collect();
    let mut running: BTreeMap<TaskId, String> =
        tasks.iter().zip(owners).map(|(task, w)| (task.clone(), format!("w{w}"))).collect();
    let (fixed, mut history, mut now, mut exchanges) =
        (BTreeSet::new(), History::default(), Duration::ZERO, 0);
    for _ in 0..200 {
        let moves = exchange(&running, &seats, &bytes, &Rules { history: &history, fixed: &fixed, now });
        exchanges += moves.len() / 2;
        for (task, to) in moves {
            history.moved(task.clone(), Some(to.clone()), now);
            running.insert(task, to);
        }
        now += MOVE_WINDOW;
    }
    let load =
        |worker: String| running.iter().filter(|(_, w)| **w == worker).map(|(t, _)| bytes[t] / 1e6).sum();
    ((0..workers).map(|n| load(format!("w{n}"))).collect(), exchanges)
}

#[test]
fn hot_splits_are_spread_by_exchange_and_counts_stay() {
    let (loads, exchanges) = even_loads(&[0, 0, 1, 1], &[8.0, 8.0, 0.1, 0.1], 2);
    assert_eq!((loads, exchanges), (vec![8.1, 8.1], 1));
}

#[test]
fn a_gain_that_is_not_worth_a_handoff_is_left() {
    assert_eq!(even_loads(&[0, 0, 1, 1], &[0.4, 0.4, 0.1, 0.1], 2).1, 0, "under half a megabyte");
    assert_eq!(even_loads(&[0, 0, 1, 1], &[10.0, 11.0, 9.0, 9.5], 2).1, 0, "under 15 %");
    assert_eq!(even_loads(&[0, 1], &[20.0, 0.0], 2).1, 0, "one hot split is hot everywhere");
    assert_eq!(even_loads(&[], &[], 2).1, 0);
}

proptest! {
    #[test]
    fn exchanges_never_make_it_worse_and_come_to_an_end(
        tasks in prop::collection::vec((0_usize..4, 0.0_f64..20.0), 0..40),
    ) {
        let (owners, megabytes): (Vec<usize>, Vec<f64>) = tasks.into_iter().unzip();
        let hottest = |owners: &[usize]| {
            (0..4).map(|w| owners.iter().zip(&megabytes).filter(|(o, _)| **o == w).map(|(_, mb)| mb).sum::<f64>())
                .fold(0.0, f64::max)
        };
        let (loads, exchanges) = even_loads(&owners, &megabytes, 4);
        let after = loads.into_iter().fold(0.0, f64::max);
        prop_assert!(after <= hottest(&owners) + 1e-9);
        prop_assert!(exchanges <= 60, "{exchanges} exchanges");
    }
}
