//! What a task costs its worker: how much it reads, how many records that is, and how far behind it is.
//!
//! Fed by the coordinator with each report; read by `plan` (loads are evened out by cost) and by `status` (a hot split).
//!
//! Cost is in bytes a second, so that it can be compared with limits that people know:
//!
//! ```text
//! cost = bytes/s + 512 × records/s + 1,000,000 × min(lag, 60 s) / 60 s
//! ```
//!
//! A record costs what half a kilobyte does, whatever its size: it is decoded, keyed, tracked and acked by itself. A task that
//! is behind will read as fast as it may as soon as it can; its lag stands for that, and is bounded, so that one that is
//! hours behind weighs no more than one that is a minute behind. All three are smoothed with a time constant of 30 s.

use std::time::Duration;

/// What one record a second weighs, in bytes a second.
pub const RECORD_WEIGHT: f64 = 512.0;
/// What a task that is far behind weighs, in bytes a second: half of what may be read from a split.
pub const LAG_WEIGHT: f64 = 1_000_000.0;
/// From here on, more lag weighs no more.
pub const LAG_FULL: Duration = Duration::from_secs(60);
/// A change counts by about two thirds after this long.
pub const SMOOTHING: Duration = Duration::from_secs(30);

/// What may be written to a split, bytes a second (1 MB/s on Kinesis).
pub const SPLIT_BYTES_MAX: f64 = 1_000_000.0;
/// What may be written to a split, records a second.
pub const SPLIT_RECORDS_MAX: f64 = 1_000.0;
/// From this part of either, a split is hot.
pub const HOT_SHARE: f64 = 0.8;
/// While a task is further behind than this, what it reads says nothing about what is written.
const HOT_LAG_MAX: Duration = Duration::from_secs(60);
/// A split is the main part of its worker's load from this share on …
const MAIN_SHARE: f64 = 0.5;
/// … if it costs more than this.
const MAIN_COST_MIN: f64 = 500_000.0;

/// What one report says.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Sample {
    /// What it reads (or writes, for a partition).
    pub bytes_per_second: f64,
    /// The same in records.
    pub records_per_second: f64,
    /// How far behind now.
    pub lag: Duration,
}

/// The smoothed load of a task. It outlives the runs of the task: a move changes where it is, not what it is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Load {
    /// Smoothed.
    pub bytes_per_second: f64,
    /// Smoothed.
    pub records_per_second: f64,
    /// Smoothed, in seconds.
    pub lag: f64,
    /// When the newest report came.
    at: Duration,
    /// When the first one came.
    since: Duration,
}

impl Load {
    /// The first report of a task.
    #[must_use]
    pub fn first(sample: Sample, now: Duration) -> Self {
        Self {
            bytes_per_second: sample.bytes_per_second,
            records_per_second: sample.records_per_second,
            lag: sample.lag.as_secs_f64(),
            at: now,
            since: now,
        }
    }

    /// The load after one more report. Reports that come seldom count more, each as if it had held since the one before.
    #[must_use]
    pub fn then(self, sample: Sample, now: Duration) -> Self {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        let weight = passed / (SMOOTHING.as_secs_f64() + passed);
        let toward = |old: f64, new: f64| old + (new - old) * weight;
        Self {
            bytes_per_second: toward(self.bytes_per_second, sample.bytes_per_second),
            records_per_second: toward(self.records_per_second, sample.records_per_second),
            lag: toward(self.lag, sample.lag.as_secs_f64()),
            at: now,
            since: self.since,
        }
    }

    /// What the task costs its worker, in bytes a second.
    #[must_use]
    pub fn cost(&self) -> f64 {
        let behind = (self.lag / LAG_FULL.as_secs_f64()).clamp(0.0, 1.0);
        self.bytes_per_second + RECORD_WEIGHT * self.records_per_second + LAG_WEIGHT * behind
    }

