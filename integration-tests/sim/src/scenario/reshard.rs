//! Shards that are split and merged, while the cluster runs and while it does not (S1–S6).

use rand::Rng as _;

use super::{declare, seconds, settle};
use crate::{cluster::SOURCE, faults::Fault, stage::Stage};

pub(super) fn split_while_running_from_earliest(stage: &mut Stage<'_>) {
    stage.load(seconds(5));
    declare(stage, "");
    stage.load(seconds(10));
    split_one(stage);
    stage.load(seconds(10));
    settle(stage);
}

pub(super) fn split_while_running_from_latest(stage: &mut Stage<'_>) {
    from_latest(stage);
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

/// The source begins at its latest record; what is older must not arrive, and everything put from now on must.
pub(super) fn from_latest(stage: &mut Stage<'_>) {
    let now = stage.now();
    for n in 0..100 {
        let data = format!(r#"{{"k": "old{n}", "n": 0}}"#);
        stage.cluster.kinesis().put(now, SOURCE, &format!("old{n}"), data.into());
    }
    stage.run_for(seconds(10));
    declare(stage, ", scan.startup.mode = 'latest'");
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
