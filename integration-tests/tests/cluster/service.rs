//! What the service does to those who use it: throttles, refuses, forgets, shows late, goes away.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use faults::{Before, Entries, Fault, Limits, Rule};
use proto::v1::SplitStatus;

use crate::{
    resharding::{all_open_are_read, split_first},
    trial::{HEALS_WITHIN, SOURCE, Trial, faulty},
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

/// Subscriptions that end early, with an error, with a reset or in silence, cannot begin, and live for two seconds only.
#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_break_and_are_renewed() {
    let Some(mut trial) = faulty("subscriptions_break_and_are_renewed", 1, 2, 6).await else { return };
    trial.layer().source.set_subscription_life(Duration::from_secs(2));
    trial.create_with(", kinesis.consumer.mode = 'efo', kinesis.consumer.name = 'trial-{sink}'").await;
    trial.start_load();
    trial.records(200).await;
    let error = |code: &str| Fault::Error { code: code.to_owned(), status: 400 };
    let event = |fault| Rule::new(fault).on("SubscribeToShardEvent").probability(0.05);
    let start = |fault| Rule::new(fault).on("SubscribeToShard").probability(0.3);
    let source = &trial.layer().source;
    let rules = [
        event(error("InternalFailureException")),
        event(Fault::Cut),
        event(Fault::Empty),
        start(error("ResourceInUseException")),
        start(error("LimitExceededException")),
        start(Fault::Cut),
    ];
    let rules = rules.map(|rule| source.add(rule.lasting(Duration::from_secs(8))));
    tokio::time::sleep(Duration::from_secs(4)).await;
    split_first(&trial).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    all_open_are_read(&trial).await;
    let hits = rules.map(|id| trial.layer().source.hits(id));
    assert!(hits.iter().all(|hits| *hits > 0), "{hits:?}");
    assert!(!trial.layer().source.counts().contains_key("GetRecords"), "nothing is polled");
    trial.ledger().await;
}

/// S8: what the service trims before it was read is lost, told once for each shard, and nothing else is lost.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_service_trims_is_told_and_nothing_else_is_missing() {
    let test = "what_the_service_trims_is_told_and_nothing_else_is_missing";
    let Some(mut trial) = faulty(test, 1, 2, 7).await else { return };
    // From the start: what a worker knows of the retention may be some seconds old.
    trial.layer().source.set_retention(SOURCE, 0);
    trial.create().await;
    trial.start_load();
    trial.records(400).await;
    trial.sql("ALTER SINK archive PAUSE").await;
    trial.records(800).await;
    // The other sink is at the end of the stream, and stays there. The endpoint tells arrivals in whole seconds.
    let turns = trial.turns();
    let moment = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    trial.records(800).await;
    for number in 0..3 {
        let before = Before::Moment(i64::try_from(moment.as_secs() * 1000).unwrap());
        trial.layer().source.trim(SOURCE, &shard(number), before);
    }
    trial.sql("ALTER SINK archive RESUME").await;
    let event = trial.admin().event("data_loss", HEALS_WITHIN).await;
    let event = event.unwrap_or_else(|error| panic!("{error:#}\n{}", trial.cluster.tails()));
    assert_eq!((event.level.as_str(), event.labels["sink"].as_str()), ("ERROR", "archive"), "{event:?}");
    trial
        .wait("every shard is read on, and shows its gap", |status| {
            let as_it_should = |s: &&SplitStatus| match s.sink.as_str() {
                "archive" => s.state == "gap" && !s.gap.is_empty() && !s.worker.is_empty(),
                _ => s.state == "reading",
            };
            let other = status.splits.iter().find(|split| !as_it_should(split));
            other.map_or(Ok(()), |s| Err(format!("{} of {}: {} {}", s.split, s.sink, s.state, s.waits_for)))
        })
        .await;
    trial.records(200).await;
    trial.stop_load().await;
    let deadline = tokio::time::Instant::now() + HEALS_WITHIN;
    loop {
        let mut found: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        for record in trial.archive().await {
            found.entry(record.key).or_default().insert(record.n);
        }
        let missing = |(key, count): (&String, &u64)| {
            let there = found.get(key).cloned().unwrap_or_default();
            (0..*count).filter(|n| !there.contains(n)).collect::<Vec<_>>()
        };
        let missing: Vec<Vec<u64>> = trial.sent().iter().map(missing).collect();
        let later = missing.iter().flatten().filter(|n| **n > turns).count();
        let lost: usize = missing.iter().map(Vec::len).sum();
        assert!(lost > 0, "nothing was trimmed");
        if later == 0 {
            let whole = |lost: &Vec<u64>| lost.windows(2).all(|two| two[1] == two[0] + 1);
            assert!(missing.iter().all(whole), "one gap for each key: {missing:?}");
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{later} records are missing that were not trimmed");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}
