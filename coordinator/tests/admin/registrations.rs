//! Sinks of a source whose service must know who reads.

use connector::Registry;
use proto::StatusExt;
use shardwright_coordinator::{Config, Server};
use store::{Keyspace, ObjectRecord, View};
use tokio::time::Instant;

use crate::{
    fakes::services,
    setup::{Coordinator, PATIENCE, sink, source},
};

fn known(service: &str) -> Vec<String> {
    services().get(service).map(|service| service.known.clone()).unwrap_or_default()
}

/// The objects of the store, once they are as wanted.
async fn objects(cluster: &Coordinator, wanted: impl Fn(&[ObjectRecord]) -> bool) -> Vec<ObjectRecord> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let objects: Vec<_> = cluster.view().await.objects.into_values().map(|object| object.value).collect();
        if wanted(&objects) {
            return objects;
        }
        assert!(Instant::now() < deadline, "{objects:#?}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_sink_is_registered_when_it_is_created_and_deregistered_when_it_is_dropped() {
    let cluster = Coordinator::start().await;
    cluster.run(&source("s", "service = 'reg-a'")).await;
    assert!(known("reg-a").is_empty(), "a source alone reads nothing");
    cluster.run(&sink("one", "s", "")).await;
    cluster.run(&sink("two", "s", "")).await;
    assert_eq!(known("reg-a"), ["for-one", "for-two"]);
    cluster.run("DROP SINK one").await;
    objects(&cluster, |objects| objects.len() == 2).await;
    assert_eq!(known("reg-a"), ["for-two"], "the object goes after its registration");
    cluster.run("DROP SOURCE s CASCADE").await;
    objects(&cluster, <[_]>::is_empty).await;
    assert!(known("reg-a").is_empty());
}

#[tokio::test]
async fn what_was_registered_before_is_used_and_stays() {
    let cluster = Coordinator::start().await;
    services().entry("reg-b".into()).or_default().known.push("hers".into());
    cluster.run(&source("s", "service = 'reg-b', name = 'hers'")).await;
    cluster.run(&sink("one", "s", "")).await;
    let status = cluster.refused(&sink("two", "s", "")).await;
    assert!(status.message().contains("sink \"one\" already reads the source as \"hers\""), "{status:?}");
    assert!(status.fact("hint").is_some_and(|hint| hint.contains("{sink}")), "{status:?}");
    cluster.run("DROP SINK one").await;
    objects(&cluster, |objects| objects.len() == 1).await;
    assert_eq!(known("reg-b"), ["hers"]);
}

#[tokio::test]
async fn a_refusal_takes_the_sink_back_unless_it_can_be_read_without() {
    let cluster = Coordinator::start().await;
    services().entry("reg-c".into()).or_default().refuses = Some("no room");
    cluster.run(&source("s", "service = 'reg-c'")).await;
    cluster.refuses(&sink("one", "s", ""), "08001", "connector error: no room").await;
    assert!(cluster.run("SHOW SINKS").await.rows.is_empty());
    objects(&cluster, |objects| objects.len() == 1).await;

    cluster.run(&source("o", "service = 'reg-c', optional = 'true'")).await;
    let answers = cluster.run(&sink("two", "o", "")).await;
    assert!(answers.notices[0].contains("for now: no room"), "{answers:?}");
    let left = objects(&cluster, |objects| objects.len() == 3).await;
    assert!(
        left.iter().all(|object| object.registration.is_none()),
        "what was refused is not claimed: {left:#?}"
    );
}

