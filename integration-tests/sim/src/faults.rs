//! What goes wrong in a run, and when: made from the seed before the run begins, so that a prefix of it can be tried alone.

use std::{fmt, time::Duration};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use crate::{place::Place, store::Outage};

/// One thing that goes wrong, or merely happens.
#[derive(Clone, PartialEq, Debug)]
pub enum Fault {
    /// kill -9; a new process comes after the time.
    Kill(Place, Duration),
    /// The machine goes without a word: nobody's connections are closed. A new process comes after the time.
    Vanish(Place, Duration),
    /// Not run for the time, then goes on.
    Suspend(Place, Duration),
    /// An orderly stop; a new process comes after the time.
    Stop(Place, Duration),
    /// Whoever leads is killed.
    KillLeader(Duration),
    /// Whoever leads is suspended.
    SuspendLeader(Duration),
    /// Whoever leads loses the store.
    CutLeader(Duration),
    /// A hand removes the leader's key.
    RemoveLeader,
    /// Nothing passes from the first to the second.
    OneWay(Place, Place, Duration),
    /// Nothing passes either way.
    Partition(Place, Place, Duration),
    /// Nothing passes to or from it.
    Isolate(Place, Duration),
    /// Parcels to and from it are lost and sent again.
    Lossy(Place, f64, Duration),
    /// What goes from the first to the second takes this long.
    Far(Place, Place, Duration, Duration),
    /// Connections between them break, with all that is under way.
    Reset(Place, Place),
    /// Whoever writes the n-th partition is killed.
    KillOwner(u64, Duration),
    /// Whoever reads the n-th split whose rows go to partitions is killed.
    KillReader(u64, Duration),
    /// Whoever writes the n-th partition is suspended.
    SuspendOwner(u64, Duration),
    /// The ledger's rows are distributed by key to so many partitions from now on, or not any more.
    Distribute(Option<u32>),
    /// The store is down, hangs, or has no leader.
    StoreFails(Outage, Duration),
    /// The store thinks for up to so long.
    StoreSlow(Duration, Duration),
    /// Watches are late by so much.
    WatchesLag(Duration, Duration),
    /// Watches break.
    WatchesBreak,
    /// Watches have missed what was compacted away.
    WatchesCompacted,
    /// Connections break and their commits are carried out later, at a bad moment, with this chance.
    CommitsLate(f64, Duration),
    /// The answers of commits are lost with this chance.
    CommitsForget(f64, Duration),
    /// So many records of one key are put as one aggregate.
    Aggregate(usize),
    /// A shard is split (the n-th open one).
    Split(u64),
    /// Two adjacent shards are merged.
    Merge(u64),
    /// A shard's reads are refused.
    ThrottleReads(u64, Duration),
    /// A shard's reads succeed and bring nothing.
    EmptyReads(u64, Duration),
    /// A shard's reads come back empty although records follow, so many times.
    EmptyPages(u64, u32),
    /// A shard's subscriptions bring nothing and do not end.
    HalfOpen(u64, Duration),
    /// Kinesis answers so much later.
    KinesisSlow(Duration, Duration),
    /// Every iterator is void.
    ExpireIterators,
    /// From now on reshards are listed so much late.
    ListingsLag(Duration),
    /// A shard is missing in listings.
    Hide(u64, Duration),
    /// Kinesis answers calls with errors of its own, with this chance.
    KinesisFails(f64, Duration),
    /// The next PutRecords are carried out and answered with an error.
    PutsForget(u32),
    /// Entries of PutRecords fail with this chance.
    FailPuts(f64, Duration),
    /// The ledger takes this long for each write.
    SinkSlow(Duration, Duration),
    /// The ledger refuses connections.
    SinkDown(Duration),
    /// The ledger serves nothing, then what has piled up.
    SinkHangs(Duration),
    /// The ledger refuses requests as too many, with this chance.
    SinkThrottles(f64, Duration),
    /// Connections to the ledger break and their requests are stored later, with this chance.
    SinkLate(f64, Duration),
    /// Requests are stored in part before their connection breaks, with this chance.
    SinkTears(f64, Duration),
    /// The ledger fails rows with this chance.
    SinkFailsRows(f64, Duration),
    /// The ledger stores, and its answer is lost with this chance.
    SinkForgets(f64, Duration),
    /// An operator drains a worker, and takes that back.
    Drain(u8),
    /// An operator pauses a sink for the time.
    Pause(Duration),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// The size of a world and everything that happens to it.
#[derive(Clone, Debug)]
pub struct Script {
    /// The seed it was made from.
    pub seed: u64,
    /// How many coordinators and workers.
    pub coordinators: u8,
    /// How many workers.
    pub workers: u8,
    /// Open shards at the beginning.
    pub shards: u32,
    /// The ledger's rows are distributed to so many partitions, by a key that is finer than the partition key.
    pub partitions: Option<u32>,
    /// Different keys.
    pub keys: u64,
    /// Records a second, all keys together.
    pub rate: u64,
    /// Chance that records are put as one KPL aggregate.
    pub aggregated: f64,
    /// How long records are put.
    pub load: Duration,
    /// What happens when, sorted.
    pub faults: Vec<(Duration, Fault)>,
    /// What is special about it.
    pub demands: Demands,
}

/// What some scripts ask for beyond faults.
#[derive(Clone, Copy, Debug, Default)]
pub struct Demands {
    /// More options of the source.
    pub source: &'static str,
    /// More options of the ledger's sink.
    pub ledger: &'static str,
    /// The ledger refuses rows with this in them.
    pub poison: Option<&'static str>,
    /// Nothing that happens is a reason to stop a run.
    pub calm: bool,
}

/// How a source may be read.
const POLLED_OR_PUSHED: [&str; 4] = [
    "",
    "",
    ", kinesis.consumer.mode = 'efo', kinesis.consumer.name = 'sim-{sink}'",
    ", kinesis.consumer.mode = 'auto', kinesis.consumer.name = 'sim-{sink}'",
];

impl Script {
    /// The script of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let random = &mut StdRng::seed_from_u64(seed ^ 0x5EED);
        let (coordinators, workers) = (random.random_range(2..=3), random.random_range(2..=4));
        let load = Duration::from_secs(random.random_range(30..=60));
        let count = random.random_range(3..=14);
        let mut faults: Vec<(Duration, Fault)> = (0..count)
            .map(|_| {
                let at = Duration::from_millis(random.random_range(1_000..load.as_millis() as u64 + 5_000));
                (at, fault(random, coordinators, workers))
            })
            .collect();
        let partitions = (seed % 2 == 1).then(|| partitioned(seed, workers, load, &mut faults));
        faults.sort_by_key(|(at, _)| *at);
        Self {
            seed,
            coordinators,
            workers,
            shards: random.random_range(1..=6),
            partitions,
            keys: random.random_range(4..=40),
            rate: random.random_range(20..=200),
            aggregated: *[0.0, 0.0, 0.3, 1.0].choose(random).expect("four"),
            load,
            faults,
            demands: Demands {
                source: POLLED_OR_PUSHED.choose(random).expect("four"),
                ledger: ["", ", piecemeal = 'true'"].choose(random).expect("two"),
                ..Demands::default()
            },
        }
    }

