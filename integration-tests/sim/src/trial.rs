//! One run: a script, from the first process to the ledger.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    books::{self, Account},
    cluster::{Cluster, LEDGER, LETTERS},
    stage::Stage,
};

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// What is wrong; empty is well.
    pub failures: Vec<String>,
    /// The ledger of each destination.
    pub ledgers: Vec<Account>,
    /// Simulated time.
    pub lasted: Duration,
    /// How long it took to settle after everything healed.
    pub settled: Option<Duration>,
}

/// Runs a script to its end.
#[must_use]
pub fn run(cluster: &mut Cluster) -> Outcome {
    let load = cluster.script.load;
    let last = cluster.script.faults.last().map_or(Duration::ZERO, |(at, _)| *at);
    let mut stage = Stage::new(cluster);
    stage.cluster.ledger.poison(stage.cluster.script.demands.poison.map(Into::into));
    stage.start_all();
    let source = stage.cluster.script.demands.source;
    stage.cluster.declare(source);
    stage.load_until(load);
    let end = load.max(last + Duration::from_secs(10));
    stage.run_for(end - stage.now());
    let settled = stage.settle(books::is_complete);
    let lasted = stage.now();
    let ledgers = books::accounts(stage.cluster);
    let mut failures: Vec<String> = unburied(stage.cluster).into_iter().collect();
    failures.extend(stage.finish());
    failures.extend(ledgers.iter().flat_map(Account::complaints));
    Outcome { failures, ledgers, lasted, settled }
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
