//! Evenness of loads, where evenness of counts is not enough: a few hot splits beside many quiet ones.
//!
//! Called by `plan` when the counts are even. The hottest worker is paired with the coolest, the next hottest with the next
//! coolest, and so on; each pair may exchange one task for another, or pass one on if counts allow. Only a gain that is worth the
//! handoffs is taken: the hotter of the two must lose more than 15 % of its load and half a megabyte a second.

use std::collections::BTreeMap;

use model::TaskId;

use super::{MOVE_COOLDOWN, Move, Rules, Running, Seats, Transit, Why, table::Table};

/// The least gain, as a part of the hotter worker's load.
const GAIN_SHARE_MIN: f64 = 0.15;
/// The least gain, in bytes a second.
const GAIN_BYTES_MIN: f64 = 500_000.0;

/// One worker and what its tasks cost.
struct Side<'a> {
    n: usize,
    capacity: f64,
    /// Of all its tasks.
    cost: f64,
    /// Its tasks, each with its cost.
    tasks: Vec<(&'a TaskId, f64)>,
}

/// What two workers may do for each other.
struct Deal<'a> {
    gain: f64,
    give: &'a TaskId,
    /// Nothing, if counts allow to pass one on.
    get: Option<&'a TaskId>,
}

/// The exchanges that are worth it, at most one for each pair of workers and as many moves as the cap allows. `costs`: of each
/// task, in bytes a second; one that is not there costs nothing.
#[must_use]
pub fn exchange(
    running: &Running,
    transit: &Transit,
    seats: &Seats,
    costs: &BTreeMap<&TaskId, f64>,
    rules: &Rules<'_>,
) -> Vec<Move> {
    let mut allowed =
        if rules.force { usize::MAX } else { rules.history.allowance(running.len(), rules.now) };
    if allowed == 0 {
        return Vec::new();
    }
    let mut table = Table::new(seats, running, transit, 0);
    let mut sides = sides(&table, running, costs);
    let pairs = sides.len() / 2;
    if pairs == 0 || (0..pairs).all(|n| !may_gain(&sides[sides.len() - 1 - n], &sides[n], rules)) {
        return Vec::new();
    }
    table.look_closer(running, |_| false);
    let mut moves = Vec::new();
    for n in 0..pairs {
        let mut above = sides.split_off(sides.len() - 1);
        let (Some(mut hot), cool) = (above.pop(), &mut sides[n]) else { break };
        if !may_gain(&hot, cool, rules) {
            continue;
        }
        let may = |task: &TaskId, from: usize, to: usize| {
            rules.may_move(task, MOVE_COOLDOWN) && table.stays_apart(task, from, to)
        };
        hot.tasks.retain(|(task, _)| may(task, hot.n, cool.n));
        cool.tasks.retain(|(task, _)| may(task, cool.n, hot.n));
        let passes_on = table.may_pass_on(hot.n, cool.n);
        let Some(deal) = deal(&hot, cool, passes_on).filter(|deal| is_worth_it(deal.gain, &hot, rules))
        else {
            continue;
        };
        let size = 1 + usize::from(deal.get.is_some());
        if size > allowed {
            break;
        }
        allowed -= size;
        let (from, to) = (table.name(hot.n).to_owned(), table.name(cool.n).to_owned());
        let why =
            Why::Load { has: hot.cost, then: hot.cost - deal.gain * hot.capacity, other_has: cool.cost };
        moves.push(Move { task: deal.give.clone(), from: from.clone(), to: to.clone(), why });
        moves.extend(deal.get.map(|get| Move { task: get.clone(), from: to, to: from, why: Why::InReturn }));
    }
    moves
}

/// What the hottest worker could lose at most to the coolest, if tasks were as fine as sand: in bytes a second, and as a part of
/// its load. For those who ask why nothing moves.
#[must_use]
pub fn largest_gain(running: &Running, seats: &Seats, costs: &BTreeMap<&TaskId, f64>) -> (f64, f64) {
    let table = Table::new(seats, running, &Transit::default(), 0);
    let sides = sides(&table, running, costs);
    match (sides.first(), sides.last()) {
        (Some(cool), Some(hot)) if hot.cost > 0.0 => {
            let gain = ideal(hot, cool);
            (gain, gain / hot.cost)
        }
        _ => (0.0, 0.0),
    }
}

/// Every worker, the coolest first.
fn sides<'a>(table: &Table<'_>, running: &'a Running, costs: &BTreeMap<&TaskId, f64>) -> Vec<Side<'a>> {
    let side = |(n, place): (usize, &super::table::Place<'_>)| {
        #[allow(clippy::cast_precision_loss, reason = "a capacity is a small number")]
        let capacity = place.capacity as f64;
        Side { n, capacity, cost: 0.0, tasks: Vec::with_capacity(place.count) }
    };
    let mut sides: Vec<Side<'a>> = table.places.iter().enumerate().map(side).collect();
    // Both are sorted by task.
    let mut known = costs.iter().peekable();
    for (task, worker) in running {
        while known.next_if(|(other, _)| **other < task).is_some() {}
        let cost = known.next_if(|(other, _)| **other == task).map_or(0.0, |(_, cost)| *cost);
        if let Some(n) = table.find(worker) {
            sides[n].cost += cost;
            sides[n].tasks.push((task, cost));
        }
    }
    sides.sort_by(|a, b| (a.cost / a.capacity).total_cmp(&(b.cost / b.capacity)));
    sides
}

/// What the hotter would have to give for both to be as hot.
fn ideal(hot: &Side<'_>, cool: &Side<'_>) -> f64 {
    (hot.cost * cool.capacity - cool.cost * hot.capacity) / (hot.capacity + cool.capacity)
}

fn may_gain(hot: &Side<'_>, cool: &Side<'_>, rules: &Rules<'_>) -> bool {
    is_worth_it(ideal(hot, cool) / hot.capacity, hot, rules)
}

/// `gain`: in bytes a second and unit of capacity.
fn is_worth_it(gain: f64, hot: &Side<'_>, rules: &Rules<'_>) -> bool {
    let bytes_min = if rules.force { 0.0 } else { GAIN_BYTES_MIN };
    gain * hot.capacity > (hot.cost * GAIN_SHARE_MIN).max(bytes_min)
}

/// The deal that brings the hotter of the two down most. What one gives less what it gets should come near the ideal; so for
/// each task to give, only the two nearest to get are looked at.
fn deal<'a>(hot: &Side<'a>, cool: &Side<'a>, passes_on: bool) -> Option<Deal<'a>> {
    let ideal = ideal(hot, cool);
    let before = hot.cost / hot.capacity;
    let gain = |given: f64| {
        let (hot_then, cool_then) = (hot.cost - given, cool.cost + given);
        before - (hot_then / hot.capacity).max(cool_then / cool.capacity)
    };
    let mut offers: Vec<(f64, Option<&'a TaskId>)> =
        cool.tasks.iter().map(|(task, cost)| (*cost, Some(*task))).collect();
    if passes_on {
        offers.push((0.0, None));
    }
    offers.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut best: Option<Deal<'a>> = None;
    for (give, cost) in &hot.tasks {
        let at = offers.partition_point(|(offer, _)| *offer < cost - ideal);
        for (offer, get) in offers.iter().skip(at.saturating_sub(1)).take(2) {
            let gain = gain(cost - offer);
            if best.as_ref().is_none_or(|best| gain > best.gain) {
                best = Some(Deal { gain, give, get: *get });
            }
        }
    }
    best
}
