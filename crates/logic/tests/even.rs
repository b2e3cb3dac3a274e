//! Assignment as a pure question: even within capacity, stable, minimal, idempotent.

#![allow(clippy::unwrap_used, reason = "everything here is a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use model::{Creation, ObjectId, SplitId, TaskId};
use proptest::prelude::*;
use shardwright_logic::assign::{
    CAP_WINDOW, FILL_COOLDOWN, History, MOVE_COOLDOWN, Move, Rules, Running, Seat, Seats, Transit, Why,
    balance,
    cost::{Load, Sample},
    exchange, place, spread,
};

const SECOND: Duration = Duration::from_secs(1);

fn sink(n: u64) -> ObjectId {
    ObjectId::from_parts(n, 0)
}

fn task(n: u64, split: usize) -> TaskId {
    TaskId::reads(sink(n), SplitId::new(Creation(1), &format!("s{split:05}")))
}

fn seat(capacity: u32, zone: &str) -> Seat {
    Seat { capacity, zone: zone.to_owned() }
}

fn seats(capacities: &[u32]) -> Seats {
    capacities.iter().enumerate().map(|(n, capacity)| (format!("w{n}"), seat(*capacity, ""))).collect()
}

fn splits(sinks: u64, splits: usize) -> BTreeMap<TaskId, Option<String>> {
    (0..sinks).flat_map(|sink| (0..splits).map(move |split| (task(sink, split), None))).collect()
}

fn partitions(n: u64, all: u32) -> BTreeMap<TaskId, Option<String>> {
    (0..all).map(|p| (TaskId::writes(sink(n), p), None)).collect()
}

fn first(homeless: &BTreeMap<TaskId, Option<String>>, seats: &Seats) -> Running {
    place(homeless, &Running::new(), &Transit::default(), seats)
}

fn counts<'a>(seats: &Seats, tasks: impl Iterator<Item = &'a String>) -> BTreeMap<String, usize> {
    let mut counts: BTreeMap<String, usize> = seats.keys().map(|name| (name.clone(), 0)).collect();
    for worker in tasks {
        *counts.entry(worker.clone()).or_default() += 1;
    }
    counts
}

/// Each worker has its share by capacity, rounded down or up.
fn assert_fair(seats: &Seats, running: &Running) -> Result<(), TestCaseError> {
    let total: u64 = seats.values().map(|seat| u64::from(seat.capacity)).sum();
    for (worker, count) in counts(seats, running.values()) {
        let share = running.len() as u64 * u64::from(seats[&worker].capacity) / total;
        let count = count as u64;
        prop_assert!(count == share || count == share + 1, "{worker}: {count} of a share of {share}");
    }
    Ok(())
}

/// How far apart the partitions of a sink are: the most and the least on one worker.
fn range_of(seats: &Seats, running: &Running, n: u64) -> (usize, usize) {
    let mine = running.iter().filter(|(task, _)| task.sink == sink(n) && task.partition().is_some());
    let counts = counts(seats, mine.map(|(_, worker)| worker));
    (*counts.values().max().unwrap(), *counts.values().min().unwrap())
}

/// Workers and tasks over time: handoffs take a while.
struct Fleet {
    seats: Seats,
    running: Running,
    /// Where each was, where it goes, and when it arrives.
    away: BTreeMap<TaskId, (String, String, Duration)>,
    history: History,
    now: Duration,
    costs: BTreeMap<TaskId, f64>,
    moves: Vec<Move>,
    /// The most tasks on the way to one worker at a time.
    crowd: usize,
}

impl Fleet {
    fn new(seats: Seats, running: Running) -> Self {
        Self {
            seats,
            running,
            away: BTreeMap::new(),
            history: History::default(),
            now: Duration::from_secs(1000),
            costs: BTreeMap::new(),
            moves: Vec::new(),
            crowd: 0,
        }
    }

