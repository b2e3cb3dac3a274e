//! What a destination says of a run: whether anything was lost or out of order, and whether what came twice had to.
//!
//! A row may come twice for two reasons only. Its run did not hear that it was stored: then that run sends it again. Or its run
//! ended before the checkpoint had caught up: then the next run begins a little earlier, which is a [`Rewind`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use integration_tests::ledger::{self, Found, Verdict};
use model::{Epoch, TaskId};

use super::keep::{Arrival, Kept};
use crate::place::Place;

/// Records by key and number.
pub type Records = BTreeSet<(String, u64)>;

/// A run that wrote again what an earlier run of its task had stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rewind {
    /// Of the run.
    pub task: TaskId,
    /// The run.
    pub epoch: Epoch,
    /// Where it was.
    pub worker: Place,
    /// How many rows it repeated.
    pub rows: u64,
    /// From when the oldest row that it repeated was stored at first, until the newest of its task was: how far the checkpoint
    /// it began from was behind.
    pub reach: Duration,
}

/// All that is to be said.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Lost, repeated, out of order.
    pub verdict: Verdict,
    /// Rows that landed after a newer run of their task had written.
    pub overtaken: u64,
    /// Rows that a run sent again although it had been told that they are durable.
    pub needless: u64,
    /// Rows that were refused for good.
    pub refused: u64,
    /// Runs that repeated what earlier ones had stored.
    pub rewinds: Vec<Rewind>,
}

impl Report {
    /// Nothing lost, out of order, late or repeated without need.
    #[must_use]
    pub fn balances(&self) -> bool {
        self.verdict.balances() && self.overtaken == 0 && self.needless == 0
    }

    /// The farthest that a run went back.
    #[must_use]
    pub fn reach(&self) -> Duration {
        self.rewinds.iter().map(|rewind| rewind.reach).max().unwrap_or_default()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.verdict)?;
        if self.refused > 0 {
            write!(f, ", refused {}", self.refused)?;
        }
        if self.overtaken > 0 {
            write!(f, ", landed after a newer run {}", self.overtaken)?;
        }
        if self.needless > 0 {
            write!(f, ", sent again without need {}", self.needless)?;
        }
        if !self.rewinds.is_empty() {
            write!(f, ", farthest back {:?}", self.reach())?;
        }
        Ok(())
    }
}

/// Compares `sent` (how many records of each key, numbered from 0, but for those in `gone`) with what a destination holds. Rows
/// that it refused count as delivered where they were refused.
#[must_use]
pub fn audit(sent: &BTreeMap<String, u64>, gone: &Records, kept: &Kept) -> Report {
    let found = kept.arrivals().iter().filter_map(|arrival| arrival.record.clone());
    let mut verdict = without(sent, gone, found);
    let complaints = complaints("landed after a newer run", kept.overtaken())
        .chain(complaints("was sent again although its run knew it durable", kept.needless()));
    verdict.complaints.extend(complaints);
    Report {
        verdict,
        overtaken: kept.overtaken().len() as u64,
        needless: kept.needless().len() as u64,
        refused: kept.arrivals().iter().filter(|arrival| !arrival.taken).count() as u64,
        rewinds: rewinds(kept.arrivals()),
    }
}

/// As [`audit`], of a destination of which only its rows are known.
#[must_use]
pub fn audit_found(sent: &BTreeMap<String, u64>, gone: &Records, found: Vec<Found>) -> Report {
    Report { verdict: without(sent, gone, found), ..Report::default() }
}

/// The audit as if what is gone had never been sent: the others of its key move up.
fn without(sent: &BTreeMap<String, u64>, gone: &Records, found: impl IntoIterator<Item = Found>) -> Verdict {
    if gone.is_empty() {
        return ledger::audit(sent, found);
    }
    let below = |key: &str, n: u64| gone.range((key.to_owned(), 0)..(key.to_owned(), n)).count() as u64;
    let sent = sent.iter().map(|(key, &count)| (key.clone(), count - below(key, count))).collect();
    let found = found.into_iter().map(|Found { key, n }| Found { n: n - below(&key, n), key });
    ledger::audit(&sent, found)
}

fn complaints(what: &str, arrivals: &[Arrival]) -> impl Iterator<Item = String> {
    arrivals.iter().take(3).map(move |arrival| {
        let Arrival { at, task, epoch, worker, .. } = arrival;
        let row = String::from_utf8_lossy(&arrival.value);
        format!("{at:?}: {row} of {} by {worker} under {epoch} {what}", task.work)
    })
}

/// What is known of a task while its rows are gone through.
#[derive(Default)]
struct Seen<'a> {
    /// When each row was stored at first, and by which run.
    first: BTreeMap<&'a [u8], (Duration, Epoch)>,
    /// When the newest of them was.
    newest: Duration,
    /// That moment when a run began to write, by run.
    began: BTreeMap<Epoch, Duration>,
}

fn rewinds(arrivals: &[Arrival]) -> Vec<Rewind> {
    let mut tasks: BTreeMap<&TaskId, Seen<'_>> = BTreeMap::new();
    let mut rewinds: BTreeMap<(&TaskId, Epoch), Rewind> = BTreeMap::new();
    let mut repeated: BTreeSet<(&TaskId, Epoch, &[u8])> = BTreeSet::new();
    for arrival in arrivals.iter().filter(|arrival| arrival.taken) {
        let Arrival { at, task, epoch, worker, .. } = arrival;
        let row: &[u8] = &arrival.value;
        let seen = tasks.entry(task).or_default();
        let began = *seen.began.entry(*epoch).or_insert(seen.newest);
        let Some((first, by)) = seen.first.get(row) else {
            seen.first.insert(row, (*at, *epoch));
            seen.newest = *at;
            continue;
        };
        if by == epoch || !repeated.insert((task, *epoch, row)) {
            continue;
        }
        let rewind = rewinds.entry((task, *epoch)).or_insert_with(|| Rewind {
            task: task.clone(),
            epoch: *epoch,
            worker: *worker,
            rows: 0,
            reach: Duration::ZERO,
        });
        rewind.rows += 1;
        rewind.reach = rewind.reach.max(began.saturating_sub(*first));
    }
    rewinds.into_values().collect()
}