    /// From when on nothing is a reason to replace a run, if the script says that there is none: from its first fault.
    #[must_use]
    pub fn calm_from(&self) -> Option<Duration> {
        self.faults.first().filter(|_| self.demands.calm).map(|(at, _)| *at)
    }

    /// The same with only its first `count` faults.
    #[must_use]
    pub fn prefix(mut self, count: usize) -> Self {
        self.faults.truncate(count);
        self
    }
}

/// Into how many partitions, with what goes wrong because of them.
fn partitioned(seed: u64, workers: u8, load: Duration, faults: &mut Vec<(Duration, Fault)>) -> u32 {
    let random = &mut StdRng::seed_from_u64(seed ^ 0xD157);
    for _ in 0..random.random_range(1..=5) {
        let at = Duration::from_millis(random.random_range(2_000..load.as_millis() as u64));
        faults.push((at, exchange_fault(random, workers)));
    }
    random.random_range(2..=4)
}

fn exchange_fault(random: &mut StdRng, workers: u8) -> Fault {
    let one = random.random_range(0..workers);
    let other = Place::Worker((one + random.random_range(1..workers)) % workers);
    let one = Place::Worker(one);
    match random.random_range(0..9_u32) {
        0 | 1 => Fault::Reset(one, other),
        2 => Fault::Far(one, other, span(random, 50, 4_000), span(random, 500, 12_000)),
        3 => Fault::OneWay(one, other, span(random, 500, 15_000)),
        4 => Fault::Partition(one, other, span(random, 500, 15_000)),
        5 => Fault::KillOwner(random.random(), span(random, 100, 15_000)),
        6 => Fault::SuspendOwner(random.random(), span(random, 500, 20_000)),
        _ => match random.random_range(1..=4) {
            1 => Fault::Distribute(None),
            n => Fault::Distribute(Some(n)),
        },
    }
}

fn span(random: &mut StdRng, from_ms: u64, to_ms: u64) -> Duration {
    Duration::from_millis(random.random_range(from_ms..=to_ms))
}