    /// One decision as the plan makes it, and the handoffs that it begins.
    fn step(&mut self, by: Duration) {
        self.now += by;
        let mut transit = Transit::default();
        let arrived: BTreeMap<TaskId, Option<String>> = self
            .away
            .iter()
            .filter(|(_, (_, _, at))| *at <= self.now)
            .map(|(task, (_, to, _))| (task.clone(), Some(to.clone())))
            .collect();
        self.away.retain(|task, _| !arrived.contains_key(task));
        for (_, to, _) in self.away.values() {
            transit.expect(Some(to));
        }
        let placed = place(&arrived, &self.running, &transit, &self.seats);
        self.running.extend(placed);
        let fixed: BTreeSet<TaskId> = arrived.into_keys().collect();
        let rules = Rules { history: &self.history, fixed: &fixed, now: self.now, force: false };
        let mut moves = balance(&self.running, &transit, &self.seats, &rules);
        if moves.is_empty() && self.away.is_empty() && fixed.is_empty() {
            moves = spread(&self.running, &transit, &self.seats, &rules);
        }
        if moves.is_empty() && self.away.is_empty() && fixed.is_empty() {
            let costs = self.costs.iter().map(|(task, cost)| (task, *cost)).collect();
            moves = exchange(&self.running, &transit, &self.seats, &costs, &rules);
        }
        for one in moves {
            let capped = matches!(one.why, Why::Load { .. } | Why::InReturn);
            self.history.moved(one.task.clone(), Some(one.to.clone()), capped, self.now);
            let from = self.running.remove(&one.task).unwrap();
            assert_eq!(from, one.from);
            self.away.insert(one.task.clone(), (from, one.to.clone(), self.now + SECOND));
            self.moves.push(one);
        }
        let to = counts(&self.seats, self.away.values().map(|(_, to, _)| to));
        self.crowd = self.crowd.max(*to.values().max().unwrap_or(&0));
    }

    fn run(&mut self, seconds: u64) -> &mut Self {
        for _ in 0..seconds {
            self.step(SECOND);
        }
        self
    }

    fn loads(&self) -> BTreeMap<String, f64> {
        let mut loads: BTreeMap<String, f64> = self.seats.keys().map(|name| (name.clone(), 0.0)).collect();
        for (task, worker) in &self.running {
            *loads.get_mut(worker).unwrap() += self.costs.get(task).unwrap_or(&0.0);
        }
        loads
    }
}

