//! One run: a script, from the first process to the ledger.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use integration_tests::ledger::{Found, audit};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::{
    act::Acts,
    cluster::{COPY, Cluster, LEDGER, LETTERS},
    judge::Judge,
    ledger::{self, Report},
};

/// How long after everything healed the destinations may take to hold everything.
pub const SETTLE: Duration = Duration::from_secs(120);

/// How long is watched after that: a write that comes late must not spoil it.
const AFTERMATH: Duration = Duration::from_secs(15);

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// What is wrong; empty is well.
    pub failures: Vec<String>,
    /// The ledger of each destination.
    pub ledgers: Vec<(&'static str, Report)>,
    /// Simulated time.
    pub lasted: Duration,
    /// How long it took to settle after everything healed.
    pub settled: Option<Duration>,
}

/// Runs a script to its end.
#[must_use]
pub fn run(cluster: &mut Cluster) -> Outcome {
    let panics = watch_panics();
    let mut trial = Trial {
        acts: Acts::of(&cluster.script),
        judge: Judge::new(crate::cluster::NAME, cluster.script.demands.calm),
        seen: 0,
        random: StdRng::seed_from_u64(cluster.script.seed ^ 0x10AD),
        failures: Vec::new(),
    };
    clocks(cluster, &mut trial.random);
    cluster.ledger.poison(cluster.script.demands.poison.map(Into::into));
    for place in cluster.places() {
        cluster.start(place);
    }
    cluster.declare("");
    let load = cluster.script.load;
    let last = cluster.script.faults.last().map_or(Duration::ZERO, |(at, _)| *at);
    while cluster.net().now() < load || cluster.net().now() < last + Duration::from_secs(10) {
        trial.step(cluster, load);
        if trial.has_failed() {
            break;
        }
    }
    trial.acts.heal(cluster);
    let healed = cluster.net().now();
    let mut settled = None;
    while !trial.has_failed() {
        trial.step(cluster, load);
        let now = cluster.net().now();
        match settled {
            None if now > healed + SETTLE => {
                trial.failures.push(format!("not settled {SETTLE:?} after everything healed"));
            }
            None if now.as_millis() % 200 < 4 && is_complete(cluster) => settled = Some(now),
            Some(at) if now > at + AFTERMATH => break,
            _ => {}
        }
    }
    let mut failures = trial.failures;
    failures.extend(ended(cluster).chain(unburied(cluster)));
    failures.extend(std::mem::take(&mut *panics.lock().expect("no panic holds it")));
    let ledgers = ledgers(cluster);
    for (name, report) in ledgers.iter().filter(|(_, report)| !report.balances()) {
        failures.push(format!("ledger {name}: {report}"));
        failures
            .extend(report.verdict.complaints.iter().map(|complaint| format!("ledger {name}: {complaint}")));
    }
    Outcome { failures, ledgers, lasted: cluster.net().now(), settled: settled.map(|at| at - healed) }
}

struct Trial {
    acts: Acts,
    judge: Judge,
    /// The store's revision when it was judged last.
    seen: u64,
    random: StdRng,
    failures: Vec<String>,
}

impl Trial {
    fn step(&mut self, cluster: &mut Cluster, load: Duration) {
        self.acts.step(cluster);
        if cluster.net().now() < load && cluster.net().now().as_millis() % 100 < 4 {
            self.put(cluster);
        }
        cluster.world.step();
        if cluster.revision() != self.seen {
            self.seen = cluster.revision();
            self.failures.extend(self.judge.look(&cluster.stored()));
        }
    }

    fn has_failed(&self) -> bool {
        !self.failures.is_empty()
    }

    /// A tenth of a second's records.
    fn put(&mut self, cluster: &mut Cluster) {
        let mut left = cluster.script.rate.div_ceil(10);
        while left > 0 {
            let key = format!("k{}", self.random.random_range(0..cluster.script.keys));
            if self.random.random_bool(cluster.script.aggregated) {
                let count = self.random.random_range(1..=5.min(left));
                cluster.put_aggregate(&key, usize::try_from(count).unwrap_or(1));
                left -= count;
            } else {
                cluster.put(&key);
                left -= 1;
            }
        }
    }
}

/// Each machine's clock is wrong in its own way.
fn clocks(cluster: &mut Cluster, random: &mut StdRng) {
    for place in cluster.places() {
        let rate = random.random_range(0.98..1.02);
        let ahead = Duration::from_secs(random.random_range(0..3600));
        cluster.world.set_clock(place, rate, ahead);
    }
}

/// Whether each destination holds as many different records as were put.
fn is_complete(cluster: &Cluster) -> bool {
    let sent: u64 = cluster.sent.values().sum();
    let ledger = cluster.ledger.look(LEDGER, |kept| kept.records());
    ledger as u64 >= sent && ledgers(cluster).iter().all(|(_, report)| report.verdict.lost == 0)
}

/// What each destination holds against what was put.
fn ledgers(cluster: &Cluster) -> Vec<(&'static str, Report)> {
    let kinesis = cluster.kinesis();
    let copies = kinesis.records(COPY).flat_map(|shard| shard.records.iter()).filter_map(|record| {
        let row: serde_json::Value = serde_json::from_slice(&record.data).ok()?;
        Some(Found { key: row["k"].as_str()?.to_owned(), n: row["n"].as_u64()? })
    });
    let copies = Report { verdict: audit(&cluster.sent, copies), ..Report::default() };
    let ledger = cluster.ledger.look(LEDGER, |kept| ledger::audit(&cluster.sent, kept));
    vec![("copies", copies), ("ledger", ledger)]
}

/// Processes that gave up by themselves: none ever has a reason to.
fn ended(cluster: &Cluster) -> impl Iterator<Item = String> {
    let lines = cluster.net().trace().lines().into_iter();
    lines.filter(|line| line.what.starts_with("failed: ")).map(|line| line.to_string())
}

/// Rows that were refused and are not among the dead letters either.
fn unburied(cluster: &Cluster) -> Option<String> {
    cluster.script.demands.poison?;
    let refused: BTreeSet<(String, u64)> = cluster.ledger.look(LEDGER, |kept| {
        let refused = kept.arrivals().iter().filter(|arrival| !arrival.taken);
        refused.filter_map(|arrival| arrival.record.clone()).map(|record| (record.key, record.n)).collect()
    });
    let letters: BTreeSet<String> = cluster.ledger.look(LETTERS, |kept| {
        let place = |letter: &serde_json::Value| {
            format!("{} {} {}", letter["shard"], letter["seq"], letter["sub_seq"])
        };
        let letters =
            kept.arrivals().iter().filter_map(|arrival| serde_json::from_slice(&arrival.value).ok());
        letters.map(|letter| place(&letter)).collect()
    });
    let missing = refused.len().saturating_sub(letters.len());
    (missing > 0)
        .then(|| format!("{missing} of {} refused rows are not among the dead letters", refused.len()))
}

/// A panic anywhere in the product is a failure, whatever caught it.
fn watch_panics() -> Arc<Mutex<Vec<String>>> {
    let panics = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&panics);
    std::panic::set_hook(Box::new(move |panic| {
        if let Ok(mut seen) = seen.lock() {
            seen.push(format!("panic: {panic}"));
        }
    }));
    panics
}