    /// Whether its split is hot, and why. `worker`: the cost of all tasks of its worker, if there are others.
    #[must_use]
    pub fn hot(&self, worker: Option<f64>) -> Option<Hot> {
        let sustained = self.at.saturating_sub(self.since) >= SMOOTHING;
        if sustained && self.lag <= HOT_LAG_MAX.as_secs_f64() {
            let share =
                (self.bytes_per_second / SPLIT_BYTES_MAX).max(self.records_per_second / SPLIT_RECORDS_MAX);
            if share >= HOT_SHARE {
                return Some(Hot::NearLimit { share });
            }
        }
        let cost = self.cost();
        let share = worker.filter(|all| *all > 0.0).map(|all| cost / all)?;
        (sustained && share > MAIN_SHARE && cost > MAIN_COST_MIN).then_some(Hot::MainPart { share })
    }
}

/// Why a split is hot.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Hot {
    /// It takes this part of what may be written to a split.
    NearLimit {
        /// 1 is the limit.
        share: f64,
    },
    /// It is this part of the load of its worker, which has other tasks.
    MainPart {
        /// 1 is all of it.
        share: f64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn sample(bytes: f64, records: f64, lag: u64) -> Sample {
        Sample { bytes_per_second: bytes, records_per_second: records, lag: s(lag) }
    }

    /// The load after `n` reports, one a second.
    fn steady(sample: Sample, n: u64) -> Load {
        (1..=n).fold(Load::first(sample, s(0)), |load, at| load.then(sample, s(at)))
    }

    #[test]
    fn cost_weighs_bytes_records_and_a_bounded_lag() {
        assert!((steady(sample(1000.0, 2.0, 0), 9).cost() - 2024.0).abs() < 1e-6);
        assert!((steady(sample(0.0, 0.0, 30), 9).cost() - 500_000.0).abs() < 1e-6);
        assert!((steady(sample(0.0, 0.0, 86_400), 9).cost() - 1_000_000.0).abs() < 1e-6, "a day is a minute");
    }

    #[test]
    fn one_spike_hardly_counts_and_a_change_does_after_a_while() {
        let quiet = steady(sample(0.0, 0.0, 0), 10);
        let spike = quiet.then(sample(3e6, 0.0, 0), s(11));
        assert!(spike.bytes_per_second < 1e5, "{spike:?}");
        let lasting = (11..=71).fold(quiet, |load, at| load.then(sample(3e6, 0.0, 0), s(at)));
        assert!(lasting.bytes_per_second > 2.5e6, "{lasting:?}");
        // However often it reports, time is what counts.
        let seldom = quiet.then(sample(3e6, 0.0, 0), s(10) + SMOOTHING);
        assert!((seldom.bytes_per_second - 1.5e6).abs() < 1.0, "{seldom:?}");
    }

    #[test]
    fn a_split_near_its_limit_for_a_while_is_hot_by_bytes_or_by_records() {
        assert_eq!(steady(sample(790_000.0, 790.0, 0), 60).hot(None), None);
        let by_bytes = steady(sample(900_000.0, 10.0, 0), 60).hot(None);
        assert!(
            matches!(by_bytes, Some(Hot::NearLimit { share }) if (share - 0.9).abs() < 1e-9),
            "{by_bytes:?}"
        );
        let by_records = steady(sample(10.0, 950.0, 0), 60).hot(None);
        assert!(matches!(by_records, Some(Hot::NearLimit { share }) if (share - 0.95).abs() < 1e-9));
        assert_eq!(steady(sample(900_000.0, 10.0, 0), 5).hot(None), None, "not sustained yet");
        assert_eq!(steady(sample(1.9e6, 10.0, 3600), 60).hot(None), None, "it catches up: that is no input");
    }

    #[test]
    fn a_split_that_is_most_of_its_workers_load_is_hot_if_it_is_worth_mentioning() {
        let load = steady(sample(700_000.0, 0.0, 0), 60);
        assert_eq!(load.hot(Some(1_000_000.0)), Some(Hot::MainPart { share: 0.7 }));
        assert_eq!(load.hot(Some(2_000_000.0)), None);
        assert_eq!(load.hot(None), None, "it has the worker to itself");
        assert_eq!(steady(sample(7000.0, 0.0, 0), 60).hot(Some(8000.0)), None);
    }
}