proptest! {
    #[test]
    fn a_first_placement_is_fair_and_needs_no_moves(
        capacities in prop::collection::vec(1_u32..5, 1..12), sinks in 1_u64..4, n in 0_usize..80, keyed in 0_u32..20,
    ) {
        let alike = vec![1; capacities.len()];
        let seats = seats(if keyed > 0 { &alike } else { &capacities });
        let mut homeless = splits(sinks, n);
        homeless.extend(partitions(9, keyed));
        let running = first(&homeless, &seats);
        prop_assert_eq!(running.len(), homeless.len());
        assert_fair(&seats, &running)?;
        let mut fleet = Fleet::new(seats, running);
        prop_assert!(fleet.run(200).moves.is_empty(), "{:?}", fleet.moves);
    }

    #[test]
    fn a_dead_worker_moves_only_its_own_tasks(workers in 2_usize..10, n in 1_usize..80, dead in any::<usize>()) {
        let mut seats = seats(&vec![1; workers]);
        let before = first(&splits(1, n), &seats);
        let dead = format!("w{}", dead % workers);
        seats.remove(&dead);
        let mut running = before.clone();
        running.retain(|_, worker| *worker != dead);
        let lost = before.iter().filter(|(_, w)| **w == dead).map(|(t, _)| (t.clone(), None)).collect();
        let placed = place(&lost, &running, &Transit::default(), &seats);
        running.extend(placed);
        for (task, worker) in &before {
            prop_assert!(*worker == dead || running[task] == *worker);
        }
        assert_fair(&seats, &running)?;
        prop_assert!(Fleet::new(seats, running).run(200).moves.is_empty(), "placing was enough");
    }

    #[test]
    fn a_worker_that_comes_back_finds_its_tasks_again(workers in 2_usize..10, n in 1_usize..80) {
        let seats = seats(&vec![1; workers]);
        let before = first(&splits(1, n), &seats);
        let all = before.iter().map(|(task, worker)| (task.clone(), Some(worker.clone()))).collect();
        prop_assert_eq!(first(&all, &seats), before);
    }

    #[test]
    fn any_disorder_becomes_fair_with_as_few_moves_as_possible(
        capacities in prop::collection::vec(1_u32..4, 1..8),
        owners in prop::collection::vec(any::<usize>(), 0..60),
    ) {
        let seats = seats(&capacities);
        let before: Running = owners
            .iter().enumerate().map(|(n, w)| (task(0, n), format!("w{}", w % capacities.len()))).collect();
        let total: u64 = seats.values().map(|seat| u64::from(seat.capacity)).sum();
        // No fair world is nearer: whoever has more than its share rounded up must give, whoever has less than rounded
        // down must get.
        let share = |worker: &str| before.len() as u64 * u64::from(seats[worker].capacity) / total;
        let (mut give, mut get) = (0, 0);
        for (worker, count) in counts(&seats, before.values()) {
            give += (count as u64).saturating_sub(share(&worker) + 1);
            get += share(&worker).saturating_sub(count as u64);
        }
        let floors: u64 = seats.keys().map(|w| share(w)).sum();
        let extras = before.len() as u64 - floors;
        let above = counts(&seats, before.values()).iter().filter(|(w, n)| **n as u64 > share(w)).count() as u64;
        let least = (give + above.saturating_sub(extras)).max(get);
        let mut fleet = Fleet::new(seats, before.clone());
        fleet.run(60);
        assert_fair(&fleet.seats, &fleet.running)?;
        prop_assert_eq!(fleet.moves.len() as u64, least);
        prop_assert!(fleet.run(200).moves.len() as u64 == least);
    }

    /// A newcomer gets exactly its share, from those who have more than theirs, and nobody else exchanges anything.
    #[test]
    fn newcomers_are_filled_within_30_s_with_as_few_moves_as_possible(
        workers in 1_usize..12, more in 1_usize..4, sinks in 1_u64..4, n in 1_usize..300, keyed in 0_u32..9,
    ) {
        let mut homeless = splits(sinks, n);
        homeless.extend(partitions(9, keyed));
        let mut fleet = Fleet::new(seats(&vec![1; workers]), Running::new());
        fleet.running = first(&homeless, &fleet.seats);
        let all = fleet.running.len();
        let all_seats = seats(&vec![1; workers + more]);
        let joined: BTreeSet<String> = all_seats.keys().filter(|w| !fleet.seats.contains_key(*w)).cloned().collect();
        fleet.seats = all_seats;
        fleet.run(30);
        assert_fair(&fleet.seats, &fleet.running)?;
        let share = (all / (workers + more)) * more;
        let counted = fleet.moves.iter().filter(|m| matches!(m.why, Why::Count { .. })).count();
        prop_assert!((share..=share + more).contains(&counted), "{counted} moves for a share of {share}");
        for one in fleet.moves.iter().filter(|m| matches!(m.why, Why::Count { .. })) {
            prop_assert!(joined.contains(&one.to) && !joined.contains(&one.from), "{one:?}");
        }
        let before = fleet.moves.len();
        prop_assert_eq!(fleet.run(150).moves.len(), before, "then it rests");
    }

    #[test]
    fn a_worker_that_leaves_costs_its_own_tasks_and_no_more(
        workers in 2_usize..12, sinks in 1_u64..4, n in 1_usize..100,
    ) {
        let mut fleet = Fleet::new(seats(&vec![1; workers]), Running::new());
        fleet.running = first(&splits(sinks, n), &fleet.seats);
        fleet.seats.remove("w0");
        let lost: Vec<TaskId> = fleet.running.iter().filter(|(_, w)| *w == "w0").map(|(t, _)| t.clone()).collect();
        for task in lost {
            fleet.running.remove(&task);
            let away = ("w0".to_owned(), "w0".to_owned(), fleet.now);
            fleet.away.insert(task, away);
        }
        prop_assert!(fleet.run(100).moves.is_empty(), "{:?}", fleet.moves);
        assert_fair(&fleet.seats, &fleet.running)?;
    }

    /// However the partitions lie: they come apart, as evenly as their number allows, while counts stay fair.
    #[test]
    fn partitions_of_a_sink_come_apart(
        workers in 1_usize..7, n in 20_usize..60, owners in prop::collection::vec(any::<usize>(), 1..16),
    ) {
        let seats = seats(&vec![1; workers]);
        let mut running: Running = owners.iter().enumerate()
            .map(|(p, w)| (TaskId::writes(sink(9), u32::try_from(p).unwrap()), format!("w{}", w % workers))).collect();
        running.extend(place(&splits(2, n), &running, &Transit::default(), &seats));
        let mut fleet = Fleet::new(seats, running);
        fleet.run(100);
        let (most, least) = range_of(&fleet.seats, &fleet.running, 9);
        prop_assert!(most - least <= 1, "{most} and {least}");
        assert_fair(&fleet.seats, &fleet.running)?;
        let before = fleet.moves.len();
        prop_assert_eq!(fleet.run(100).moves.len(), before);
    }
}

