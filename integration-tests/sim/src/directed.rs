//! Scripts that lead straight to one weak spot each, for what random faults hit seldom. Chance only moves the moments a little:
//! each script is a small family of seeds. The product must come through every one of them; `mutants` says which defect each
//! of them brings to light.

mod exchange;

use std::time::Duration;

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

pub(crate) use self::exchange::{
    delayed_parts, dying_owners, dying_owners_of_children, dying_readers, late_parts, moving_owners,
    remapped, torn_acks, torn_streams,
};
use crate::{
    faults::{Demands, Fault, Script},
    place::Place,
    store::Outage,
};

const C0: Place = Place::Coordinator(0);
const C1: Place = Place::Coordinator(1);
const COORDINATORS: [Place; 2] = [C0, C1];

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A script under construction.
struct Plot {
    script: Script,
    random: StdRng,
}

impl Plot {
    /// Two coordinators, two workers, two shards, and records all the time.
    fn new(seed: u64) -> Self {
        let script = Script {
            seed,
            coordinators: 2,
            workers: 2,
            shards: 2,
            partitions: None,
            keys: 12,
            rate: 100,
            aggregated: 0.0,
            load: Duration::from_secs(40),
            faults: Vec::new(),
            demands: Demands::default(),
        };
        Self { script, random: StdRng::seed_from_u64(seed ^ 0xD12EC7) }
    }

    fn with(mut self, change: impl FnOnce(&mut Script)) -> Self {
        change(&mut self.script);
        self
    }

    /// A fault at about this moment.
    fn at(mut self, at: u64, sway: u64, fault: Fault) -> Self {
        let at = at + self.random.random_range(0..=sway);
        self.script.faults.push((ms(at), fault));
        self
    }

    /// Something each so often, from then until the end of the load.
    fn every(mut self, from: u64, span: u64, make: impl Fn(&mut StdRng) -> Fault) -> Self {
        let mut at = from;
        while ms(at) < self.script.load {
            let fault = make(&mut self.random);
            self = self.at(at, span / 2, fault);
            at += span;
        }
        self
    }

    fn done(mut self) -> Script {
        self.script.faults.sort_by_key(|(at, _)| *at);
        self.script
    }

    /// One of the two workers, the same for the whole script.
    fn victim(&self) -> Place {
        Place::Worker(u8::from(self.script.seed % 2 == 1))
    }

    fn moment(&mut self, from: u64, to: u64) -> u64 {
        self.random.random_range(from..=to)
    }

    /// A worker is cut off from both coordinators for so long.
    fn cut_off(mut self, at: u64, worker: Place, span: u64) -> Self {
        for coordinator in COORDINATORS {
            self = self.at(at, 0, Fault::Partition(worker, coordinator, ms(span)));
        }
        self
    }

    /// The same one way.
    fn one_way(mut self, at: u64, (from, to): (Option<Place>, Option<Place>), span: u64) -> Self {
        for coordinator in COORDINATORS {
            let ends = (from.unwrap_or(coordinator), to.unwrap_or(coordinator));
            self = self.at(at, 0, Fault::OneWay(ends.0, ends.1, ms(span)));
        }
        self
    }
}

/// Splits and merges under a destination that is behind.
pub(crate) fn reshards(seed: u64) -> Script {
    Plot::new(seed)
        .at(2_500, 500, Fault::SinkSlow(ms(2_000), ms(20_000)))
        .at(5_000, 3_000, Fault::Split(seed))
        .at(10_000, 3_000, Fault::Merge(seed))
        .at(16_000, 3_000, Fault::Split(seed / 2))
        .at(22_000, 3_000, Fault::SinkDown(ms(6_000)))
        .at(24_000, 2_000, Fault::Split(seed / 3))
        .at(28_000, 2_000, Fault::Merge(seed / 3))
        .done()
}

/// Workers die before anything is checkpointed, after they began to read.
pub(crate) fn early_deaths(seed: u64) -> Script {
    Plot::new(seed)
        .at(0, 0, Fault::SinkSlow(ms(3_000), ms(12_000)))
        .at(0, 0, Fault::FailPuts(1.0, ms(12_000)))
        .at(700, 300, Fault::Kill(Place::Worker(0), ms(300)))
        .at(700, 300, Fault::Kill(Place::Worker(1), ms(600)))
        .done()
}