fn fault(random: &mut StdRng, coordinators: u8, workers: u8) -> Fault {
    let worker = Place::Worker(random.random_range(0..workers));
    let coordinator = Place::Coordinator(random.random_range(0..coordinators));
    let process = if random.random_bool(0.6) { worker } else { coordinator };
    let pick = random.random_range(0..40_u32);
    match pick {
        0 | 1 => Fault::Kill(process, span(random, 100, 15_000)),
        2 => Fault::Vanish(process, span(random, 2_000, 15_000)),
        3 | 4 => Fault::Suspend(process, span(random, 500, 20_000)),
        5 => Fault::Stop(process, span(random, 100, 5_000)),
        6 => Fault::KillLeader(span(random, 100, 15_000)),
        7 => Fault::SuspendLeader(span(random, 500, 12_000)),
        8 => Fault::OneWay(worker, coordinator, span(random, 500, 15_000)),
        9 => Fault::OneWay(coordinator, worker, span(random, 500, 15_000)),
        10 => Fault::Partition(worker, coordinator, span(random, 500, 15_000)),
        11 => Fault::Partition(coordinator, Place::Store, span(random, 500, 10_000)),
        12 => Fault::OneWay(Place::Store, coordinator, span(random, 500, 10_000)),
        13 => Fault::Partition(worker, Place::Ledger, span(random, 500, 15_000)),
        14 => Fault::Partition(worker, Place::Kinesis, span(random, 500, 15_000)),
        15 => Fault::Isolate(process, span(random, 500, 20_000)),
        16 => Fault::Lossy(process, 0.2, span(random, 1_000, 20_000)),
        17 => {
            let outage = *[Outage::Down, Outage::Hung, Outage::NoLeader].choose(random).expect("three");
            Fault::StoreFails(outage, span(random, 500, 12_000))
        }
        18 => Fault::WatchesLag(span(random, 100, 3_000), span(random, 1_000, 20_000)),
        19 => Fault::WatchesBreak,
        20 => match random.random_range(0..2) {
            0 => Fault::CommitsForget(0.3, span(random, 500, 5_000)),
            _ => Fault::CommitsLate(0.3, span(random, 500, 10_000)),
        },
        21 | 22 => Fault::Split(random.random()),
        23 => Fault::Merge(random.random()),
        24 => Fault::ThrottleReads(random.random(), span(random, 500, 15_000)),
        25 => Fault::EmptyReads(random.random(), span(random, 500, 15_000)),
        36 => Fault::EmptyPages(random.random(), random.random_range(1..=10)),
        37 => Fault::HalfOpen(random.random(), span(random, 1_000, 60_000)),
        38 => Fault::KinesisSlow(span(random, 50, 3_000), span(random, 1_000, 10_000)),
        26 => Fault::ExpireIterators,
        27 => Fault::ListingsLag(span(random, 500, 20_000)),
        28 => Fault::KinesisFails(*[0.2, 1.0].choose(random).expect("two"), span(random, 500, 10_000)),
        29 => Fault::FailPuts(0.3, span(random, 1_000, 15_000)),
        30 => Fault::SinkSlow(span(random, 50, 4_000), span(random, 1_000, 15_000)),
        31 => Fault::SinkDown(span(random, 500, 15_000)),
        32 => {
            let long = span(random, 1_000, 15_000);
            match random.random_range(0..6) {
                0 => Fault::SinkFailsRows(0.2, long),
                1 => Fault::SinkForgets(0.3, long),
                2 => Fault::SinkThrottles(0.5, long),
                3 => Fault::SinkLate(0.3, long),
                4 => Fault::SinkTears(0.3, long),
                _ => Fault::SinkHangs(span(random, 500, 4_500)),
            }
        }
        33 => Fault::WatchesCompacted,
        34 => Fault::StoreSlow(span(random, 20, 1_500), span(random, 1_000, 15_000)),
        35 => match random.random_range(0..2) {
            0 => Fault::Hide(random.random(), span(random, 500, 20_000)),
            _ => Fault::PutsForget(random.random_range(1..=4)),
        },
        _ => match random.random_range(0..2) {
            0 => Fault::Drain(random.random_range(0..workers)),
            _ => Fault::Pause(span(random, 500, 10_000)),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_second_seed_has_partitions_and_together_they_see_everything_that_goes_wrong_with_them() {
        let mut seen = BTreeSet::new();
        for seed in 0..200 {
            let script = Script::of(seed);
            assert_eq!(script.partitions.is_some(), seed % 2 == 1, "seed {seed}");
            let workers = |a: &Place, b: &Place| matches!((a, b), (Place::Worker(_), Place::Worker(_)));
            let kinds = script.faults.iter().filter_map(|(_, fault)| match fault {
                Fault::Reset(..) => Some("reset"),
                Fault::Far(..) => Some("far"),
                Fault::OneWay(a, b, _) if workers(a, b) => Some("one way"),
                Fault::Partition(a, b, _) if workers(a, b) => Some("both ways"),
                Fault::KillOwner(..) => Some("owner dies"),
                Fault::SuspendOwner(..) => Some("owner sleeps"),
                Fault::Distribute(Some(_)) => Some("another map"),
                Fault::Distribute(None) => Some("no map"),
                _ => None,
            });
            let kinds: Vec<&str> = kinds.collect();
            assert!(kinds.is_empty() || script.partitions.is_some(), "seed {seed}: {kinds:?}");
            seen.extend(kinds);
        }
        assert_eq!(seen.len(), 8, "{seen:?}");
    }
}