#[test]
fn the_tasks_of_a_split_go_to_one_worker_when_load_allows() {
    let placed = first(&splits(2, 6), &seats(&[1, 1, 1]));
    for split in 0..6 {
        assert_eq!(placed[&task(0, split)], placed[&task(1, split)], "split {split}");
    }
}

#[test]
fn the_tasks_of_a_split_move_together_when_numbers_allow() {
    let mut fleet = Fleet::new(seats(&[1, 1]), Running::new());
    fleet.running = first(&splits(3, 12), &fleet.seats);
    fleet.seats = seats(&[1, 1, 1]);
    fleet.run(30);
    assert_eq!(fleet.moves.len(), 12);
    for split in 0..12 {
        let workers: BTreeSet<_> = (0..3).map(|n| &fleet.running[&task(n, split)]).collect();
        assert_eq!(workers.len(), 1, "split {split}");
    }
}

#[test]
fn partitions_are_apart_on_workers_first_and_in_zones_next() {
    let seats: Seats = [("a0", "a"), ("a1", "a"), ("b0", "b"), ("b1", "b"), ("c0", "c")]
        .into_iter()
        .map(|(name, zone)| (name.to_owned(), seat(1, zone)))
        .collect();
    let placed = first(&partitions(9, 3), &seats);
    let zones: BTreeSet<&str> = placed.values().map(|worker| &worker[..1]).collect();
    assert_eq!(zones.len(), 3, "{placed:?}");
    let placed = first(&partitions(9, 5), &seats);
    assert_eq!(placed.values().collect::<BTreeSet<_>>().len(), 5, "{placed:?}");
    let mut both = partitions(9, 10);
    both.extend(splits(1, 10));
    assert_eq!(range_of(&seats, &first(&both, &seats), 9), (2, 2));
}

#[test]
fn a_partition_goes_to_a_newcomer_only_if_it_is_one_too_many() {
    let mut homeless = splits(1, 40);
    homeless.extend(partitions(9, 4));
    let mut fleet = Fleet::new(seats(&[1; 4]), Running::new());
    fleet.running = first(&homeless, &fleet.seats);
    fleet.seats = seats(&[1; 5]);
    fleet.run(30);
    assert!(fleet.moves.iter().all(|m| m.task.split().is_some()), "{:?}", fleet.moves);
    let mut homeless = splits(1, 40);
    homeless.extend(partitions(9, 8));
    let mut fleet = Fleet::new(seats(&[1; 2]), Running::new());
    fleet.running = first(&homeless, &fleet.seats);
    fleet.seats = seats(&[1; 4]);
    fleet.run(30);
    assert_eq!(range_of(&fleet.seats, &fleet.running, 9), (2, 2));
    assert_eq!(fleet.moves.len(), 24, "two twelfths of 48, and no more for the partitions");
}

#[test]
fn a_large_worker_is_filled_in_rounds_and_a_small_one_four_at_a_time() {
    let mut fleet = Fleet::new(seats(&[1; 4]), Running::new());
    fleet.running = first(&splits(2, 2000), &fleet.seats);
    fleet.seats = seats(&[1; 5]);
    fleet.run(30);
    assert_eq!((fleet.moves.len(), fleet.crowd), (800, 50));
    let mut fleet = Fleet::new(seats(&[1; 2]), Running::new());
    fleet.running = first(&splits(1, 30), &fleet.seats);
    fleet.seats = seats(&[1; 3]);
    fleet.run(30);
    assert_eq!((fleet.moves.len(), fleet.crowd), (10, 4));
}