/// A destination that takes some rows and not others, while workers die.
pub(crate) fn rough_sink(seed: u64) -> Script {
    Plot::new(seed)
        .at(3_000, 500, Fault::SinkFailsRows(0.2, ms(30_000)))
        .at(3_000, 500, Fault::SinkSlow(ms(400), ms(30_000)))
        .every(5_000, 4_000, |random| {
            Fault::Kill(Place::Worker(random.random_range(0..2)), ms(random.random_range(200..3_000)))
        })
        .done()
}

/// `PutRecords` fails in part.
pub(crate) fn failing_puts(seed: u64) -> Script {
    Plot::new(seed).at(3_000, 1_000, Fault::FailPuts(0.3, ms(30_000))).done()
}

/// A destination that may take a row and not an earlier one of the same request.
pub(crate) fn piecemeal(seed: u64) -> Script {
    Plot::new(seed)
        .with(|script| script.demands.ledger = ", piecemeal = 'true'")
        .at(3_000, 1_000, Fault::SinkFailsRows(0.2, ms(30_000)))
        .done()
}

/// Reads wait until their iterators are void.
pub(crate) fn expiring(seed: u64) -> Script {
    Plot::new(seed).every(3_000, 1_700, |_| Fault::ExpireIterators).done()
}

/// Aggregates larger than a chunk, and workers that die in the middle of them.
pub(crate) fn aggregates(seed: u64) -> Script {
    Plot::new(seed)
        .with(|script| script.shards = 1)
        .at(3_000, 200, Fault::SinkSlow(ms(60), ms(30_000)))
        .at(4_000, 500, Fault::Aggregate(3_000))
        .at(10_000, 1_500, Fault::Kill(Place::Worker(0), ms(300)))
        .at(10_000, 1_500, Fault::Kill(Place::Worker(1), ms(300)))
        .at(20_000, 500, Fault::Aggregate(3_000))
        .at(26_000, 1_500, Fault::Kill(Place::Worker(0), ms(300)))
        .at(26_000, 1_500, Fault::Kill(Place::Worker(1), ms(300)))
        .done()
}

/// Rows that the destination refuses, a slow place for dead letters, and workers that die.
pub(crate) fn dead_letters(seed: u64) -> Script {
    Plot::new(seed)
        .with(|script| {
            script.demands.ledger =
                ", on_error = 'dead_letter', dead_letter.connector = 'ledger', dead_letter.name = 'letters'";
            script.demands.poison = Some("7}");
        })
        .at(3_000, 500, Fault::SinkSlow(ms(400), ms(30_000)))
        .every(6_000, 3_000, |random| {
            Fault::Kill(Place::Worker(random.random_range(0..2)), ms(random.random_range(200..1_500)))
        })
        .done()
}

/// The destination is away for long, and what it refuses would be skipped.
pub(crate) fn outage(seed: u64) -> Script {
    Plot::new(seed)
        .with(|script| script.demands.ledger = ", on_error = 'skip'")
        .at(4_000, 2_000, Fault::SinkDown(ms(8_000)))
        .at(20_000, 2_000, Fault::SinkHangs(ms(12_000)))
        .done()
}

/// A worker is cut off from the coordinators, and what it sends before and after its deadline lands late.
pub(crate) fn takeover(seed: u64) -> Script {
    let mut plot = Plot::new(seed);
    let (victim, at) = (plot.victim(), plot.moment(6_000, 9_000));
    plot.cut_off(at, victim, 18_000).at(at + 2_500, 500, Fault::SinkLate(0.7, ms(6_000))).done()
}

/// The same, and then the sink is paused and resumed before the first owner's last request has landed.
pub(crate) fn third_owner(seed: u64) -> Script {
    let mut plot = Plot::new(seed);
    let (victim, at) = (plot.victim(), plot.moment(6_000, 9_000));
    let pause = plot.moment(100, 1_200);
    plot.cut_off(at, victim, 18_000)
        .at(at + 2_500, 500, Fault::SinkLate(1.0, ms(3_000)))
        .at(at + 6_100, 600, Fault::Pause(ms(pause)))
        .done()
}

/// A worker is fenced and comes back before it was given up.
pub(crate) fn fenced_for_a_moment(seed: u64) -> Script {
    let mut plot = Plot::new(seed);
    let victim = plot.victim();
    for at in [6_000, 18_000, 30_000] {
        let (at, span) = (at + plot.moment(0, 2_000), plot.moment(5_000, 6_000));
        plot = plot.cut_off(at, victim, span).at(at + 2_500, 500, Fault::SinkLate(0.7, ms(2_500)));
    }
    plot.done()
}

