//! How many workers would be right: for autoscalers, and for people who ask.
//!
//! Called by the coordinator when somebody asks and when it measures; it changes nothing. The formula, so that it can be checked
//! by hand:
//!
//! ```text
//! busy    = max( CPU used / cores of all workers / 0.60,  budget used / budget of all workers / 0.80 )
//! enough  = ceil( workers × busy )
//! behind  = the lag of one task in ten is over 60 s, and busy is over 0.5: a quarter more workers than now
//! wanted  = more:   max( enough, behind )
//!           fewer:  ceil( workers × busy × 1.2 ), and only while one task in ten is less than 10 s behind and none over 60 s
//!           never more than there are tasks, never less than 1
//! ```
//!
//! Lag alone asks for nobody: workers that are behind and idle wait for a source's quota or for a destination, and more of them
//! would wait, too. Never the sum of lags: a hundred tasks that are a second behind each are fine.

use std::time::Duration;

/// The part of the cores that shall be in use.
pub const CPU_TARGET: f64 = 0.60;
/// The part of the memory budgets that shall be in use.
pub const BUDGET_TARGET: f64 = 0.80;
/// From here on one is behind.
pub const LAG_HIGH: Duration = Duration::from_secs(60);
/// Up to here one is not.
pub const LAG_LOW: Duration = Duration::from_secs(10);
/// How busy workers must be for lag to ask for more of them.
const BUSY_MIN: f64 = 0.5;
/// Fewer workers must have this much to spare.
const SPARE: f64 = 1.2;

/// What one worker uses.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Usage {
    /// CPU seconds a second.
    pub cpu: f64,
    /// Cores that it may use; 0 if it does not say.
    pub cores: u32,
    /// Bytes of its memory budget in use.
    pub budget_used: u64,
    /// The size of its memory budget.
    pub budget_size: u64,
}

/// The answer.
#[derive(Clone, PartialEq, Debug)]
pub struct Signals {
    /// Workers that take tasks now.
    pub workers: usize,
    /// How many would be right.
    pub wanted: usize,
    /// Why, in one line.
    pub why: String,
    /// Of the task that is furthest behind.
    pub lag_max: Duration,
    /// One task in ten is further behind than this.
    pub lag_p90: Duration,
    /// The part of all cores that is in use.
    pub cpu: f64,
    /// The part of all memory budgets that is in use.
    pub budget: f64,
}

/// How many workers would be right. `workers`: those that take tasks; `lags`: of the tasks that tell theirs; `tasks`: all that run
/// or shall run.
#[must_use]
pub fn signals(workers: &[Usage], mut lags: Vec<Duration>, tasks: usize) -> Signals {
    lags.sort_unstable();
    let lag_max = lags.last().copied().unwrap_or_default();
    let lag_p90 = lags.get((lags.len() * 9).div_ceil(10).saturating_sub(1)).copied().unwrap_or_default();
    let cores: u32 = workers.iter().map(|worker| worker.cores).sum();
    let cpu = part(workers.iter().map(|worker| worker.cpu).sum(), f64::from(cores));
    let budget =
        part(bytes(workers.iter().map(|w| w.budget_used)), bytes(workers.iter().map(|w| w.budget_size)));
    let (wanted, why) = wanted(workers.len(), tasks, (cpu, budget), (lag_max, lag_p90));
    Signals { workers: workers.len(), wanted, why, lag_max, lag_p90, cpu, budget }
}

fn wanted(
    now: usize,
    tasks: usize,
    (cpu, budget): (f64, f64),
    (lag_max, lag_p90): (Duration, Duration),
) -> (usize, String) {
    let limit = tasks.max(1);
    if now == 0 {
        return (1, "no worker takes tasks".to_owned());
    }
    let busy = (cpu / CPU_TARGET).max(budget / BUDGET_TARGET);
    let what = if cpu / CPU_TARGET >= budget / BUDGET_TARGET { "CPU" } else { "memory budget" };
    let percent = |part: f64| format!("{:.0} %", part * 100.0);
    let used = if what == "CPU" { percent(cpu) } else { percent(budget) };
    let enough = ceil(now, busy);
    let behind = lag_p90 > LAG_HIGH;
    let more = if behind && busy > BUSY_MIN { enough.max(now + now.div_ceil(4)) } else { enough };
    if more > now {
        let why = match more > enough {
            true => format!(
                "one task in ten is {} s behind while {used} of the {what} is in use",
                lag_p90.as_secs()
            ),
            false => format!("{used} of the {what} is in use"),
        };
        return match now >= limit {
            true => (now.min(limit), format!("{why}, but there are only {tasks} tasks to share")),
            false => (more.min(limit), why),
        };
    }
    if now > limit {
        return (limit, format!("there are only {tasks} tasks to share"));
    }
    if behind {
        let why = format!(
            "one task in ten is {} s behind, but only {used} of the {what} is in use: look at the quota of the source and at the \
             destination",
            lag_p90.as_secs()
        );
        return (now, why);
    }
    let fewer = ceil(now, busy * SPARE).max(1);
    if fewer < now && lag_p90 < LAG_LOW && lag_max <= LAG_HIGH {
        return (fewer, format!("only {used} of the {what} is in use and nothing is behind"));
    }
    (now, "as it is".to_owned())
}