#[test]
fn a_move_for_counts_is_not_repeated_at_once() {
    let seats = seats(&[1, 1]);
    let running: Running = (0..4).map(|n| (task(0, n), "w0".to_owned())).collect();
    let mut history = History::default();
    let fixed = BTreeSet::new();
    let mut now = Duration::from_secs(1000);
    let mut picked = Vec::new();
    for _ in 0..3 {
        let rules = Rules { history: &history, fixed: &fixed, now, force: false };
        let moves = balance(&running, &Transit::default(), &seats, &rules);
        for one in moves {
            history.moved(one.task.clone(), Some(one.to), false, now);
            picked.push(one.task);
        }
        now += SECOND;
    }
    let distinct: BTreeSet<_> = picked.iter().collect();
    assert_eq!((picked.len(), distinct.len()), (4, 4), "each once, though none of them went");
    assert!(history.moved_within(&picked[3], FILL_COOLDOWN, now));
    assert!(!history.moved_within(&picked[3], FILL_COOLDOWN, now + FILL_COOLDOWN));
    assert_eq!(history.allowance(4, now), 2, "the cap counts moves for loads only");
}

#[test]
fn a_large_cluster_moves_a_tenth_of_its_tasks_a_minute_for_loads() {
    let mut history = History::default();
    assert_eq!(history.allowance(2000, Duration::ZERO), 200);
    assert_eq!(history.allowance(5, Duration::ZERO), 2);
    history.moved(task(0, 0), None, true, Duration::ZERO);
    history.moved(task(0, 1), None, false, Duration::ZERO);
    assert_eq!(history.allowance(2000, SECOND), 199);
    assert_eq!(history.allowance(2000, CAP_WINDOW), 200);
}

#[test]
fn a_worker_without_capacity_gets_nothing() {
    let placed = first(&splits(1, 3), &seats(&[0, 1]));
    assert!(placed.values().all(|worker| worker == "w1"));
    assert!(first(&splits(1, 3), &seats(&[0])).is_empty());
}

/// Lets loads be evened out: the load of each worker at the end, and how many moves it took.
fn even_loads(owners: &[usize], megabytes: &[f64], workers: usize) -> (Vec<f64>, usize) {
    let running = owners.iter().enumerate().map(|(n, w)| (task(0, n), format!("w{w}"))).collect();
    let mut fleet = Fleet::new(seats(&vec![1; workers]), running);
    fleet.costs = megabytes.iter().enumerate().map(|(n, mb)| (task(0, n), mb * 1e6)).collect();
    fleet.run(3600);
    (fleet.loads().into_values().map(|bytes| bytes / 1e6).collect(), fleet.moves.len())
}

#[test]
fn hot_splits_are_spread_by_exchange_and_counts_stay() {
    assert_eq!(even_loads(&[0, 0, 1, 1], &[8.0, 8.0, 0.1, 0.1], 2), (vec![8.1, 8.1], 2));
    let (loads, moves) = even_loads(&[0, 0, 1], &[8.0, 8.0, 0.1], 2);
    assert_eq!(moves, 1, "counts allow one to go for nothing: {loads:?}");
    let (loads, moves) = even_loads(&[0, 0, 1, 1, 2, 2, 3, 3], &[8.0, 8.0, 9.0, 9.0, 0.1, 0.1, 0.2, 0.2], 4);
    assert!(moves == 4 && loads.iter().all(|load| *load < 9.3), "{moves}: {loads:?}");
}

#[test]
fn a_gain_that_is_not_worth_a_handoff_is_left() {
    assert_eq!(even_loads(&[0, 0, 1, 1], &[0.4, 0.4, 0.1, 0.1], 2).1, 0, "under half a megabyte");
    assert_eq!(even_loads(&[0, 0, 1, 1], &[10.0, 11.0, 9.0, 9.5], 2).1, 0, "under 15 %");
    assert_eq!(even_loads(&[0, 1], &[20.0, 0.0], 2).1, 0, "one hot split is hot everywhere");
    assert_eq!(even_loads(&[], &[], 2).1, 0);
}

