//! What the service does to those who use it: throttles, refuses, forgets, shows late, goes away.

use std::time::Duration;

use faults::{Entries, Fault, Limits, Rule};

use crate::{
    resharding::{all_open_are_read, split_first},
    trial::{Trial, faulty},
};

fn shard(number: u32) -> String {
    format!("shardId-{number:012}")
}

/// The load goes on for so long, and every split is read afterwards.
async fn goes_on(trial: &Trial, time: Duration) {
    tokio::time::sleep(time).await;
    trial.reading().await;
    trial.records(200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_throttled_openly_and_in_silence() {
    let Some(mut trial) = faulty("reads_are_throttled_openly_and_in_silence", 1, 2, 1).await else { return };
    trial.create().await;
    trial.start_load();
    let source = &trial.layer().source;
    let for_a_while = |fault| Rule::new(fault).on("GetRecords").lasting(Duration::from_secs(6));
    let openly = source.add(for_a_while(Fault::throttled()).shard(&shard(0)));
    let silently = source.add(for_a_while(Fault::Empty).shard(&shard(1)));
    source.set_limits(Some(Limits::default()));
    goes_on(&trial, Duration::from_secs(7)).await;
    assert!(trial.layer().source.hits(openly) > 3 && trial.layer().source.hits(silently) > 3);
    trial.ledger().await;
}

/// Entries are refused, whole requests too, and answers of carried out ones are lost: repeats, but no loss and no disorder.
#[tokio::test(flavor = "multi_thread")]
async fn puts_fail_in_parts_and_their_answers_are_lost() {
    let Some(mut trial) = faulty("puts_fail_in_parts_and_their_answers_are_lost", 1, 2, 2).await else {
        return;
    };
    trial.create().await;
    trial.start_load();
    let sink = &trial.layer().sink;
    let part = |code: &str| Fault::FailEntries { code: code.to_owned(), entries: Entries::Share(0.2) };
    let for_a_while = |fault| Rule::new(fault).on("PutRecords").lasting(Duration::from_secs(6));
    let parts = [
        sink.add(for_a_while(part("ProvisionedThroughputExceededException"))),
        sink.add(for_a_while(part("InternalFailure"))),
        sink.add(for_a_while(Fault::throttled()).probability(0.1)),
        sink.add(for_a_while(Fault::LoseAnswer).probability(0.2).times(4)),
    ];
    goes_on(&trial, Duration::from_secs(7)).await;
    let hits = parts.map(|id| trial.layer().sink.hits(id));
    assert!(hits.iter().all(|hits| *hits > 0), "{hits:?}");
    trial.ledger().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn iterators_expire_again_and_again() {
    let Some(mut trial) = faulty("iterators_expire_again_and_again", 1, 2, 3).await else { return };
    trial.create().await;
    trial.start_load();
    let source = &trial.layer().source;
    let by_chance = Rule::new(Fault::ExpireIterator).probability(0.3).lasting(Duration::from_secs(5));
    let by_chance = source.add(by_chance);
    for _ in 0..10 {
        source.expire_iterators(None);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    goes_on(&trial, Duration::ZERO).await;
    assert!(trial.layer().source.hits(by_chance) > 5);
    trial.ledger().await;
}

/// A split shows one child at once and the other some seconds later, and so does the next, of that child.
#[tokio::test(flavor = "multi_thread")]
async fn a_child_shows_late_in_the_listing() {
    let Some(mut trial) = faulty("a_child_shows_late_in_the_listing", 1, 2, 4).await else { return };
    trial.create().await;
    trial.start_load();
    trial.records(200).await;
    let hide = |number| Rule::new(Fault::Hide).shard(&shard(number)).lasting(Duration::from_secs(4));
    let hidden = trial.layer().source.add(hide(4));
    split_first(&trial).await;
    trial.records(400).await;
    all_open_are_read(&trial).await;
    assert!(trial.layer().source.hits(hidden) > 0);
    let both = [trial.layer().source.add(hide(5)), trial.layer().source.add(hide(6))];
    split_first(&trial).await;
    trial.records(400).await;
    all_open_are_read(&trial).await;
    assert!(both.iter().all(|id| trial.layer().source.hits(*id) > 0));
    trial.ledger().await;
}

/// Ten seconds of errors, resets and silence in front of both streams.
#[tokio::test(flavor = "multi_thread")]
async fn the_endpoint_is_away_for_ten_seconds() {
    let Some(mut trial) = faulty("the_endpoint_is_away_for_ten_seconds", 1, 2, 5).await else { return };
    trial.create().await;
    trial.start_load();
    trial.records(200).await;
    let away = Duration::from_secs(10);
    let mut rules = Vec::new();
    // The destination first: without records to write nobody would ask for it.
    for faults in [&trial.layer().sink, &trial.layer().source] {
        for (fault, probability) in [(Fault::unavailable(), 0.5), (Fault::LoseAnswer, 0.3), (Fault::Cut, 1.0)]
        {
            rules.push((faults.clone(), faults.add(Rule::new(fault).probability(probability).lasting(away))));
        }
        trial.records(400).await;
    }
    tokio::time::sleep(away).await;
    for (faults, id) in &rules {
        assert!(faults.hits(*id) > 0, "{:?}", faults.rules());
    }
    goes_on(&trial, Duration::ZERO).await;
    trial.ledger().await;
}