/// `count × factor`, rounded up.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of workers is small and not negative"
)]
fn ceil(count: usize, factor: f64) -> usize {
    (count as f64 * factor - 1e-9).ceil() as usize
}

#[allow(clippy::cast_precision_loss, reason = "it becomes a percentage")]
fn bytes(all: impl Iterator<Item = u64>) -> f64 {
    all.sum::<u64>() as f64
}

fn part(used: f64, all: f64) -> f64 {
    if all > 0.0 { used / all } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// `n` workers of 4 cores that use this part of them, and this part of their budget.
    fn workers(n: usize, cpu: f64, budget: u64) -> Vec<Usage> {
        vec![Usage { cpu: cpu * 4.0, cores: 4, budget_used: budget, budget_size: 100 }; n]
    }

    fn ask(n: usize, cpu: f64, budget: u64, lag: u64) -> usize {
        signals(&workers(n, cpu, budget), vec![s(lag); 20], 100).wanted
    }

    #[test]
    fn cpu_asks_for_as_many_as_bring_it_to_its_target() {
        assert_eq!(ask(10, 0.60, 0, 0), 10);
        assert_eq!(ask(10, 0.90, 0, 0), 15);
        assert_eq!(ask(10, 0.61, 0, 0), 11);
        assert_eq!(ask(10, 0.55, 0, 0), 10, "there must be something to spare");
        assert_eq!(ask(10, 0.30, 0, 0), 6, "ten at 30 % are six at 50 %");
        assert_eq!(ask(10, 0.0, 0, 0), 1);
    }

    #[test]
    fn what_was_answered_is_still_right_when_it_was_done() {
        for percent in 1..200 {
            let cpu = f64::from(percent) / 100.0;
            let wanted = ask(10, cpu, 0, 0);
            #[allow(clippy::cast_precision_loss, reason = "small")]
            let then = ask(wanted, cpu * 10.0 / wanted as f64, 0, 0);
            assert_eq!(then, wanted, "at {percent} %");
        }
    }

    #[test]
    fn a_full_memory_budget_asks_too() {
        assert_eq!(ask(4, 0.1, 100, 0), 5);
        assert_eq!(ask(4, 0.1, 80, 0), 4);
    }

    #[test]
    fn lag_asks_for_a_quarter_more_unless_the_workers_are_idle() {
        assert_eq!(ask(8, 0.5, 0, 61), 10);
        assert_eq!(ask(8, 0.5, 0, 59), 8);
        let idle = signals(&workers(8, 0.1, 10), vec![s(500); 20], 100);
        assert_eq!(idle.wanted, 8, "nobody is taken away either");
        assert!(idle.why.contains("look at the quota of the source"), "{}", idle.why);
    }

    #[test]
    fn one_task_that_is_behind_keeps_the_workers_and_asks_for_none() {
        let mut lags = vec![s(1); 99];
        lags.push(s(4000));
        let found = signals(&workers(8, 0.1, 10), lags, 100);
        assert_eq!((found.lag_p90, found.lag_max, found.wanted), (s(1), s(4000), 8));
    }

    #[test]
    fn there_are_never_more_workers_than_tasks_and_never_none() {
        assert_eq!(signals(&workers(4, 0.9, 0), vec![], 5).wanted, 5);
        assert_eq!(signals(&workers(4, 0.9, 0), vec![], 4).wanted, 4);
        assert_eq!(signals(&workers(4, 0.9, 0), vec![], 2).wanted, 2);
        assert_eq!(signals(&workers(4, 0.0, 0), vec![], 0).wanted, 1);
        assert_eq!(signals(&[], vec![], 7).wanted, 1);
    }

    #[test]
    fn the_ninetieth_percentile_is_the_nearest_rank() {
        let lags: Vec<Duration> = (1..=10).map(s).collect();
        assert_eq!(signals(&[], lags, 10).lag_p90, s(9));
        assert_eq!(signals(&[], vec![s(7)], 1).lag_p90, s(7));
        assert_eq!(signals(&[], vec![], 1).lag_p90, s(0));
    }
}