#[test]
fn an_operator_may_have_a_small_gain_at_once() {
    let seats = seats(&[1, 1]);
    let running: Running =
        [0, 0, 1, 1].iter().enumerate().map(|(n, w)| (task(0, n), format!("w{w}"))).collect();
    let tasks: Vec<TaskId> = running.keys().cloned().collect();
    let costs = tasks.iter().zip([4e5, 4e5, 1e5, 1e5]).collect();
    let mut history = History::default();
    for task in &tasks {
        history.moved(task.clone(), None, true, SECOND);
    }
    let (fixed, transit) = (BTreeSet::new(), Transit::default());
    let ask = |force| {
        exchange(
            &running,
            &transit,
            &seats,
            &costs,
            &Rules { history: &history, fixed: &fixed, now: SECOND, force },
        )
    };
    assert_eq!(ask(false), vec![]);
    assert_eq!(ask(true).len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn exchanges_never_make_it_worse_and_come_to_an_end(
        tasks in prop::collection::vec(0.0_f64..20.0, 0..40),
    ) {
        let owners: Vec<usize> = (0..tasks.len()).map(|n| n % 4).collect();
        let hottest = |owners: &[usize]| {
            (0..4).map(|w| owners.iter().zip(&tasks).filter(|(o, _)| **o == w).map(|(_, mb)| mb).sum::<f64>())
                .fold(0.0, f64::max)
        };
        let (loads, moves) = even_loads(&owners, &tasks, 4);
        let after = loads.into_iter().fold(0.0, f64::max);
        prop_assert!(after <= hottest(&owners) + 1e-9);
        prop_assert!(moves <= 60, "{moves} moves");
    }

    /// The cap holds whatever the loads do.
    #[test]
    fn loads_move_no_more_than_a_tenth_of_the_tasks_a_minute(
        rates in prop::collection::vec((0.0_f64..3e6, 0.0_f64..3e6), 10..60),
    ) {
        let mut fleet = Fleet::new(seats(&[1; 6]), Running::new());
        fleet.running = first(&splits(1, rates.len()), &fleet.seats);
        let mut at = Vec::new();
        for second in 0..600 {
            let side = second / 30 % 2 == 0;
            fleet.costs = rates.iter().enumerate().map(|(n, (a, b))| (task(0, n), if side { *a } else { *b })).collect();
            let before = fleet.moves.len();
            fleet.step(SECOND);
            at.extend(std::iter::repeat_n(second, fleet.moves.len() - before));
        }
        let most = at.iter().map(|start| at.iter().filter(|t| (*start..start + 60).contains(*t)).count()).max();
        prop_assert!(most.unwrap_or(0) <= (rates.len() / 10).max(2), "{most:?} of {}", rates.len());
        let mut last: BTreeMap<&TaskId, i32> = BTreeMap::new();
        for (one, at) in fleet.moves.iter().zip(&at) {
            let before = last.insert(&one.task, *at);
            prop_assert!(before.is_none_or(|before| at - before >= i32::try_from(MOVE_COOLDOWN.as_secs()).unwrap()));
        }
    }

    /// Rates that go up and down by a tenth around what they are: once it is even it stays as it is, but for what was at the very
    /// edge of being worth it, which is one exchange for each pair of workers at most; nothing goes to and fro.
    #[test]
    fn noise_moves_nothing_to_and_fro(
        rates in prop::collection::vec(0.0_f64..2e6, 8..40), seed in any::<u64>(),
    ) {
        let mut fleet = Fleet::new(seats(&[1; 4]), Running::new());
        fleet.running = first(&splits(1, rates.len()), &fleet.seats);
        fleet.costs = rates.iter().enumerate().map(|(n, rate)| (task(0, n), *rate)).collect();
        fleet.run(1200);
        let settled = fleet.moves.len();
        let mut random = seed | 1;
        let mut noisy = |rate: f64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            rate * (0.9 + 0.2 * f64::from(u32::try_from(random >> 32).unwrap()) / f64::from(u32::MAX))
        };
        let sample = |bytes_per_second| Sample { bytes_per_second, ..Sample::default() };
        let mut loads: Vec<Load> = rates.iter().map(|rate| Load::first(sample(*rate), fleet.now)).collect();
        for _ in 0..1800 {
            for (n, load) in loads.iter_mut().enumerate() {
                *load = load.then(sample(noisy(rates[n])), fleet.now);
                fleet.costs.insert(task(0, n), load.cost());
            }
            fleet.step(SECOND);
        }
        let moved = &fleet.moves[settled..];
        prop_assert!(moved.len() <= fleet.seats.len(), "{} moves", moved.len());
        let distinct: BTreeSet<&TaskId> = moved.iter().map(|m| &m.task).collect();
        prop_assert_eq!(distinct.len(), moved.len());
    }
}
