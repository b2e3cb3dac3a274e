//! The twenty stories that every consumer of Kinesis must live through (docs/kinesis.md, Reshard and restart scenarios), each
//! told in a few lines on a [`Stage`] and judged by the ledger. What a story leaves open – how many workers, how many keys,
//! when exactly – is the seed's.

mod poison;
mod process;
mod reshard;
mod row;
mod service;
pub mod table;

use std::time::Duration;

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

pub use self::row::Row;
use crate::{
    books::{self, Account},
    cluster::{Cluster, SOURCE},
    faults::{Demands, Script},
    kinesis::Shape,
    stage::Stage,
    user::Order,
};

/// The option of a source that begins at what comes.
const LATEST: &str = ", scan.startup.mode = 'latest'";

/// How often the user looks for reports of loss while the end is waited for.
const LOOK_MS: u128 = 2_000;

/// One story.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// `S07`
    pub name: &'static str,
    /// What it is about, in a few words.
    pub title: &'static str,
    /// What its world has that others have not.
    prepare: fn(&mut Script, &mut Shape),
    play: fn(&mut Stage<'_>),
}

impl Scenario {
    const fn new(name: &'static str, title: &'static str, play: fn(&mut Stage<'_>)) -> Self {
        Self { name, title, prepare: |_, _| (), play }
    }

    const fn prepared(mut self, prepare: fn(&mut Script, &mut Shape)) -> Self {
        self.prepare = prepare;
        self
    }
}

/// All of them, in their order.
pub const ALL: &[Scenario] = &[
    Scenario::new("S01", "split while running, earliest", reshard::split_while_running_from_earliest),
    Scenario::new("S02", "split while running, latest", reshard::split_while_running_from_latest),
    Scenario::new("S03", "merge while running", reshard::merge_while_running)
        .prepared(|script, _| script.shards = 4),
    Scenario::new("S04", "reshard while stopped in order", reshard::reshard_while_stopped),
    Scenario::new("S05", "reshard after a crash", reshard::reshard_after_a_crash),
    Scenario::new("S06", "two generations of reshard while stopped", reshard::two_generations_while_stopped),
    Scenario::new("S07", "parent trimmed before it was read", service::parent_trimmed_before_it_was_read),
    Scenario::new("S08", "checkpoint older than retention", service::checkpoint_older_than_retention),
    Scenario::new(
        "S09",
        "throttled before the first record, latest",
        service::throttled_before_the_first_record,
    ),
    Scenario::new("S10", "restarts at the same position", process::restarts_at_the_same_position),
    Scenario::new("S11", "worker suspended beyond its session", process::suspended_beyond_the_session),
    Scenario::new("S12", "clock skew", process::clock_skew),
    Scenario::new("S13", "stream deleted and created again", service::stream_created_again),
    Scenario::new("S14", "more than 1,000 shards", service::more_shards_than_a_page).prepared(|script, _| {
        (script.shards, script.keys, script.rate) = (1_100, 4_000, 1_000);
    }),
    Scenario::new("S15", "fan-out connections half open", service::half_open_connections),
    Scenario::new("S16", "records that cannot be processed", poison::records_that_cannot_be_processed),
    Scenario::new("S17", "KPL aggregates across a split", reshard::aggregates_across_a_split),
    Scenario::new("S18", "on-demand scaling under load, latest", reshard::scaling_under_load)
        .prepared(|script, _| script.rate = 300),
    Scenario::new("S19", "AUTO distribution strategy", service::records_spread_without_their_keys)
        .prepared(|script, shape| (script.keys, shape.auto) = (1 << 40, true)),
    Scenario::new("S20", "late write of an old owner", process::late_write_of_an_old_owner),
];

/// Stories that are on nobody's list.
pub const MORE: &[Scenario] = &[
    Scenario::new("dead-sink", "a sink that is away for ten minutes", process::sink_away_for_ten_minutes)
        .prepared(|script, _| script.workers = 1),
    Scenario::new(
        "aged-children",
        "children aged out behind their parent",
        service::children_aged_out_behind_their_parent,
    ),
];

/// What came of a story.
#[derive(Debug)]
pub struct Ending {
    /// All destinations together.
    pub row: Row,
    /// What is wrong; empty is well.
    pub failures: Vec<String>,
}

/// A scenario's line in the table.
#[must_use]
pub fn line(scenario: Scenario, row: Row) -> String {
    format!("{} | {:<41} | {row}", scenario.name, scenario.title)
}

/// The story of this name.
#[must_use]
pub fn named(name: &str) -> Option<Scenario> {
    ALL.iter().chain(MORE).find(|scenario| scenario.name.eq_ignore_ascii_case(name)).copied()
}

/// Its world with a seed.
#[must_use]
pub fn world(scenario: Scenario, seed: u64) -> Cluster {
    let random = &mut StdRng::seed_from_u64(seed ^ 0x5CE7);
    let mut script = Script {
        seed,
        coordinators: random.random_range(2..=3),
        workers: random.random_range(2..=3),
        shards: random.random_range(2..=3),
        partitions: None,
        keys: random.random_range(6..=30),
        rate: random.random_range(50..=120),
        aggregated: 0.0,
        load: Duration::ZERO,
        faults: Vec::new(),
        demands: Demands::default(),
    };
    let mut shape = Shape::default();
    (scenario.prepare)(&mut script, &mut shape);
    shape.shards = script.shards;
    Cluster::over(script, shape)
}

/// Plays a story to its end.
#[must_use]
pub fn play(scenario: Scenario, cluster: &mut Cluster) -> Ending {
    let mut stage = Stage::new(cluster);
    (scenario.play)(&mut stage);
    let accounts = books::accounts(stage.cluster);
    let mut failures = stage.finish();
    failures.extend(accounts.iter().flat_map(Account::complaints));
    Ending { row: Row::of(&accounts), failures }
}

/// Starts everything and has the user make the source, with these options more, and both sinks. The statements are answered
/// when this returns.
fn declare(stage: &mut Stage<'_>, source: &str) {
    stage.start_all();
    stage.cluster.declare(source);
    answered(stage);
}

/// Puts what a source that begins at its latest record must not bring, and waits until it is old.
fn put_old_records(stage: &mut Stage<'_>) {
    let now = stage.now();
    for n in 0..100 {
        let data = format!(r#"{{"k": "old{n}", "n": 0}}"#);
        stage.cluster.kinesis().put(now, SOURCE, &format!("old{n}"), data.into());
    }
    stage.run_for(seconds(10));
}

/// Waits until the user has an answer to everything.
fn answered(stage: &mut Stage<'_>) {
    stage.until("the user has an answer", Duration::from_secs(60), |cluster| cluster.user.is_idle());
    let refused = std::mem::take(&mut stage.cluster.user.seen().refused);
    refused.into_iter().for_each(|refused| stage.fail(refused));
}

/// The end of every story: all is healed, everything arrives, and nothing comes after it that spoils it.
fn settle(stage: &mut Stage<'_>) {
    stage.settle(|cluster| {
        if books::gone(cluster) > 0 && cluster.net().now().as_millis() % LOOK_MS < 4 {
            cluster.user.ask(Order::Look);
        }
        books::is_complete(cluster)
    });
    stage.cluster.user.ask(Order::Look);
    answered(stage);
    let unsaid = unsaid(stage.cluster);
    unsaid.into_iter().for_each(|unsaid| stage.fail(unsaid));
}

/// Shards of which something was gone before a sink had read it, and whose state does not say so: those that went whole, and those
/// that are read on.
fn unsaid(cluster: &Cluster) -> Vec<String> {
    let accounts = books::accounts(cluster);
    let seen = cluster.user.seen();
    let mut unsaid = Vec::new();
    for account in accounts {
        for shard in account.shards {
            let same = seen.splits.iter().filter(|split| split.split == shard && split.sink == account.name);
            let states: Vec<&str> = same.map(|split| split.state.as_str()).collect();
            if !states.contains(&"gap") {
                unsaid.push(format!("the state of {shard} for sink {} is {states:?}, not gap", account.name));
            }
        }
    }
    unsaid
}

/// So many seconds.
const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