/// An answer is slow, and what the worker says after it asked is not heard any more.
pub(crate) fn slow_answers(seed: u64) -> Script {
    let mut plot = Plot::new(seed);
    let (victim, at) = (plot.victim(), plot.moment(6_000, 9_000));
    // A heartbeat of the first half second is heard, and its answer comes more than a second late; later, and the worker would
    // have asked elsewhere before.
    plot.one_way(at, (None, Some(victim)), 1_500)
        .one_way(at + 500, (Some(victim), None), 18_000)
        // Whoever counts from the sending is silent by now, and whoever counts from the answer for a second not yet. Earlier requests
        // must not be late: the rows behind them would wait for that (P12), and none would be sent in that second.
        .at(at + 5_500, 300, Fault::SinkLate(1.0, ms(1_500)))
        .done()
}

/// What a worker says is not heard any more, while its list changes because others are drained.
pub(crate) fn unheard(seed: u64) -> Script {
    let mut plot = Plot::new(seed).with(|script| (script.workers, script.shards) = (4, 8));
    let at = plot.moment(6_000, 9_000);
    plot.one_way(at, (Some(Place::Worker(0)), None), 18_000)
        .at(at + 300, 700, Fault::Drain(1))
        .at(at + 2_300, 500, Fault::Drain(2))
        .at(at + 5_000, 500, Fault::SinkLate(0.8, ms(4_000)))
        .done()
}

/// A worker sleeps past its deadline with rows in its hands.
pub(crate) fn asleep(seed: u64) -> Script {
    let mut plot = Plot::new(seed);
    let victim = plot.victim();
    for at in [6_000, 24_000] {
        let span = plot.moment(11_500, 14_000);
        plot = plot
            .at(at, 1_000, Fault::Suspend(victim, ms(span)))
            .at(at - 1_000, 500, Fault::SinkFailsRows(0.3, ms(3_000)))
            .at(at - 1_000, 500, Fault::SinkSlow(ms(300), ms(4_000)));
    }
    plot.done()
}

/// A worker is cut off past its deadline with nothing to write, and the first that answers it is a new leader that has not loaded.
pub(crate) fn revival(seed: u64) -> Script {
    let mut plot = Plot::new(seed).with(|script| script.shards = 1);
    let (victim, at, away) = (plot.victim(), plot.moment(6_000, 8_000), plot.moment(13_500, 15_000));
    let back = at + away;
    let starved = away + 1_300 + plot.moment(0, 900);
    plot.at(at - 800, 0, Fault::Partition(victim, Place::Kinesis, ms(starved)))
        .cut_off(at, victim, away)
        .at(back - 3_900, 1_000, Fault::KillLeader(ms(20_000)))
        .at(back - 3_900, 0, Fault::StoreSlow(ms(450), ms(12_000)))
        .done()
}

/// Workers die and come back at once.
pub(crate) fn restarts(seed: u64) -> Script {
    Plot::new(seed)
        .every(5_000, 2_500, |random| {
            Fault::Kill(Place::Worker(random.random_range(0..2)), ms(random.random_range(50..900)))
        })
        .done()
}

/// A worker dies while its hello is on a bad way, and the next process has a good one.
pub(crate) fn late_hellos(seed: u64) -> Script {
    let mut plot = Plot::new(seed);
    for at in (5_000..40_000).step_by(3_000) {
        let (victim, at) = (plot.victim(), at + plot.moment(0, 300));
        plot = plot
            .at(at, 0, Fault::Kill(victim, ms(100)))
            .at(at + 90, 20, Fault::Lossy(victim, 0.5, ms(700)))
            .at(at + 800, 0, Fault::Kill(victim, ms(50)));
    }
    plot.done()
}

/// For a second each commit is late, and the worker whose positions they carry restarts.
pub(crate) fn late_commits(seed: u64) -> Script {
    let mut plot = Plot::new(seed);
    for at in [6_000, 12_000, 18_000, 24_000, 30_000] {
        let (victim, late) = (plot.victim(), plot.moment(300, 1_200));
        plot = plot.at(at, 0, Fault::CommitsLate(1.0, ms(late))).at(
            at + late,
            200,
            Fault::Kill(victim, ms(100)),
        );
    }
    plot.done()
}

/// Leaders die with commits on the way, which arrive when others lead.
pub(crate) fn late_leaders(seed: u64) -> Script {
    let mut plot = Plot::new(seed);
    for at in [6_000, 16_000, 26_000] {
        let late = plot.moment(400, 1_200);
        plot = plot.at(at, 500, Fault::CommitsLate(1.0, ms(late))).at(
            at + late,
            500,
            Fault::KillLeader(ms(5_000)),
        );
    }
    plot.done()
}

