//! Commits whose caller does not wait for the answer: the leader knows what it stored, or leads no more.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use connector::Listing;
use model::{Creation, ObjectKind};
use proto::v1::{PauseSinkRequest, StatusRequest, admin_client::AdminClient};
use store::MetadataStore;

use crate::{
    fake_source::{self, CREATION, open},
    fake_store::{FakeStore, Fate},
    setup::{Coordinator, create, source, until, until_stored},
};

async fn cluster() -> (Arc<FakeStore>, Arc<dyn MetadataStore>, Coordinator) {
    let fake = Arc::new(FakeStore::new());
    let store: Arc<dyn MetadataStore> = fake.clone();
    let coordinator = Coordinator::start(&store).await;
    (fake, store, coordinator)
}

async fn until_held(fake: &FakeStore) {
    until("an answer is held back", || fake.held.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn a_pause_whose_caller_went_away_is_known_to_the_leader_that_stored_it() {
    let (fake, _store, coordinator) = cluster().await;
    let leader = coordinator.leader().await;
    create(&leader, "given-up-1", vec![open("s1", &[])]).await;
    fake.lose_answer("/object/", Fate::Held);
    let mut admin = AdminClient::connect(coordinator.url()).await.unwrap();
    let mut caller = admin.clone();
    tokio::select! {
        paused = caller.pause_sink(PauseSinkRequest { sink: "out".to_owned() }) => panic!("nothing lets the answer go: {paused:?}"),
        () = until_held(&fake) => {}
    }
    // On the same connection: when this is answered, the coordinator has heard that the other call was given up.
    for _ in 0..2 {
        admin.status(StatusRequest {}).await.unwrap();
    }
    fake.let_go.notify_one();
    until("the leader knows", || leader.sink("out").is_some_and(|sink| sink.paused)).await;
    assert_eq!(coordinator.leader().await.revision(), leader.revision(), "and it goes on leading");
}

#[tokio::test]
async fn who_gives_a_commit_up_half_way_does_not_leave_a_leader_that_is_wrong_about_it() {
    let (fake, _store, coordinator) = cluster().await;
    let leader = coordinator.leader().await;
    create(&leader, "given-up-2", vec![open("s1", &[])]).await;
    fake.lose_answer("/object/", Fate::Held);
    tokio::select! {
        paused = leader.pause_sink("out") => panic!("nothing lets the answer go: {paused:?}"),
        () = until_held(&fake) => {}
    }
    tokio::time::timeout(Duration::from_secs(20), leader.lost()).await.expect("its term ends");
    let next = coordinator.leader().await;
    assert!(next.revision() > leader.revision());
    assert!(next.sink("out").is_some_and(|sink| sink.paused), "the next one reads what is stored");
}

#[tokio::test]
async fn a_source_that_is_dropped_while_a_listing_of_it_is_stored_ends_no_term() {
    let (fake, store, coordinator) = cluster().await;
    let leader = coordinator.leader().await;
    let splits = vec![open("s1", &[])];
    fake_source::stream("given-up-3", |known| known.splits = splits.clone());
    let listing = Listing { creation: Creation(CREATION.0), splits, now: None, retention: None };
    leader.create_source(source("clicks", "given-up-3"), Some(&listing)).await.unwrap();
    fake.lose_answer("/split/", Fate::Held);
    fake_source::stream("given-up-3", |known| {
        known.splits[0].closed = true;
        known.splits.push(open("s2", &["s1"]));
    });
    until_held(&fake).await;
    leader.drop_object(ObjectKind::Source, "clicks", false).await.unwrap();
    fake.let_go.notify_one();
    until_stored(&store, "nothing of the source is left", |view| {
        view.objects.is_empty() && view.splits.is_empty()
    })
    .await;
    assert_eq!(coordinator.leader().await.revision(), leader.revision(), "and it goes on leading");
}
