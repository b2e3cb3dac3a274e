//! What the service does to a consumer: it lets records go, throttles, deletes streams, has more shards than a page holds, leaves
//! connections half open, and spreads records without regard to their keys (S7–S9, S13–S15, S19).

use std::time::Duration;

use rand::Rng as _;

use super::{LATEST, answered, declare, put_old_records, reshard, seconds, settle};
use crate::{books, cluster::SOURCE, faults::Fault, kinesis::Shape, place::Place, stage::Stage};

pub(super) fn parent_trimmed_before_it_was_read(stage: &mut Stage<'_>) {
    set_clocks(stage);
    declare(stage, "");
    stage.load(seconds(10));
    stage.stop_all();
    stage.load(seconds(5));
    reshard::split_one(stage);
    stage.run_for(seconds(5));
    let horizon = stage.now();
    // The children must not age out while their parent is waited for.
    stage.run_for(seconds(60));
    stage.load(seconds(5));
    forget(stage, horizon);
    stage.start_all();
    stage.load(seconds(10));
    settle(stage);
    expect_reports(stage);
}

pub(super) fn checkpoint_older_than_retention(stage: &mut Stage<'_>) {
    set_clocks(stage);
    declare(stage, "");
    stage.load(seconds(10));
    stage.stop_all();
    stage.load(seconds(5));
    let horizon = stage.now();
    stage.load(seconds(5));
    forget(stage, horizon);
    stage.start_all();
    stage.load(seconds(10));
    settle(stage);
    expect_reports(stage);
}

/// The children are listed and not read, for one sink is behind with their parent. Then nothing runs for longer than the retention.
pub(super) fn children_aged_out_behind_their_parent(stage: &mut Stage<'_>) {
    set_clocks(stage);
    declare(stage, "");
    stage.load(seconds(8));
    stage.happen(Fault::SinkDown(seconds(60)));
    stage.load(seconds(3));
    reshard::split_one(stage);
    stage.load(seconds(12));
    stage.kill_all();
    stage.load(seconds(3));
    let horizon = stage.now();
    stage.load(seconds(3));
    forget(stage, horizon);
    stage.start_all();
    stage.load(seconds(10));
    settle(stage);
    expect_reports(stage);
}

pub(super) fn throttled_before_the_first_record(stage: &mut Stage<'_>) {
    put_old_records(stage);
    for shard in 0..u64::from(stage.cluster.script.shards) {
        let fault = match stage.random.random_bool(0.5) {
            true => Fault::ThrottleReads(shard, seconds(25)),
            false => Fault::EmptyReads(shard, seconds(25)),
        };
        stage.happen(fault);
    }
    declare(stage, LATEST);
    stage.load(seconds(5));
    stage.happen(Fault::Kill(Place::Worker(0), seconds(3)));
    stage.load(seconds(5));
    stage.happen(Fault::KillLeader(seconds(3)));
    stage.happen(Fault::Kill(Place::Worker(1), seconds(1)));
    stage.load(seconds(20));
    settle(stage);
}

pub(super) fn stream_created_again(stage: &mut Stage<'_>) {
    declare(stage, "");
    stage.load(seconds(10));
    if stage.random.random_bool(0.5) {
        // Everything is read; else a little is gone with the stream, and must be told.
        stage.run_for(seconds(10));
    }
    stage.cluster.net().note(Place::World, format!("{SOURCE} is deleted"));
    stage.cluster.kinesis().delete(SOURCE);
    let away = seconds(stage.random.random_range(1..20));
    stage.run_for(away);
    let shape = Shape { shards: stage.random.random_range(1..4), ..Shape::default() };
    let now = stage.now();
    stage.cluster.net().note(Place::World, format!("{SOURCE} is created again"));
    stage.cluster.kinesis().create(now, SOURCE, shape);
    stage.load(seconds(10));
    settle(stage);
}

/// Two pages of shards, for one sink.
pub(super) fn more_shards_than_a_page(stage: &mut Stage<'_>) {
    stage.start_all();
    stage.cluster.declare_source("", "");
    stage.cluster.declare_ledger("");
    answered(stage);
    stage.load(seconds(3));
    settle(stage);
}

pub(super) fn half_open_connections(stage: &mut Stage<'_>) {
    stage.start_all();
    // A consumer reads for one sink.
    stage.cluster.declare_source(", kinesis.consumer.mode = 'efo', kinesis.consumer.name = 'sim'", "");
    stage.cluster.declare_ledger("");
    answered(stage);
    stage.load(seconds(10));
    stage.cluster.net().note(Place::World, "every subscription is half open");
    let now = stage.now();
    stage.cluster.kinesis().deaden_subscriptions(now);
    stage.load(seconds(50));
    settle(stage);
}

/// Each record has a key of its own: there is no order to be kept.
pub(super) fn records_spread_without_their_keys(stage: &mut Stage<'_>) {
    declare(stage, "");
    stage.load(seconds(8));
    reshard::split_one(stage);
    stage.load(seconds(5));
    stage.happen(Fault::Kill(Place::Worker(0), seconds(2)));
    reshard::merge_two(stage);
    stage.load(seconds(10));
    settle(stage);
}

/// Clocks that are up to an hour off: what is said of a loss is told by the service's clock alone. Their rates are right, for a
/// day goes by.
fn set_clocks(stage: &mut Stage<'_>) {
    stage.skew(0.000_01, seconds(3600));
}

/// A day goes by, until the service lets go what is older than a moment.
fn forget(stage: &mut Stage<'_>, horizon: Duration) {
    let retention = Shape::default().retention;
    stage.cluster.net().note(Place::World, format!("{retention:?} go by"));
    stage.cluster.world.leap((horizon + retention).saturating_sub(stage.now()));
    let now = stage.now();
    let retained = stage.cluster.kinesis().retain(now, SOURCE, retention);
    if let Err(refusal) = retained {
        stage.fail(format!("nothing is let go: {refusal:?}"));
    }
}

/// A loss that nobody can prevent must have been told.
fn expect_reports(stage: &mut Stage<'_>) {
    let silent = books::accounts(stage.cluster).into_iter().filter(|account| account.reported == 0);
    let silent: Vec<&str> = silent.map(|account| account.name).collect();
    if !silent.is_empty() {
        stage.fail(format!("no loss was told for {silent:?}"));
    }
}
