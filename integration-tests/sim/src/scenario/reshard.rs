//! Shards that are split and merged, while the cluster runs and while it does not (S1–S6, S17, S18).

use std::time::Duration;

use rand::Rng as _;

use super::{LATEST, declare, put_old_records, seconds, settle};
use crate::{cluster::SOURCE, faults::Fault, place::Place, stage::Stage};

pub(super) fn split_while_running_from_earliest(stage: &mut Stage<'_>) {
    stage.load(seconds(5));
    declare(stage, "");
    stage.load(seconds(10));
    split_one(stage);
    stage.load(seconds(10));
    settle(stage);
}

pub(super) fn split_while_running_from_latest(stage: &mut Stage<'_>) {
    put_old_records(stage);
    declare(stage, LATEST);
    stage.load(seconds(10));
    // The listing shows the children late, so that they hold records before anybody knows them.
    let late = stage.random.random_range(0..8);
    stage.happen(Fault::ListingsLag(seconds(late)));
    split_one(stage);
    stage.load(seconds(15));
    settle(stage);
}

pub(super) fn merge_while_running(stage: &mut Stage<'_>) {
    declare(stage, "");
    stage.load(seconds(10));
    merge_two(stage);
    stage.load(seconds(10));
    merge_two(stage);
    stage.load(seconds(5));
    settle(stage);
}

pub(super) fn reshard_while_stopped(stage: &mut Stage<'_>) {
    declare(stage, "");
    stage.load(seconds(10));
    stage.stop_all();
    reshard_and_start_again(stage);
}

pub(super) fn reshard_after_a_crash(stage: &mut Stage<'_>) {
    declare(stage, "");
    stage.load(seconds(10));
    stage.kill_all();
    reshard_and_start_again(stage);
}

/// The parents hold records that nobody read, and so do the children.
fn reshard_and_start_again(stage: &mut Stage<'_>) {
    stage.load(seconds(5));
    split_one(stage);
    stage.load(seconds(5));
    merge_two(stage);
    stage.load(seconds(5));
    stage.start_all();
    stage.load(seconds(10));
    settle(stage);
}

pub(super) fn two_generations_while_stopped(stage: &mut Stage<'_>) {
    declare(stage, "");
    stage.load(seconds(10));
    stage.stop_all();
    for _ in 0..2 {
        let open = stage.cluster.kinesis().open_shards(SOURCE).len();
        for _ in 0..open {
            split_one(stage);
        }
        stage.load(seconds(5));
    }
    merge_two(stage);
    stage.load(seconds(2));
    stage.start_all();
    stage.load(seconds(5));
    settle(stage);
}

/// The keys of an aggregate belong to different shards, and to different children of one. It is done when all in it is, however
/// often its reader dies on the way.
pub(super) fn aggregates_across_a_split(stage: &mut Stage<'_>) {
    declare(stage, "");
    stage.happen(Fault::SinkSlow(Duration::from_millis(800), seconds(20)));
    for tick in 0..200 {
        put_group(stage);
        stage.run_for(Duration::from_millis(100));
        match tick {
            60 => split_one(stage),
            80 => stage.happen(Fault::Kill(Place::Worker(0), seconds(1))),
            120 => merge_two(stage),
            140 => stage.happen(Fault::Kill(Place::Worker(1), seconds(1))),
            160 => split_one(stage),
            _ => {}
        }
    }
    settle(stage);
}

/// An aggregate of one of a few groups of keys. A key is only ever sent with its group, under the group's partition key.
fn put_group(stage: &mut Stage<'_>) {
    let group = stage.random.random_range(0..4);
    let keys: Vec<String> = (0..5).map(|key| format!("g{group}k{key}")).collect();
    let count = stage.random.random_range(2..40);
    let mut chosen = vec![keys[0].as_str()];
    for _ in 0..count {
        chosen.push(&keys[stage.random.random_range(0..keys.len())]);
    }
    stage.cluster.put_aggregate(&chosen);
}

pub(super) fn scaling_under_load(stage: &mut Stage<'_>) {
    put_old_records(stage);
    declare(stage, LATEST);
    stage.load(seconds(5));
    for shards in [4, 8, 3] {
        let late = stage.random.random_range(0..4);
        stage.happen(Fault::ListingsLag(seconds(late)));
        scale(stage, shards);
        stage.load(seconds(10));
    }
    settle(stage);
}

/// What the service does for an on-demand stream.
fn scale(stage: &mut Stage<'_>, shards: u32) {
    let now = stage.now();
    stage.cluster.net().note(Place::World, format!("{SOURCE} is scaled to {shards} shards"));
    let scaled = stage.cluster.kinesis().scale(now, SOURCE, shards);
    if let Err(refusal) = scaled {
        stage.fail(format!("not scaled: {refusal:?}"));
    }
}

/// Splits the oldest of the open shards; children are younger than all.
pub(super) fn split_one(stage: &mut Stage<'_>) {
    let open = stage.cluster.kinesis().open_shards(SOURCE);
    let oldest = (0..open.len()).min_by_key(|&at| open[at]).unwrap_or(0);
    stage.happen(Fault::Split(oldest as u64));
}

/// Merges two of the open shards.
pub(super) fn merge_two(stage: &mut Stage<'_>) {
    let pair = stage.random.random();
    stage.happen(Fault::Merge(pair));
}
