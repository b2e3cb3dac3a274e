//! What operators may ask of the balancer: what would move and why, to move it now, which splits are hot, and how many workers
//! would be right. Decisions are those of `logic`; here they meet the term's memory.

use std::{collections::BTreeMap, time::Duration};

use logic::{
    assign::cost::{Hot, Load},
    plan::{self, Rebalance},
    scale::{self, Signals, Usage},
};
use model::{HashRange, TaskId};
use proto::v1;

use crate::{
    error::{Error, ErrorKind, Result},
    execute,
    handle::Leader,
    session::to_wire,
    term::{State, Term},
};

impl Leader {
    /// What a balancer without patience would move, and why ours does not.
    #[must_use]
    pub fn explain_rebalance(&self) -> Rebalance {
        let state = self.term.state();
        let memory = &state.memory;
        plan::rebalance(&memory.desired, &memory.observed, &self.term.config.timing, self.term.clock.now())
    }

    /// Begins all of it, by planned handoffs. Errors: `State`, while the leader does not know enough.
    pub fn rebalance(&self) -> Result<Rebalance> {
        let term = &self.term;
        let timing = &term.config.timing;
        let found = {
            let mut state = term.state();
            let memory = &state.memory;
            let found = plan::rebalance(&memory.desired, &memory.observed, timing, term.clock.now());
            if let Some(why) = &found.refused {
                return Err(Error::new(ErrorKind::State, format!("nothing can be moved now: {why}")));
            }
            for order in found.orders(&memory.observed, timing) {
                execute::stop(term, &mut state, &order);
            }
            found
        };
        term.push_lists();
        term.nudge.notify_one();
        Ok(found)
    }

    /// The names of a task: its source, its sink, its split or partition.
    #[must_use]
    pub fn names(&self, task: &TaskId) -> [String; 3] {
        let state = self.term.state();
        let sink = state.memory.sink(task.sink);
        let (source, sink) =
            sink.map(|sink| (sink.source_name.clone(), sink.name.clone())).unwrap_or_default();
        [source, sink, task.work.to_string()]
    }

    /// How many workers would be right.
    #[must_use]
    pub fn scale(&self) -> v1::ScaleReply {
        let signals = signals(&self.term, &self.term.state());
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        v1::ScaleReply {
            workers: count(signals.workers),
            wanted: count(signals.wanted),
            why: signals.why,
            lag_max: Some(to_wire(signals.lag_max)),
            lag_p90: Some(to_wire(signals.lag_p90)),
            cpu: signals.cpu,
            budget: signals.budget,
        }
    }
}

/// How busy the cluster is, and how many workers would be right.
pub(crate) fn signals(term: &Term, state: &State) -> Signals {
    let observed = &state.memory.observed;
    let usage = |(process, _): (&str, &logic::gate::Process)| {
        let session = state.session_of(process).map(|(_, session)| session);
        session.map_or(Usage::default(), |session| Usage {
            cpu: session.cpu.0,
            cores: session.cpu.1,
            budget_used: session.budget.0,
            budget_size: session.budget.1,
        })
    };
    let live = observed.heard.live(&term.config.timing, term.clock.now());
    let workers: Vec<Usage> = live.filter(|(_, p)| !p.draining && p.capacity > 0).map(usage).collect();
    let current = |(task, report): (&TaskId, &v1::Report)| {
        let (epoch, _) = observed.assignments.get(task)?;
        let lag = report.lag_ms.filter(|_| report.epoch == Some((*epoch).into()))?;
        Some(Duration::from_millis(lag))
    };
    let lags = state.reports.iter().filter_map(current).collect();
    scale::signals(&workers, lags, observed.assignments.len())
}

/// The cost of all tasks of each worker that has more than one.
pub(crate) struct Loads<'a>(BTreeMap<&'a str, (u32, f64)>);

impl<'a> Loads<'a> {
    pub fn of(state: &'a State) -> Self {
        let observed = &state.memory.observed;
        let mut loads: BTreeMap<&str, (u32, f64)> = BTreeMap::new();
        for (task, (_, run)) in &observed.assignments {
            let (tasks, cost) = loads.entry(run.worker.as_str()).or_default();
            *tasks += 1;
            *cost += observed.loads.get(task).map_or(0.0, Load::cost);
        }
        Self(loads)
    }

    /// What to do about a hot split, in words; empty if it is not hot.
    pub fn advice(&self, state: &State, task: &TaskId, range: Option<HashRange>) -> String {
        let observed = &state.memory.observed;
        let run = observed.assignments.get(task).filter(|_| task.split().is_some());
        let (Some((_, run)), Some(load)) = (run, observed.loads.get(task)) else { return String::new() };
        let others = self.0.get(run.worker.as_str()).filter(|(tasks, _)| *tasks > 1).map(|(_, cost)| *cost);
        let hot = load.hot(others);
        hot.map(|hot| advice((hot, load), &run.worker, range)).unwrap_or_default()
    }
}

fn advice((hot, load): (Hot, &Load), worker: &str, range: Option<HashRange>) -> String {
    let why = match hot {
        Hot::NearLimit { share } => format!(
            "{:.2} MB/s and {:.0} records/s, {:.0} % of what a split takes",
            load.bytes_per_second / 1e6,
            load.records_per_second,
            share * 100.0
        ),
        Hot::MainPart { share } => format!("{:.0} % of the load of worker {worker}", share * 100.0),
    };
    match range.filter(|range| range.last > range.first) {
        // Where the upper child begins: what `SplitShard` asks for.
        Some(range) => {
            let middle = range.first + (range.last - range.first) / 2 + 1;
            format!("hot: {why}; split it, in the middle at hash key {middle}")
        }
        None => format!("hot: {why}; split it"),
    }
}

#[cfg(test)]
mod tests {
    use logic::assign::cost::Sample;

    use super::*;

    #[test]
    fn advice_names_the_middle_of_the_hash_range() {
        let sample = Sample { bytes_per_second: 9e5, records_per_second: 100.0, lag: Duration::ZERO };
        let load = Load::first(sample, Duration::ZERO);
        let whole = HashRange { first: 0, last: u128::MAX };
        assert_eq!(
            advice((Hot::NearLimit { share: 0.9 }, &load), "w1", Some(whole)),
            "hot: 0.90 MB/s and 100 records/s, 90 % of what a split takes; split it, in the middle at hash key \
             170141183460469231731687303715884105728"
        );
        let upper = HashRange { first: u128::MAX - 1, last: u128::MAX };
        let found = advice((Hot::MainPart { share: 0.61 }, &load), "w1", Some(upper));
        assert_eq!(
            found,
            format!("hot: 61 % of the load of worker w1; split it, in the middle at hash key {}", u128::MAX)
        );
        let one = HashRange { first: 7, last: 7 };
        assert!(advice((Hot::MainPart { share: 0.61 }, &load), "w1", Some(one)).ends_with("; split it"));
    }
}