#[tokio::test]
async fn a_sink_that_was_not_checked_is_registered_later() {
    let cluster = Coordinator::start().await;
    cluster.run(&source("s", "service = 'reg-d'")).await;
    cluster.run(&sink("one", "s", "validate = 'false'")).await;
    let claims =
        |objects: &[ObjectRecord]| objects.iter().any(|o| o.registration.as_deref() == Some("for-one"));
    objects(&cluster, claims).await;
    let deadline = Instant::now() + PATIENCE;
    while known("reg-d").is_empty() {
        assert!(Instant::now() < deadline, "it is never registered");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// A leader that dies between the two must leave nothing behind that nobody removes.
#[tokio::test]
async fn the_claim_is_durable_before_the_service_is_asked() {
    let cluster = Coordinator::start().await;
    services().entry("reg-e".into()).or_default().stuck = true;
    cluster.run(&source("s", "service = 'reg-e'")).await;
    cluster.run(&sink("one", "s", "validate = 'false'")).await;
    let claims =
        |objects: &[ObjectRecord]| objects.iter().any(|o| o.registration.as_deref() == Some("for-one"));
    objects(&cluster, claims).await;
    let store = std::sync::Arc::clone(&cluster.store);
    drop(cluster);
    // It had arrived after all.
    *services().get_mut("reg-e").unwrap() =
        crate::fakes::Service { known: vec!["for-one".into()], ..Default::default() };
    let next = Coordinator::start_on(store).await;
    let deadline = Instant::now() + PATIENCE;
    while let Err(status) = next.execute("DROP SINK one", "").await {
        assert!(Instant::now() < deadline, "{status:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    objects(&next, |objects| objects.len() == 1).await;
    assert!(known("reg-e").is_empty());
}

#[tokio::test]
async fn a_sink_that_is_dropped_while_it_is_looked_up_is_released_soon() {
    let cluster = Coordinator::start().await;
    services().entry("reg-f".into()).or_default().slow = true;
    cluster.run(&source("s", "service = 'reg-f'")).await;
    // The leader looks it up by itself, too, at every moment of this.
    cluster.run(&sink("one", "s", "")).await;
    cluster.run("DROP SINK one").await;
    objects(&cluster, |objects| objects.len() == 1).await;
    assert!(known("reg-f").is_empty());
}

#[tokio::test]
async fn a_credential_is_needed_until_what_was_registered_with_it_is_taken_back() {
    let cluster = Coordinator::start().await;
    services().entry("reg-g".into()).or_default().keeps = Some("busy, says the test");
    cluster.run("CREATE CREDENTIAL c TYPE = 'pair', IDENTITY = 'me', SECRET = 'quiet'").await;
    cluster.run(&source("s", "service = 'reg-g', credential = 'c'")).await;
    cluster.run(&sink("one", "s", "")).await;
    cluster.run("DROP SOURCE s CASCADE").await;
    cluster.refuses("DROP CREDENTIAL c", "2BP01", "still used by source \"s\" (being dropped)").await;
    assert_eq!(known("reg-g"), ["for-one"]);
}

/// Another release, say, that lacks the connector.
#[tokio::test]
async fn what_was_registered_is_not_forgotten_because_its_source_cannot_be_built() {
    let cluster = Coordinator::start().await;
    services().entry("reg-h".into()).or_default().keeps = Some("busy, says the test");
    cluster.run(&source("s", "service = 'reg-h'")).await;
    cluster.run(&sink("one", "s", "")).await;
    cluster.run("DROP SINK one").await;
    let store = std::sync::Arc::clone(&cluster.store);
    cluster.stop().await;
    let config = Config { listen: "127.0.0.1:0".parse().unwrap(), ..Config::default() };
    let cancel = tokio_util::sync::CancellationToken::new();
    let server =
        Server::start(config, Registry::new(), std::sync::Arc::clone(&store), cancel.clone()).await.unwrap();
    let leader = server.handle().leader(PATIENCE).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    let told = |event: &proto::v1::Event| {
        event
            .message
            .contains("`for-one` of sink `one` could not be deregistered: its source cannot be built")
    };
    while !leader.watch_events(0).0.iter().any(told) {
        assert!(Instant::now() < deadline, "nobody is told");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let keys = Keyspace::new(&Config::default().cluster);
    let view = View::decode(&keys, &store.list(&keys.all()).await.unwrap()).unwrap();
    let claims = view.objects.values().any(|object| object.value.registration.as_deref() == Some("for-one"));
    assert!(claims, "the object and its claim stay");
    cancel.cancel();
}
