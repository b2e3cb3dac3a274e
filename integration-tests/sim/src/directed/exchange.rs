//! Scripts for the exchange: where streams between workers break, delay and go on, and where those who write partitions change.

use rand::{Rng as _, rngs::StdRng};

use super::{Plot, ms};
use crate::{
    faults::{Fault, Script},
    place::Place,
};

/// The ledger's rows in partitions, and three workers: whoever reads a split and whoever writes its rows are apart.
fn parted(seed: u64) -> Plot {
    Plot::new(seed).with(|script| (script.workers, script.partitions) = (3, Some(2)))
}

fn some_worker(random: &mut StdRng) -> Place {
    Place::Worker(random.random_range(0..3))
}

fn two_workers(random: &mut StdRng) -> (Place, Place) {
    let one: u8 = random.random_range(0..3);
    (Place::Worker(one), Place::Worker((one + random.random_range(1..3)) % 3))
}

/// Whoever writes a partition dies with rows in its hands.
pub(crate) fn dying_owners(seed: u64) -> Script {
    parted(seed)
        .at(3_000, 500, Fault::SinkSlow(ms(1_500), ms(36_000)))
        .every(5_000, 4_000, |random| Fault::KillOwner(random.random(), ms(random.random_range(200..3_000))))
        .done()
}

/// The same while splits end.
pub(crate) fn dying_owners_of_children(seed: u64) -> Script {
    let mut plot = parted(seed).at(3_000, 500, Fault::SinkSlow(ms(3_000), ms(36_000)));
    for at in [6_000, 12_000, 18_000, 24_000, 30_000] {
        let owner = plot.moment(0, 5);
        plot =
            plot.at(at, 500, Fault::Split(at + seed)).at(at + 1_000, 1_500, Fault::KillOwner(owner, ms(200)));
    }
    plot.done()
}

/// Connections between workers break with parts on their way.
pub(crate) fn torn_streams(seed: u64) -> Script {
    let mut plot = parted(seed);
    for (from, to) in [(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)] {
        let far = Fault::Far(Place::Worker(from), Place::Worker(to), ms(300), ms(36_000));
        plot = plot.at(3_000, 500, far);
    }
    plot.every(4_000, 1_500, |random| {
        let (one, other) = two_workers(random);
        Fault::Reset(one, other)
    })
    .done()
}

/// Splits end, and the connections on which their last acks are under way break.
pub(crate) fn torn_acks(seed: u64) -> Script {
    let mut plot = parted(seed).with(|script| script.workers = 2);
    let (one, other) = (Place::Worker(0), Place::Worker(1));
    for at in [6_000, 13_000, 20_000, 27_000, 34_000] {
        for (from, to) in [(one, other), (other, one)] {
            let from_now = if from == one { 0 } else { 3_500 };
            let reset = plot.moment(900, 2_000);
            plot = plot
                .at(at + from_now, 0, Fault::Far(from, to, ms(1_500), ms(3_000)))
                .at(at + from_now + 200, 300, Fault::Split(at + seed + from_now))
                .at(at + from_now + 200 + reset, 300, Fault::Reset(one, other));
        }
    }
    plot.done()
}

/// A reader dies twice while nothing of what it sends is written, and then whoever writes that, slowly.
pub(crate) fn dying_readers(seed: u64) -> Script {
    // One of each: who reads does not write, and one request has all rows of a run's first part.
    let mut plot = parted(seed).with(|script| {
        (script.shards, script.partitions, script.keys, script.rate) = (1, Some(1), 4, 10);
    });
    for at in [6_000, 16_000, 26_000, 34_000] {
        plot = plot
            .at(at, 0, Fault::KillReader(0, ms(100)))
            // Before the next run's first rows are written, some 180 ms after the kill: what the run after that sends as its first
            // part, from the same position, is more.
            .at(at + 100, 70, Fault::SinkHangs(ms(4_400)))
            .at(at + 1_500, 1_500, Fault::KillReader(0, ms(100)))
            .at(at + 4_300, 0, Fault::SinkSlow(ms(4_500), ms(4_000)))
            .at(at + 6_200, 800, Fault::KillOwner(0, ms(1_000)));
    }
    plot.done()
}

/// Readers die while requests with what they sent may land late.
pub(crate) fn late_parts(seed: u64) -> Script {
    let mut plot = parted(seed).with(|script| script.keys = 4);
    for at in [5_000, 12_000, 19_000, 26_000, 33_000] {
        let (victim, span) = (some_worker(&mut plot.random), plot.moment(50, 300));
        plot = plot.at(at, 500, Fault::SinkLate(0.7, ms(1_500))).at(
            at + 700,
            500,
            Fault::Kill(victim, ms(span)),
        );
    }
    plot.done()
}

/// What a reader sent arrives long after it died and the next one took its place.
pub(crate) fn delayed_parts(seed: u64) -> Script {
    let mut plot = parted(seed);
    for at in [5_000, 12_000, 19_000, 26_000, 33_000] {
        let victim = some_worker(&mut plot.random);
        let late = plot.moment(2_500, 4_300);
        for other in (0..3).map(Place::Worker).filter(|other| *other != victim) {
            plot = plot.at(at, 0, Fault::Far(victim, other, ms(late), ms(450)));
        }
        plot = plot.at(at + 350, 80, Fault::Kill(victim, ms(100)));
    }
    plot.done()
}

/// Another map from rows to writers while requests of old writers may land late.
pub(crate) fn remapped(seed: u64) -> Script {
    let mut plot = parted(seed);
    for (at, into) in [(5_000, 3), (13_000, 1), (21_000, 4), (29_000, 2)] {
        let owner = plot.moment(0, 5);
        plot = plot
            .at(at, 200, Fault::SinkLate(1.0, ms(1_300)))
            .at(at + 900, 300, Fault::KillOwner(owner, ms(200)))
            .at(at + 1_200, 400, Fault::Distribute(Some(into)));
    }
    plot.done()
}

/// Owners of partitions come and go.
pub(crate) fn moving_owners(seed: u64) -> Script {
    parted(seed)
        .every(5_000, 5_000, |random| Fault::KillOwner(random.random(), ms(random.random_range(200..12_000))))
        .at(9_000, 4_000, Fault::Distribute(Some(3)))
        .at(20_000, 4_000, Fault::Distribute(Some(1)))
        .done()
}
