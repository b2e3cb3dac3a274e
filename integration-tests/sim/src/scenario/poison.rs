//! Records that cannot be processed (S16).

use std::collections::BTreeSet;

use super::{answered, seconds, settle};
use crate::{
    cluster::{LETTERS, SOURCE},
    faults::Fault,
    kinesis::{Number, shard_id},
    place::Place,
    stage::Stage,
};

/// Where a record is: shard, sequence number, and number inside an aggregate.
type Spot = (String, String, Option<u64>);

pub(super) fn records_that_cannot_be_processed(stage: &mut Stage<'_>) {
    let letters = format!("dead_letter.connector = 'ledger', dead_letter.name = '{LETTERS}'");
    stage.cluster.ledger.poison(Some(r#""k":"poison"#.into()));
    stage.start_all();
    stage.cluster.declare_source(&format!(", {letters}"), " (on_error = 'dead_letter')");
    stage.cluster.declare_ledger(&format!(", on_error = 'dead_letter', {letters}"));
    answered(stage);
    let mut bad = BTreeSet::new();
    for turn in 0..8 {
        stage.load(seconds(2));
        bad.extend(put_bad_records(stage, turn));
        if turn == 4 {
            stage.happen(Fault::Kill(Place::Worker(0), seconds(2)));
        }
    }
    stage.load(seconds(2));
    settle(stage);
    compare(stage, &bad);
}

/// One that cannot be decoded, one that the destination refuses, and one that it refuses inside an aggregate.
fn put_bad_records(stage: &mut Stage<'_>, turn: u64) -> [Spot; 3] {
    let now = stage.now();
    let spot = |(shard, number): (u32, Number), inner| (shard_id(shard), number.to_string(), inner);
    let broken = stage.cluster.kinesis().put(now, SOURCE, &format!("broken{turn}"), "{ no json".into());
    let refused = stage.cluster.put(&format!("poison{turn}"));
    let (good, inside) = (format!("good{turn}"), format!("poison{turn}inside"));
    let aggregate = stage.cluster.put_aggregate(&[&good, &inside, &good]);
    [spot(broken, None), spot(refused, None), spot(aggregate, Some(1))]
}

/// Exactly these are in the dead letters, with their places.
fn compare(stage: &mut Stage<'_>, bad: &BTreeSet<Spot>) {
    let spot = |value: &[u8]| {
        let letter: serde_json::Value = serde_json::from_slice(value).ok()?;
        let text = |name: &str| letter[name].as_str().map(str::to_owned);
        Some((text("shard")?, text("seq")?, letter["sub_seq"].as_u64()))
    };
    let found: Option<BTreeSet<Spot>> = stage
        .cluster
        .ledger
        .look(LETTERS, |kept| kept.arrivals().iter().map(|arrival| spot(&arrival.value)).collect());
    match found {
        None => stage.fail("a dead letter says not where its record is"),
        Some(found) => {
            for spot in bad.difference(&found) {
                stage.fail(format!("no dead letter for {spot:?}"));
            }
            for spot in found.difference(bad) {
                stage.fail(format!("a dead letter for {spot:?}, which is a good record"));
            }
        }
    }
}
