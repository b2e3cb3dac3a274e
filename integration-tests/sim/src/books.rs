//! What each destination holds against what was put. A record that the service let go before it was read is no loss of ours if
//! it was told of: by a `data_loss` event for its shard and the sink, whose range of sequence numbers covers it.

use std::collections::{BTreeMap, BTreeSet};

use integration_tests::ledger::Found;
use model::{Epoch, Position, TaskId};
use proto::v1;

use crate::{
    cluster::{COPY, Cluster, LEDGER, SOURCE, item},
    kinesis::{Number, shard_id},
    ledger::{self, Report},
};

/// The books of one destination.
#[derive(Debug)]
pub struct Account {
    /// Of the destination, which is also its sink's.
    pub name: &'static str,
    /// What it holds against what was put.
    pub report: Report,
    /// Records that were gone before they could be read, and told of; the report leaves them out.
    pub reported: u64,
    /// Shards among them.
    pub shards: BTreeSet<String>,
}

impl Account {
    /// What is wrong with it, in words; none if it balances.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let Self { name, report, .. } = self;
        if report.balances() {
            return Vec::new();
        }
        let all = std::iter::once(report.to_string()).chain(report.verdict.complaints.iter().cloned());
        all.map(|complaint| format!("ledger {name}: {complaint}")).collect()
    }
}

/// The books of every destination.
#[must_use]
pub fn accounts(cluster: &Cluster) -> Vec<Account> {
    cluster.destinations.iter().map(|name| account(cluster, name)).collect()
}

/// Whether each destination holds everything that was put, but for what is gone and told of.
#[must_use]
pub fn is_complete(cluster: &Cluster) -> bool {
    let sent: u64 = cluster.sent.values().sum();
    let held = cluster.ledger.look(LEDGER, |kept| kept.records()) as u64;
    held + gone(cluster) >= sent && accounts(cluster).iter().all(|account| account.report.verdict.lost == 0)
}

/// How many records of the source are gone, read or not.
#[must_use]
pub fn gone(cluster: &Cluster) -> u64 {
    cluster.kinesis().records(SOURCE).map(|shard| shard.gone as u64).sum()
}

/// A record of the source as a destination names it.
fn named(cluster: &Cluster, name: &str, record: Found) -> Found {
    match cluster.script.partitions {
        Some(_) if name == LEDGER => item(&record),
        _ => record,
    }
}

/// How many records of each key a destination should hold.
fn due(cluster: &Cluster, name: &str) -> BTreeMap<String, u64> {
    let mut due = BTreeMap::new();
    for (key, count) in &cluster.sent {
        // The last few of a key are the last of each of its items.
        for n in count.saturating_sub(8)..*count {
            let Found { key, n } = named(cluster, name, Found { key: key.clone(), n });
            let due = due.entry(key).or_default();
            *due = (n + 1).max(*due);
        }
    }
    due
}

fn account(cluster: &Cluster, name: &'static str) -> Account {
    let (sent, held) = (due(cluster, name), held(cluster, name));
    let (mut told, mut shards) = (BTreeSet::new(), BTreeSet::new());
    if gone(cluster) > 0 {
        let losses = losses(&cluster.user.seen().events, name);
        for (shard, number, record) in missing(cluster, name, &held) {
            if losses.iter().any(|loss| loss.covers(&shard, number)) {
                told.insert((record.key, record.n));
                shards.insert(shard);
            }
        }
    }
    let report = match name {
        LEDGER => cluster.ledger.look(name, |kept| ledger::audit(&sent, &told, kept)),
        _ => ledger::audit_found(&sent, &told, held),
    };
    Account { name, report, reported: told.len() as u64, shards }
}

/// The records in a destination, in its order.
fn held(cluster: &Cluster, name: &str) -> Vec<Found> {
    match name {
        COPY => {
            let kinesis = cluster.kinesis();
            let records = kinesis.records(COPY).flat_map(|shard| shard.records);
            records.filter_map(|record| ledger::record(&record.data)).collect()
        }
        _ => cluster
            .ledger
            .look(name, |kept| kept.arrivals().iter().filter_map(|arrival| arrival.record.clone()).collect()),
    }
}

/// The records that are gone from the source and did not get to a destination.
fn missing(cluster: &Cluster, name: &str, held: &[Found]) -> Vec<(String, Number, Found)> {
    let held: BTreeSet<(&str, u64)> = held.iter().map(|found| (found.key.as_str(), found.n)).collect();
    let kinesis = cluster.kinesis();
    let gone = kinesis.records(SOURCE).flat_map(|shard| {
        let id = shard_id(shard.shard);
        shard.records[..shard.gone].iter().map(move |record| (id.clone(), record))
    });
    let gone = gone.filter_map(|(shard, record)| {
        let found = named(cluster, name, ledger::record(&record.data)?);
        Some((shard, record.number, found))
    });
    gone.filter(|(.., found)| !held.contains(&(found.key.as_str(), found.n))).collect()
}

/// The bound on repeats: whatever a run stored lies behind the checkpoint at which it was assigned. What an earlier run had
/// delivered and what was durable as its checkpoint never comes again. A partition has no checkpoint: its rows are not looked at.
#[must_use]
pub fn behind_the_start(cluster: &Cluster, starts: &BTreeMap<(TaskId, Epoch), Position>) -> Vec<String> {
    let kinesis = cluster.kinesis();
    let records = kinesis.records(SOURCE).flat_map(|shard| shard.records);
    let numbers: BTreeMap<(String, u64), Number> = records
        .filter_map(|record| {
            let Found { key, n } = named(cluster, LEDGER, ledger::record(&record.data)?);
            Some(((key, n), record.number))
        })
        .collect();
    cluster.ledger.look(LEDGER, |kept| {
        let early = kept.arrivals().iter().filter_map(|arrival| {
            let start = starts.get(&(arrival.task.clone(), arrival.epoch))?;
            let Position::After(cursor) = start else { return None };
            // An aggregate has one number: what it holds is not looked at one by one.
            let start: Number = cursor.as_str().split(':').next()?.parse().ok()?;
            let record = arrival.record.clone()?;
            let number = *numbers.get(&(record.key.clone(), record.n))?;
            (number <= start).then(|| {
                let ((key, n), at) = ((record.key, record.n), arrival.at);
                format!(
                    "{at:?}: {key} {n} of {} was stored by run {}, which began behind it",
                    arrival.task.work, arrival.epoch
                )
            })
        });
        early.take(3).collect()
    })
}

/// What a `data_loss` event says may be missing.
#[derive(Debug)]
struct Loss {
    shard: String,
    /// Nothing up to here is missing, as far as it is known.
    after: Option<Number>,
    /// Nor from here on.
    before: Option<Number>,
}

impl Loss {
    /// From the event's words: the first sequence number in them is where reading had got to, a second one is where it goes on.
    fn of(event: &v1::Event) -> Option<Self> {
        let mut numbers =
            event.message.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok());
        let shard = event.labels.get("split")?.clone();
        Some(Self { shard, after: numbers.next(), before: numbers.next() })
    }

    fn covers(&self, shard: &str, number: Number) -> bool {
        self.shard == shard
            && self.after.is_none_or(|after| number > after)
            && self.before.is_none_or(|before| number < before)
    }
}

fn losses(events: &[v1::Event], sink: &str) -> Vec<Loss> {
    let of_sink = |event: &&v1::Event| {
        event.kind == "data_loss" && event.labels.get("sink").is_some_and(|label| label == sink)
    };
    events.iter().filter(of_sink).filter_map(Loss::of).collect()
}