/// Subscriptions that are renewed all the time, break, and fall silent, under a destination that is behind.
pub(crate) fn subscriptions(seed: u64) -> Script {
    let mut plot = Plot::new(seed).with(|script| {
        script.demands.source = ", kinesis.consumer.mode = 'efo', kinesis.consumer.name = 'sim-{sink}', \
                                 kinesis.consumer.renew_interval_ms = '3000', \
                                 kinesis.consumer.silence_timeout_ms = '5000'";
    });
    // A call takes so long that the old subscription brings something meanwhile.
    plot = plot.at(5_000, 500, Fault::KinesisSlow(ms(400), ms(32_000)));
    for at in [6_000, 14_000, 22_000, 30_000] {
        let span = plot.moment(1_500, 3_000);
        plot = plot.at(at, 3_000, Fault::SinkSlow(ms(span), ms(6_000))).at(
            at + 3_000,
            3_000,
            Fault::HalfOpen(at / 8_000, ms(7_000)),
        );
    }
    plot.done()
}

/// Commits are late and nothing else happens: the next of their lane comes before them.
pub(crate) fn late_lanes(seed: u64) -> Script {
    Plot::new(seed).every(5_000, 3_000, |_| Fault::CommitsLate(0.5, ms(1_500))).done()
}

/// Splits end while the answers of commits are lost.
pub(crate) fn lost_answers(seed: u64) -> Script {
    let mut plot = Plot::new(seed);
    for at in [5_000, 12_000, 20_000, 28_000] {
        plot = plot.at(at, 500, Fault::Split(seed)).at(at + 100, 500, Fault::CommitsLate(0.8, ms(3_000))).at(
            at + 4_000,
            500,
            Fault::StoreFails(Outage::NoLeader, ms(1_000)),
        );
    }
    plot.done()
}

/// The leader loses the store and the workers stay with it; one of them comes back elsewhere.
pub(crate) fn deposed(seed: u64) -> Script {
    let mut plot = Plot::new(seed);
    let (victim, at) = (plot.victim(), plot.moment(6_000, 9_000));
    plot.at(at, 0, Fault::CutLeader(ms(25_000)))
        .at(at + 3_000, 3_000, Fault::Kill(victim, ms(300)))
        .at(at + 6_000, 2_000, Fault::Kill(victim, ms(300)))
        .done()
}

/// Leaders change, and no worker has a reason to stop anything.
pub(crate) fn calm_change(seed: u64) -> Script {
    Plot::new(seed)
        .with(|script| script.demands.calm = true)
        .at(8_000, 2_000, Fault::StoreSlow(ms(150), ms(30_000)))
        .at(10_000, 2_000, Fault::KillLeader(ms(3_000)))
        .at(22_000, 2_000, Fault::KillLeader(ms(3_000)))
        .done()
}

/// A hand takes the leader's key away, and the leader hears of it by its next commit.
pub(crate) fn usurped(seed: u64) -> Script {
    Plot::new(seed)
        .with(|script| script.demands.calm = true)
        .at(7_900, 0, Fault::WatchesLag(ms(3_000), ms(25_000)))
        .at(10_000, 3_000, Fault::RemoveLeader)
        .at(22_000, 3_000, Fault::RemoveLeader)
        .done()
}

/// A shard is missing in listings for long.
pub(crate) fn hidden(seed: u64) -> Script {
    Plot::new(seed)
        .with(|script| script.load = Duration::from_secs(60))
        .at(8_000, 4_000, Fault::Hide(seed, ms(45_000)))
        .at(12_000, 8_000, Fault::Split(seed + 1))
        .done()
}

/// Runs are handed over while it is not known what became of their requests.
pub(crate) fn handovers(seed: u64) -> Script {
    let mut plot = Plot::new(seed);
    for at in [5_000, 14_000, 23_000, 32_000] {
        let pause = plot.moment(50, 800);
        plot = plot.at(at, 300, Fault::SinkLate(0.7, ms(2_000))).at(at + 1_000, 800, Fault::Pause(ms(pause)));
    }
    plot.done()
}

/// Requests land late while newer rows of their keys come.
pub(crate) fn late_rows(seed: u64) -> Script {
    Plot::new(seed)
        .with(|script| script.keys = 4)
        .every(4_000, 6_000, |_| Fault::SinkLate(0.3, ms(4_000)))
        .done()
}
